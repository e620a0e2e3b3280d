"""GET endpoints that describe: models, providers, health."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from modelway.dialects import openai_chat
from modelway.errors import ModelNotFound
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo, describe
from modelway.types import Model


def json_response(value: object, status: int = 200) -> Response:
    """A JSON reply; structs are encoded as they are."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Catalogue:
    """Describes what the gateway can reach. Upstreams are not asked: these replies never wait."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def models(self, _: Request) -> Response:
        """Every model name that can be asked for without naming a provider, and "Provider/model"."""
        return Response(openai_chat.encode_models(self._models()), media_type="application/json")

    async def model(self, request: Request) -> Response:
        """One model."""
        wanted: str = request.path_params["id"]
        for model in self._models():
            if model.id == wanted:
                return json_response(openai_chat.model_object(model))
        raise ModelNotFound(
            f'no model is called "{wanted[:80]}"', hint="GET /v1/models lists them", param="model"
        )

    async def providers(self, _: Request) -> Response:
        """Every provider, as data."""
        described = [_shown(provider.info) for provider in self._gateway.providers.values()]
        return json_response({"object": "list", "data": described})

    async def provider(self, request: Request) -> Response:
        """One provider, as data."""
        provider = self._gateway.router.provider(request.path_params["name"])
        return json_response(_shown(provider.info))

    async def health(self, _: Request) -> Response:
        """Answers as long as the process lives."""
        return json_response({"status": "ok", "server": "modelway"})

    async def ready(self, _: Request) -> Response:
        """Answers 200 when the store can be written to, otherwise 503."""
        await self._gateway.conversations.ready()
        return json_response({"status": "ready"})

    def _models(self) -> list[Model]:
        models = [Model(id=name, owned_by="modelway") for name in self._gateway.router.model_names()]
        for provider in self._gateway.providers.values():
            info = provider.info
            names = dict.fromkeys((info.default_model, *info.models))
            models += [Model(id=f"{info.name}/{name}", owned_by=info.name) for name in names if name]
        return models


def _shown(info: ProviderInfo) -> dict[str, object]:
    return {"object": "provider", **describe(info)}
