"""Finds the gateway that a command talks to: a running server, or one inside this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from modelway.cli.exits import CommandError, ExitCode
from modelway.cli.setup import Setup

if TYPE_CHECKING:
    from modelway.config import ServerSettings
    from modelway.sync_client import Client

PROBE_TIMEOUT_S = 0.5
_HERE = {"0.0.0.0", "::", "127.0.0.1", "::1"}  # noqa: S104 - nothing is bound here


class Reached(Struct, frozen=True):
    """Where the gateway is: `url` "" means in this process."""

    setup: Setup
    url: str
    api_key: str

    def client(self, on_progress: Callable[[str], None]) -> Client:
        """A client of it; `on_progress` is told while this process loads the embedded model."""
        from modelway.sync_client import Client

        if self.url:
            return Client(self.url, api_key=self.api_key)
        return Client(
            settings=self.setup.settings,
            data_dir=self.setup.directories.data,
            on_progress=on_progress,
        )

    def newest_conversation(self) -> str:
        """The id of the conversation that changed last; CommandError where there is none."""
        newest = self._newest_there() if self.url else self._newest_here()
        if not newest:
            raise CommandError("there is no conversation to continue", hint="leave -c out to begin one")
        return newest

    def _newest_there(self) -> str:
        listed = get_json(self.url, "/v1/conversations?limit=1", self.api_key, timeout_s=10.0)
        found = listed.get("data") if listed else None
        if not isinstance(found, list):
            raise CommandError(
                f"{self.url} does not list conversations", hint="name one with --conversation ID"
            )
        return str(found[0]["id"]) if found else ""

    def _newest_here(self) -> str:
        from modelway.cli.store import CALLER, in_store

        found = in_store(self.setup, lambda store: store.list(CALLER, limit=1))
        return found[0].conversation_id if found else ""


def reach(setup: Setup, *, server: str, no_server: bool) -> Reached:
    """The server that was named, else the one that runs on the configured port, else this process."""
    from modelway.settings import client_variables

    address, api_key = client_variables()
    if no_server:
        return Reached(setup, "", "")
    if server or address:
        return Reached(setup, checked_url(server or address), api_key)
    return Reached(setup, running_server(setup.settings.server), api_key)


def running_server(settings: ServerSettings) -> str:
    """The address of our server on the configured port, "" where none answers as ours."""
    if not settings.port:
        return ""
    host = "localhost" if settings.host in _HERE else settings.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    health = get_json(url, "/healthz", "", timeout_s=PROBE_TIMEOUT_S)
    return url if health and health.get("server") == "modelway" else ""


def checked_url(url: str) -> str:
    """The address without a /v1 at its end; CommandError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandError(
            f"{url} is not the address of a server", hint="write http://HOST:PORT", code=ExitCode.USAGE
        )
    return url.rstrip("/").removesuffix("/v1")


def get_json(url: str, path: str, api_key: str, *, timeout_s: float) -> dict[str, object] | None:
    """The JSON object at an address; None where there is nothing of the kind."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    with closing(kind(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
        try:
            connection.request("GET", parts.path + path, headers=headers)
            response = connection.getresponse()
            value = json.loads(response.read(1_000_000)) if response.status == 200 else None
        except (OSError, HTTPException, ValueError):
            return None
    return value if isinstance(value, dict) else None
