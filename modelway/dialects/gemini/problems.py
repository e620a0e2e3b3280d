"""What goes wrong upstream: Google's error model (google.rpc.Status), read and turned into our errors."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)

MAX_MESSAGE = 500
MAX_RETRY_AFTER_S = 86_400.0

_KINDS: dict[str, type[GatewayError]] = {
    "ABORTED": UpstreamFailed,
    "CANCELLED": UpstreamFailed,
    "DEADLINE_EXCEEDED": UpstreamTimeout,
    # The account lacks billing, or its country is not served: nothing that the request could change.
    "FAILED_PRECONDITION": UpstreamError,
    "INTERNAL": UpstreamFailed,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": ModelNotFound,
    "OUT_OF_RANGE": InvalidRequest,
    "PERMISSION_DENIED": UpstreamRefusedCredential,
    "RESOURCE_EXHAUSTED": UpstreamRateLimited,
    "UNAUTHENTICATED": UpstreamRefusedCredential,
    "UNAVAILABLE": UpstreamOverloaded,
    "UNIMPLEMENTED": InvalidRequest,
    "UNKNOWN": UpstreamFailed,
}
_KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED"})
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s").fullmatch


class Problem(Struct, frozen=True):
    """An error as Google tells it: its words, its status, the reason and when to come again, in seconds."""

    message: str
    status: str = ""
    reason: str = ""
    retry_after: float | None = None


def read_problem(body: bytes) -> Problem:
    """The problem out of an error reply, which is an object or an array of one."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[: MAX_MESSAGE * 4].decode("utf-8", "replace").strip()
        return Problem("an HTML page" if text.startswith("<") else text[:MAX_MESSAGE])
    if isinstance(value, list) and value:
        value = value[0]
    return problem_of(value.get("error") if isinstance(value, dict) else value)


def problem_of(error: Any) -> Problem:
    """The problem out of an `error` member."""
    if not isinstance(error, dict):
        return Problem(str(error)[:MAX_MESSAGE] if error else "")
    details = error.get("details")
    found = [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
    reasons = (detail.get("reason") for detail in found)
    return Problem(
        message=str(error.get("message") or "")[:MAX_MESSAGE],
        status=str(error.get("status") or ""),
        reason=next((reason for reason in reasons if isinstance(reason, str)), ""),
        retry_after=next(filter(None, (_delay(detail) for detail in found)), None),
    )


def _delay(detail: dict[str, Any]) -> float | None:
    """The wait that a RetryInfo asks for."""
    delay = detail.get("retryDelay")
    match = _DELAY(delay) if isinstance(delay, str) else None
    return min(float(match.group(1)), MAX_RETRY_AFTER_S) if match else None


def problem_error(problem: Problem, name: str, *, credential_hint: str = "") -> GatewayError | None:
    """The error that a problem stands for; None where its status is not one of Google's.

    `name` is the provider's, `credential_hint` says where its credential is set.
    """
    kind = _KINDS.get(problem.status)
    if kind is None:
        return None
    message = f"{name} answered {problem.status}: {problem.message or 'no reason given'}"
    if kind is InvalidRequest and problem.reason in _KEY_REASONS:
        kind = UpstreamRefusedCredential
    # The status is that of every bad argument: only the words tell it apart.
    if kind is InvalidRequest and "exceeds the maximum number of tokens" in problem.message:
        kind = ContextTooLong
    if kind is ModelNotFound:
        hint = "check the model's name"
        return ModelNotFound(message, hint=hint, param="model", failover=True)
    if kind is UpstreamRefusedCredential:
        return UpstreamRefusedCredential(message, hint=credential_hint)
    return kind(message, retry_after=problem.retry_after)


def decode_error(status: int, body: bytes) -> tuple[str, str]:
    """(message, code) of an error reply that is not Google's own."""
    problem = read_problem(body)
    return problem.message or f"status {status} without a reason", problem.status
