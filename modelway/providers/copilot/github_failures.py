"""What it means when GitHub Copilot's runtime reports a failure."""

from __future__ import annotations

import re
from collections.abc import Callable

from modelway.errors import (
    ContextTooLong,
    GatewayError,
    ModelNotFound,
    NotEntitled,
    ProviderNotConfigured,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from modelway.providers.copilot.door import Lost
from modelway.providers.copilot.refusals import sign_in_required

MAX_MESSAGE = 500
INSTALL = (
    'run `pip install "modelway[copilot-github]"` and `python -m copilot download-runtime`, '
    "or set [copilot.github] runtime_path"
)

# An HTTP status: `{"kind":"http","status":403,…}` (measured), else in a sentence, as "status 403", "HTTP 401"
# or "(403 Forbidden)".
_STATUS = re.compile(
    r'"status":\s*(4\d\d|5\d\d)\b|(?:status(?: code)?:?|HTTP/?[\d.]*|\()\s*(4\d\d|5\d\d)\b', re.IGNORECASE
)
_NO_PLAN = {"billing_not_configured", "not_entitled", "feature_not_enabled"}


def runtime_missing(what: str) -> ProviderNotConfigured:
    """Something must be installed first; that is never done while a caller waits."""
    return ProviderNotConfigured(what, hint=INSTALL, code="copilot_runtime_missing")


def reported(kind: str, code: str, status: int | None, message: str) -> GatewayError:
    """The error for one that the runtime reported inside a turn: its category, code and HTTP status."""
    said = f"GitHub Copilot reported: {_first_line(message)}"
    if status == 401:
        # Its category is "authorization" then, as it is for a missing plan.
        return _signed_out(said)
    if kind == "context_limit":
        return ContextTooLong(said)
    if kind == "quota" and code in _NO_PLAN:
        return _not_entitled(said)
    if kind in ("quota", "rate_limit"):
        return _not_again(UpstreamRateLimited(said))
    if kind in _BY_KIND:
        return _BY_KIND[kind](said)
    return for_status(status, said)


def refused(message: str) -> GatewayError | Lost:
    """The error for a call that the runtime refused, which it explains in words only."""
    low = message.lower()
    if "session not found" in low:
        return Lost()
    found = _STATUS.search(message)
    status = int(found[1] or found[2]) if found else None
    # What follows is GitHub's whole answer, headers and all.
    what = _first_line(message.partition("GenericFailure, {")[0]).removesuffix(" with message:")
    said = f"GitHub Copilot refused: {what}" + (f" (HTTP {status})" if status else "")
    if "not available" in low and "model" in low:
        return unknown_model(said)
    if "not authenticated" in low or "bad credentials" in low:
        return _signed_out(said)
    return for_status(status, said)


def for_status(status: int | None, said: str) -> GatewayError:
    """The error for an HTTP status, UpstreamFailed where it tells nothing."""
    build = _BY_STATUS.get(status or 0)
    return build(said) if build else UpstreamFailed(said)


def _first_line(message: str) -> str:
    # The others tell how to set the runtime up by hand.
    return message.strip().partition("\n")[0][:MAX_MESSAGE]


def _signed_out(said: str) -> GatewayError:
    return sign_in_required(f"{said} (the sign-in is not taken)")


def _not_entitled(said: str) -> NotEntitled:
    return NotEntitled(
        f"{said} (the account has no Copilot plan, or a policy of its organisation forbids it)",
        hint="see https://github.com/settings/copilot, or ask an administrator",
    )


def unknown_model(said: str) -> ModelNotFound:
    """The account has no such model, and none is taken in its place."""
    return ModelNotFound(
        said, hint="GET /v1/models lists what the account may use", param="model", failover=True
    )


def _not_again(error: UpstreamRateLimited) -> UpstreamRateLimited:
    # The runtime has tried again already.
    error.retryable = False
    return error


_BY_KIND: dict[str, Callable[[str], GatewayError]] = {
    "authentication": _signed_out,
    "authorization": _not_entitled,
}
_BY_STATUS: dict[int, Callable[[str], GatewayError]] = {
    401: _signed_out,
    402: _not_entitled,
    403: _not_entitled,
    404: unknown_model,
    408: UpstreamTimeout,
    429: lambda said: _not_again(UpstreamRateLimited(said)),
    503: UpstreamOverloaded,
    504: UpstreamTimeout,
}
