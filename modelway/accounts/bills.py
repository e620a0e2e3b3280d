"""One answer under way, and what it costs in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelway.accounts.account import Permit
from modelway.conversations.spending import Spending, Tab
from modelway.prices.estimate import tokens_of, usage_of
from modelway.types import ChatRequest, Completion, Usage

if TYPE_CHECKING:
    from modelway.accounts.accounts import Accounts


class Bill:
    """Who pays for an answer. Settled once, when the answer ends: by the turn that keeps it, or apart."""

    __slots__ = ("_accounts", "_caller", "_permit", "_request", "model", "nanos", "provider")

    def __init__(
        self,
        accounts: Accounts,
        caller: str,
        permit: Permit | None,
        provider: str,
        model: str,
        request: ChatRequest,
    ) -> None:
        self._accounts = accounts
        self._caller = caller
        self._permit = permit
        self._request: ChatRequest | None = request
        self.provider = provider
        self.model = model
        # What it costs, in billionths of a dollar; None before the end, and where the price is not known.
        self.nanos: int | None = None

    def settle(self, completion: Completion) -> Spending | None:
        """What to write down with the turn; None where that has been done. The caller is charged with it."""
        if self._request is None:
            return None
        usage, estimated = self._close(completion)
        return Spending(
            day=self._accounts.today(),
            caller=self._caller,
            provider=self.provider,
            model=self.model,
            estimated=int(estimated),
            unpriced=int(self.nanos is None),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            nanos=self.nanos or 0,
        )

    def settle_apart(self, completion: Completion) -> None:
        """As settle(), where no turn is kept: it is written down within a second."""
        if self._request is not None:
            usage, estimated = self._close(completion)
            self._accounts.add_answer(
                self._caller, self.provider, self.model, usage, self.nanos, estimated=estimated
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
        )

    def _close(self, completion: Completion) -> tuple[Usage, bool]:
        """What the answer took, and whether that is a guess."""
        usage, estimated = completion.usage, False
        if usage is None:
            messages = self._request.messages if self._request is not None else ()
            usage, estimated = usage_of(messages, completion), True
        self._request = None
        # Only now, because the first price that is looked up takes a while.
        price = self._accounts.prices.of(self.provider, self.model)
        if price is not None:
            self.nanos = price.cost(usage)
        if self._permit is not None:
            self._accounts.end(self._permit, usage, self.nanos or 0)
        return usage, estimated
