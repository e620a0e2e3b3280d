"""The description of the server's addresses in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from modelway._version import __version__
from modelway.server.catalogue import json_response
from modelway.server.openapi_schemas import SCHEMAS

_ERROR = {
    "description": "An error, in OpenAI's shape",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_STRING = {"type": "string"}
_HEADERS = {
    "x-modelway-provider": {"description": "who answered", "schema": _STRING},
    "x-modelway-model": {"description": "with which model", "schema": _STRING},
    "x-modelway-conversation-id": {"description": "the conversation", "schema": _STRING},
    "x-modelway-ignored": {
        "description": "the fields that the provider could not be told, with commas between them",
        "schema": _STRING,
    },
}


def _operation(
    summary: str, *, params: tuple[dict[str, Any], ...] = (), body: str = "", answer: str = ""
) -> dict[str, Any]:
    shape = {"$ref": f"#/components/schemas/{answer}"} if answer else {}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": shape}}},
            "default": _ERROR,
        },
    }
    if params:
        operation["parameters"] = list(params)
    if body:
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _STRING}


def _query(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": _STRING}


_PAGE = (
    _query("limit", "how many, 1 to 100"),
    _query("order", "asc or desc"),
    _query("after", "the last id of the page before"),
)
_REFRESH = _query("refresh", "true: ask the upstreams anew for their models")


def _chat(*path_params: str) -> dict[str, Any]:
    operation = _operation(
        "Answer a chat, streamed as server-sent events or whole",
        params=tuple(_path(name) for name in path_params),
        body="ChatRequest",
        answer="ChatCompletion",
    )
    operation["responses"]["200"]["headers"] = _HEADERS
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": _STRING}
    return {"post": operation}


def _streamed(summary: str, *, params: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    operation = _operation(summary, params=params)
    operation["responses"]["200"]["content"] = {"text/event-stream": {"schema": _STRING}}
    return operation


def _responses() -> dict[str, Any]:
    operation = _operation(
        "Answer a turn as OpenAI's Responses API does", body="ResponseRequest", answer="Response"
    )
    operation["responses"]["200"]["headers"] = _HEADERS
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": _STRING}
    return {"post": operation}


def _in_format_of(vendor: str, body: str) -> dict[str, Any]:
    return {"post": _operation(f"Answer a chat in {vendor}'s format, streamed or whole", body=body)}


_PATHS: dict[str, Any] = {
    "/v1/chat/completions": _chat(),
    "/api/{provider}/chat/completions": _chat("provider"),
    "/api/{provider}/{conversation_id}/chat/completions": _chat("provider", "conversation_id"),
    "/v1/completions": {
        "post": _operation("Complete a prompt in OpenAI's older format", body="CompletionRequest")
    },
    "/v1/responses": _responses(),
    "/v1/responses/{id}": {
        "get": _operation(
            "A response that was kept, or its stream",
            params=(
                _path("id"),
                _query("stream", "true: as server-sent events"),
                _query("starting_after", "the sequence_number of the last event that is known"),
            ),
        ),
        "delete": _operation("Forget a response", params=(_path("id"),)),
    },
    "/v1/responses/input_tokens": {
        "post": _operation("How many tokens a request for a response has", body="ResponseRequest")
    },
    "/v1/responses/compact": {"post": _operation("Sum up what was said, to go on with")},
    "/v1/responses/{id}/cancel": {
        "post": _operation("Stop a response in the background", params=(_path("id"),))
    },
    "/v1/responses/{id}/input_items": {
        "get": _operation("What a response answers", params=(_path("id"), *_PAGE))
    },
    "/v1/messages": _in_format_of("Anthropic", "MessagesRequest"),
    "/v1/messages/count_tokens": {"post": _operation("How many tokens a request in Anthropic's format has")},
    "/api/chat": _in_format_of("Ollama", "OllamaChatRequest"),
    "/api/generate": _in_format_of("Ollama", "OllamaGenerateRequest"),
    "/api/tags": {"get": _operation("The models, as Ollama lists them")},
    "/api/ps": {"get": _operation("The models that are in this machine's memory")},
    "/api/embed": {"post": _operation("Vectors of texts, as Ollama has them")},
    "/api/embeddings": {"post": _operation("The vector of one text, as older programs for Ollama ask")},
    "/api/show": {"post": _operation("One model, as Ollama describes it")},
    "/api/version": {"get": _operation("The version of Ollama's interface that is spoken")},
    "/v1/models": {"get": _operation("The models that can be asked for", params=(_REFRESH,))},
    "/v1/models/{id}": {"get": _operation("One model", params=(_path("id"),))},
    "/v1/providers": {"get": _operation("The providers and what they can do", params=(_REFRESH,))},
    "/v1/providers/{name}": {"get": _operation("One provider", params=(_path("name"), _REFRESH))},
    "/v1/routes": {"get": _operation("The routes, and what would become of a request to each")},
    "/v1/routes/{name}": {
        "get": _operation("Where a request for a model would go now", params=(_path("name"),))
    },
    "/v1/conversations": {
        "get": _operation(
            "The caller's conversations, newest first",
            params=(
                _query("limit", "how many, 1 to 200"),
                _query("before", "the last id of the page before"),
                _query("q", "a text to search for"),
            ),
        ),
        "post": _operation("A conversation with a new id, as OpenAI's Conversations API has it"),
    },
    "/v1/conversations/{id}": {
        "get": _operation("One conversation, its messages and turns", params=(_path("id"),)),
        "post": _operation("Replace the metadata", params=(_path("id"),)),
        "delete": _operation("Forget a conversation", params=(_path("id"),)),
    },
    "/v1/conversations/{id}/items": {
        "get": _operation("Items of the current branch", params=(_path("id"), *_PAGE)),
        "post": _operation("Put items at the end, without an answer", params=(_path("id"),)),
    },
    "/v1/conversations/{id}/items/{item_id}": {
        "get": _operation("One item", params=(_path("id"), _path("item_id")))
    },
    "/v1/conversations/{id}/stream": {
        "get": _streamed(
            "The stream of a turn, from its beginning or after an event that is known",
            params=(
                _path("id"),
                _query("turn", "by default the newest"),
                _query("starting_after", "the id of the last event that is known"),
                _query("format", "openai_chat, openai_completions, openai_responses or anthropic_messages"),
            ),
        )
    },
    "/v1/conversations/{id}/cancel": {
        "post": _operation(
            "Stop the turn that is being answered",
            params=(_path("id"), _query("turn", "by default the newest")),
        )
    },
    "/v1/conversations/{id}/export": {
        "get": _operation("One conversation as a file", params=(_path("id"), _query("format", "json or md")))
    },
    "/v1/conversations/{id}/fork": {
        "post": _operation("A new conversation that shares messages", params=(_path("id"),), body="Fork")
    },
    "/v1/{path}": {
        method: _operation(
            "Any other address of the provider's upstream: embeddings, images, audio, files, …",
            params=(_path("path"), _query("provider", "whose upstream; else by `model`, else the default")),
        )
        for method in ("get", "post", "delete")
    },
    "/v1/figures": {"get": _operation("What this process has counted, and the last hour in steps")},
    "/v1/usage": {
        "get": _operation(
            "What was spent, by day, caller, provider and model",
            params=(_query("from", "the first day, in UTC"), _query("to", "the last day")),
        )
    },
    "/metrics": {"get": _operation("The same counters in the text format of Prometheus")},
    "/openapi.json": {"get": _operation("This description")},
    "/healthz": {"get": _operation("Whether the process lives")},
    "/readyz": {"get": _operation("Whether the store can be written to")},
}


def openapi() -> dict[str, Any]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Modelway",
            "version": __version__,
            "summary": "A local gateway to language models that remembers the conversation",
        },
        "paths": _PATHS,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


async def openapi_endpoint(_: Request) -> Response:
    """GET /openapi.json."""
    return json_response(openapi())
