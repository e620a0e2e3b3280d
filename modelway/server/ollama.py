"""What programs written for Ollama ask before they chat: the models, one of them, the version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from modelway._version import __version__
from modelway.accounts import may_use, resolved
from modelway.dialects import ollama_chat
from modelway.dialects.reading import read_object
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.provider import Loads, ProviderInfo
from modelway.server.catalogue import json_response, visible_models
from modelway.server.exchange import Exchange
from modelway.types import ChatRequest

# The version of Ollama whose interface is spoken; programs refuse what they think is too old.
SPOKEN_VERSION = "0.12.0"
MAX_SHOW_BYTES = 64 * 1024
_CAPABILITIES = {"tools": "tools", "images": "vision", "reasoning": "thinking"}


class OllamaEndpoints:
    """Describes models as Ollama does."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def tags(self, request: Request) -> Response:
        """Every model, under the names of GET /v1/models."""
        models = await visible_models(self._gateway, request)
        return Response(ollama_chat.encode_models(models), media_type="application/json")

    async def show(self, request: Request) -> Response:
        """What a model can do, as far as its provider tells."""
        exchange: Exchange = request.scope["modelway.exchange"]
        body = read_object(await exchange.body(MAX_SHOW_BYTES))
        # Old clients say `name`.
        name = body.get("model") or body.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidRequest("`model` must be the name of a model", param="model")
        asked = ChatRequest(messages=(), model=name)
        first = resolved(self._gateway.router, asked, exchange.caller)[0]
        return json_response(_shown(first.provider.info, first.model))

    async def ps(self, request: Request) -> Response:
        """The models that are in this machine's memory."""
        exchange: Exchange = request.scope["modelway.exchange"]
        rules = exchange.caller.rules
        loaders = [provider for provider in self._gateway.providers.values() if isinstance(provider, Loads)]
        models = [
            replace(model, id=f"{provider.info.name}/{model.id}")
            for provider in loaders
            for model in provider.loaded
            if rules is None or may_use(rules, provider.info.name, model.id)
        ]
        return Response(ollama_chat.encode_loaded_models(models), media_type="application/json")

    async def version(self, _: Request) -> Response:
        """The version of the interface."""
        return json_response({"version": SPOKEN_VERSION, "modelway": __version__})


def _shown(info: ProviderInfo, model: str) -> dict[str, Any]:
    can = ["completion", *(word for ours, word in _CAPABILITIES.items() if ours in info.supports)]
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": {"parent_model": "", "format": "", "family": info.name, "families": [info.name]},
        "model_info": {"general.basename": model},
        "capabilities": can,
        "modified_at": datetime.fromtimestamp(0, UTC).isoformat(),
    }
