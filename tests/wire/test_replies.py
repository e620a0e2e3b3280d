"""Whatever an upstream sends: the client gets HTTP, the truth about the end, and only its own answer."""

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelway.bench.faults import TEXT, WORDS, Act, Step, completion, event
from tests.wire.gate import Gate, by_model, gate
from tests.wire.serving import in_a_thread
from tests.wire.talking import Reply, replies, talk
from tests.wire.traffic import CUTS, HOST, ODD_CHUNKS, ODD_FRAMES, Sent, chunked, split

EVENTS = [event(word, first=not at) for at, word in enumerate(WORDS)]
STREAM = b"".join([*EVENTS, event(reason="stop"), b"data: [DONE]\n\n"])
WHOLE = completion()
POISON = event("poison")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with in_a_thread(lambda: gate(tmp_path_factory.mktemp("gate") / "own")) as served:
        yield served


class Told:
    """What the client was told: the words, whether they are all, and the error."""

    def __init__(self, reply: Reply) -> None:
        self.status, self.text, self.error = reply.status, "", ""
        self.done = self.is_broken = False
        assert reply.whole
        if dict(reply.headers)["content-type"].startswith("text/event-stream"):
            for part in reply.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
                for line in part.split(b"\n"):
                    if line.startswith(b"data:"):
                        self._read(line[5:].strip())
        else:
            self._take(reply.json)
            self.done = not self.error

    def _read(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            self._take(json.loads(data))
        except ValueError:
            self.is_broken = True

    def _take(self, value: dict[str, object]) -> None:
        error = value.get("error")
        if isinstance(error, dict):
            self.error = error["code"] or error["type"]
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self.text += (choice.get("delta") or choice.get("message") or {}).get("content") or ""


def ask(server: Gate, *, stream: bool) -> Told:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()
    fields = (HOST, b"Connection: close", b"Content-Length: %d" % len(body))
    received = talk(server.port, [Sent(b"POST", b"/v1/chat/completions", b"1.1", fields, body).wire])
    (reply,) = replies(received)
    return Told(reply)


@st.composite
def answers(draw: st.DrawFn, good: bytes, kind: bytes) -> bytes:
    """A reply of an upstream: almost always a little wrong."""
    status = draw(
        st.sampled_from(
            [b"HTTP/1.1 200 OK"] * 6
            + [b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 204 No", b"HTTP/2 200 OK"]
            + [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 101 Up", b"HTTP/1.1 999 X"]
            + [b"HTTP/1.1 304 No", b"HTTP/1.1 206 Part", b"HTTP/1.1 503 Busy", b"ICY 200 OK", b""]
        )
    )
    fields = [draw(st.sampled_from([b"content-type: " + kind] * 5 + [b"content-type: text/html", b"x: y"]))]
    fields += draw(
        st.lists(
            st.sampled_from(
                [
                    b"connection: close",
                    b"content-encoding: gzip",
                    b"x: \0",
                    b" folded",
                    b"x y: z",
                    b"x:y\rz: 1",
                ]
            ),
            max_size=1,
        )
    )
    body = good
    match draw(st.integers(0, 5)):
        case 0:
            fields += draw(st.sampled_from(ODD_FRAMES))(len(good))
        case 1:
            fields += [b"transfer-encoding: chunked"]
            body = draw(st.sampled_from(ODD_CHUNKS))(good)
        case 2:
            fields += [b"content-length: %d" % (len(good) + draw(st.integers(-3, 3)))]
        case 3:
            fields += [b"content-length: %d" % len(good)]
        case 4:
            fields += [b"transfer-encoding: chunked"]
            body = chunked(good, draw(st.lists(st.integers(0, 20), max_size=2)))
    wire = b"\r\n".join([status, *fields, b"", body])
    match draw(st.integers(0, 3)):
        case 0:
            wire = wire[: draw(st.integers(0, len(wire)))]
        case 1:
            wire += draw(st.sampled_from([b"x", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", chunked(POISON, [])]))
        case 2:
            place = draw(st.integers(0, len(wire)))
            wire = wire[:place] + draw(st.binary(max_size=3)) + wire[place + draw(st.integers(0, 3)) :]
    return wire


def plays(wire: bytes, cuts: list[int], end: Act | None) -> list[Step]:
    steps: list[Step] = [*split(wire, cuts)]
    return [*steps, *([end] if end else [])]


def check(server: Gate, wire: bytes, cuts: list[int], end: Act, *, stream: bool) -> None:
    server.upstream.play = lambda _: plays(wire, cuts, end)
    told = ask(server, stream=stream)
    assert told.status in {200, 400, 404, 409, 429, 502, 503, 504}
    assert told.done == (not told.error), "neither an end nor an error, or both"
    if told.status != 200:
        assert not told.text
    assert not (told.is_broken and told.done)
    if told.done:
        assert re.search(rb'"finish_reason"\s*:\s*"', wire)
    # Nothing of it is left for whoever asks next.
    server.upstream.play = by_model
    told = ask(server, stream=stream)
    assert (told.status, told.text, told.done) == (200, TEXT, True)


ENDS = st.sampled_from([Act.CLOSE, Act.RESET])


@given(wire=answers(STREAM, b"text/event-stream"), cuts=CUTS, end=ENDS)
@example(wire=b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + STREAM, cuts=[], end=Act.CLOSE)
def test_a_stream_that_is_a_little_wrong(server: Gate, wire: bytes, cuts: list[int], end: Act) -> None:
    check(server, wire, cuts, end, stream=True)


@given(wire=answers(WHOLE, b"application/json"), cuts=CUTS, end=ENDS)
def test_a_whole_answer_that_is_a_little_wrong(server: Gate, wire: bytes, cuts: list[int], end: Act) -> None:
    check(server, wire, cuts, end, stream=False)


@given(place=st.integers(0, 2**16), cuts=CUTS, end=ENDS, is_chunked=st.booleans())
def test_a_stream_that_is_cut_anywhere_never_looks_whole(
    server: Gate, place: int, cuts: list[int], end: Act, is_chunked: bool
) -> None:
    frame = b"transfer-encoding: chunked" if is_chunked else b"content-length: %d" % len(STREAM)
    body = chunked(STREAM, [len(STREAM) // 2]) if is_chunked else STREAM
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + frame + b"\r\n\r\n"
    cut = place % body.index(b'"finish_reason": "stop"')
    server.upstream.play = lambda _: plays(head + body[:cut], cuts, end)
    told = ask(server, stream=True)
    assert told.error
    assert not told.done
    assert TEXT.startswith(told.text)
