"""Tells callers that an answer broke off and somebody else goes on with it."""

from __future__ import annotations

from typing import Any

import msgspec

from modelway.types import Continued


def continued_field(event: Continued) -> dict[str, Any]:
    """The member that programs may read, under a name that no vendor uses."""
    told = {
        "after": event.after,
        "code": event.code,
        "provider": event.provider,
        "model": event.model,
        "seamless": event.seamless,
    }
    return {"modelway": {"continued": told}}


def continued_comment(event: Continued) -> bytes:
    """A line that clients skip, for formats without an event that may carry the member."""
    return b": " + msgspec.json.encode(continued_field(event)) + b"\n\n"
