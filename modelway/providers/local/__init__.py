"""The embedded model: llama.cpp in a child process, spoken to in OpenAI's chat format."""

from __future__ import annotations

import importlib.util
import math
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import msgspec

from modelway.config import LocalSettings
from modelway.dialects import openai_chat
from modelway.errors import (
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamProtocolError,
    UpstreamUnreachable,
)
from modelway.provider import Provider, ProviderInfo, RelayReply, RelayRequest
from modelway.providers.local import forced_call
from modelway.providers.local.embedding import Embedder
from modelway.providers.local.process import INSTALL_ENGINE, Child, Engine, Load
from modelway.types import ChatRequest, Event, Message, Model, Params, TextPart

PARAMS = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
)
SMALL_MODEL_MAX_TOKENS = 256
END_NOTICED_WITHIN_S = 2.0
LOOKED_IS_TRUE_FOR_S = 1.0


class Local:
    """The provider that needs no account and no network.

    `model_path` finds the GGUF and raises ProviderNotConfigured with the remedy where there is none;
    `upstream` makes the provider that speaks to the child, given its base URL and key. The child starts
    with start() or the first request; when it ends by itself, the answers under way fail and the next
    request starts it again.
    """

    def __init__(
        self,
        settings: LocalSettings,
        model_path: Callable[[], Path],
        upstream: Callable[[str, str], Provider],
        *,
        on_progress: Callable[[str], None] | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self._settings = settings
        self._embedder = embedder or Embedder()
        self._name = _short(settings.model)
        self._model_path = model_path
        self._make_upstream = upstream
        self._upstream: tuple[Child, Provider] | None = None
        self._info = ProviderInfo(
            name="Local",
            label="Embedded model",
            url="https://github.com/ggml-org/llama.cpp",
            default_model=self._name,
            models=(self._name,),
            supports=("system", "tools", "json_schema", "json_object", "n", "prefix"),
            params=PARAMS,
            dialect=openai_chat.NAME,
        )
        self._missing = ""
        self._looked_at = -math.inf
        self._engine = Engine(
            self._load,
            start_timeout_s=settings.start_timeout_s,
            on_progress=on_progress or (lambda _text: None),
        )

    @property
    def info(self) -> ProviderInfo:
        """What it is; `missing` names the command that makes it ready."""
        if self.pid is not None:
            return self._info
        if time.monotonic() - self._looked_at > LOOKED_IS_TRUE_FOR_S:
            self._missing = self._look()
            self._looked_at = time.monotonic()
        return msgspec.structs.replace(self._info, ready=not self._missing, missing=self._missing)

    @property
    def pid(self) -> int | None:
        """The process id of the child that answers; None: there is none."""
        return self._upstream[0].pid if self._upstream and self._upstream[0].alive else None

    @property
    def loaded(self) -> list[Model]:
        """The models whose children run."""
        chats = [self._chat_model] if self.pid is not None else []
        return [*chats, *(Model(id=name, owned_by="local") for name in self._embedder.loaded)]

    async def start(self) -> None:
        """Load the model now rather than with the first request."""
        await self._ready()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        """Answer the request; see Provider."""
        self._check(request)
        forced = forced_call.is_forced(request)
        asked = forced_call.as_schema(request) if forced else request
        asked = msgspec.structs.replace(asked, model=self._name, params=self._with_defaults(asked.params))
        child, upstream = await self._ready()
        answer = upstream.stream(asked)
        try:
            async with aclosing(forced_call.as_call(answer) if forced else answer) as events:
                async for event in events:
                    yield event
        except (UpstreamUnreachable, UpstreamProtocolError) as exc:
            if await child.ended(within_s=END_NOTICED_WITHIN_S):
                raise child.end from exc
            raise

    async def models(self) -> list[Model]:
        """The one that answers chats, and the one for embeddings where it is installed."""
        return [self._chat_model, *(Model(id=name, owned_by="local") for name in self._embedder.models)]

    async def relay(self, request: RelayRequest) -> RelayReply:
        """Embeddings, which need the extra `embed`; there is no other address."""
        return await self._embedder.answer(request)

    async def aclose(self) -> None:
        """Stop the children; no chat can be asked afterwards."""
        await self._embedder.aclose()
        await self._engine.aclose()
        if self._upstream is not None:
            await self._upstream[1].aclose()

    @property
    def _chat_model(self) -> Model:
        return Model(id=self._name, owned_by="local", context_length=self._settings.context_length)

    async def _ready(self) -> tuple[Child, Provider]:
        child = await self._engine.child()
        previous = self._upstream
        if previous is not None and previous[0] is child:
            return previous
        ready = self._upstream = (child, self._make_upstream(f"{child.url}/v1", child.key))
        if previous is not None:
            await previous[1].aclose()
        return ready

    def _look(self) -> str:
        try:
            self._load()
        except ProviderNotConfigured as exc:
            return exc.explanation
        return ""

    def _load(self) -> Load:
        if importlib.util.find_spec("xllamacpp") is None:
            raise ProviderNotConfigured(
                "the engine of the embedded model is not installed", hint=f"install it: {INSTALL_ENGINE}"
            )
        return Load(
            path=self._model_path(),
            alias=self._name,
            context_length=self._settings.context_length,
            parallel=self._settings.parallel,
            threads=self._settings.threads,
        )

    def _check(self, request: ChatRequest) -> None:
        if request.model.lower() not in {"", "local", self._name.lower()}:
            unknown = ModelNotFound(
                f"the embedded model is not called {request.model[:80]}",
                hint="name none, or set local.model",
                param="model",
                failover=True,
            )
            unknown.others = [self._name]
            raise unknown
        if any(_beyond_text(message) for message in request.messages):
            raise InvalidRequest("the embedded model reads text only", param="messages")

    def _with_defaults(self, params: Params) -> Params:
        """What holds where the caller says nothing.

        The 135M model answers 67 % of easy questions right at 0.2 / 0.9, and 54 % at the usual 0.7. Once it
        begins to repeat itself it does so until its context is full, which takes minutes: hence a limit.
        """
        is_small = self._name == "smollm2"
        limit = self._settings.max_tokens or (SMALL_MODEL_MAX_TOKENS if is_small else None)
        if params.max_tokens is None and limit:
            params = msgspec.structs.replace(params, max_tokens=limit)
        if params.temperature is not None or not is_small:
            return params
        top_p = 0.9 if params.top_p is None else params.top_p
        return msgspec.structs.replace(params, temperature=0.2, top_p=top_p)


def _short(model: str) -> str:
    """How callers name the model: a file goes without its folders, its repository and its suffix."""
    return re.split(r"[/\\:]", model)[-1].removesuffix(".gguf")


def _beyond_text(message: Message) -> bool:
    return not isinstance(message.content, str) and any(
        not isinstance(part, TextPart) for part in message.content
    )
