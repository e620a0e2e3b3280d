"""What clients send: requests as they should be, almost as they should be, and nothing like it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from hypothesis import strategies as st
from msgspec import Struct

CRLF = b"\r\n"
HOST = b"Host: localhost"
# It ends every conversation here: whoever still reads, answers this and hangs up.
GOODBYE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

METHODS = (b"GET", b"POST", b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
TARGETS = (b"/", b"/v1/chat/completions", b"/v1/models", b"/a%20b?x=1&y=%C3%BC", b"/?", b"//x", b"/a/../b;c")
FIELDS = (
    b"Accept: */*",
    b"X-A: b",
    b"X-Empty:",
    b"X-Space: \t b c \t",
    b"x-a: again",
    b"Connection: keep-alive",
    b"Expect: 100-continue",
    b"X-Latin: \xe9",
    b"Cookie: a=b; c=d",
    b"Connection: Upgrade\r\nUpgrade: h2c",
)

# Ways to say how long a body is that parsers have fallen out about.
ODD_FRAMES: tuple[Callable[[int], list[bytes]], ...] = (
    lambda n: [b"Content-Length: %d" % n, b"Content-Length: %d" % n],
    lambda n: [b"Content-Length: %d" % n, b"Content-Length: %d" % (n + 1)],
    lambda n: [b"Content-Length: %d, %d" % (n, n)],
    lambda n: [b"Content-Length: +%d" % n],
    lambda n: [b"Content-Length: -%d" % n],
    lambda n: [b"Content-Length: 0x%x" % n],
    lambda n: [b"Content-Length: %d " % n],
    lambda n: [b"Content-Length: %d_0" % n],
    lambda n: [b"Content-Length: 00%d" % n],
    lambda n: [b"Content-Length: %d" % (n + 2**64)],
    lambda n: [b"Content-Length:\n %d" % n],
    lambda n: [b"Content-Length : %d" % n],
    lambda n: [b" Content-Length: %d" % n],
    lambda n: [b"Content-Length\0: %d" % n],
    lambda n: [b"Content-Length: %d" % n, b"Transfer-Encoding: chunked"],
    lambda _: [b"Transfer-Encoding: chunked", b"Content-Length: 0"],
    lambda _: [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    lambda _: [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
    lambda _: [b"Transfer-Encoding: identity"],
    lambda _: [b"Transfer-Encoding: identity, chunked"],
    lambda _: [b"Transfer-Encoding: chunked, identity"],
    lambda _: [b"Transfer-Encoding: gzip, chunked"],
    lambda _: [b"Transfer-Encoding: xchunked"],
    lambda _: [b"Transfer-Encoding: chunkedx"],
    lambda _: [b"Transfer-Encoding: CHUNKED"],
    lambda _: [b"Transfer-Encoding: \x0bchunked"],
    lambda _: [b"Transfer-Encoding:\tchunked"],
    lambda _: [b"Transfer-Encoding:chunked\x00"],
    lambda _: [b"Transfer-Encoding : chunked"],
    lambda _: [b"Transfer-Encoding: ,chunked"],
    lambda _: [b"Transfer-Encoding: chunked;q=1"],
    lambda _: [b'Transfer-Encoding: "chunked"'],
    lambda _: [b"Transfer_Encoding: chunked"],
    lambda _: [b"X: y\rTransfer-Encoding: chunked"],
    lambda _: [b"X: y\nTransfer-Encoding: chunked"],
    lambda _: [b"Transfer-Encoding:", b" chunked"],
)
ODD_CHUNKS: tuple[Callable[[bytes], bytes], ...] = (
    lambda body: b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"+%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"-%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b" %x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"%x \r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"%x;a\nb\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"%x\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"%x\r%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"%x\r\n%b0\r\n\r\n" % (len(body), body),
    lambda body: b"%x\r\n%bxx0\r\n\r\n" % (len(body), body),
    lambda body: b"%x\r\n%b\n0\n\n" % (len(body), body),
    lambda body: b"000%x\r\n%b\r\n000\r\n\r\n" % (len(body), body),
    lambda body: b"1%016x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    lambda body: b"%x\r\n%b\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n" % (len(body), body),
    lambda body: b"%x\r\n%b\r\n0\r\n GET / HTTP/1.1\r\n\r\n" % (len(body), body),
    lambda body: b"%x\r\n%b\r\n" % (len(body), body),
)


class Sent(Struct, frozen=True):
    """A request: its parts, and the bytes of which they are made."""

    method: bytes
    target: bytes
    version: bytes
    fields: tuple[bytes, ...]
    body: bytes

    @property
    def wire(self) -> bytes:
        """As it is sent."""
        line = b"%b %b HTTP/%b" % (self.method, self.target, self.version)
        return CRLF.join([line, *self.fields, b"", b""]) + self.body


def chunked(body: bytes, cuts: list[int]) -> bytes:
    """A body in chunks, cut at these places."""
    pieces = split(body, cuts)
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Bytes, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 4000), max_size=6)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.just(GOODBYE),
    st.just(b'{"messages":[{"role":"user","content":"hi"}]}'),
    st.just(b"0\r\n\r\n" + GOODBYE),
)


@st.composite
def well_formed(
    draw: st.DrawFn, targets: tuple[bytes, ...] = TARGETS, bodies: st.SearchStrategy[bytes] = BODIES
) -> Sent:
    """A request to which no two servers may say different things."""
    method = draw(st.sampled_from(METHODS))
    fields = (HOST, *draw(st.lists(st.sampled_from(FIELDS), max_size=4, unique=True)))
    target = draw(st.sampled_from(targets))
    version = draw(st.sampled_from((b"1.1", b"1.1", b"1.1", b"1.0")))
    body = draw(bodies) if method in (b"POST", b"PUT", b"PATCH") else b""
    if version == b"1.1" and body and draw(st.booleans()):
        body, fields = chunked(body, draw(CUTS)), (*fields, b"Transfer-Encoding: chunked")
    elif body or draw(st.booleans()):
        fields = (*fields, b"Content-Length: %d" % len(body))
    if draw(st.integers(0, 5)) == 0:
        fields = (*fields, b"X-Pieces: %d" % draw(st.integers(0, 5)))
    return Sent(method, target, version, fields, body)


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """A request that says in an odd way how long it is."""
    body = draw(BODIES)
    frame = draw(st.sampled_from(ODD_FRAMES))(len(body))
    encode = draw(st.one_of(st.none(), st.sampled_from(ODD_CHUNKS)))
    wire = encode(body) if encode else chunked(body, []) if draw(st.booleans()) else body
    if encode and draw(st.booleans()):
        frame = [b"Transfer-Encoding: chunked"]
    fields = draw(st.permutations([HOST, *frame]))
    version = draw(st.sampled_from((b"1.1", b"1.1", b"1.0")))
    return Sent(b"POST", b"/v1/chat/completions", version, tuple(fields), wire).wire


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request in which bytes are lost, added or changed."""
    wire = bytearray(draw(well_formed()).wire)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(wire)))
        length = draw(st.integers(0, 3))
        wire[place : place + length] = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"\r\n\r\n"]),
            )
        )
    return bytes(wire)


ANYTHING = st.lists(
    st.one_of(well_formed().map(lambda sent: sent.wire), odd(), damaged(), st.binary(max_size=40)),
    min_size=1,
    max_size=3,
).map(b"".join)
