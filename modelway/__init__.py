"""A local gateway to language models that remembers the conversation.

with modelway.Client() as client:
    conversation = client.conversation("heiner")
    for piece in conversation.send("Hello, i am Heiner. How are you?"):
        print(piece, end="")

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from modelway._version import __version__

if TYPE_CHECKING:
    from modelway import errors, types
    from modelway.client import AsyncClient
    from modelway.errors import GatewayError
    from modelway.provider import Provider, ProviderInfo
    from modelway.sync_client import Client
    from modelway.types import ChatRequest, Completion, Event, Finish, Message, TextDelta, Usage

_HOMES = {
    "AsyncClient": "modelway.client",
    "ChatRequest": "modelway.types",
    "Client": "modelway.sync_client",
    "Completion": "modelway.types",
    "Event": "modelway.types",
    "Finish": "modelway.types",
    "GatewayError": "modelway.errors",
    "Message": "modelway.types",
    "Provider": "modelway.provider",
    "ProviderInfo": "modelway.provider",
    "TextDelta": "modelway.types",
    "Usage": "modelway.types",
}
_MODULES = {"errors", "types"}

__all__ = [
    "AsyncClient",
    "ChatRequest",
    "Client",
    "Completion",
    "Event",
    "Finish",
    "GatewayError",
    "Message",
    "Provider",
    "ProviderInfo",
    "TextDelta",
    "Usage",
    "__version__",
    "errors",
    "types",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"modelway.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'modelway' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
