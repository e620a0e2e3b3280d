"""Undoes gzip and deflate, which are not asked for, in pieces of a bounded size."""

from __future__ import annotations

import zlib

from modelway.errors import UpstreamProtocolError

PIECE_BYTES = 64 * 1024
_ZLIB_OR_GZIP = zlib.MAX_WBITS + 32


class Inflater:
    """Decodes one body; `host` names the sender in errors."""

    def __init__(self, encoding: str, host: str) -> None:
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            raise UpstreamProtocolError(f"{host} answered in an encoding that was not asked for")
        self._host = host
        self._zlib = zlib.decompressobj(wbits=_ZLIB_OR_GZIP)
        self._rest = b""
        self._full = False

    def feed(self, data: bytes) -> None:
        """Take encoded bytes."""
        self._rest += data

    def more(self) -> bytes:
        """The next piece, at most PIECE_BYTES; b"" where more must be fed first."""
        decoded = b""
        while not decoded and (self._rest or self._full):
            try:
                decoded = self._zlib.decompress(self._rest, PIECE_BYTES)
            except zlib.error as error:
                raise UpstreamProtocolError(f"{self._host} sent a damaged compressed answer") from error
            self._rest = self._zlib.unconsumed_tail
            self._full = len(decoded) == PIECE_BYTES
            if self._zlib.eof:
                # A gzip may consist of several members, one behind the other.
                self._rest = self._zlib.unused_data
                self._zlib = zlib.decompressobj(wbits=_ZLIB_OR_GZIP)
                self._full = False
        return decoded
