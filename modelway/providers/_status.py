"""What an upstream's HTTP status means: the one place where it becomes an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    RequestTooLarge,
    UpstreamError,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)

MAX_RETRY_AFTER_S = 86_400.0
_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_ERRORS: dict[int, type[GatewayError]] = {
    400: InvalidRequest,
    401: UpstreamRefusedCredential,
    402: UpstreamRefusedCredential,
    403: UpstreamRefusedCredential,
    404: ModelNotFound,
    408: UpstreamTimeout,
    413: RequestTooLarge,
    422: InvalidRequest,
    429: UpstreamRateLimited,
    503: UpstreamOverloaded,
    504: UpstreamTimeout,
    529: UpstreamOverloaded,
}


def error_for_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    decode_error: Callable[[int, bytes], tuple[str, str]],
    name: str = "the upstream",
    credential_hint: str = "",
) -> GatewayError:
    """The error that an upstream's reply stands for.

    `decode_error` reads message and code out of the body. `name` is the provider's, `credential_hint`
    says where its credential is set.
    """
    if 300 <= status < 400:
        return UpstreamProtocolError(
            f"{name} wants to redirect (status {status}), which is never followed",
            hint="set base_url to where it leads",
            code="upstream_redirect",
        )
    text, code = decode_error(status, body)
    message = f"{name} answered {status}: {text}"
    retry_after = read_retry_after(headers)
    if status in {400, 413, 422} and _is_context_error(text, code):
        return ContextTooLong(message)
    kind = _ERRORS.get(status)
    if kind is None:
        kind = UpstreamFailed if status >= 500 else UpstreamProtocolError
    if kind is ModelNotFound:
        return ModelNotFound(
            message, hint="check the model's name and base_url", param="model", failover=True
        )
    if kind is UpstreamRefusedCredential:
        return UpstreamRefusedCredential(message, hint=credential_hint)
    if issubclass(kind, UpstreamError):
        return kind(message, retry_after=retry_after)
    return kind(message)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the upstream wants to be asked again, at most a day; None where it gives no sane time."""
    if (milliseconds := headers.get("retry-after-ms")) is not None:
        return _wait_time(milliseconds, unit_s=0.001)
    value = headers.get("retry-after", "").strip()
    if not value or value[0].isdigit() or value[0] in "+-.":
        return _wait_time(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return _clamp((when - datetime.now(UTC)).total_seconds())


def _wait_time(value: str, *, unit_s: float = 1.0) -> float | None:
    try:
        seconds = float(value) * unit_s
    except ValueError:
        return None
    return _clamp(seconds) if math.isfinite(seconds) and seconds >= 0 else None


def _clamp(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _is_context_error(message: str, code: str) -> bool:
    return code in _CONTEXT_CODES or "maximum context length" in message.lower()
