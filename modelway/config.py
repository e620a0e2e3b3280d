"""Settings: their shapes and defaults.

Every setting can be written in TOML under its section, or in the environment as
`MODELWAY_<SECTION>__<KEY>` (top-level ones: `MODELWAY_<KEY>`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server listens and what it takes.

    `host` "localhost" means both loopback addresses, 127.0.0.1 and ::1. `allow_remote` permits another
    address without an API key. `allowed_hosts` and `allowed_origins` add to the loopback names. Of
    `max_concurrent_requests` 0 means any number. A client
    has `head_timeout_s` for the head of its request, then `body_timeout_s` for its body; one that takes
    nothing of its answer for `write_timeout_s` is hung up on.
    """

    host: str = "localhost"
    port: int = 1337
    allow_remote: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 32 * 1024 * 1024
    max_concurrent_requests: int = 0
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    keep_alive_s: float = 15.0
    shutdown_grace_s: float = 10.0


class AuthSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """API keys of callers: name of the caller -> SHA-256 of the key, in hexadecimal.

    With no key configured everybody on this machine is the caller "local".
    """

    api_keys: dict[str, str] = field(default_factory=dict)


class ConversationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The conversation store.

    `path` "" is `conversations.sqlite3` in the data directory. `wait_s` is how long a turn waits for
    another one of the same conversation. `synchronous` "full" also survives a power cut. An answer whose
    reader is to come back goes on for `reconnect_grace_s`; streams and `Idempotency-Key`s are known for
    `stream_log_s`, and relayed replies of up to `max_reply_bytes` with them; responses outside of any
    conversation are kept for `response_days`, 0: for ever. `on_crash` says what becomes of an answer whose
    server dies: "continue" lets another one, or the same one again, go on with it when its reader comes back.
    """

    path: str = ""
    wait_s: float = 5.0
    lease_s: float = 15.0
    checkpoint_s: float = 0.25
    reconnect_grace_s: float = 60.0
    stream_log_s: float = 86400.0
    max_reply_bytes: int = 16 * 1024 * 1024
    on_crash: Literal["interrupt", "continue"] = "interrupt"
    response_days: float = 30.0
    synchronous: Literal["normal", "full"] = "normal"


class LocalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded model: a name of `modelway models list` or the path of a GGUF file.

    `context_length` in tokens is shared by `parallel` answers; `threads` 0 chooses by the machine.
    `max_tokens` ends an answer whose caller sets no limit; 0: 256 for smollm2, none for other models.
    """

    model: str = "smollm2"
    context_length: int = 8192
    parallel: int = 4
    threads: int = 0
    max_tokens: int = 0
    preload: bool = False
    start_timeout_s: float = 120.0


class CopilotGitHubSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GitHub Copilot, through the runtime of its official SDK.

    `runtime_path` "" is where the SDK keeps it, else `copilot-runtime` or `copilot` on the PATH. `home` ""
    is in the data directory. `base_url` is for tests: an OpenAI-compatible address on loopback that
    answers in GitHub's place.
    """

    runtime_path: str = ""
    home: str = ""
    sign_in: Literal["modelway", "environment", "copilot-cli", "gh"] = "modelway"
    client_id: str = ""
    authority: str = ""
    base_url: str = ""


class CopilotSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Copilot: GitHub's, or Microsoft 365's through an application that its user has registered.

    `transport` "auto" is the first one that somebody has signed in to. `default_model` "" is the
    upstream's own choice. `max_concurrency` counts answers at the same time; more wait. `time_zone` "" is
    the system's.
    """

    transport: Literal["auto", "github", "workiq", "graph"] = "auto"
    default_model: str = ""
    max_concurrency: int = 2
    client_id: str = ""
    tenant: str = ""
    base_url: str = ""
    authority: str = ""
    time_zone: str = ""
    web: bool = True
    idle_timeout_s: float = 120.0
    github: CopilotGitHubSettings = CopilotGitHubSettings()


class VertexSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Vertex AI serves its models, and who pays.

    `project` "" is that of the environment variable GOOGLE_CLOUD_PROJECT.
    """

    project: str = ""
    location: str = "global"


class UpstreamSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits on calls to upstreams, in seconds and bytes, and how often a failed one is repeated.

    All attempts for one answer have `deadline_s` until its first piece. A model of which `breaker_failures`
    requests in a row failed is left alone for `breaker_cool_down_s`, then tried with one request; 0: never.
    """

    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 120.0
    idle_timeout_s: float = 120.0
    max_event_bytes: int = 8 * 1024 * 1024
    max_response_bytes: int = 64 * 1024 * 1024
    retries: int = 2
    max_retry_wait_s: float = 10.0
    deadline_s: float = 300.0
    breaker_failures: int = 5
    breaker_cool_down_s: float = 10.0


class ProviderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider of the user's own, or changes to a preset of the same name.

    The key comes from the environment variable `api_key_env` or the file `api_key_file`; it is never
    written here. None leaves the preset's value. `any_llm` is the id of an upstream that is asked through
    any-llm, and by nothing else.
    """

    label: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    needs_auth: bool | None = None
    default_model: str | None = None
    models: tuple[str, ...] | None = None
    headers: dict[str, str] | None = None
    supports: tuple[str, ...] | None = None
    any_llm: str | None = None


def settings_of(name: str, providers: Mapping[str, ProviderSettings]) -> ProviderSettings:
    """The settings under [providers.NAME], whose name may be written in any case."""
    named = (settings for known, settings in providers.items() if known.casefold() == name.casefold())
    return next(named, ProviderSettings())


class CandidateLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a candidate may take: to connect, to its first token, between two, and in all.

    None: as the route says, and where that says nothing, as [upstream] does.
    """

    connect_timeout_s: float | None = None
    first_token_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    total_timeout_s: float | None = None


class RouteSettings(CandidateLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name that callers use as a model, and the candidates behind it: in order, or drawn by `weights`.

    A candidate is "Provider/model", or "Provider" for its default model. `on_break` says what happens to an
    answer that breaks off: "continue" lets the next candidate finish it. `hedge_after_s`: the next one is
    asked too when no token has come by then. `shadow` is asked a `shadow_share` of the same questions, and
    nobody sees its answers. `limits` is by candidate.
    """

    candidates: tuple[str, ...]
    weights: tuple[float, ...] = ()
    failover_on_context: bool = False
    on_break: Literal["fail", "continue"] = "fail"
    retries: int | None = None
    deadline_s: float | None = None
    hedge_after_s: float | None = None
    shadow: str = ""
    shadow_share: float = 1.0
    limits: dict[str, CandidateLimits] = field(default_factory=dict)


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, in dollars for a million tokens; None: as much as other input."""

    input: float = 0.0
    output: float = 0.0
    cached: float | None = None
    cache_write: float | None = None


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged. `prompts` adds the text of messages and answers to the log.

    `traces` sends a span for each answer by OpenTelemetry, which an extra brings.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    prompts: bool = False
    traces: bool = False


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. `fallback` names the providers tried when the asked one cannot answer."""

    provider: str = "Local"
    model: str = ""
    fallback: tuple[str, ...] = ()
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = field(default_factory=AuthSettings)
    conversations: ConversationSettings = ConversationSettings()
    local: LocalSettings = LocalSettings()
    copilot: CopilotSettings = CopilotSettings()
    vertex: VertexSettings = VertexSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    providers: dict[str, ProviderSettings] = field(default_factory=dict)
    routes: dict[str, RouteSettings] = field(default_factory=dict)
    prices: dict[str, PriceSettings] = field(default_factory=dict)
    log: LogSettings = LogSettings()
