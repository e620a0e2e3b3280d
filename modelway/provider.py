"""What a provider is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from msgspec import Struct

from modelway.types import ChatRequest, Event, Model


class ProviderInfo(Struct, frozen=True, kw_only=True):
    """How a provider describes itself, as data.

    `supports` names what it can carry beyond text: "system", "tools", "images", "json_schema",
    "json_object", "reasoning", "n". `params` names the fields of `types.Params` that it honours.
    `stateful`: the upstream keeps the conversation itself, so a turn must never be sent to it twice.
    `ready` is False where a credential or a setting is missing, and `missing` then says which.
    """

    name: str
    label: str = ""
    url: str = ""
    default_model: str = ""
    models: tuple[str, ...] = ()
    needs_auth: bool = False
    supports_stream: bool = True
    supports: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    stateful: bool = False
    ready: bool = True
    missing: str = ""


@runtime_checkable
class Provider(Protocol):
    """One upstream that can answer a chat request.

    stream() yields deltas and ends with exactly one Finish. It raises a GatewayError on failure, never
    retries, never falls back, and stops the upstream call when the generator is closed. It keeps
    nothing about a conversation on self: what must survive to the next turn it yields as UpstreamState
    and finds again in request.upstream_state.

    A request reaches stream() with `model` filled in (the provider's default where the caller named
    none) and with the whole history in `messages`. Where request.stream is False the provider may make
    one non-streaming call and yield the answer in as few events as it likes.
    """

    @property
    def info(self) -> ProviderInfo:
        """What this provider is and can do, as of now."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request; see the class."""
        ...

    async def models(self) -> list[Model]:
        """The models that the upstream offers now, or the known ones where it cannot say."""
        ...

    async def aclose(self) -> None:
        """Give back connections and processes."""
        ...
