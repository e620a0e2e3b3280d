"""Chunks of a stream that hold more of the first choice's text and nothing else, as nearly all of them do."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

BETWEEN = b"\n\ndata: "

_Nothing = Literal[""] | None
# Some upstreams put a space behind the colon.
_ENDS = (b'"finish_reason":"', b'"finish_reason": "')


class _Delta(Struct):
    content: str | None = None
    reasoning_content: _Nothing = None
    reasoning: _Nothing = None
    refusal: _Nothing = None
    tool_calls: None = None
    annotations: None = None


class _Choice(Struct):
    delta: _Delta
    index: Literal[0] = 0
    finish_reason: _Nothing = None


class _Chunk(Struct):
    choices: tuple[_Choice]
    model: str | None = None
    usage: None = None
    error: None = None


class Texts(Struct, frozen=True):
    """The text of chunks that hold nothing else, and the model that they name, "" where they name none."""

    text: str
    model: str


# Reads one. Whether the bytes of fields that it skips are UTF-8, it does not look: who calls this must have.
decode_text = msgspec.json.Decoder(_Chunk).decode
_decode = msgspec.json.Decoder(list[_Chunk]).decode


def read_texts(body: bytes) -> Texts | None:
    """Chunks in JSON with BETWEEN between them; None where any is anything else, or cannot be read.

    It is known that all of it is UTF-8, as for `decode_text`.
    """
    try:
        chunks = _decode(b"[%b]" % body.replace(BETWEEN, b","))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    text = "".join([chunk.choices[0].delta.content or "" for chunk in chunks])
    if not text:
        return None
    # Nearly always all of them name it.
    model = chunks[-1].model or next((chunk.model for chunk in reversed(chunks) if chunk.model), "")
    return Texts(text, model)


def end_of_texts(body: bytes) -> int:
    """Where the last chunk begins in which a choice ends; the length where there is none.

    What is before that may be anything.
    """
    ends = max(map(body.rfind, _ENDS))
    return len(body) if ends < 0 else max(body.rfind(BETWEEN, 0, ends), 0)
