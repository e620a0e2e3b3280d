"""Every error that Modelway raises, in one tree.

    GatewayError                      status  code
    ├─ InvalidRequest                    400  invalid_request
    │  ├─ ContextTooLong                 400  context_length_exceeded
    │  ├─ RequestTooLarge                413  request_too_large
    │  └─ IdempotencyKeyReused           422  idempotency_key_reused
    ├─ AuthenticationError               401  invalid_api_key
    │  └─ SignInRequired                 401  sign_in_required           next candidate
    ├─ PermissionDenied                  403  permission_denied
    │  └─ NotEntitled                    403  copilot_not_entitled       next candidate
    ├─ MethodNotAllowed                  405  method_not_allowed
    ├─ RequestTimeout                    408  request_timeout
    ├─ UnsupportedMediaType              415  unsupported_media_type
    ├─ WrongHost                         421  invalid_host
    ├─ NotFound                          404  not_found
    │  ├─ ModelNotFound                  404  model_not_found            next candidate if an upstream says so
    │  ├─ ProviderNotFound               404  provider_not_found
    │  └─ ConversationNotFound           404  conversation_not_found
    ├─ ConversationBusy                  409  conversation_busy
    ├─ TurnInterrupted                   409  turn_interrupted
    ├─ CallerRateLimited                 429  rate_limit_exceeded
    ├─ BudgetExceeded                    429  insufficient_quota
    ├─ Overloaded                        503  overloaded
    ├─ StoreUnavailable                  503  store_unavailable
    ├─ ShuttingDown                      503  shutting_down
    ├─ ProviderNotConfigured             503  provider_not_configured    next candidate
    ├─ ProviderUnavailable               503  provider_unavailable       next candidate
    ├─ InternalError                     500  internal_error
    └─ UpstreamError                     502  upstream_error             next candidate
       ├─ UpstreamRateLimited            429  upstream_rate_limited      same again, next candidate
       ├─ UpstreamOverloaded             503  upstream_overloaded        same again, next candidate
       ├─ UpstreamFailed                 502  upstream_error             same again, next candidate
       ├─ UpstreamTimeout                504  upstream_timeout           next candidate
       ├─ UpstreamUnreachable            502  upstream_unreachable       next candidate
       ├─ UpstreamProtocolError          502  upstream_malformed         next candidate
       └─ UpstreamRefusedCredential      502  upstream_auth              next candidate

An error knows what an HTTP client must be told (`status`, `type`, `code`, `param`, `retry_after`) and
what the router may do (`retryable`: the same candidate again; `failover`: the next one). Whatever
certainly did not reach the upstream (`sent` is False) may be sent again too. `message` and
`hint` are for people; neither ever holds a secret, a prompt or a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class GatewayError(Exception):
    """The root. `message` says what went wrong, `hint` what to do about it.

    `param` names the request's field at fault. `retry_after` is in seconds. `sent` is False where the
    upstream certainly never took the request, so that even a stateful one may be sent it again.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"
    retryable: bool = False
    failover: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        code: str = "",
        retry_after: float | None = None,
        sent: bool = True,
        failover: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after = retry_after
        self.sent = sent
        if code:
            self.code = code
        if failover is not None:
            self.failover = failover

    def __str__(self) -> str:
        return self.explanation

    @property
    def explanation(self) -> str:
        """Message and hint in one sentence, as callers read it."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InvalidRequest(GatewayError):
    """The request itself is wrong; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ContextTooLong(InvalidRequest):
    """The conversation is longer than the model can read."""

    code = "context_length_exceeded"


class RequestTooLarge(InvalidRequest):
    """The body is larger than the configured limit."""

    status = 413
    code = "request_too_large"


class IdempotencyKeyReused(InvalidRequest):
    """The key of an earlier request came with another one."""

    status = 422
    code = "idempotency_key_reused"


class AuthenticationError(GatewayError):
    """The caller's API key is missing or unknown."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class SignInRequired(AuthenticationError):
    """The provider has no credential of the user's yet."""

    code = "sign_in_required"
    failover = True


class PermissionDenied(GatewayError):
    """The caller is known and may not do this."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotEntitled(PermissionDenied):
    """The account that is signed in to Copilot may not use it: no licence, no plan, no consent, a policy."""

    code = "copilot_not_entitled"
    failover = True


class MethodNotAllowed(GatewayError):
    """The address exists, but not for this method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(GatewayError):
    """The client was too slow to send its request."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class UnsupportedMediaType(GatewayError):
    """The body is not declared as JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class WrongHost(GatewayError):
    """The request was meant for another host (a rebound name, say)."""

    status = 421
    type = "invalid_request_error"
    code = "invalid_host"


class NotFound(GatewayError):
    """There is nothing at this address."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No route leads to this model, or the upstream does not have it (then the next may).

    `others` are models that the upstream has. No text holds their names until somebody who knows the caller
    adds those that it may use.
    """

    code = "model_not_found"
    others: Sequence[str] = ()


class ProviderNotFound(NotFound):
    """No provider has this name."""

    code = "provider_not_found"


class ConversationNotFound(NotFound):
    """This caller has no conversation, or the conversation no message, of this name."""

    code = "conversation_not_found"


class ConversationBusy(GatewayError):
    """Another turn of this conversation is still being answered."""

    status = 409
    type = "invalid_request_error"
    code = "conversation_busy"


class TurnInterrupted(GatewayError):
    """The answer was cut off: its gateway ended, or somebody stopped it. What had come of it is kept."""

    status = 409
    code = "turn_interrupted"


class CallerRateLimited(GatewayError):
    """The caller asked more often than allowed."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class BudgetExceeded(GatewayError):
    """The caller has spent what it may spend."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class Overloaded(GatewayError):
    """This gateway answers as many requests as it may."""

    status = 503
    code = "overloaded"


class StoreUnavailable(GatewayError):
    """The conversation store cannot be read or written now."""

    status = 503
    code = "store_unavailable"


class ShuttingDown(GatewayError):
    """The server is going down and takes nothing new."""

    status = 503
    code = "shutting_down"


class ProviderNotConfigured(GatewayError):
    """The provider is known and lacks a setting."""

    status = 503
    code = "provider_not_configured"
    failover = True


class ProviderUnavailable(GatewayError):
    """The upstream has failed so often that it is left alone; `retry_after` says for how long."""

    status = 503
    code = "provider_unavailable"
    failover = True


class InternalError(GatewayError):
    """A bug of ours; the log has the details under the request id."""


class UpstreamError(GatewayError):
    """Something beyond us failed."""

    status = 502
    code = "upstream_error"
    failover = True


class UpstreamRateLimited(UpstreamError):
    """The upstream wants to be asked less often; `retry_after` says when again, if it told."""

    status = 429
    type = "rate_limit_error"
    code = "upstream_rate_limited"
    retryable = True


class UpstreamOverloaded(UpstreamError):
    """The upstream says that it is overloaded."""

    status = 503
    code = "upstream_overloaded"
    retryable = True


class UpstreamFailed(UpstreamError):
    """The upstream answered with a server error of its own."""

    retryable = True


class UpstreamTimeout(UpstreamError):
    """The upstream was silent for too long (`upstream_timeout` before, `upstream_stalled` inside)."""

    status = 504
    code = "upstream_timeout"


class UpstreamUnreachable(UpstreamError):
    """No connection: refused, `upstream_dns`, `upstream_tls`; or lost before an answer came."""

    code = "upstream_unreachable"


class UpstreamProtocolError(UpstreamError):
    """The answer cannot be right: `upstream_malformed`, `upstream_reset`, `upstream_truncated`."""

    code = "upstream_malformed"


class UpstreamRefusedCredential(UpstreamError):
    """The upstream refused our credential for it; the caller's own key is fine."""

    code = "upstream_auth"


def all_errors(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """Every class of the tree, parents first."""
    found = [root]
    for child in root.__subclasses__():
        found.extend(all_errors(child))
    return found


# Codes that a class uses beside its own, so that an error read from a reply finds its class again.
_FURTHER_CODES: dict[str, type[GatewayError]] = {
    "base_url_not_allowed": ProviderNotConfigured,
    "copilot_runtime_missing": ProviderNotConfigured,
    "invalid_http": InvalidRequest,
    "invalid_json": InvalidRequest,
    "invalid_path": InvalidRequest,
    "item_not_found": InvalidRequest,
    "origin_not_allowed": PermissionDenied,
    "previous_response_not_found": InvalidRequest,
    "reply_not_kept": TurnInterrupted,
    "stream_not_found": NotFound,
    "turn_cancelled": TurnInterrupted,
    "response_not_found": NotFound,
    "unsupported_content": InvalidRequest,
    "unsupported_parameter": InvalidRequest,
    "unsupported_tools": InvalidRequest,
    "upstream_dns": UpstreamUnreachable,
    "upstream_redirect": UpstreamProtocolError,
    "upstream_reset": UpstreamProtocolError,
    "upstream_stalled": UpstreamTimeout,
    "upstream_tls": UpstreamUnreachable,
    "upstream_too_large": UpstreamProtocolError,
    "upstream_truncated": UpstreamProtocolError,
    "websocket_connection_limit_reached": InvalidRequest,
}


def error_class(code: str, status: int = 502) -> type[GatewayError]:
    """The class for a code of ours; where the code is not ours, one of the same status."""
    classes = all_errors()
    by_code = {cls.code: cls for cls in reversed(classes)} | _FURTHER_CODES
    by_status = {cls.status: cls for cls in reversed(classes)}
    fallback = InvalidRequest if 400 <= status < 500 else UpstreamError
    return by_code.get(code) or by_status.get(status) or fallback
