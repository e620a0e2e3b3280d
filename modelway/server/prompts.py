"""Several prompts of one request, answered one after the other, as one reply."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from modelway.answer import Answer
from modelway.dialects.envelope import Envelope
from modelway.dialects.openai_chat import completions
from modelway.gateway import Gateway
from modelway.telemetry import Attempt
from modelway.types import Caller, ChatRequest, Completion, Finish, Usage

_JSON = "application/json"


class Prompts:
    """One reply to several prompts: begin() it, read() it, settle() it; each prompt is charged for by itself.

    Who answers is known once it has begun, `completion` once it has ended.
    """

    status = 200
    meter = None

    def __init__(self, gateway: Gateway, caller: Caller, requests: Sequence[ChatRequest]) -> None:
        self.name = ""
        self.model = requests[0].model
        self.ignored: tuple[str, ...] = ()
        self.completion: Completion | None = None
        self.cost = 0.0
        self._gateway = gateway
        self._caller = caller
        self._requests = requests
        self._is_stream = requests[0].stream
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._first = b""
        self._id = completions.ID_PREFIX + secrets.token_hex(12)

    @property
    def headers(self) -> Mapping[str, str]:
        """What the body is, before any of it is read."""
        if self._is_stream:
            return {"content-type": completions.STREAM_TYPE.decode()}
        return {"content-type": _JSON, "content-length": str(len(self._first))}

    async def admit(self) -> None:
        """Each prompt is let in by itself."""

    async def begin(self, attempts: list[Attempt]) -> Prompts:
        """Answer the first prompt up to its first piece; raises the GatewayError of what cannot be had."""
        self._pieces = (self._stream if self._is_stream else self._whole)(attempts)
        self._first = await anext(self._pieces)
        return self

    async def read(self) -> bytes:
        """The next piece, b"" at the end."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return b"" if self._pieces is None else await anext(self._pieces, b"")

    async def aclose(self) -> None:
        """End what is being answered."""
        if self._pieces is not None:
            await self._pieces.aclose()

    def was_left(self) -> None:
        """What has come is charged for in any case."""

    def settle(self) -> tuple[Usage, float]:
        """What all of it took and costs, as far as it has come to its end."""
        usage = self.completion.usage if self.completion is not None else None
        return usage or Usage(), self.cost

    async def _whole(self, attempts: list[Attempt]) -> AsyncGenerator[bytes, None]:
        answers: list[tuple[Completion, Envelope]] = []
        for request in self._requests:
            async with aclosing(await self._gateway.answer(request, self._caller, attempts)) as answer:
                completion = await answer.collect()
                self._note(answer)
                answers.append((completion, self._envelope(request, answer, completion.model)))
        self.completion = _together([completion for completion, _ in answers])
        yield completions.encode_completions(answers)

    async def _stream(self, attempts: list[Attempt]) -> AsyncGenerator[bytes, None]:
        first = 0
        done: list[Completion] = []
        for request in self._requests:
            async with aclosing(await self._gateway.answer(request, self._caller, attempts)) as answer:
                self._note(answer)
                encoder = completions.EventEncoder(self._envelope(request, answer), first)
                async for event in answer:
                    # The tokens of all prompts are told once, at the end.
                    bare = Finish(reasons=event.reasons) if isinstance(event, Finish) else event
                    if written := encoder.encode(bare):
                        yield written
                self.cost += answer.cost or 0.0
                done.append(answer.completion)
            first += len(done[-1].choices)
        self.completion = _together(done)
        yield encoder.usage(self.completion.usage or Usage()) + encoder.end()

    def _note(self, answer: Answer) -> None:
        self.name, self.model, self.ignored = answer.provider, answer.model, answer.ignored
        self.cost += answer.cost or 0.0

    def _envelope(self, request: ChatRequest, answer: Answer, model: str = "") -> Envelope:
        return Envelope(
            id=self._id,
            created=int(time.time()),
            model=model or answer.model,
            provider=answer.provider,
            include_usage=request.include_usage,
            echo=request.echo or {},
            ignored=answer.ignored,
        )


def _together(done: Sequence[Completion]) -> Completion:
    """All answers as one, for the log."""
    return Completion(
        choices=tuple(choice for completion in done for choice in completion.choices),
        usage=completions.total(completion.usage for completion in done),
        model=done[0].model,
    )
