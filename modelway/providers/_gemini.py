"""One call of Google's generateContent, wherever it is served: at the Gemini API or at Vertex AI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec import Struct

from modelway.dialects import gemini
from modelway.errors import GatewayError, UpstreamProtocolError
from modelway.providers._own import kept_out_of_errors
from modelway.providers._status import error_for_status, read_retry_after
from modelway.providers.http import HTTPClient, Response
from modelway.types import ChatRequest, Event, Finish, UpstreamState

DEFAULT_MODEL = "gemini-3.5-flash"
MODELS = ("gemini-3.5-flash", "gemini-3.8-flash", "gemini-2.5-pro", "gemini-2.5-flash")
SUPPORTS = ("system", "tools", "images", "files", "json_object", "json_schema", "reasoning", "n")


class Access(Struct, frozen=True):
    """How a provider is let in: the headers of a call, and the secret in them."""

    headers: Mapping[str, str]
    secret: str


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
        with kept_out_of_errors(access.secret):
            response = await self.call("POST", model_url + method, access, body)
            async with aclosing(response), aclosing(_read(request, response, decoder)) as events:
                async for event in events:
                    if isinstance(event, Finish) and (
                        state := _state(request, signatures, decoder.signatures)
                    ):
                        yield state
                    yield event

    async def call(self, method: str, url: str, access: Access, body: bytes = b"") -> Response:
        """The response, when its status is a good one and it can be an answer."""
        response = await self._http.request(method, url, headers=access.headers, body=body)
        try:
            if not 200 <= response.status < 300:
                raise self._error(response, await response.error_body(), access.secret)
            if response.content_type == "text/html":
                raise UpstreamProtocolError(f"{self._name} answered with a web page", hint="check base_url")
        except BaseException:
            await response.aclose()
            raise
        return response

    def _error(self, response: Response, body: bytes, secret: str) -> GatewayError:
        """What the reply stands for: by Google's own status, or else by that of HTTP."""
        # Before the message is cut to size, which might leave half of the secret.
        body = body.replace(secret.encode(), b"***")
        problem = gemini.read_problem(body)
        error = gemini.problem_error(problem, self._name, credential_hint=self._credential_hint)
        if error is None:
            return error_for_status(
                response.status,
                response.headers,
                body,
                decode_error=gemini.decode_error,
                name=self._name,
                credential_hint=self._credential_hint,
            )
        if error.retry_after is None:
            error.retry_after = read_retry_after(response.headers)
        return error


async def _read(
    request: ChatRequest, response: Response, decoder: gemini.EventDecoder
) -> AsyncGenerator[Event, None]:
    if not request.stream:
        for event in decoder.read_whole(await response.body()):
            yield event
        return
    while chunk := await response.read():
        for event in decoder.feed(chunk):
            yield event
    for event in decoder.close():
        yield event


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
