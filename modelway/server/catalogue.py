"""GET endpoints that describe: models, providers, health."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from modelway.dialects import anthropic_messages, openai_chat
from modelway.errors import InvalidRequest, ModelNotFound
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo, describe
from modelway.server.formats import ANTHROPIC_VERSION


def json_response(value: object, status: int = 200) -> Response:
    """A JSON reply; structs are encoded as they are."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Catalogue:
    """Describes what the gateway can reach; `?refresh=true` asks the upstreams anew for their models."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def models(self, request: Request) -> Response:
        """Every model name that can be asked for without naming a provider, and "Provider/model".

        Programs written for Anthropic, which send the header anthropic-version, get them in its format.
        """
        models = await self._gateway.models(refresh=_refresh(request))
        encode = anthropic_messages.encode_models if _is_anthropic_s(request) else openai_chat.encode_models
        return Response(encode(models), media_type="application/json")

    async def model(self, request: Request) -> Response:
        """One model."""
        wanted: str = request.path_params["id"]
        for model in await self._gateway.models(refresh=_refresh(request)):
            if model.id == wanted:
                if _is_anthropic_s(request):
                    return Response(anthropic_messages.encode_model(model), media_type="application/json")
                return json_response(openai_chat.model_object(model))
        raise ModelNotFound(
            f'no model is called "{wanted[:80]}"', hint="GET /v1/models lists them", param="model"
        )

    async def providers(self, request: Request) -> Response:
        """Every provider, as data."""
        infos = await self._gateway.offering.infos(refresh=_refresh(request))
        return json_response({"object": "list", "data": [_shown(info) for info in infos]})

    async def provider(self, request: Request) -> Response:
        """One provider, as data."""
        name = self._gateway.router.provider(request.path_params["name"]).info.name
        [info] = await self._gateway.offering.infos([name], refresh=_refresh(request))
        return json_response(_shown(info))

    async def health(self, _: Request) -> Response:
        """Answers as long as the process lives."""
        return json_response({"status": "ok", "server": "modelway"})

    async def ready(self, _: Request) -> Response:
        """Answers 200 when the store can be written to, otherwise 503."""
        await self._gateway.conversations.ready()
        return json_response({"status": "ready"})


def _shown(info: ProviderInfo) -> dict[str, object]:
    return {"object": "provider", **describe(info)}


def _is_anthropic_s(request: Request) -> bool:
    """Whether the program that asks was written for Anthropic."""
    return ANTHROPIC_VERSION.decode() in request.headers


def _refresh(request: Request) -> bool:
    """Whether the client wants the upstreams to be asked now."""
    match request.query_params.get("refresh", "false"):
        case "true":
            return True
        case "false":
            return False
        case _:
            raise InvalidRequest('`refresh` must be "true" or "false"', param="refresh")
