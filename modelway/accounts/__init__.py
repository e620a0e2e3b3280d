"""What callers may ask and spend, and what they have."""

from modelway.accounts.account import Headers, Permit
from modelway.accounts.accounts import Accounts, Size, size_of
from modelway.accounts.bills import Bill
from modelway.accounts.rules import (
    check_may_watch,
    denied,
    may_go,
    may_see,
    may_use,
    only_without_rules,
)
from modelway.accounts.seeing import discreet, leads, name_others, resolved, visible_infos

__all__ = [
    "Accounts",
    "Bill",
    "Headers",
    "Permit",
    "Size",
    "check_may_watch",
    "denied",
    "discreet",
    "leads",
    "may_go",
    "may_see",
    "may_use",
    "name_others",
    "only_without_rules",
    "resolved",
    "size_of",
    "visible_infos",
]
