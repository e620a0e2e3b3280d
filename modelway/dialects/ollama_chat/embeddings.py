"""Ollama's requests for vectors of texts (POST /api/embed, /api/embeddings), carried to OpenAI's format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from modelway.dialects.reading import Fields, check, items, read_object, take, take_integer
from modelway.errors import UpstreamProtocolError

_encode = msgspec.json.Encoder().encode


class Asked(Struct, frozen=True):
    """Texts whose vectors are wanted; without any the model is only to be loaded."""

    texts: tuple[str, ...]
    model: str = ""
    provider: str = ""
    dimensions: int | None = None

    def for_openai(self, model: str) -> bytes:
        """The same as OpenAI's POST /v1/embeddings has it, with the upstream's name of the model."""
        fields: Fields = {"input": self.texts, "encoding_format": "float"}
        fields |= {"model": model} if model else {}
        return _encode(fields | ({"dimensions": self.dimensions} if self.dimensions else {}))


class Vectors(Struct, frozen=True):
    """The vectors in the order of the texts, and how many tokens those had."""

    vectors: list[list[float]] = []
    tokens: int = 0


class _Vector(Struct):
    embedding: list[float]
    index: int = 0


class _Usage(Struct):
    prompt_tokens: int = 0


class _Reply(Struct):
    data: list[_Vector]
    usage: _Usage | None = None


def decode_embed_request(body: bytes) -> Asked:
    """What POST /api/embed asks for: `input` is a text or several."""
    return _asked(read_object(body), "input", _texts)


def decode_embeddings_request(body: bytes) -> Asked:
    """What the older POST /api/embeddings asks for: `prompt` is one text."""
    return _asked(read_object(body), "prompt", lambda value: (check(value, str, "prompt"),))


def decode_vectors(body: bytes) -> Vectors:
    """An upstream's reply in OpenAI's format."""
    try:
        reply = msgspec.json.decode(body, type=_Reply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError("the upstream's embeddings cannot be read") from error
    ordered = sorted(reply.data, key=lambda vector: vector.index)
    return Vectors([vector.embedding for vector in ordered], reply.usage.prompt_tokens if reply.usage else 0)


def encode_embed(asked: Asked, found: Vectors) -> bytes:
    """The body of the reply of POST /api/embed."""
    return _encode({"model": asked.model, "embeddings": found.vectors, "prompt_eval_count": found.tokens})


def encode_embeddings(_: Asked, found: Vectors) -> bytes:
    """The body of the reply of POST /api/embeddings."""
    return _encode({"embedding": found.vectors[0] if found.vectors else []})


def _asked(fields: Fields, name: str, read: Callable[[Any], tuple[str, ...]]) -> Asked:
    value = fields.pop(name, None)
    return Asked(
        texts=read(value) if value else (),
        model=take(fields, "model", str, ""),
        provider=take(fields, "provider", str, ""),
        dimensions=take_integer(fields, "dimensions", 1, 1_000_000),
    )


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return items(value, "input", lambda item, path: check(item, str, path))
