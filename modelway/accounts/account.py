"""One caller's limits and budgets: what has been asked and spent."""

from __future__ import annotations

import math

from modelway.accounts.windows import Window
from modelway.conversations import NOTHING, Allotment
from modelway.errors import BudgetExceeded, CallerRateLimited, GatewayError
from modelway.prices import NANOS
from modelway.types import Rules

Headers = tuple[tuple[str, str], ...]
_Names = tuple[str, str, str]
_OF_REQUESTS: _Names = (
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
)
_OF_TOKENS: _Names = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")
_BUSY_S = 1.0
# SDKs ask again after any 429, unless they are told that it is in vain.
NOWHERE = -1
NO_RETRY = ("x-should-retry", "false")


class Spent:
    """What a caller has spent on one day and in its month, in billionths of a dollar.

    `stored` is what the database told last; `since` and `seen` are what was charged here after it was asked:
    whatever had been charged before is in its answer, because charges and questions stand in one queue.
    """

    __slots__ = ("_day", "_seen", "_since", "_stored")

    def __init__(self) -> None:
        self._day = ""
        self._stored = (0, 0)
        self._seen = 0
        self._since = 0

    def add(self, nanos: int) -> None:
        """Charge."""
        self._since += nanos

    def ask(self) -> None:
        """The database is being asked now."""
        self._seen, self._since = self._seen + self._since, 0

    def learn(self, day: str, nanos_today: int, nanos_this_month: int) -> None:
        """The database has answered."""
        self._day, self._stored, self._seen = day, (nanos_today, nanos_this_month), 0

    def on(self, day: str) -> tuple[int, int]:
        """What was spent on a day, and in its month."""
        today, month = self._stored
        if day != self._day:
            today = 0
            month = month if day[:7] == self._day[:7] else 0
        fresh = self._seen + self._since
        return today + fresh, month + fresh


class Account:
    """What a caller has asked within the last minute, asks now, and has spent.

    `reserved` is what the answers under way may cost, in billionths of a dollar. `own` is what this server
    has taken of the limits that it shares with others, None where it does not; `others` what those had then,
    `wanted` what is being asked for, `was_asked` whether a request has come since somebody last looked.
    `limits` are those of the rules, 0 for none; `has_budget`: they limit what is spent, too.
    """

    __slots__ = (
        "_requests",
        "_tokens",
        "has_budget",
        "limits",
        "name",
        "others",
        "own",
        "reserved",
        "rules",
        "running",
        "spent",
        "wanted",
        "was_asked",
    )

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.obey(rules)
        self.running = 0
        self.reserved = 0
        self.spent = Spent()
        self.own: Allotment | None = None
        self.others = NOTHING
        self.wanted = NOTHING
        self.was_asked = False
        self._requests = Window()
        self._tokens = Window()

    def obey(self, rules: Rules) -> None:
        """Take the rules that are in force from now on."""
        self.rules = rules
        self.limits = Allotment(rules.requests_per_minute, rules.tokens_per_minute, rules.streams)
        self.has_budget = bool(rules.daily_budget or rules.monthly_budget)

    def use(self, now: float) -> Allotment:
        """What of them is in use."""
        self._requests.forget(now)
        self._tokens.forget(now)
        return Allotment(self._requests.total, self._tokens.total, self.running)

    def has_room(self, tokens: int, now: float) -> bool:
        """Whether a request of so many tokens is within what this server has taken of the limits."""
        self.was_asked = True
        limits, own = self.limits, self.own
        if limits == NOTHING or tokens > limits.tokens > 0:
            return True
        if own is None:
            return False
        self._requests.forget(now)
        self._tokens.forget(now)
        return (
            (not limits.requests or self._requests.total < own.requests)
            and (not limits.tokens or self._tokens.total + tokens <= own.tokens)
            and (not limits.streams or self.running < own.streams)
        )

    def admit(self, tokens: int, now: float, day: str, *, allowance: int = 0, nanos: int = 0) -> Permit:
        """Let a request of about so many tokens in, or raise CallerRateLimited or BudgetExceeded.

        `allowance` tokens more, and `nanos` of the budgets, are kept for it until it ends.
        """
        limits, own = self.limits, self.own or self.limits
        if self.has_budget:
            self._check_budgets(now, day)
        if limits.streams and self.running >= min(own.streams, limits.streams):
            raise self._refusal(f"{limits.streams} answers at the same time", _BUSY_S, now, day)
        if limits.requests:
            room = min(own.requests, limits.requests)
            self._check_window(self._requests, limits.requests, room, 1, "requests", now, day)
        if limits.tokens:
            room = min(own.tokens, limits.tokens)
            self._check_window(self._tokens, limits.tokens, room, tokens, "tokens", now, day)
        self.running += 1
        asked = self._requests.add(1, now) if limits.requests else NOWHERE
        self.reserved += nanos
        kept = tokens + allowance
        slot = self._tokens.add(kept, now) if limits.tokens else NOWHERE
        return Permit(self, kept, slot, nanos, asked)

    def end(self, permit: Permit, tokens: int, now: float) -> None:
        """A request is over, and took so many tokens."""
        self.running -= 1
        self.reserved -= permit.nanos
        if permit.slot != NOWHERE:
            self._tokens.correct(permit.slot, tokens - permit.tokens, now)

    def undo(self, permit: Permit, now: float) -> None:
        """Let it be as if a request had never been let in."""
        self.end(permit, 0, now)
        if permit.asked != NOWHERE:
            self._requests.correct(permit.asked, -1, now)

    def headers(self, now: float, day: str) -> Headers:
        """What is left: of the last minute under OpenAI's names, of budgets in dollars under ours."""
        limits, others = self.limits, self.others
        told: Headers = ()
        if limits.requests:
            told = _left(_OF_REQUESTS, limits.requests, others.requests, self._requests, now)
        if limits.tokens:
            told += _left(_OF_TOKENS, limits.tokens, others.tokens, self._tokens, now)
        if self.has_budget:
            for kind, budget, spent in self._budgets(day):
                left = max(0, budget - spent) / NANOS
                told += ((f"x-modelway-budget-{kind}-remaining", f"{left:.6f}"),)
        return told

    def _budgets(self, day: str) -> list[tuple[str, int, int]]:
        today, month = self.spent.on(day)
        both = (("daily", self.rules.daily_budget, today), ("monthly", self.rules.monthly_budget, month))
        return [one for one in both if one[1]]

    def _check_budgets(self, now: float, day: str) -> None:
        for kind, budget, spent in self._budgets(day):
            if spent >= budget:
                error = BudgetExceeded(
                    f"the {kind} budget of {self.name}, {budget / NANOS:g} dollars, is spent",
                    hint=f"wait for the next {'day' if kind == 'daily' else 'month'} (UTC), or ask for more",
                )
                error.headers = (*self.headers(now, day), NO_RETRY)
                raise error
            if spent + self.reserved >= budget:
                what = f"no more answers at the same time: they may take what is left of the {kind} budget"
                raise self._refusal(what, _BUSY_S, now, day)

    def _check_window(
        self, window: Window, limit: int, room: int, amount: int, kind: str, now: float, day: str
    ) -> None:
        window.forget(now)
        excess = window.total + amount - room
        if excess <= 0:
            return
        # What other servers have let in is over at a time that only they know.
        wait_s = window.wait(excess, now) or _BUSY_S
        error = self._refusal(f"{limit} {kind} a minute", wait_s, now, day)
        if amount > limit:
            error.hint, error.retry_after = f"this one alone has about {amount}: send less", None
            error.headers = (*error.headers, NO_RETRY)
        raise error

    def _refusal(self, what: str, wait_s: float, now: float, day: str) -> GatewayError:
        error = CallerRateLimited(
            f"the key of {self.name} permits {what}", hint="wait", retry_after=math.ceil(wait_s)
        )
        error.headers = self.headers(now, day)
        return error


class Permit:
    """A request that was let in: how many `tokens`, counted in a `slot`, and `nanos` are kept for it.

    `asked` is the slot in which it is counted itself.
    """

    __slots__ = ("account", "asked", "nanos", "slot", "tokens")

    def __init__(self, account: Account, tokens: int, slot: int, nanos: int, asked: int) -> None:
        self.account = account
        self.tokens = tokens
        self.slot = slot
        self.nanos = nanos
        self.asked = asked


def _left(names: _Names, limit: int, others: int, window: Window, now: float) -> Headers:
    """What is left of a limit, of which other servers have let in so much."""
    window.forget(now)
    left = limit - others - window.total
    span = _span(window.reset(now))
    return (names[0], str(limit)), (names[1], str(left if left > 0 else 0)), (names[2], span)


def _span(seconds: float) -> str:
    """As OpenAI writes spans: 1s, 6m0s."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
