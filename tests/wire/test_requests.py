"""Whatever a client sends: our protocol reads it as a parser of others does, or refuses it."""

import json
from collections.abc import Iterator
from itertools import takewhile

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire.serving import application, in_a_thread, ours
from tests.wire.talking import Seen, echo, replies, talk, understood
from tests.wire.traffic import ANYTHING, CUTS, GOODBYE, HOST, Sent, damaged, odd, split, well_formed

CHUNKED = b"Transfer-Encoding: chunked"
# Half of what comes here never ends.
HURRY_S = 0.15


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with in_a_thread(lambda: application(echo, ours(HURRY_S))) as bound:
        yield bound


@pytest.fixture(scope="module")
def patient_port() -> Iterator[int]:
    with in_a_thread(lambda: application(echo, ours())) as bound:
        yield bound


def seen_by(port: int, data: bytes, cuts: list[int]) -> tuple[list[Seen], list[int]]:
    """The requests that reached the application, and the status of what was refused behind them."""
    answers = replies(talk(port, split(data, cuts)))
    taken = [msgspec.json.decode(reply.body, type=Seen) for reply in answers if reply.status == 200]
    statuses = [reply.status for reply in answers[len(taken) :]]
    for reply in answers[len(taken) :]:
        assert reply.whole
        assert reply.json["error"]["message"]
    return taken, statuses


def normal(seen: Seen) -> Seen:
    """Without what two parsers may tell differently: an empty query, and codings in capitals."""
    headers = [
        (name, value.lower() if name == "transfer-encoding" else value) for name, value in seen.headers
    ]
    return Seen(seen.method, seen.target.removesuffix("?"), seen.version, headers, seen.body)


def _folded(name: str, value: str) -> str:
    return value.lower() if name == "transfer-encoding" else value


@given(sent=st.lists(well_formed(), min_size=1, max_size=4), cuts=CUTS)
def test_what_is_well_formed_arrives_as_it_was_sent(
    patient_port: int, sent: list[Sent], cuts: list[int]
) -> None:
    data = b"".join(request.wire for request in sent) + GOODBYE
    taken, refused = seen_by(patient_port, data, cuts)
    assert not refused
    assert list(map(normal, taken)) == list(map(normal, understood(data)))


def names_one_host(seen: Seen) -> bool:
    return sum(name == "host" for name, _ in seen.headers) == 1


def check(port: int, data: bytes, cuts: list[int]) -> None:
    taken, refused = seen_by(port, data, cuts)
    # Whoever names no host, or two, is refused by the application.
    hosted = list(takewhile(names_one_host, taken))
    expected = understood(data)
    assert list(map(normal, hosted)) == list(map(normal, expected[: len(hosted)]))
    # What cannot be read behind a request that is being answered ends the connection without another word.
    assert refused in ([], [400], [408], [413])
    assert taken or refused


@given(data=st.lists(odd(), min_size=1, max_size=2).map(b"".join), cuts=CUTS)
def test_an_odd_length_is_refused_or_read_as_others_read_it(port: int, data: bytes, cuts: list[int]) -> None:
    check(port, data + GOODBYE, cuts)


@given(data=damaged(), cuts=CUTS)
def test_a_damaged_request_is_refused_or_read_as_others_read_it(
    port: int, data: bytes, cuts: list[int]
) -> None:
    check(port, data + GOODBYE, cuts)


@given(data=ANYTHING, cuts=CUTS)
@example(data=b"", cuts=[])
@example(data=b"\rGET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", cuts=[])
@example(data=b"GET /\n\r\n", cuts=[])
@example(data=b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A : b", cuts=[])
@example(
    data=Sent(
        b"POST", b"/", b"1.1", (HOST, b"Expect: 100-continue", b"Transfer-Encoding: chunked"), b"x"
    ).wire,
    cuts=[],
)
@example(
    data=Sent(b"GET", b"/", b"1.1", (HOST,), b"").wire
    + Sent(b"POST", b"/", b"1.1", (HOST, CHUNKED), b"0x0\r\n").wire,
    cuts=[],
)
def test_whatever_comes_the_server_answers_in_http_and_lives_on(
    port: int, data: bytes, cuts: list[int]
) -> None:
    check(port, data + GOODBYE, cuts)
    assert json.loads(replies(talk(port, [GOODBYE]))[0].body)["target"] == "/healthz"
