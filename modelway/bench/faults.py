"""What the faulty upstream can do wrong: names, and the bytes and pauses behind them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import Enum
from typing import Any

from msgspec import Struct

MODEL = "faulty"
WORDS = ("The ", "quick ", "brown ", "fox ", "jumps ", "over ", "the ", "lazy ", "dog.")
TEXT = "".join(WORDS)
# Four bytes in UTF-8, so that it can be torn apart in three places.
SYMBOL = "🦊"
END_OF_BODY = b"0\r\n\r\n"
_MEGABYTE = 1 << 20


class Act(Enum):
    """What a script does beside sending bytes."""

    RESET = "reset the connection"
    CLOSE = "close the connection"
    HANG = "say no more, and keep the connection"


# Bytes are sent as they are, a number of seconds is waited.
Step = bytes | float | Act


class Asked(Struct, frozen=True):
    """What a script must know of a request: its argument, whether a stream is wanted, who is asked."""

    argument: str
    stream: bool
    port: int
    path: str

    def number(self, default: float) -> float:
        """The argument as a number."""
        try:
            return float(self.argument)
        except ValueError:
            return default


class Fault(Struct, frozen=True):
    """One thing that goes wrong. `takes` says what may follow the name and a colon; "" for nothing."""

    name: str
    what: str
    play: Callable[[Asked], Iterable[Step]]
    takes: str = ""


def status_line(status: int, headers: dict[str, str]) -> bytes:
    """The head of a response."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def plain(status: int, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    """A whole response with its length; `retry_after` becomes the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status_line(status, {"content-type": kind, "content-length": str(len(body)), **named}) + body


def event(text: str = "", reason: str | None = None, *, first: bool = False) -> bytes:
    """One event of a streamed chat completion."""
    delta: dict[str, str] = {"role": "assistant"} if first else {}
    if text or first:
        delta["content"] = text
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps(_object("chat.completion.chunk", choice)).encode() + b"\n\n"


def chunked(data: bytes) -> bytes:
    """Bytes as a chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def completion(text: str = TEXT) -> bytes:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text}
    answer = _object("chat.completion", {"index": 0, "message": message, "finish_reason": "stop"})
    usage = {"prompt_tokens": 7, "completion_tokens": len(WORDS), "total_tokens": 7 + len(WORDS)}
    return json.dumps({**answer, "usage": usage}, ensure_ascii=False).encode()


def _object(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-faulty",
        "object": kind,
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [choice],
    }


_STREAM = status_line(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
_DONE = b"data: [DONE]\n\n"


def _events(words: Sequence[str] = WORDS) -> list[bytes]:
    spoken = [event(word, first=not index) for index, word in enumerate(words)]
    return [*spoken, event(reason="stop"), _DONE]


def _ok(asked: Asked) -> Iterator[Step]:
    if not asked.stream:
        yield plain(200, completion())
        return
    yield _STREAM
    for piece in _events():
        yield chunked(piece)
    yield END_OF_BODY


def _begun(asked: Asked) -> Iterator[Step]:
    """The beginning of an answer: as many words as the argument says, or half of a whole one."""
    if not asked.stream:
        body = completion()
        yield status_line(200, {"content-type": "application/json", "content-length": str(len(body))})
        yield body[: len(body) // 2]
        return
    yield _STREAM
    for piece in _events()[: int(asked.number(3))]:
        yield chunked(piece)


def _streamed(*pieces: bytes) -> Iterator[Step]:
    yield _STREAM
    for piece in pieces:
        yield chunked(piece)
    yield END_OF_BODY


def _reset_inside(asked: Asked) -> Iterator[Step]:
    yield from _begun(asked)
    yield Act.RESET


def _stall(asked: Asked) -> Iterator[Step]:
    yield from _begun(asked)
    yield Act.HANG


def _cut(asked: Asked) -> Iterator[Step]:
    yield from _begun(asked)
    if asked.stream:
        yield END_OF_BODY
    yield Act.CLOSE


def _malformed(asked: Asked) -> Iterator[Step]:
    if asked.stream:
        yield from _begun(asked)
        yield chunked(b"data: {not json\n\n") + END_OF_BODY
    else:
        yield plain(200, b"{not json")


def _error_inside(asked: Asked) -> Iterator[Step]:
    error = json.dumps({"error": {"message": "the model is overloaded", "type": "server_error"}}).encode()
    if asked.stream:
        yield from _begun(asked)
        yield chunked(b"data: " + error + b"\n\n") + END_OF_BODY
    else:
        yield plain(200, error)


def _status(asked: Asked) -> Iterator[Step]:
    status = int(asked.number(500))
    yield plain(status, _error(f"status {status}"))


def _retry_after(asked: Asked) -> Iterator[Step]:
    body = _error("too many requests")
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    known = {"date": moment, "absurd": "99999999999", "garbage": "soon"}
    if asked.argument in ("", "missing"):
        yield plain(429, body)
    else:
        yield plain(429, body, retry_after=known.get(asked.argument, asked.argument))


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()


def _redirect(asked: Asked) -> Iterator[Step]:
    # Another name of the same machine is another host to a client.
    elsewhere = asked.argument or f"http://localhost:{asked.port}/ok/v1/chat/completions"
    yield status_line(302, {"location": elsewhere, "content-length": "0"})


def _split_utf8(asked: Asked) -> Iterator[Step]:
    body = b"".join([event(SYMBOL * 3, first=True).replace(rb"\ud83e\udd8a", SYMBOL.encode()), *_events(())])
    whole = body if asked.stream else completion(SYMBOL * 3)
    kind = "text/event-stream" if asked.stream else "application/json"
    yield status_line(200, {"content-type": kind, "transfer-encoding": "chunked"})
    for at in range(len(whole)):
        yield chunked(whole[at : at + 1])
    yield END_OF_BODY


def _invalid_utf8(asked: Asked) -> Iterator[Step]:
    if asked.stream:
        broken = event("The \x00fox", first=True).replace(rb"\u0000", b"\xff\xfe")
        yield from _streamed(broken, *_events(()))
    else:
        yield plain(200, completion("The @fox").replace(b"@", b"\xff\xfe"))


def _line_ends(end: bytes) -> Callable[[Asked], Iterator[Step]]:
    def play(asked: Asked) -> Iterator[Step]:
        if asked.stream:
            yield from _streamed(*(piece.replace(b"\n", end) for piece in _events()))
        else:
            yield plain(200, completion())

    return play


def _comments(asked: Asked) -> Iterator[Step]:
    if not asked.stream:
        yield plain(200, completion())
        return
    noise = b': ping\n\nevent: x-unknown\ndata:{"type":"x"}\n\nretry: 10\nid: 7\nweird\n\n'
    spoken = _events()
    yield from _streamed(noise, *(noise + piece.replace(b"data: ", b"data:", 1) for piece in spoken))


def _huge_event(asked: Asked) -> Iterator[Step]:
    size = int(asked.number(10) * _MEGABYTE)
    yield _STREAM if asked.stream else status_line(200, {"transfer-encoding": "chunked"})
    yield chunked(b'data: {"choices":[{"index":0,"delta":{"content":"')
    for _ in range(size >> 16):
        yield chunked(b"a" * 65536)
    yield chunked(b'"}}]}\n\n') + END_OF_BODY


def _gzip_bomb(asked: Asked) -> Iterator[Step]:
    yield status_line(200, {"content-type": "text/event-stream", "content-encoding": "gzip"})
    yield from squeezed(int(asked.number(1024)) * _MEGABYTE)
    yield Act.CLOSE


def squeezed(size: int) -> list[bytes]:
    """A gzip of `size` zero bytes; a fully flushed block may be repeated, so that it is made quickly."""
    zeros = bytes(1 << 24)
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    return [first, *[again] * ((size >> 24) - 1)]


def _huge_header(asked: Asked) -> Iterator[Step]:
    yield b"HTTP/1.1 200 OK\r\nx-huge: "
    for _ in range(int(asked.number(5) * _MEGABYTE) >> 16):
        yield b"a" * 65536
    yield b"\r\n\r\n"


def _drip(asked: Asked) -> Iterator[Step]:
    pause = asked.number(5) / 1000
    for step in _ok(asked):
        if isinstance(step, bytes):
            for at in range(len(step)):
                yield step[at : at + 1]
                yield pause


def _wrong_length(asked: Asked) -> Iterator[Step]:
    body = b"".join(_events()[:-2]) if asked.stream else completion()
    kind = "text/event-stream" if asked.stream else "application/json"
    yield status_line(200, {"content-type": kind, "content-length": str(len(body) + 100)}) + body
    yield Act.CLOSE


def _silent_body(asked: Asked) -> Iterator[Step]:
    yield _STREAM if asked.stream else status_line(200, {"content-length": "1000"})
    yield Act.HANG


_WORDS_TAKEN = "how many words come before it (3)"

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("ok", "answers as it should", _ok),
        Fault("reset", "resets the connection instead of answering", lambda _: [Act.RESET]),
        Fault("reset-inside", "resets it inside the answer", _reset_inside, _WORDS_TAKEN),
        Fault("silent", "takes the request and never says a word", lambda _: [Act.HANG]),
        Fault("silent-body", "sends a good head and nothing after it", _silent_body),
        Fault("stall", "falls silent inside the answer", _stall, _WORDS_TAKEN),
        Fault("cut", "ends the answer without a finish", _cut, _WORDS_TAKEN),
        Fault("malformed", "sends a line that is not JSON", _malformed, _WORDS_TAKEN),
        Fault("error-inside", "sends an error object inside a good answer", _error_inside, _WORDS_TAKEN),
        Fault(
            "html",
            "answers 200 with a web page",
            lambda _: [plain(200, b"<!doctype html><title>Welcome</title>", "text/html; charset=utf-8")],
        ),
        Fault("status", "answers with an error status", _status, "the status (500)"),
        Fault(
            "retry-after",
            "answers 429 with Retry-After",
            _retry_after,
            "seconds, `date` (in two seconds), `absurd`, `garbage` or `missing` (missing)",
        ),
        Fault("redirect", "redirects to another host", _redirect, "where to (the same port of localhost)"),
        Fault("split-utf8", "tears its characters apart, one byte at a time", _split_utf8),
        Fault("invalid-utf8", "sends bytes that are not UTF-8", _invalid_utf8),
        Fault("cr", "ends its lines with CR", _line_ends(b"\r")),
        Fault("crlf", "ends its lines with CRLF", _line_ends(b"\r\n")),
        Fault("comments", "mixes in comments and unknown events, and leaves out spaces", _comments),
        Fault("huge-event", "sends one event that is too large", _huge_event, "megabytes (10)"),
        Fault("gzip-bomb", "sends a little gzip that grows without end", _gzip_bomb, "megabytes (1024)"),
        Fault("huge-header", "sends a header that is too large", _huge_header, "megabytes (5)"),
        Fault("drip", "sends one byte at a time", _drip, "milliseconds between two (5)"),
        Fault("wrong-length", "sends less than it announced", _wrong_length),
        Fault("empty", "closes the connection without an answer", lambda _: [Act.CLOSE]),
    )
}
