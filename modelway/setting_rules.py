"""What the type of a setting cannot say about its value."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from modelway.config import CandidateLimits, RouteSettings, Settings, UpstreamSettings
from modelway.setting_keys import Fault, Key, written

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")
_HOST = re.compile(r"[^/\s]+")
_ID = re.compile(r"[A-Za-z0-9._-]+")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")


class Rule(NamedTuple):
    """Values of the keys that fit the pattern must be good; `must` never repeats the value (secrets)."""

    keys: str
    good: Callable[[Any], bool]
    must: str


def _at_least(least: float) -> Callable[[Any], bool]:
    return lambda value: least <= value < math.inf


def _is_name(text: str) -> bool:
    return bool(text) and text == text.strip() and text.isprintable()


def _is_candidate(text: str) -> bool:
    return _is_name(text) and not text.startswith("/")


def _all(good: Callable[[str], object]) -> Callable[[Any], bool]:
    return lambda values: all(good(value) for value in values)


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port_is_good = parts.port != 0
    except ValueError:
        return False
    bare = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and bare and port_is_good


def _is_fit_for_secrets(text: str) -> bool:
    if not text or not _is_base_url(text):
        return not text
    parts = urlsplit(text)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _is_on_loopback(text: str) -> bool:
    return not text or (_is_base_url(text) and is_loopback(urlsplit(text).hostname or ""))


def _is_id(text: str) -> bool:
    return not text or bool(_ID.fullmatch(text))


def _is_zone(text: str) -> bool:
    return not text or bool(_ZONE.fullmatch(text))


def _are_headers(headers: dict[str, str]) -> bool:
    return all(_HEADER.fullmatch(name) and value.isprintable() for name, value in headers.items())


_NOT_NEGATIVE = "must be a number, 0 or more"
_SECONDS = "must be a number of seconds, more than 0"

# The first rule that fits a key decides.
RULES = (
    Rule("provider", _is_name, "must name a provider"),
    Rule("fallback", _all(_is_name), "must name providers"),
    Rule("server.host", lambda host: bool(_HOST.fullmatch(host)), "must be a name or an address"),
    Rule("server.port", lambda port: 0 <= port <= 65535, "must be from 0 to 65535"),
    Rule("server.allowed_hosts", _all(_HOST.fullmatch), "must be host names, without http://"),
    Rule("server.allowed_origins", _all(_ORIGIN.fullmatch), "must be origins such as https://example.org"),
    Rule("server.shutdown_grace_s", _at_least(0), _NOT_NEGATIVE),
    Rule("server.head_timeout_s", _at_least(0.1), "must be at least 0.1"),
    Rule("server.body_timeout_s", _at_least(0.1), "must be at least 0.1"),
    Rule("server.write_timeout_s", _at_least(0.1), "must be at least 0.1"),
    Rule("server.max_concurrent_requests", _at_least(0), "must be 0 (any number) or more"),
    Rule("prices.*", _at_least(0), "must be dollars for a million tokens, 0 or more"),
    Rule("conversations.wait_s", _at_least(0), _NOT_NEGATIVE),
    Rule("conversations.reconnect_grace_s", _at_least(0), _NOT_NEGATIVE),
    Rule("conversations.response_days", _at_least(0), _NOT_NEGATIVE),
    Rule("upstream.max_retry_wait_s", _at_least(0), _NOT_NEGATIVE),
    Rule("upstream.retries", lambda retries: 0 <= retries <= 10, "must be from 0 to 10"),
    Rule("upstream.breaker_failures", _at_least(0), "must be 0 (never) or more"),
    Rule("local.model", _is_name, "must name a model or the path of a GGUF file"),
    Rule("local.context_length", _at_least(256), "must be at least 256"),
    Rule("local.parallel", lambda slots: 1 <= slots <= 256, "must be from 1 to 256"),
    Rule("local.threads", _at_least(0), "must be 0 (chosen by the machine) or more"),
    Rule("local.max_tokens", _at_least(0), "must be 0 (chosen by the model) or more"),
    Rule("*_bytes", _at_least(1024), "must be at least 1024 bytes"),
    Rule("*_s", lambda seconds: 0 < seconds < math.inf, _SECONDS),
    Rule(
        "auth.api_keys.*",
        lambda digest: bool(_DIGEST.fullmatch(digest)),
        "must be the SHA-256 of the key, 64 hexadecimal digits, and not the key itself",
    ),
    Rule(
        "providers.*.base_url",
        _is_base_url,
        "must be http://HOST or https://HOST with an optional path, without password or query",
    ),
    Rule(
        "providers.*.api_key_env",
        lambda name: bool(_VARIABLE.fullmatch(name)),
        "must be the name of an environment variable, not the key itself",
    ),
    Rule(
        "copilot.base_url",
        _is_fit_for_secrets,
        "must be https://HOST with an optional path; http:// is taken for loopback addresses only",
    ),
    Rule(
        "copilot.authority",
        _is_fit_for_secrets,
        "must be https://HOST; http:// is taken for loopback addresses only",
    ),
    Rule(
        "copilot.github.authority",
        _is_fit_for_secrets,
        "must be https://HOST; http:// is taken for loopback addresses only",
    ),
    Rule("copilot.github.base_url", _is_on_loopback, "must be http:// and a loopback address"),
    Rule("copilot.github.client_id", _is_id, "must be the id of the registered application"),
    Rule("copilot.max_concurrency", lambda most: 1 <= most <= 64, "must be from 1 to 64"),
    Rule("copilot.tenant", _is_id, "must be the id or the domain of the tenant"),
    Rule("copilot.client_id", _is_id, "must be the id of the registered application"),
    Rule("copilot.time_zone", _is_zone, "must be a name such as Europe/Berlin, or empty"),
    Rule("vertex.project", _is_id, "must be the id of a project"),
    Rule(
        "vertex.location",
        lambda location: bool(_ID.fullmatch(location)),
        "must be a location such as global or europe-west4",
    ),
    Rule("providers.*.api_key_file", _is_name, "must be the path of a file"),
    Rule("providers.*.headers", _are_headers, "must be names and values of headers"),
    Rule("providers.*.any_llm", _is_id, "must be the id that any-llm has for a provider, such as mistral"),
    Rule("providers.*.models", _all(_is_name), "must be names of models"),
    Rule(
        "routes.*.candidates",
        lambda names: bool(names) and all(map(_is_candidate, names)),
        'must be a list of "Provider/model" or "Provider", with at least one',
    ),
    Rule(
        "routes.*.weights",
        lambda weights: all(0 < weight < math.inf for weight in weights),
        "must be numbers, more than 0",
    ),
    Rule("routes.*.retries", lambda retries: 0 <= retries <= 10, "must be from 0 to 10"),
    Rule("routes.*.shadow", lambda name: not name or _is_candidate(name), 'must be "Provider/model"'),
    Rule("routes.*.shadow_share", lambda share: 0 < share <= 1, "must be more than 0, at most 1"),
)


def check(key: Key, value: Any) -> None:
    """Fault where the value cannot be."""
    dotted = ".".join(key)
    rule = next((rule for rule in RULES if fnmatchcase(dotted, rule.keys)), None)
    if rule and value is not None and not rule.good(value):
        raise Fault(key, f"{written(key)} {rule.must}")


def check_together(settings: Settings) -> None:
    """Fault where values that are good alone do not fit together."""
    conversations = settings.conversations
    if conversations.checkpoint_s >= conversations.lease_s:
        raise Fault(
            ("conversations",),
            "conversations.checkpoint_s must be less than conversations.lease_s",
        )

    for name, route in settings.routes.items():
        _check_route(name, route, settings.upstream)


def _check_route(name: str, route: RouteSettings, upstream: UpstreamSettings) -> None:
    key = ("routes", name)
    if route.weights and len(route.weights) != len(route.candidates):
        raise Fault(
            (*key, "weights"),
            f"{written((*key, 'weights'))} has {len(route.weights)} numbers for {len(route.candidates)} "
            "candidates",
            "write one for each candidate, in the same order",
        )
    if len(set(route.candidates)) < len(route.candidates):
        raise Fault((*key, "candidates"), f"{written((*key, 'candidates'))} names a candidate twice")
    for candidate, limits in route.limits.items():
        if candidate not in route.candidates:
            raise Fault(
                (*key, "limits", candidate),
                f"{written((*key, 'limits', candidate))} is for none of the route's candidates",
                f"there are {', '.join(route.candidates)}",
            )
        _check_limits((*key, "limits", candidate), limits, upstream)
    _check_limits(key, route, upstream)


def _check_limits(key: Key, limits: CandidateLimits, upstream: UpstreamSettings) -> None:
    """A route can be less patient than [upstream], whose limits hold for all calls, and not more."""
    for own, general in (
        ("connect_timeout_s", "connect_timeout_s"),
        ("first_token_timeout_s", "first_byte_timeout_s"),
        ("idle_timeout_s", "idle_timeout_s"),
    ):
        limit, most = getattr(limits, own), getattr(upstream, general)
        if limit is not None and limit > most:
            raise Fault(
                (*key, own),
                f"{written((*key, own))} is more than upstream.{general}, which is {most:g}",
                f"raise upstream.{general} too",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# What a modelway.toml that merely lies in the current directory may not decide: it could come with a
# cloned repository, open the machine, or lead a credential of the user's to somebody else's server.
_NOT_FOR_PROJECTS = (
    "server.host",
    "server.allow*",
    "auth.*",
    "prices.*",
    "providers.*.base_url",
    "providers.*.api_key_*",
    "providers.*.headers",
    "providers.*.any_llm",
    "conversations.path",
    "vertex.project",
    "copilot.client_id",
    "copilot.tenant",
    "copilot.base_url",
    "copilot.authority",
    "copilot.github.*",
)


def check_may_be_set_by_project(key: Key) -> None:
    """Fault where only a file that the user named, or the user's own, may set the key."""
    if any(fnmatchcase(".".join(key), pattern) for pattern in _NOT_FOR_PROJECTS):
        raise Fault(
            key,
            f"{written(key)} cannot be set by a file that merely lies in the current directory",
            "name the file with --config, or move the setting to the user file (`modelway config path`)",
        )
