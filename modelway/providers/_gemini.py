"""One call of Google's generateContent, wherever it is served: at the Gemini API or at Vertex AI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec import Struct

from modelway.dialects import gemini
from modelway.errors import GatewayError
from modelway.providers._status import read_retry_after
from modelway.providers.http import (
    HTTPClient,
    Response,
    Secret,
    errors_of,
    events_of,
    events_of_body,
    good_response,
)
from modelway.types import ChatRequest, Event, Finish, UpstreamState

DEFAULT_MODEL = "gemini-3.5-flash"
MODELS = ("gemini-3.5-flash", "gemini-3.8-flash", "gemini-2.5-pro", "gemini-2.5-flash")
SUPPORTS = ("system", "tools", "images", "files", "json_object", "json_schema", "reasoning", "n")


class Access(Struct, frozen=True):
    """How a provider is let in: the headers of a call, and the secret in them."""

    headers: Mapping[str, str]
    secret: Secret


class Calls:
    """Makes calls for a provider of this name. `credential_hint` says where its credential is set."""

    def __init__(self, name: str, *, http: HTTPClient, credential_hint: str) -> None:
        self._name = name
        self._http = http
        self._credential_hint = credential_hint

    async def answer(
        self, request: ChatRequest, model_url: str, access: Access
    ) -> AsyncGenerator[Event, None]:
        """Answer with one call. `model_url` is the model's address, to which the method is added.

        The thought signatures of calls travel from turn to turn as the upstream state.
        """
        signatures = _signatures(request)
        body = gemini.encode_request(request, signatures)
        method = ":streamGenerateContent?alt=sse" if request.stream else ":generateContent"
        decoder = gemini.EventDecoder(self._name, max_event_bytes=self._http.settings.max_event_bytes)
        with access.secret.kept_out_of_errors():
            response = await self.call("POST", model_url + method, access, body)
            read = (
                events_of(response, decoder)
                if request.stream
                else events_of_body(response, decoder.read_whole)
            )
            async with aclosing(response), aclosing(read) as events:
                async for event in events:
                    if isinstance(event, Finish) and (
                        state := _state(request, signatures, decoder.signatures)
                    ):
                        yield state
                    yield event

    async def call(self, method: str, url: str, access: Access, body: bytes = b"") -> Response:
        """The response, when its status is a good one and it can be an answer."""
        return await good_response(
            self._http,
            method,
            url,
            name=self._name,
            headers=access.headers,
            body=body,
            secret=access.secret,
            to_error=self._to_error,
        )

    def _to_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """What the reply stands for: by Google's own status, or else by that of HTTP."""
        problem = gemini.read_problem(body)
        hint = self._credential_hint
        error = gemini.problem_error(problem, self._name, credential_hint=hint)
        if error is None:
            to_error = errors_of(self._name, decode_error=gemini.decode_error, credential_hint=hint)
            return to_error(status, headers, body)
        if error.retry_after is None:
            error.retry_after = read_retry_after(headers)
        return error


def _signatures(request: ChatRequest) -> dict[str, str]:
    """The signatures that this model gave in earlier turns; another model could not read them."""
    state = request.upstream_state or {}
    kept = state.get("signatures")
    return kept if state.get("model") == request.model and isinstance(kept, dict) else {}


def _state(request: ChatRequest, before: dict[str, str], new: dict[str, str]) -> UpstreamState | None:
    """The signatures that the next turn may need: those of the calls since the user spoke last."""
    recent = request.messages[gemini.current_turn(request.messages) :]
    calls = {call.id for message in recent for call in message.tool_calls}
    signatures = {id: signature for id, signature in before.items() if id in calls} | new
    return UpstreamState({"model": request.model, "signatures": signatures}) if signatures else None
