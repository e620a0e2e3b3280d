"""No request hides in another: what one parser may take for a body, the upstream never hears as a request."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.config import ServerSettings
from tests.wire.gate import Gate, gate
from tests.wire.serving import in_a_thread
from tests.wire.talking import replies, talk, understood
from tests.wire.traffic import CUTS, GOODBYE, HOST, ODD_CHUNKS, ODD_FRAMES, Sent, chunked, split

CHAT = b"/v1/chat/completions"
OPEN = json.dumps({"messages": [{"role": "user", "content": "in the open"}]}).encode()
HIDDEN = json.dumps({"messages": [{"role": "user", "content": "smuggled"}]}).encode()
WITHIN = Sent(b"POST", CHAT, b"1.1", (HOST, b"Content-Length: %d" % len(HIDDEN)), HIDDEN).wire


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    settings = ServerSettings(port=0, head_timeout_s=0.2, body_timeout_s=0.2)
    with in_a_thread(lambda: gate(tmp_path_factory.mktemp("gate") / "own", settings=settings)) as served:
        yield served


def heard(server: Gate, data: bytes, cuts: list[int]) -> list[str]:
    """What the upstream was asked, in words; every reply is one of HTTP, and no bug."""
    server.upstream.heard.clear()
    for reply in replies(talk(server.port, split(data, cuts))):
        assert reply.whole
        assert reply.status < 500
    return [json.loads(body)["messages"][0]["content"] for body in server.upstream.heard]


@st.composite
def carriers(draw: st.DrawFn) -> bytes:
    """A request that says in an odd way how long it is, and behind or inside it another one."""
    frame = draw(st.sampled_from(ODD_FRAMES))
    body = draw(
        st.sampled_from(
            [
                OPEN,
                WITHIN,
                b"0\r\n\r\n" + WITHIN,
                chunked(OPEN, []),
                chunked(OPEN, []) + WITHIN,
                OPEN + WITHIN,
                b"5\r\n" + WITHIN,
            ]
        )
    )
    if draw(st.booleans()):
        body = draw(st.sampled_from(ODD_CHUNKS))(body)
    length = draw(st.sampled_from([0, len(OPEN), len(WITHIN), len(body)]))
    fields = draw(st.permutations([HOST, *frame(length)]))
    return Sent(b"POST", CHAT, b"1.1", tuple(fields), body).wire


@given(data=carriers(), cuts=CUTS)
def test_what_is_hidden_in_a_request_is_never_heard(server: Gate, data: bytes, cuts: list[int]) -> None:
    data += GOODBYE
    said = heard(server, data, cuts)
    others = [seen.body for seen in understood(data)]
    # It is a request of its own only where nobody could take it for anything else.
    assert said.count("smuggled") <= others.count(HIDDEN.decode())
    assert said.count("in the open") <= others.count(OPEN.decode())


def test_what_stands_in_the_open_is_heard(server: Gate) -> None:
    length = b"Content-Length: %d" % len(OPEN)
    first = Sent(b"POST", CHAT, b"1.1", (HOST, length), OPEN).wire
    assert heard(server, first + WITHIN + GOODBYE, []) == ["in the open", "smuggled"]
