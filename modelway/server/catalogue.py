"""GET endpoints that describe: models, providers, health."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from modelway.accounts import denied, discreet, leads, may_go, may_see, visible_infos
from modelway.dialects import anthropic_messages, openai_chat
from modelway.errors import InvalidRequest, ModelNotFound
from modelway.gateway import Gateway
from modelway.provider import ProviderInfo, describe
from modelway.routing import Explanation, explain, health
from modelway.server.exchange import Exchange
from modelway.server.formats import ANTHROPIC_VERSION
from modelway.types import Caller, Model


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
        models = await visible_models(self._gateway, request)
        encode = anthropic_messages.encode_models if _is_anthropic_s(request) else openai_chat.encode_models
        return Response(encode(models), media_type="application/json")

    async def model(self, request: Request) -> Response:
        """One model."""
        wanted: str = request.path_params["id"]
        for model in await visible_models(self._gateway, request):
            if model.id == wanted:
                if _is_anthropic_s(request):
                    return Response(anthropic_messages.encode_model(model), media_type="application/json")
                return json_response(openai_chat.model_object(model))
        raise ModelNotFound(
            f'no model is called "{wanted[:80]}"', hint="GET /v1/models lists them", param="model"
        )

    async def providers(self, request: Request) -> Response:
        """Every provider, as data."""
        seen = await visible_infos(self._gateway.offering, _caller(request), refresh=_refresh(request))
        return json_response({"object": "list", "data": [self._shown(info) for info in seen]})

    async def provider(self, request: Request) -> Response:
        """One provider, as data."""
        wanted, caller, router = request.path_params["name"], _caller(request), self._gateway.router
        with discreet(router, caller, wanted):
            name = router.provider(wanted).info.name
        if caller.rules is not None and not may_see(caller.rules, name):
            raise denied(caller, name, "")
        [info] = await visible_infos(self._gateway.offering, caller, [name], refresh=_refresh(request))
        return json_response(self._shown(info))

    async def routes(self, request: Request) -> Response:
        """Every route, with its candidates and what would become of them now."""
        found = [self._explained(name, _caller(request)) for name in self._gateway.router.routes]
        return json_response({"object": "list", "data": [one for one in found if one.candidates]})

    async def route(self, request: Request) -> Response:
        """Where a request with this model would go now: a route, or any name that leads somewhere."""
        name, caller = request.path_params["name"], _caller(request)
        found = self._explained(name, caller)
        if not found.candidates:
            raise denied(caller, name, "")
        return json_response(found)

    async def health(self, _: Request) -> Response:
        """Answers as long as the process lives."""
        return json_response({"status": "ok", "server": "modelway"})

    async def ready(self, _: Request) -> Response:
        """Answers 200 when the store can be written to, otherwise 503."""
        await self._gateway.conversations.ready()
        return json_response({"status": "ready"})

    def _explained(self, name: str, caller: Caller) -> Explanation:
        """Where a request would go now, as far as the caller may see."""
        router, breakers, rules = self._gateway.router, self._gateway.breakers, caller.rules
        if rules is None:
            return explain(router, breakers, name)
        with discreet(router, caller, "", name):
            return explain(router, breakers, name, lambda one: may_go(rules, one))

    def _shown(self, info: ProviderInfo) -> dict[str, object]:
        breakers = self._gateway.breakers.states(info.name)
        told: dict[str, object] = {"object": "provider", **describe(info), "health": health(breakers)}
        return {**told, "breakers": breakers} if breakers else told


async def visible_models(gateway: Gateway, request: Request) -> list[Model]:
    """The models that can be asked for by whoever asks for the list."""
    models = await gateway.models(refresh=_refresh(request))
    caller = _caller(request)
    if caller.rules is None:
        return models
    return [model for model in models if leads(gateway.router, caller.rules, model.id)]


def _caller(request: Request) -> Caller:
    exchange: Exchange = request.scope["modelway.exchange"]
    return exchange.caller


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
