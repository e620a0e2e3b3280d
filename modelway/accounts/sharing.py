"""Shares callers' limits between the servers of one database, so that together they keep to them.

Each server takes an allotment of a limit and lets in what fits into it, without asking anybody. It takes more
when a request does not fit, some in advance, and gives back what it does not need. All allotments together
are never more than the limit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from modelway.accounts.account import Account
from modelway.conversations import NOTHING, Allotment, Callers
from modelway.errors import StoreUnavailable

# An eighth of a limit is taken in advance: a busy caller costs so many writes a minute, an idle server holds
# so much for half a second.
_IN_ADVANCE = 8
# What was written longer ago is soon taken for that of a server that has ended.
_REFRESH_S = 20.0

log = logging.getLogger("modelway.accounts")


class Sharing:
    """One server's allotments. Belongs to the event loop's thread."""

    def __init__(self, store: Callers) -> None:
        self._store = store
        self._written_at: dict[str, float] = {}
        self._was_told = False

    async def make_room(self, account: Account, tokens: int, now: float) -> None:
        """Take what a request of about so many tokens needs, as far as the others have left it.

        It is to be let in, or refused, before anybody else's turn comes. Where the database cannot be
        written, this server counts for itself.
        """
        need = Allotment(1, tokens, 1)
        account.wanted = _plus(account.wanted, need)
        had, use, limits = account.own or NOTHING, _plus(account.use(now), account.wanted), account.limits

        def choose(others: Allotment) -> Allotment:
            return Allotment(*map(_chosen, limits, use, others, had))

        try:
            account.own, account.others = await self._store.allot(account.name, choose)
            self._written_at[account.name] = now
            self._was_told = False
        except StoreUnavailable as error:
            account.own, account.others = None, NOTHING
            self._tell(error)
        finally:
            account.wanted = _minus(account.wanted, need)

    def give_back(self, accounts: Iterable[Account], now: float, *, is_last: bool = False) -> None:
        """Keep what is in use, and a little more where somebody is asking; to be called now and then."""
        kept: dict[str, Allotment] = {}
        for account in accounts:
            own = account.own
            if own is None or own == NOTHING or (account.wanted != NOTHING and not is_last):
                continue
            use = account.use(now)
            if is_last:
                use = use._replace(streams=0)
            elif account.was_asked:
                use = Allotment(*map(_with_more, use, account.limits))
            account.was_asked = False
            account.own = Allotment(*map(min, own, use))
            is_old = now - self._written_at.get(account.name, now) > _REFRESH_S
            if account.own != own or is_old:
                kept[account.name] = account.own
                self._written_at[account.name] = now
        if kept:
            self._store.put_back(kept)

    def _tell(self, error: StoreUnavailable) -> None:
        if not self._was_told:
            log.warning("limits are not shared with other servers: %s", error)
        self._was_told = True


def _chosen(limit: int, needed: int, others: int, had: int) -> int:
    """What to have of a limit; never less than before, as that may be in use by now."""
    return max(had, min(_with_more(needed, limit), limit - others)) if limit else 0


def _with_more(use: int, limit: int) -> int:
    return use + limit // _IN_ADVANCE


def _plus(one: Allotment, other: Allotment) -> Allotment:
    return Allotment(*(a + b for a, b in zip(one, other, strict=True)))


def _minus(one: Allotment, other: Allotment) -> Allotment:
    return Allotment(*(a - b for a, b in zip(one, other, strict=True)))
