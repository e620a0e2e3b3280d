"""Lets another candidate go on with an answer that broke off, where that is sound."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from modelway.attempting import Attempting, Begun
from modelway.errors import GatewayError, InvalidRequest
from modelway.provider import EventStream
from modelway.routing import Candidate
from modelway.telemetry import Attempt
from modelway.types import (
    ChatRequest,
    Citation,
    Completion,
    Continued,
    Event,
    Finish,
    Message,
    Opaque,
    TextDelta,
    UpstreamState,
)

PREFIX = "prefix"
ECHOED_PREFIX = "prefix_echoed"
_IN_BYTES = ("logprobs", "top_logprobs", "audio")
INSTRUCTION = (
    "Your last answer was cut off. Go on with it exactly where it stops, in the middle of a word if need be. "
    "Repeat nothing of it, and say nothing about the interruption."
)


class Said(Protocol):
    """A turn whose answer has begun."""

    @property
    def request(self) -> ChatRequest:
        """What was asked."""
        ...

    def so_far(self) -> Completion:
        """What has come of the answer."""
        ...


class Continuing:
    """One answer of a route that does not let it break off. `begin` calls a candidate with a request."""

    def __init__(
        self,
        attempting: Attempting,
        begin: Callable[[ChatRequest, Candidate], Awaitable[Begun]],
        candidates: Sequence[Candidate],
        turn: Said,
        attempts: list[Attempt],
    ) -> None:
        self._attempting = attempting
        self._begin = begin
        self._candidates = candidates
        self._turn = turn
        self._attempts = attempts

    def ready(self, begun: Begun) -> Begun:
        """The answer in a form that another one may follow: a stream must not be the upstream's own bytes."""
        if not self._turn.request.stream or _only_in_bytes(self._turn.request):
            return begun
        held = [unquoted(event) for event in begun.held if not isinstance(event, Opaque)]
        return replace(begun, stream=Unquoted(begun.stream), held=held)

    async def after(self, broken: Candidate, error: GatewayError) -> Begun:
        """The rest of an answer that broke off, from the next candidate; the error again where none can."""
        if not broken.may_fail_over(error):
            raise error
        # By identity: one that is named twice would be found where it stood first, again and again.
        place = next(place for place, one in enumerate(self._candidates) if one is broken)
        return await self._rest_by(self._candidates[place + 1 :], broken.name, error)

    async def resumed(self, by: str, error: GatewayError) -> Begun:
        """The rest of an answer that a dead server has left, from any candidate; `by` had begun it."""
        return await self._rest_by(self._candidates, by, error)

    async def _rest_by(self, candidates: Sequence[Candidate], after: str, error: GatewayError) -> Begun:
        request, said = self._turn.request, self._turn.so_far()
        others = able(candidates, request, said)
        why_not = obstacle(request, said) or ("" if others else "no other candidate can")
        if why_not:
            error.hint = f"nobody goes on with it: {why_not}"
            raise error
        try:
            begun = await self._attempting.first_to_answer(
                others, partial(self._go_on, request, said), self._attempts
            )
        except GatewayError as failed:
            error.hint = f"nobody goes on with it: {failed.explanation}"
            raise error from failed
        echoed = begun.seamless and ECHOED_PREFIX in begun.candidate.provider.info.supports
        told = _notice(after, error, begun)
        rest = Rest(told, begun.held, begun.stream, said=said.text, echoed=echoed)
        return replace(begun, stream=rest, held=[])

    async def _go_on(self, request: ChatRequest, said: Completion, candidate: Candidate) -> Begun:
        """Ask for the rest of an answer in the way that the candidate's upstream understands."""
        if said.text and takes_prefix(candidate):
            try:
                begun = await self._begin(rest_of(request, said, by_prefix=True), candidate)
                return replace(begun, seamless=True)
            except InvalidRequest:
                # Models that think refuse what they have not thought about.
                if _is_shaped(request):
                    raise
        return await self._begin(rest_of(request, said, by_prefix=False), candidate)


def obstacle(request: ChatRequest, said: Completion) -> str:
    """Why nobody else can go on with what has been said; "" where somebody can."""
    message = said.choices[0].message
    if asked := _only_in_bytes(request):
        return f"`{asked}` of two upstreams cannot be joined"
    if len(said.choices) > 1 or (request.params.n or 1) > 1:
        return "it has several choices"
    if message.tool_calls:
        return "a tool call had begun"
    if said.choices[0].refusal:
        return "the model was declining"
    return ""


def able(candidates: Iterable[Candidate], request: ChatRequest, said: Completion) -> list[Candidate]:
    """Who of these can go on with it.

    An upstream that keeps the conversation itself cannot be given half an answer. A shape that was asked for
    survives only where the upstream goes on with exactly what is there.
    """
    is_shaped = _is_shaped(request) and bool(said.text)
    return [
        candidate
        for candidate in candidates
        if not candidate.provider.info.stateful and (takes_prefix(candidate) or not is_shaped)
    ]


def _only_in_bytes(request: ChatRequest) -> str:
    """What was asked for that only the upstream's own bytes can carry; "" for nothing."""
    return next((name for name in _IN_BYTES if request.extra.get(name)), "")


def _is_shaped(request: ChatRequest) -> bool:
    shape = request.params.response_format
    return shape is not None and shape.kind != "text"


def takes_prefix(candidate: Candidate) -> bool:
    """Whether its upstream goes on with an answer that is begun for it."""
    supports = candidate.provider.info.supports
    return PREFIX in supports or ECHOED_PREFIX in supports


def rest_of(request: ChatRequest, said: Completion, *, by_prefix: bool) -> ChatRequest:
    """What to ask for the rest. Thoughts are not handed on: where nothing else was said, it is asked anew."""
    if not said.text:
        return request
    marked = {"openai_chat": {"prefix": True}} if by_prefix else {}
    partial = Message(role="assistant", content=said.text, extra=marked)
    asked = () if by_prefix else (Message(role="user", content=INSTRUCTION),)
    return replace(request, messages=(*request.messages, partial, *asked))


class Unquoted:
    """The events of an answer without their upstream's own bytes, so that another one's may follow them."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event."""
        while isinstance(event := await anext(self._stream), Opaque):
            pass
        return unquoted(event)

    async def aclose(self) -> None:
        """End the call."""
        await self._stream.aclose()


class Rest:
    """The rest of an answer: first that it is one, then its events, without what was said before.

    `echoed`: the upstream may begin with all that it was given.
    """

    def __init__(
        self, notice: Continued, held: Iterable[Event], stream: EventStream, *, said: str, echoed: bool
    ) -> None:
        self._waiting: deque[Event] = deque([notice])
        self._held = deque(held)
        self._stream = stream
        self._offset = len(said)
        self._awaited = said if echoed else ""
        self._echo: list[TextDelta] = []

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event."""
        while not self._waiting:
            event = self._held.popleft() if self._held else await anext(self._stream)
            if not isinstance(event, Opaque | UpstreamState):
                self._take(unquoted(event))
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """End the call."""
        await self._stream.aclose()

    def _take(self, event: Event) -> None:
        if isinstance(event, Citation) and event.start_index is not None and event.end_index is not None:
            places = event.start_index + self._offset, event.end_index + self._offset
            event = replace(event, start_index=places[0], end_index=places[1])
        if self._awaited and isinstance(event, TextDelta):
            self._compare(event)
            return
        if self._awaited and isinstance(event, Finish):
            self._give_up_waiting()
        self._waiting.append(event)

    def _compare(self, event: TextDelta) -> None:
        """Hold back text for as long as it may be what was given."""
        self._echo.append(event)
        heard = "".join(delta.text for delta in self._echo)
        if heard.startswith(self._awaited):
            rest = heard[len(self._awaited) :]
            self._echo, self._awaited = [], ""
            if rest:
                self._waiting.append(TextDelta(text=rest))
        elif not self._awaited.startswith(heard):
            self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        self._waiting.extend(self._echo)
        self._echo, self._awaited = [], ""


def unquoted(event: Event) -> Event:
    """The event without its upstream's own bytes."""
    if isinstance(event, UpstreamState | Opaque | Continued) or event.raw is None:
        return event
    return replace(event, raw=None)


def _notice(after: str, error: GatewayError, begun: Begun) -> Continued:
    by = begun.candidate
    return Continued(
        after=after,
        code=error.code,
        provider=by.name,
        model=by.model or by.provider.info.default_model,
        seamless=begun.seamless,
    )
