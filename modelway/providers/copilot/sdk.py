"""Speaks to GitHub Copilot's runtime through the official SDK; imported only where it is installed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from copilot import CopilotClient, ModelCapabilitiesOverride, ModelSupportsOverride, RuntimeConnection
from copilot._cli_download import get_cached_cli_path
from copilot._jsonrpc import JsonRpcError, ProcessExitedError
from copilot.generated.rpc import PermissionDecisionReject
from copilot.session_events import (
    AssistantMessageData,
    AssistantMessageDeltaData,
    AssistantReasoningDeltaData,
    AssistantTurnStartData,
    AssistantUsageData,
    SessionErrorData,
    SessionEvent,
    SessionIdleData,
)

from modelway.dialects.translation import inline
from modelway.errors import GatewayError, InvalidRequest, UpstreamProtocolError
from modelway.providers.copilot.door import Lost
from modelway.providers.copilot.github_failures import refused, reported
from modelway.providers.copilot.runtime import Died, Launch, OfferedModel, Options
from modelway.providers.http import Secret
from modelway.types import Event, Finish, FinishReason, ImagePart, ReasoningDelta, TextDelta, Usage

START_S = 60.0
CHECK_S = 5.0
TEST_MODEL = "test-model"
_INSTRUCTIONS = "You are a helpful assistant."
_REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


def cached_runtime() -> str:
    """Where the SDK keeps a runtime that was downloaded, "" if none was."""
    return get_cached_cli_path() or ""


async def start(launch: Launch) -> SDKClient:
    """Start the runtime: no tools, no instructions of its own, no telemetry."""
    # It logs, with a traceback, what it then raises.
    logging.getLogger("copilot").setLevel(logging.CRITICAL)
    upstream = CopilotClient(
        connection=RuntimeConnection.for_stdio(path=str(launch.path)),
        mode="empty",
        base_directory=str(launch.home),
        working_directory=str(launch.home),
        github_token=launch.token or None,
        use_logged_in_user=not (launch.token or launch.base_url),
        log_level="none",
        env=_environment(launch),
    )
    client = SDKClient(upstream, launch)
    with _translated(launch.token):
        try:
            await asyncio.wait_for(upstream.start(), START_S)
        except BaseException:
            await client.kill()
            raise
    return client


def _environment(launch: Launch) -> dict[str, str]:
    env = {**launch.environment, "COPILOT_GITHUB_TELEMETRY_DISABLED": "true"}
    if launch.base_url:
        env |= {
            "COPILOT_OFFLINE": "true",
            "COPILOT_PROVIDER_BASE_URL": launch.base_url,
            "COPILOT_MODEL": TEST_MODEL,
        }
    return env


class SDKClient:
    """See Client. `upstream` is the SDK's client, or what a test has in its place."""

    def __init__(self, upstream: Any, launch: Launch) -> None:
        self._upstream = upstream
        self._launch = launch

    async def open(self, name: str, options: Options, *, resume: bool) -> SDKSession:
        """Resume or create. An id that exists must never be created: it would begin with nothing."""
        wanted = _session_options(options, self._launch)
        with _translated(self._launch.token):
            if resume:
                opened = await self._upstream.resume_session(name, **wanted)
            else:
                opened = await self._upstream.create_session(session_id=name, **wanted)
        return SDKSession(opened, self._launch.token)

    async def models(self) -> list[OfferedModel]:
        """What the account may use; the SDK keeps the list until the runtime ends."""
        with _translated(self._launch.token):
            listed = await self._upstream.list_models()
        return [
            OfferedModel(
                model.id,
                model.capabilities.limits.max_context_window_tokens or 0,
                bool(model.capabilities.supports.vision),
            )
            for model in listed
            if model.policy is None or model.policy.state != "disabled"
        ]

    async def account(self) -> str:
        """The account's name."""
        with _translated(self._launch.token):
            status = await self._upstream.get_auth_status()
        return status.login or ""

    async def delete(self, name: str) -> None:
        """Forget a conversation; one that is not there is no mistake."""
        with suppress(Lost, GatewayError), _translated(self._launch.token):
            await self._upstream.delete_session(name)

    async def forget_older_than(self, age_s: float) -> None:
        """Delete what nobody has used for so long."""
        with _translated(self._launch.token):
            sessions = await self._upstream.list_sessions()
        before = datetime.now(UTC) - timedelta(seconds=age_s)
        for session in sessions:
            if session.session_id.startswith("mw-") and session.modified_time < before:
                await self.delete(session.session_id)

    async def check(self) -> None:
        """Died where nobody answers."""
        with _translated(self._launch.token):
            await asyncio.wait_for(self._upstream.ping(), CHECK_S)

    async def stop(self) -> None:
        """End the process in order."""
        try:
            await self._upstream.stop()
        except ExceptionGroup:
            # Whatever failed on the way out.
            await self.kill()

    async def kill(self) -> None:
        """End the process at once."""
        with _translated(self._launch.token):
            await self._upstream.force_stop()


class SDKSession:
    """See Session."""

    def __init__(self, session: Any, token: str) -> None:
        self._session = session
        self._token = token
        self._events: asyncio.Queue[SessionEvent] = asyncio.Queue()
        self._unsubscribe: Callable[[], None] = session.on(self._events.put_nowait)
        self._has_begun = False
        self._spoken: dict[str, str] = {}
        self._usage: Usage | None = None
        self._model = ""
        self._reason: FinishReason = "stop"

    async def send(self, prompt: str, images: Sequence[ImagePart]) -> None:
        """Begin a turn."""
        blobs = [_blob(image) for image in images]
        with _translated(self._token):
            await self._session.send(prompt, attachments=blobs or None)

    async def next(self) -> Event | None:
        """What the runtime says next."""
        event = await self._events.get()
        # A sub-agent's words are not the answer.
        return None if event.agent_id else self._said(event.data)

    async def abort(self) -> None:
        """Stop the turn."""
        with _translated(self._token):
            await self._session.abort()

    async def close(self) -> None:
        """Free the memory."""
        self._unsubscribe()
        with _translated(self._token):
            await self._session.disconnect()

    def _said(self, said: object) -> Event | None:
        match said:
            case AssistantTurnStartData():
                self._has_begun = True
            case AssistantMessageDeltaData():
                self._spoken[said.message_id] = self._spoken.get(said.message_id, "") + said.delta_content
                return TextDelta(text=said.delta_content) if said.delta_content else None
            case AssistantReasoningDeltaData():
                return ReasoningDelta(text=said.delta_content) if said.delta_content else None
            case AssistantMessageData():
                return self._rest(said)
            case AssistantUsageData():
                self._count(said)
            case SessionErrorData():
                return self._failed(said)
            case SessionIdleData() if self._has_begun:
                return self._finish(aborted=bool(said.aborted))
        return None

    def _rest(self, whole: AssistantMessageData) -> Event | None:
        """What of a whole message has not come in pieces."""
        spoken = self._spoken.pop(whole.message_id, "")
        rest = whole.content.removeprefix(spoken) if whole.content.startswith(spoken) else ""
        return TextDelta(text=rest) if rest else None

    def _count(self, said: AssistantUsageData) -> None:
        before = self._usage or Usage()
        self._model = said.model or self._model
        self._usage = Usage(
            input_tokens=before.input_tokens + (said.input_tokens or 0),
            output_tokens=before.output_tokens + (said.output_tokens or 0),
            cached_tokens=before.cached_tokens + (said.cache_read_tokens or 0),
            reasoning_tokens=before.reasoning_tokens + (said.reasoning_tokens or 0),
        )
        filtered = "content_filter" if said.content_filter_triggered else said.finish_reason or ""
        self._reason = _REASONS.get(filtered, "stop")

    def _failed(self, said: SessionErrorData) -> Event:
        if "content_filter" in (said.error_code or ""):
            self._reason = "content_filter"
            return self._finish(aborted=False)
        message = Secret(self._token).out_of_text(said.message)
        raise reported(said.error_type, said.error_code or "", said.status_code, message)

    def _finish(self, *, aborted: bool) -> Finish:
        if aborted:
            raise UpstreamProtocolError("the answer of Copilot was cut off", code="upstream_truncated")
        return Finish(reasons=(self._reason,), usage=self._usage, model=self._model)


def _session_options(options: Options, launch: Launch) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "model": options.model,
        "reasoning_effort": options.effort,
        "available_tools": [],
        "streaming": True,
        "infinite_sessions": {"enabled": False},
        "on_permission_request": lambda request, invocation: PermissionDecisionReject(),
        "system_message": {"mode": "replace", "content": options.instructions or _INSTRUCTIONS},
    }
    if launch.base_url:
        wanted["provider"] = {
            "type": "openai",
            "base_url": launch.base_url,
            "wire_api": "completions",
            "api_key": "test",
        }
        wanted["model_capabilities"] = ModelCapabilitiesOverride(supports=ModelSupportsOverride(vision=True))
    return wanted


def _blob(image: ImagePart) -> dict[str, str]:
    content = inline(image.url)
    if content is None or not content.media_type.startswith("image/"):
        raise InvalidRequest(
            "Copilot takes images as `data:image/…;base64,` only: Modelway fetches none",
            param="messages",
            code="unsupported_content",
        )
    return {"type": "blob", "data": content.data, "mimeType": content.media_type}


@contextmanager
def _translated(token: str) -> Iterator[None]:
    """The SDK's exceptions as ours: Died, Lost or a GatewayError."""
    try:
        yield
    except JsonRpcError as error:
        raise refused(Secret(token).out_of_text(error.message)) from None
    except (ProcessExitedError, OSError, RuntimeError, TimeoutError) as error:
        raise Died(Secret(token).out_of_text(str(error))) from None
