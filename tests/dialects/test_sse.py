"""Server-sent events: any cut, any line end, the same events."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from modelway.dialects import sse

EVENTS = [
    sse.ServerEvent(b"one"),
    sse.ServerEvent("zwei ü €".encode(), "named"),
    sse.ServerEvent(b"three\nlines\n", "message", "7"),
]
PLAIN = (
    b": comment\n\ndata: one\n\n"
    b"event: named\ndata: zwei \xc3\xbc \xe2\x82\xac\n\n"
    b"unknown: field\nid: 7\ndata:three\ndata: lines\ndata\n\n"
)


def decode(pieces: list[bytes]) -> list[sse.ServerEvent]:
    decoder = sse.Decoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def test_a_stream_is_read_whole() -> None:
    assert decode([PLAIN]) == EVENTS


def test_every_line_end_and_every_single_cut_give_the_same_events() -> None:
    for line_end in (b"\n", b"\r\n", b"\r"):
        for start in (b"", b"\xef\xbb\xbf"):
            stream = start + PLAIN.replace(b"\n", line_end)
            for cut in range(len(stream) + 1):
                assert decode([stream[:cut], stream[cut:]]) == EVENTS, (line_end, cut)


@given(st.lists(st.integers(0, 200)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_many_cuts_give_the_same_events(cuts: list[int], line_end: bytes) -> None:
    stream = PLAIN.replace(b"\n", line_end)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[low:high] for low, high in itertools.pairwise(edges)]
    assert decode(pieces) == EVENTS


def test_the_last_event_needs_no_blank_line() -> None:
    assert decode([b"data: one\n\ndata: two"]) == [sse.ServerEvent(b"one"), sse.ServerEvent(b"two")]


def test_an_event_without_data_is_none() -> None:
    assert decode([b"event: x\nid: 4\n\n: only a comment\n\n"]) == []


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n")), st.sampled_from(["", "named"])
)
def test_what_is_encoded_is_decoded(text: str, name: str) -> None:
    encoded = sse.encode(text.encode(), event=name)
    assert decode([encoded]) == [sse.ServerEvent(text.encode(), name or "message")]


@given(st.lists(st.binary(min_size=1).filter(lambda line: line.strip() == line and b"\n" not in line)))
def test_lines_survive_any_cut(lines: list[bytes]) -> None:
    stream = b"\n".join(lines) + b"\n"
    for cut in range(len(stream) + 1):
        decoder = sse.LineDecoder()
        found = decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) + decoder.close()
        assert found == lines
