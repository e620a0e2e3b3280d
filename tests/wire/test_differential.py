"""The same traffic through our protocol and through one of others (uvicorn's on h11): the same answers."""

import json
import re
from collections.abc import Iterator
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from tests.wire.gate import gate
from tests.wire.serving import application, in_a_thread, ours, plain
from tests.wire.talking import Reply, echo, replies, talk
from tests.wire.traffic import CUTS, GOODBYE, Sent, chunked, split, well_formed

Ports = tuple[int, int]

# What no two answers share, and what uvicorn adds by itself.
_OWN = re.compile(
    r'(\b[a-z]+_|chatcmpl-|cmpl-)[0-9A-Za-z]{16,}|"\w*(created|duration)\w*":[^,}]+|127\.0\.0\.1:\d+|(?<=;)\d+(?=,|$)'
)
_NOT_OURS = ("date", "server", "x-request-id")


class Answer(Struct, frozen=True):
    """A reply without what differs from one to the next."""

    status: int
    headers: list[tuple[str, str]]
    body: str
    whole: bool


def comparable(reply: Reply) -> Answer:
    headers = sorted((name, _masked(value)) for name, value in reply.headers if name not in _NOT_OURS)
    return Answer(reply.status, headers, _masked(reply.body.decode()), reply.whole)


def _masked(text: str) -> str:
    return _OWN.sub("*", text)


def answers(port: int, sent: list[Sent], cuts: list[int]) -> list[Answer]:
    stays = list(takewhile(lambda request: request.version != b"1.0", sent))
    last = sent[len(stays) : len(stays) + 1]
    # Nothing may follow a request that ends the connection.
    data = b"".join(request.wire for request in (*stays, *last)) + (b"" if last else GOODBYE)
    methods = [request.method.decode() for request in (*stays, *last)]
    return [comparable(reply) for reply in replies(talk(port, split(data, cuts)), methods)]


@pytest.fixture(scope="module")
def echoes() -> Iterator[Ports]:
    with (
        in_a_thread(lambda: application(echo, ours())) as own,
        in_a_thread(lambda: application(echo, plain())) as other,
    ):
        yield own, other


@given(sent=st.lists(well_formed(), min_size=1, max_size=4), cuts=CUTS)
def test_an_application_is_told_the_same_and_its_answers_arrive_alike(
    echoes: Ports, sent: list[Sent], cuts: list[int]
) -> None:
    own, other = (answers(port, sent, cuts) for port in echoes)
    assert own == other


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder = tmp_path_factory.mktemp("gates")
    with (
        in_a_thread(lambda: gate(folder / "own")) as own,
        in_a_thread(lambda: gate(folder / "other", plain())) as other,
    ):
        yield own.port, other.port


MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: object) -> bytes:
    return json.dumps({"messages": MESSAGES, **fields}, ensure_ascii=False).encode()


CHAT, MESSAGE = b"/v1/chat/completions", b"/v1/messages"
ANSWER = {"role": "assistant", "content": "well"}
FAULTY = (
    "reset",
    "empty",
    "html",
    "redirect",
    "wrong-length",
    "reset-inside:2",
    "error-inside:0",
    "error-inside:2",
    "malformed:0",
    "retry-after:7",
    "status:401",
    "status:404",
    "invalid-utf8",
)
ASKED = [
    (CHAT, chat()),
    (CHAT, chat(stream=True)),
    (CHAT, chat(stream=True, stream_options={"include_usage": True})),
    (CHAT, chat(conversation_id="c")),
    (CHAT, chat(conversation_id="c", stream=True)),
    (CHAT, chat(model="status:500")),
    (CHAT, chat(model="status:429", stream=True)),
    (CHAT, chat(model="cut:2", stream=True)),
    (CHAT, chat(model="malformed:1", stream=True)),
    (CHAT, chat(model="split-utf8", stream=True)),
    (CHAT, chat(model="crlf", stream=True)),
    (CHAT, chat(model="comments", stream=True)),
    *((CHAT, chat(model=fault, stream=stream)) for fault in FAULTY for stream in (False, True)),
    *((CHAT, chat(model=fault, stream=True, conversation_id="f")) for fault in FAULTY),
    (
        CHAT,
        chat(stream=True, conversation_id="u", messages=[{"role": "user", "content": "\u00fc\U0001f98a"}]),
    ),
    (CHAT, chat(conversation_id="long", messages=[*MESSAGES, ANSWER] * 40 + MESSAGES)),
    (CHAT, chat(stream=True, messages=[{"role": "user", "content": "x" * 300_000}])),
    (CHAT, chat(stream=True, tools=[{"type": "function", "function": {"name": "f"}}])),
    (CHAT, chat(provider="nobody")),
    (CHAT, chat(temperature=9)),
    (CHAT, b"{}"),
    (CHAT, b""),
    (CHAT, b"{"),
    (b"/api/Up/chat/completions", chat()),
    (b"/api/Up/d/chat/completions", chat(stream=True)),
    (MESSAGE, chat(model="ok", max_tokens=9)),
    (MESSAGE, chat(model="ok", max_tokens=9, stream=True)),
    (MESSAGE, chat(model="reset-inside:2", max_tokens=9, stream=True)),
    (b"/v1/responses", json.dumps({"model": "ok", "input": "hi", "store": False}).encode()),
    (b"/v1/responses", json.dumps({"model": "ok", "input": "hi", "store": False, "stream": True}).encode()),
    (b"/api/chat", chat(model="ok")),
    (b"/api/chat", chat(model="ok", stream=False)),
    (b"/v1/completions", json.dumps({"model": "ok", "prompt": "hi"}).encode()),
    (b"/nowhere", chat()),
]
LOOKED_AT = [b"/v1/models", b"/v1/models/ok", b"/healthz", b"/v1/nothing?x=1", b"/a%20b", CHAT]


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    fields: tuple[bytes, ...] = (b"Host: localhost", b"Accept: */*")
    if draw(st.integers(0, 2)) == 0:
        method = draw(st.sampled_from([b"GET", b"HEAD", b"OPTIONS", b"DELETE"]))
        return Sent(method, draw(st.sampled_from(LOOKED_AT)), b"1.1", fields, b"")
    path, body = draw(st.sampled_from(ASKED))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.1", b"1.1", b"1.0"]))
    fields += draw(
        st.sampled_from(
            [
                (),
                (b"Content-Type: application/json",),
                (b"Content-Type: application/json; charset=utf-8 ",),
                (b"Content-Type: text/plain",),
                (b"Expect: 100-continue",),
                (b"Origin: http://evil.example",),
                (b"X-Modelway-Provider: up",),
                (b"X-Modelway-Conversation-Id: e",),
                (b"Authorization: Bearer nobody-asks-for-it",),
            ]
        )
    )
    if version == b"1.1" and draw(st.booleans()):
        return Sent(
            b"POST", path, version, (*fields, b"Transfer-Encoding: chunked"), chunked(body, draw(CUTS))
        )
    return Sent(b"POST", path, version, (*fields, b"Content-Length: %d" % len(body)), body)


@given(sent=st.lists(requests(), min_size=1, max_size=3), cuts=CUTS)
def test_the_gateway_answers_alike_through_both(gates: Ports, sent: list[Sent], cuts: list[int]) -> None:
    own, other = (answers(port, sent, cuts) for port in gates)
    assert own == other
