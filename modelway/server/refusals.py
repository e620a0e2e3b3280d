"""Replies to what is no request, and so never reaches the application."""

from __future__ import annotations

import logging
import secrets

from modelway.errors import GatewayError
from modelway.server.formats import dialect_of

log = logging.getLogger("modelway.server")


def refusal(error: GatewayError, url: bytes) -> bytes:
    """The whole reply, in the format of the address as far as that is known; it ends the connection."""
    request_id = "req_" + secrets.token_hex(12)
    log.info("request %s refused: %s", request_id, error.message)
    path = url.partition(b"?")[0].decode("latin-1")
    body = dialect_of(path, {}).encode_error(error)
    head = (
        f"HTTP/1.1 {error.status} Refused\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
