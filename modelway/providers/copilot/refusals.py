"""What it means to the person when Copilot, or the sign-in to it, says no."""

from __future__ import annotations

from modelway.errors import (
    GatewayError,
    NotEntitled,
    SignInRequired,
    UpstreamProtocolError,
    UpstreamRefusedCredential,
)

HINT = (
    "run `modelway login copilot`, or let another provider answer instead with "
    "`modelway serve --fallback Local`"
)
_AGAIN = "run `modelway login copilot` again"
# Source: Microsoft Entra authentication and authorization error codes.
_NOT_CONSENTED = ("AADSTS65001", "AADSTS90094")
_NOT_ASSIGNED = ("AADSTS50105",)
_POLICY = ("AADSTS53000", "AADSTS53001", "AADSTS53002", "AADSTS53003")


class Refused(Exception):
    """An authority said no; `code` is OAuth's word for it, `number` Microsoft's."""

    def __init__(self, code: str, number: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.number = number

    @property
    def named(self) -> str:
        """What the person may look up."""
        return f"{self.code}, {self.number}" if self.number else self.code


def sign_in_required(message: str = "nobody has signed in to Copilot here") -> SignInRequired:
    """The error of a provider that has nobody to answer for."""
    return SignInRequired(message, hint=HINT)


def not_consented(message: str) -> NotEntitled:
    """The application lacks permissions."""
    return NotEntitled(
        f"{message} (consent is missing)",
        hint="an administrator must consent to the application's permissions",
    )


def blocked_by_policy(message: str) -> NotEntitled:
    """The organisation forbids it."""
    return NotEntitled(
        f"{message} (a policy of the organisation forbids it)",
        hint="ask an administrator; where only the device flow is forbidden, "
        "`modelway login copilot --browser` does without",
    )


def explained(refused: Refused) -> GatewayError:
    """What an authority's refusal means. Only codes are repeated: descriptions name accounts."""
    match refused.code:
        case "authorization_declined" | "access_denied":
            return SignInRequired("the sign-in was declined", hint=_AGAIN)
        case "expired_token" | "bad_verification_code" | "incorrect_device_code":
            return SignInRequired("the code has expired before anybody entered it", hint=_AGAIN)
        case "slow_down" | "temporarily_unavailable":
            return UpstreamProtocolError("the sign-in asks to be left alone for now", hint=_AGAIN)
    return _by_number(f"the sign-in was refused ({refused.named})", refused.number)


def _by_number(said: str, number: str) -> GatewayError:
    if number in _NOT_CONSENTED:
        return not_consented(said)
    if number in _POLICY:
        return blocked_by_policy(said)
    if number in _NOT_ASSIGNED:
        return NotEntitled(
            f"{said} (the account is not assigned to the application)", hint="ask an administrator"
        )
    return UpstreamRefusedCredential(
        said,
        hint="check [copilot] client_id and tenant, and that the application allows public client flows",
    )
