"""A provider for tests: it plays a script, and notes what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from modelway.errors import GatewayError
from modelway.provider import ProviderInfo
from modelway.types import ChatRequest, Event, Finish, Model, Params, TextDelta, Usage

EVERYTHING: dict[str, object] = {
    "supports": ("system", "tools", "images", "files", "json_object", "json_schema", "reasoning", "n"),
    "params": Params.__struct_fields__,
    "dialect": "openai_chat",
}

Step = Event | GatewayError | asyncio.Event
Script = Sequence[Step]


def says(*pieces: str) -> list[Step]:
    """An answer of these pieces of text."""
    return [*(TextDelta(text=piece) for piece in pieces), Finish(usage=Usage(1, len(pieces)))]


class Scripted:
    """Plays one script for each request; the last one again when there are no more.

    A step is an event to yield, an error to raise, or an asyncio.Event to wait for. `requests` holds what
    the provider was given, `closed` counts the streams that were ended. It honours everything, unless `info`
    says otherwise.
    """

    def __init__(self, name: str, *scripts: Script, **info: object) -> None:
        fields: dict[str, object] = {
            "label": name,
            "default_model": f"{name.lower()}-1",
            **EVERYTHING,
            **info,
        }
        self.info = ProviderInfo(name=name, **fields)  # type: ignore[arg-type]
        self.scripts = list(scripts) or [says("hello")]
        self.requests: list[ChatRequest] = []
        self.closed = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Play the next script."""
        self.requests.append(request)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            for step in script:
                match step:
                    case GatewayError():
                        raise step
                    case asyncio.Event():
                        await step.wait()
                    case _:
                        yield step
        finally:
            self.closed += 1

    async def models(self) -> list[Model]:
        """The default model."""
        return [Model(self.info.default_model)]

    async def aclose(self) -> None:
        """Nothing is held."""
