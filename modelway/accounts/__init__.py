"""What callers may ask and spend, and what they have."""

from modelway.accounts.account import Headers, Permit
from modelway.accounts.accounts import Accounts, Size
from modelway.accounts.bills import Bill
from modelway.accounts.rules import denied, may_go, may_see, may_use, only_without_rules, permitted

__all__ = [
    "Accounts",
    "Bill",
    "Headers",
    "Permit",
    "Size",
    "denied",
    "may_go",
    "may_see",
    "may_use",
    "only_without_rules",
    "permitted",
]
