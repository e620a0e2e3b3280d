"""One relayed request: let in, asked of its upstream, and charged for, once."""

from __future__ import annotations

from typing import Protocol

from modelway.accounts import Permit, Size
from modelway.gateway import Gateway
from modelway.provider import RelayReply, RelayRequest
from modelway.routing import Candidate
from modelway.server.metering import Meter
from modelway.telemetry import Attempt
from modelway.types import Caller, Usage

# Of the addresses that are passed on, replies of these are texts whose length the request may not say.
_WRITE = ("completions", "responses")


class Body(Protocol):
    """What a request says, in JSON or in a form."""

    @property
    def provider(self) -> str:
        """Who is asked, "" where it does not say."""
        ...

    @property
    def model(self) -> str:
        """The model that is asked, "" where it does not say."""
        ...

    @property
    def stream(self) -> bool:
        """Whether the reply is to be a stream."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """How long the text of the reply may be."""
        ...

    @property
    def choices(self) -> int | None:
        """How many texts are asked for."""
        ...

    def said(self) -> bytes:
        """All that it says: equal where two say the same."""
        ...

    def tokens(self) -> int:
        """About how many tokens it asks with."""
        ...

    def addressed_to(self, model: str) -> bytes:
        """The body for the upstream, with its name of the model and without the provider's."""
        ...


class RelayedCall:
    """A request for one upstream. begin() it, read() along with the reply, and settle() it in every path."""

    def __init__(
        self, gateway: Gateway, caller: Caller, candidate: Candidate, request: RelayRequest, body: Body
    ) -> None:
        self.provider = candidate.provider
        self.model = candidate.model
        self.name = candidate.name
        self.request = request
        self.meter: Meter | None = None
        self.ignored: tuple[str, ...] = ()
        self._gateway = gateway
        self._caller = caller
        self._candidate = candidate
        self._body = body
        self._permit: Permit | None = None
        self._is_open = False

    async def admit(self) -> None:
        """Let it in; raises PermissionDenied, CallerRateLimited or BudgetExceeded."""
        size = Size() if self._caller.rules is None else self._size()
        self._permit = await self._gateway.admit(self._caller, self._candidate, size)
        self._is_open = True

    async def begin(self, attempts: list[Attempt]) -> RelayReply:
        """The upstream's reply; a GatewayError where it is no good one."""
        reply = await self._gateway.relay(self.provider, self.model, self.request, attempts)
        self.meter = Meter(reply.headers.get("content-type", ""), reply.status)
        return reply

    def was_left(self) -> None:
        """Whoever does not wait for the reply has asked all the same."""
        self.meter = self.meter or Meter()

    def settle(self) -> tuple[Usage, float]:
        """Charge for it; what was taken, and what it costs in dollars. Again: nothing."""
        if not self._is_open:
            return Usage(), 0.0
        self._is_open = False
        used, estimated = self._usage()
        return used, self._gateway.charge(
            self._caller, self._permit, self.provider, self.model, used, estimated=estimated
        )

    def _size(self) -> Size:
        """About how large the request and its reply are."""
        body = self._body
        if self.request.method != "POST":
            return Size()
        if self.request.path in _WRITE or body.max_tokens is not None:
            return Size.of(body.tokens(), body.max_tokens, body.choices)
        return Size(body.tokens())

    def _usage(self) -> tuple[Usage, bool]:
        """What was taken, as far as the reply came, and whether that is a guess; nothing where it failed."""
        meter = self.meter
        if meter is None:
            return Usage(), False
        if told := meter.told():
            return told, False
        if meter.is_error or self.request.method != "POST" or not self._body.model:
            return Usage(), False
        return Usage(self._body.tokens(), meter.written()), True
