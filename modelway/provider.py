"""What a provider is, and how it is described as data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, get_args, get_origin, runtime_checkable

import msgspec
from msgspec import Struct

from modelway.types import ChatRequest, Event, Model, Params

# How long a connection to an upstream may take for the call under way, where a route grants less than the
# settings do. Only who opens one looks at it, far below whoever knows the route.
CONNECT_LIMIT_S: ContextVar[float | None] = ContextVar("connect_limit_s", default=None)

_JSON_TYPES: dict[Any, str] = {float: "number", int: "integer", str: "string", bool: "boolean"}


class ProviderInfo(Struct, frozen=True, kw_only=True):
    """How a provider describes itself, as data.

    `supports` names what it can carry beyond text: "system", "tools", "images", "files", "json_schema",
    "json_object", "reasoning", "n"; "completions" where its upstream has /v1/completions; and whether it goes
    on with an answer that is begun for it: "prefix", or "prefix_echoed" where it repeats what it was given.
    `params` names the fields of `types.Params` that it honours. `dialect` is the wire format of its
    upstream: what callers of the same one say beyond that travels on as it is, but for the fields in
    `lacks`; "" where there is none.
    `stateful`: the upstream keeps the conversation itself, so a turn must never be sent to it twice.
    `ready` is False where a credential or a setting is missing, and `missing` then says which. `untried`:
    it is ready as far as one can tell without asking, but only that shows whether its upstream is there.
    `finds_model`: a request may come without a model, and the provider then takes one that is there.
    `credential_source` tells where the credential that is there comes from: "environment", "file",
    "keyring" or "machine" (its role at the cloud); "" where there is none, so that nobody is signed in.
    """

    name: str
    label: str = ""
    url: str = ""
    default_model: str = ""
    finds_model: bool = False
    models: tuple[str, ...] = ()
    needs_auth: bool = False
    credential_source: str = ""
    supports_stream: bool = True
    supports: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    dialect: str = ""
    lacks: tuple[str, ...] = ()
    stateful: bool = False
    ready: bool = True
    missing: str = ""
    untried: bool = False


class EventStream(Protocol):
    """The events of an answer; closing it ends the upstream call."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Itself."""
        ...

    async def __anext__(self) -> Event:
        """The next event; StopAsyncIteration at the end."""
        ...

    async def aclose(self) -> None:
        """End the call."""
        ...


class TellingStream(EventStream, Protocol):
    """Events that need not be waited for: it tells when there are some to take."""

    @property
    def is_broken(self) -> bool:
        """Whether an error follows what has been taken: waiting for the next event raises it."""
        ...

    def send_now(self) -> bool:
        """Make the call, if that takes no time; whether it was made."""
        ...

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Whom to tell of everything that comes, and where nothing comes in time; None: nobody."""
        ...

    def take(self) -> list[Event] | None:
        """The events that have come; None where one has to wait for what follows."""
        ...

    def cut(self) -> None:
        """As aclose(), which must take no time."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A provider whose answers need not be waited for."""

    def telling(self, request: ChatRequest) -> TellingStream:
        """As Provider.stream()."""
        ...


@runtime_checkable
class Provider(Protocol):
    """One upstream that can answer a chat request.

    stream() yields deltas and ends with exactly one Finish. It raises a GatewayError on failure, never
    retries, never falls back, and stops the upstream call when the generator is closed. It keeps
    nothing about a conversation on self: what must survive to the next turn it yields as UpstreamState
    and finds again in request.upstream_state.

    A request reaches stream() with `model` filled in (the provider's default where the caller named
    none; "" only where the description says `finds_model`) and with the whole history in `messages`.
    Where request.stream is False the provider may make one non-streaming call and yield the answer in as
    few events as it likes.
    """

    @property
    def info(self) -> ProviderInfo:
        """What this provider is and can do, as of now."""
        ...

    def stream(self, request: ChatRequest) -> EventStream:
        """Answer the request; see the class."""
        ...

    async def models(self) -> list[Model]:
        """The models that the upstream offers now, or the known ones where it cannot say."""
        ...

    async def aclose(self) -> None:
        """Give back connections and processes."""
        ...


class RelayRequest(Struct, frozen=True, kw_only=True):
    """A request that is no chat, for an upstream that has the address.

    `path` is what follows /v1/ (checked, without a slash at its ends), `query` what follows the question
    mark. `headers` are those of the caller that an upstream may see, in lower case; its key is none of them.
    """

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""


class RelayReply(Protocol):
    """An upstream's good reply under way. Close it in every path."""

    @property
    def status(self) -> int:
        """200 to 299."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, names in lower case."""
        ...

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        ...

    async def aclose(self) -> None:
        """Give the connection back, or close it where the end has not been read."""
        ...


@runtime_checkable
class Relays(Protocol):
    """A provider whose upstream has more addresses than the one of chats."""

    async def relay(self, request: RelayRequest) -> RelayReply:
        """Pass a request on and wait for the head of the reply; a GatewayError where it is no good one."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A provider whose upstream counts the tokens of a request without answering it."""

    async def count_tokens(self, request: ChatRequest) -> int:
        """How many input tokens the request has; it reaches this as it reaches stream()."""
        ...


@runtime_checkable
class Loads(Protocol):
    """A provider that holds models in memory."""

    @property
    def loaded(self) -> list[Model]:
        """The models that are in memory now."""
        ...


class SignInCode(Struct, frozen=True, kw_only=True):
    """A code, to be entered at `address` within `expires_in` seconds; `notice` is to be read before."""

    code: str
    address: str
    expires_in: float
    notice: str = ""


@runtime_checkable
class SignsIn(Protocol):
    """A provider whose people can sign in with a code while the server runs."""

    @property
    def can_sign_in(self) -> bool:
        """Whether the settings permit it."""
        ...

    async def sign_in(self, show: Callable[[SignInCode], None]) -> str:
        """Show a code, and wait until somebody has signed in with it; the name of the account.

        Raises a GatewayError where nobody has.
        """
        ...


def describe(info: ProviderInfo) -> dict[str, object]:
    """A provider as JSON tells of it: `params` maps each name to the type that its value has in JSON."""
    fields: dict[str, object] = msgspec.structs.asdict(info)
    types = {field.encode_name: field.type for field in msgspec.structs.fields(Params)}
    fields["params"] = {name: _json_type(types[name]) for name in info.params if name in types}
    return fields


def _json_type(type_: Any) -> str:
    """The name that JSON Schema has for the values of a type; None, for what was not asked, is left out."""
    if get_origin(type_) is tuple:
        return f"array of {_json_type(get_args(type_)[0])}s"
    inner = [one for one in get_args(type_) if one is not type(None)]
    return _json_type(inner[0]) if inner else _JSON_TYPES.get(type_, "object")
