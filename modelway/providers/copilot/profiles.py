"""The doors to Copilot as data, and the addresses that settings give them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from modelway.config import CopilotSettings
from modelway.errors import ProviderNotConfigured

Microsoft = Literal["workiq", "graph"]
Transport = Literal["github", Microsoft]

AUTHORITY = "https://login.microsoftonline.com"
GITHUB_AUTHORITY = "https://github.com"
SIGN_IN_SCOPES = ("offline_access", "openid", "profile")
SYSTEM_ZONE = Path("/etc/localtime")


class Profile(Struct, frozen=True, kw_only=True):
    """One of Microsoft's doors. `scopes` are what the user consents to, `notice` is told before a sign-in.

    `entitlement` says what the account lacks where it is turned away, and what to do about it.
    """

    transport: Microsoft
    label: str
    url: str
    base_url: str
    scopes: tuple[str, ...]
    notice: str
    entitlement: tuple[str, str]

    @property
    def scope(self) -> str:
        """All scopes, as the authority takes them."""
        return " ".join((*self.scopes, *SIGN_IN_SCOPES))


# In the order in which "auto" prefers them, after "github". Sources: learn.microsoft.com, the Work IQ REST
# reference and the Microsoft 365 Copilot Chat API reference.
PROFILES: dict[Microsoft, Profile] = {
    "workiq": Profile(
        transport="workiq",
        label="Microsoft 365 Copilot (Work IQ)",
        url="https://learn.microsoft.com/microsoft-365-copilot/extensibility/work-iq/",
        base_url="https://workiq.svc.cloud.microsoft/rest",
        scopes=("api://workiq.svc.cloud.microsoft/WorkIQAgent.Ask",),
        notice="Work IQ bills Copilot Credits to your organisation, which must have consented to it.",
        entitlement=(
            "the account is in no billing plan for Work IQ",
            "ask an administrator for one; after it is assigned it takes up to 30 minutes",
        ),
    ),
    "graph": Profile(
        transport="graph",
        label="Microsoft 365 Copilot (Graph, beta)",
        url="https://learn.microsoft.com/microsoft-365-copilot/extensibility/api/ai-services/chat/overview",
        base_url="https://graph.microsoft.com/beta/copilot",
        scopes=tuple(
            f"https://graph.microsoft.com/{name}"
            for name in (
                "Sites.Read.All",
                "Mail.Read",
                "People.Read.All",
                "OnlineMeetingTranscript.Read.All",
                "Chat.Read",
                "ChannelMessage.Read.All",
                "ExternalItem.Read.All",
            )
        ),
        notice="The Graph chat API is a beta that Microsoft does not support in production. It needs a "
        "Microsoft 365 Copilot licence and your organisation's consent to seven permissions.",
        entitlement=(
            "the account has no Microsoft 365 Copilot licence",
            "ask an administrator for one; after it is assigned it takes up to 30 minutes",
        ),
    ),
}


LABELS: dict[Transport, str] = {
    "github": "GitHub Copilot",
    **{name: profile.label for name, profile in PROFILES.items()},
}


class Authority(Struct, frozen=True):
    """Who issues tokens, to which registered application. Nothing is shipped: the user registers one."""

    url: str
    tenant: str
    client_id: str


def transports_of(settings: CopilotSettings) -> tuple[Transport, ...]:
    """The transports that the settings permit, the preferred one first."""
    return tuple(LABELS) if settings.transport == "auto" else (settings.transport,)


def base_url_of(profile: Profile, settings: CopilotSettings) -> str:
    """Where the chat is; raises ProviderNotConfigured where a token must not be sent there."""
    return _fit_for_secrets("base_url", settings.base_url or profile.base_url)


def authority_of(settings: CopilotSettings, transport: Transport = "workiq") -> Authority:
    """Who to sign in with; raises ProviderNotConfigured where a secret must not be sent there."""
    if transport == "github":
        github = settings.github
        url = _fit_for_secrets("github.authority", github.authority or GITHUB_AUTHORITY)
        return Authority(url, "", github.client_id)
    url = _fit_for_secrets("authority", settings.authority or AUTHORITY)
    return Authority(url, settings.tenant, settings.client_id)


def time_zone_of(settings: CopilotSettings, system: Path = SYSTEM_ZONE) -> str:
    """The IANA name that each turn must carry: the setting, else the system's, else UTC."""
    _, found, name = str(system.resolve()).partition("/zoneinfo/")
    return settings.time_zone or (name if found else "UTC")


def _fit_for_secrets(key: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise ProviderNotConfigured(f"[copilot] {key} cannot be read as an address") from None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise ProviderNotConfigured(
            f"[copilot] {key} must begin with https://", hint="http:// is taken only for loopback addresses"
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
