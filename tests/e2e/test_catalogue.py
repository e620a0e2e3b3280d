"""What the server tells about itself, and its addresses for conversations."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from modelway.auth import Auth
from modelway.config import ServerSettings
from modelway.errors import SignInRequired
from modelway.server.app import Application
from modelway.server.openapi import openapi
from modelway.telemetry import Telemetry
from tests.e2e.test_chat_completions import asking, calling
from tests.scripted import Scripted, says
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio


async def test_providers_describe_themselves(tmp_path: Path) -> None:
    providers = [
        Scripted("Local", params=("temperature", "tools", "stop"), supports=("tools",)),
        Scripted("Copilot", [SignInRequired("x")], ready=False, needs_auth=True, missing="sign in"),
    ]
    async with calling(gateway_of(providers, tmp_path)) as caller:
        _, listed = await caller.get("/v1/providers")
        status, one = await caller.get("/v1/providers/local")
        missing, error = await caller.get("/v1/providers/nobody")
    assert [entry["name"] for entry in listed["data"]] == ["Local", "Copilot"]
    assert listed["data"][1]["missing"] == "sign in"
    assert status == 200
    assert one["params"] == {"temperature": "number", "tools": "array of objects", "stop": "array of strings"}
    assert (missing, error["error"]["code"]) == (404, "provider_not_found")


async def test_conversations_are_listed_shown_searched_forked_exported_and_deleted(tmp_path: Path) -> None:
    local = Scripted("Local", says("about the sea"), says("about the sky"), says("again"))
    async with calling(gateway_of([local], tmp_path)) as caller:
        for text, name in (("tell me of water", "a"), ("tell me of air", "b")):
            await caller.chunks(asking(text, conversation_id=name))
        _, listed = await caller.get("/v1/conversations")
        assert [entry["id"] for entry in listed["data"]] == ["b", "a"]
        _, page = await caller.get("/v1/conversations?limit=1&before=b")
        assert [entry["id"] for entry in page["data"]] == ["a"]
        _, found = await caller.get("/v1/conversations?q=sea")
        assert [entry["conversation_id"] for entry in found["data"]] == ["a"]
        _, shown = await caller.get("/v1/conversations/a")
        assert [message["content"] for message in shown["messages"]] == ["tell me of water", "about the sea"]
        response = await caller.post({"conversation_id": "a2"}, "/v1/conversations/a/fork")
        assert response.status == 201
        await response.body()
        await response.aclose()
        await caller.chunks(asking("more", conversation_id="a2"))
        assert len(local.requests[2].messages) == 3
        status, exported = await caller.get("/v1/conversations/a2/export")
        assert status == 200
        assert "about the sea" in str(exported)
        assert (await caller.get("/v1/conversations/a2/export?format=yaml"))[0] == 400
        assert (await caller.get("/v1/conversations?limit=0"))[0] == 400


async def test_unknown_addresses_and_methods_are_told_in_the_same_shape(tmp_path: Path) -> None:
    async with calling(gateway_of([Scripted("Local")], tmp_path)) as caller:
        status, body = await caller.get("/nowhere")
        assert (status, body["error"]["code"]) == (404, "not_found")
        status, body = await caller.get("/v1/chat/completions")
        assert (status, body["error"]["code"]) == (405, "method_not_allowed")
        assert (await caller.get("/readyz"))[1] == {"status": "ready"}


async def test_every_route_is_described(tmp_path: Path) -> None:
    gateway = gateway_of([Scripted("Local")], tmp_path)
    async with calling(gateway) as caller:
        _, served = await caller.get("/openapi.json")
    described = {(path, method.upper()) for path, methods in openapi()["paths"].items() for method in methods}
    routes = Application(gateway, Auth({}), Telemetry(), ServerSettings()).routes
    existing = {
        (route.path.replace(":path", ""), method)
        for route in routes
        for method in route.methods or {"GET"}
        if method != "HEAD"
    }
    assert described == existing
    assert served == msgspec.json.decode(msgspec.json.encode(openapi()))


def test_the_description_has_every_parameter_and_refers_to_nothing_that_is_not_there() -> None:
    from modelway.server.openapi import openapi
    from modelway.types import Params

    described = openapi()
    schemas = described["components"]["schemas"]
    assert set(Params.__struct_fields__) <= schemas["ChatRequest"]["properties"].keys()
    referred = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert referred <= schemas.keys()
    assert schemas.keys() - referred == set()
