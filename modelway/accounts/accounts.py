"""All callers' accounts: who is let in, and who has spent what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from msgspec import Struct

from modelway.accounts.account import Account, Headers, Permit
from modelway.accounts.bills import Bill
from modelway.accounts.sharing import Sharing
from modelway.conversations import Callers, Spending, Tab, day_of, report_lost
from modelway.errors import StoreUnavailable
from modelway.prices import Prices
from modelway.prices.estimate import tokens_of
from modelway.types import Caller, ChatRequest, Rules, Usage

FLUSH_S = 0.5
# How long an answer is thought to be where its caller sets no limit.
UNSAID_TOKENS = 1024
_DAY_S = 86_400
_NO_RULES = Rules()

Key = tuple[str, str, str, str]


class Sum:
    """What is added up before it is written down, as in Spending."""

    __slots__ = ("estimated", "input_tokens", "nanos", "output_tokens", "requests", "unpriced")

    def __init__(self) -> None:
        self.requests = 0
        self.estimated = 0
        self.unpriced = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.nanos = 0

    def spending(self, day: str, caller: str, provider: str, model: str) -> Spending:
        """As it is written down."""
        counts = {name: getattr(self, name) for name in self.__slots__}
        return Spending(day=day, caller=caller, provider=provider, model=model, **counts)


class Size(Struct, frozen=True):
    """About how many tokens a request has, may ask for by its own word, and may have written for it."""

    asked: int = 0
    granted: int = 0
    written: int = 0

    @classmethod
    def of(cls, asked: int, max_tokens: int | None, choices: int | None = None) -> Size:
        """The size of a request for a text; of what length nobody may have said."""
        times = max(1, choices or 1)
        if max_tokens is None:
            return cls(asked, 0, times * UNSAID_TOKENS)
        return cls(asked, times * max(0, max_tokens), times * max(0, max_tokens))


def size_of(request: ChatRequest) -> Size:
    """The size of a chat."""
    params = request.params
    return Size.of(tokens_of(request.messages), params.max_tokens, params.n)


class Accounts:
    """Counts what callers ask and spend; limits and budgets are of all servers of the database together.

    Belongs to the event loop's thread. `clock` tells the time, `timer` is monotonic.
    """

    def __init__(
        self,
        store: Callers,
        prices: Prices,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prices = prices
        self._store = store
        self._sharing = Sharing(store)
        self._clock = clock
        self._timer = timer
        self._accounts: dict[str, Account] = {}
        self._unwritten: dict[Key, Sum] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._day_number = -1
        self._day = ""
        self._is_closed = False

    def today(self) -> str:
        """The day, in UTC."""
        number = int(self._clock()) // _DAY_S
        if number != self._day_number:
            self._day_number, self._day = number, day_of(number * _DAY_S)
        return self._day

    def has_room(self, caller: Caller, size: Size) -> bool:
        """Whether admit() need not ask other servers, so that make_room() would do nothing."""
        account = self._account(caller)
        return account.has_room(_needed(account, size), self._timer())

    async def make_room(self, caller: Caller, size: Size) -> None:
        """Share the caller's limits with other servers; to be called just before admit()."""
        account = self._account(caller)
        tokens, now = _needed(account, size), self._timer()
        if not account.has_room(tokens, now):
            await self._sharing.make_room(account, tokens, now)

    def give_back(self) -> None:
        """Leave to other servers what of the limits is not needed here; to be called now and then."""
        self._sharing.give_back(self._accounts.values(), self._timer())

    def admit(self, caller: Caller, size: Size, models: Iterable[tuple[str, str]] = ()) -> Permit:
        """Let a request of about this size in, for one of these providers and their models.

        It must be ended. Raises CallerRateLimited or BudgetExceeded.
        """
        account = self._account(caller)
        limit = account.rules.tokens_per_minute
        needed = _needed(account, size)
        kept = max(needed, min(size.asked + size.written, limit))
        return account.admit(
            needed,
            self._timer(),
            self.today(),
            allowance=kept - needed,
            nanos=self._most(size, models) if account.has_budget else 0,
        )

    def _most(self, size: Size, models: Iterable[tuple[str, str]]) -> int:
        """What an answer of this size costs by the dearest of these, in billionths of a dollar."""
        usage = Usage(size.asked, size.written)
        prices = (self.prices.of(provider, model) for provider, model in models)
        return max((price.cost(usage) for price in prices if price is not None), default=0)

    def end(self, permit: Permit, usage: Usage, nanos: int = 0) -> None:
        """End what was let in; what it took and cost counts from now on."""
        account = permit.account
        account.end(permit, usage.input_tokens + usage.output_tokens, self._timer())
        account.spent.add(nanos)

    def undo(self, permit: Permit) -> None:
        """Let it be as if a request had never been let in: it comes again in another way."""
        permit.account.undo(permit, self._timer())

    def headers(self, caller: Caller) -> Headers:
        """What a caller with rules has left."""
        return self._account(caller).headers(self._timer(), self.today())

    def bill(
        self,
        caller: Caller,
        permit: Permit | None,
        provider: str,
        model: str,
        request: ChatRequest,
        tab: Tab | None = None,
    ) -> Bill:
        """The bill of an answer that has begun; `tab` tells what others were paid for its beginning."""
        return Bill(self, caller.name, permit, provider, model, request, tab)

    def charged(self, caller: Caller, nanos: int) -> None:
        """Something was charged in the database by somebody else."""
        if caller.rules is not None:
            self._account(caller).spent.add(nanos)

    def charge(
        self,
        caller: Caller,
        permit: Permit | None,
        provider: str,
        model: str,
        usage: Usage,
        *,
        estimated: bool = False,
    ) -> int | None:
        """Charge for what was no chat, and give what it costs in billionths of a dollar, if that is known."""
        price = self.prices.of(provider, model)
        nanos = None if price is None else price.cost(usage)
        if permit is not None:
            self.end(permit, usage, nanos or 0)
        if usage.input_tokens or usage.output_tokens:
            self.add_answer(caller.name, provider, model, usage, nanos, estimated=estimated)
        return nanos

    def add(self, charge: Spending) -> None:
        """Write it down within `FLUSH_S`, together with what else comes until then."""
        sum = self._sum(charge.day, charge.caller, charge.provider, charge.model)
        sum.requests += charge.requests
        sum.estimated += charge.estimated
        sum.unpriced += charge.unpriced
        sum.input_tokens += charge.input_tokens
        sum.output_tokens += charge.output_tokens
        sum.nanos += charge.nanos

    def add_answer(
        self, caller: str, provider: str, model: str, usage: Usage, nanos: int | None, *, estimated: bool
    ) -> None:
        """As add(), for one answer of today's; `nanos` is None where the price is not known."""
        sum = self._sum(self.today(), caller, provider, model)
        sum.requests += 1
        sum.input_tokens += usage.input_tokens
        sum.output_tokens += usage.output_tokens
        if estimated:
            sum.estimated += 1
        if nanos is None:
            sum.unpriced += 1
        else:
            sum.nanos += nanos

    def add_part(self, caller: str, permit: Permit | None, provider: str, model: str, usage: Usage) -> int:
        """Charge for the part of an answer with which somebody else goes on; gives what it costs."""
        price = self.prices.of(provider, model)
        nanos = None if price is None else price.cost(usage)
        self.add_answer(caller, provider, model, usage, nanos, estimated=True)
        if permit is not None:
            permit.account.spent.add(nanos or 0)
        return nanos or 0

    def expect(self, callers: Iterable[Caller]) -> bool:
        """Know these callers and their rules; whether any of them has a budget."""
        known = [self._account(caller) for caller in callers if caller.rules is not None]
        return any(one.has_budget for one in known)

    async def refresh(self) -> None:
        """Learn what callers have spent by other processes, too."""
        day = self.today()
        accounts = list(self._accounts.values())
        for account in accounts:
            account.spent.ask()
        charges = self._take()
        try:
            sums = await self._store.spend(charges, day)
        except StoreUnavailable:
            self._put_back(charges)
            raise
        found = {name: (today, month) for name, today, month in sums}
        for account in accounts:
            account.spent.learn(day, *found.get(account.name, (0, 0)))

    async def aclose(self) -> None:
        """Write down what has not been."""
        self._is_closed = True
        self._sharing.give_back(self._accounts.values(), self._timer(), is_last=True)
        if charges := self._take():
            try:
                await self._store.spend(charges, self.today())
            except StoreUnavailable:
                report_lost(charges)

    def _account(self, caller: Caller) -> Account:
        rules = caller.rules or _NO_RULES
        account = self._accounts.get(caller.name)
        if account is None:
            account = self._accounts[caller.name] = Account(caller.name, rules)
        elif account.rules is not rules:
            account.obey(rules)
        return account

    def _sum(self, day: str, caller: str, provider: str, model: str) -> Sum:
        key = (day, caller, provider, model)
        found = self._unwritten.get(key)
        if found is None:
            found = self._unwritten[key] = Sum()
            if self._flush_timer is None:
                self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
        return found

    def _take(self) -> list[Spending]:
        taken = [sum.spending(*key) for key, sum in self._unwritten.items()]
        self._unwritten = {}
        self._stop_timer()
        return taken

    def _stop_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def _flush(self) -> None:
        self._flush_timer = None
        if self._unwritten:
            self._store.spend_later(self._take(), self._put_back)

    def _put_back(self, charges: list[Spending]) -> None:
        """They could not be written: try again, so that nothing is free."""
        if self._is_closed:
            report_lost(charges)
            return
        for charge in charges:
            self.add(charge)


def _needed(account: Account, size: Size) -> int:
    """How many tokens must be left for it."""
    limit = account.rules.tokens_per_minute
    if not limit or size.asked > limit:
        return size.asked if limit else 0
    # How long the answer will be nobody knows; a large allowance alone must not keep it out.
    return min(size.asked + size.granted, limit)
