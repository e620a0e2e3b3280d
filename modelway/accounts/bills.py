"""One answer under way, and what it costs in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from modelway.accounts.account import Permit
from modelway.conversations import Charge, Tab
from modelway.prices.estimate import tokens_of, usage_of
from modelway.types import ChatRequest, Completion, Usage

if TYPE_CHECKING:
    from modelway.accounts.accounts import Accounts


class Bill:
    """Who pays for an answer. Settled once, when the answer ends: by the turn that keeps it, or apart."""

    __slots__ = (
        "_accounts",
        "_before",
        "_caller",
        "_handed",
        "_permit",
        "_request",
        "model",
        "nanos",
        "provider",
    )

    def __init__(
        self,
        accounts: Accounts,
        caller: str,
        permit: Permit | None,
        provider: str,
        model: str,
        request: ChatRequest,
        tab: Tab | None = None,
    ) -> None:
        self._accounts = accounts
        self._caller = caller
        self._permit = permit
        self._request: ChatRequest | None = request
        self.provider = provider
        self.model = model
        # What others had said and what that costs, where somebody else went on.
        self._before = tab.before if tab is not None else 0
        self._handed = tab.paid if tab is not None else 0
        # What it costs, in billionths of a dollar; None before the end, and where the price is not known.
        self.nanos: int | None = None

    def hand_over(self, provider: str, model: str, said: Completion) -> None:
        """Somebody else goes on with the answer; what has come is charged by its length."""
        if self._request is None:
            return
        usage = usage_of(self._request.messages, said)
        own = replace(usage, output_tokens=usage.output_tokens - self._before)
        nanos = self._accounts.add_part(self._caller, self._permit, self.provider, self.model, own)
        self._before, self._handed = usage.output_tokens, self._handed + nanos
        self.provider, self.model = provider, model

    def settle(self, completion: Completion) -> Charge | None:
        """What to write down with the turn; None where that has been done. The caller is charged with it."""
        if self._request is None:
            return None
        usage, own, estimated = self._close(completion)
        return Charge(
            day=self._accounts.today(),
            caller=self._caller,
            provider=self.provider,
            model=self.model,
            estimated=int(estimated),
            unpriced=int(own is None),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            nanos=own or 0,
            earlier=self._handed,
        )

    def settle_apart(self, completion: Completion) -> None:
        """As settle(), where no turn is kept: it is written down within a second."""
        if self._request is not None:
            usage, own, estimated = self._close(completion)
            self._accounts.add_answer(
                self._caller, self.provider, self.model, usage, own, estimated=estimated
            )

    def tab(self) -> Tab:
        """Who pays, as it is noted while the answer is under way."""
        asked = tokens_of(self._request.messages) if self._request is not None else 0
        return Tab(
            caller=self._caller,
            provider=self.provider,
            model=self.model,
            price=self._accounts.prices.of(self.provider, self.model),
            input_tokens=asked,
            before=self._before,
            paid=self._handed,
        )

    def _close(self, completion: Completion) -> tuple[Usage, int | None, bool]:
        """What the answer took and costs by whom it was ended, and whether that is a guess."""
        usage, estimated = completion.usage, False
        if usage is None:
            messages = self._request.messages if self._request is not None else ()
            guess = usage_of(messages, completion)
            usage, estimated = replace(guess, output_tokens=guess.output_tokens - self._before), True
        self._request = None
        # Only now, because the first price that is looked up takes a while.
        price = self._accounts.prices.of(self.provider, self.model)
        own = None if price is None else price.cost(usage)
        if own is not None or self._handed:
            self.nanos = (own or 0) + self._handed
        if self._permit is not None:
            self._accounts.end(self._permit, usage, own or 0)
        return usage, own, estimated
