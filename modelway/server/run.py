"""Binds the port and serves until a signal ends it."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn

from modelway.auth import Auth
from modelway.config import ServerSettings, Settings
from modelway.gateway import Gateway
from modelway.server.app import Application
from modelway.server.beside import MakePage
from modelway.server.protocol import Protocol
from modelway.setting_rules import is_loopback
from modelway.settings import SettingsError
from modelway.telemetry import Telemetry, Traces, open_traces
from modelway.wiring import build

BACKLOG = 2048
# Longer than clients keep an idle connection (5 s in the SDKs, as in uvicorn itself): where the server hangs
# up first, a request that is under way just then is lost.
IDLE_S = 75
GARBAGE_THRESHOLD = 20_000


class PortInUse(OSError):
    """Another program listens on the port already."""


def bind(settings: ServerSettings) -> list[socket.socket]:
    """Listening sockets: "localhost" is both loopback addresses, on the same port.

    Without SO_REUSEPORT: a second server on the same port must fail instead of taking half the requests.
    """
    if settings.host != "localhost":
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return [_listen(family, settings.host, settings.port)]
    first = _listen(socket.AF_INET, "127.0.0.1", settings.port)
    port = first.getsockname()[1]
    try:
        return [first, _listen(socket.AF_INET6, "::1", port)]
    except PortInUse:
        first.close()
        raise
    except OSError:
        # No IPv6 on this machine: "localhost" then means 127.0.0.1 alone.
        return [first]


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(errno.EADDRINUSE, f"port {port} is in use on {host}") from None
        raise
    sock.setblocking(False)
    return sock


class KeyNeeded(SettingsError):
    """Other machines could reach the server, and nobody has a key yet."""


class Server(uvicorn.Server):
    """uvicorn, which tells the address once requests are taken."""

    def __init__(
        self, application: Application, settings: ServerSettings, on_ready: Callable[[str], None]
    ) -> None:
        config = uvicorn.Config(
            application,
            loop="uvloop" if find_spec("uvloop") else "asyncio",
            http=Protocol.waiting(settings.head_timeout_s, settings.body_timeout_s, settings.write_timeout_s),
            ws="none",
            ws_max_size=settings.max_body_bytes,
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_S,
        )
        super().__init__(config)
        self._grace_s = settings.shutdown_grace_s
        self._application = application
        self._host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        # What has been made until now stays; what a request makes, its end frees without the collector,
        # which otherwise takes a twentieth of the processor's time.
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
        port = sockets[0].getsockname()[1] if sockets else self.config.port
        self._on_ready(f"http://{self._host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the requests under way finish, and refuse others meanwhile in words."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace_s
        self._application.drain()
        while self._is_answering and not self.force_exit and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self.config.timeout_graceful_shutdown = max(1, round(deadline - loop.time()))
        await super().shutdown(sockets)

    @property
    def _is_answering(self) -> bool:
        return bool(self.server_state.tasks) or self._application.is_answering


def run(
    settings: Settings,
    *,
    data_dir: Path,
    on_ready: Callable[[str, bool], None],
    origins: Mapping[str, str] = {},
    page: MakePage | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then let running answers finish within the grace time.

    Raises PortInUse before anything is started, and KeyNeeded. `on_ready` is told the address, and
    whether a key is asked for. Without a `page` there is only the API.
    """
    sockets = bind(settings.server)
    try:
        gateway = build(settings, data_dir=data_dir, origins=origins)
        needs_key = not (is_loopback(settings.server.host) or settings.server.allow_remote)
        if needs_key:
            _check_for_keys(settings, gateway)
        traces = _open_traces() if settings.log.traces else None
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    auth = Auth(settings.auth.api_keys, needs_key=needs_key)
    telemetry = Telemetry(prompts=settings.log.prompts, traces=traces)
    application = Application(
        gateway,
        auth,
        telemetry,
        settings.server,
        page=page(gateway, auth, telemetry, settings.server.max_body_bytes) if page is not None else None,
        preload=settings.local.preload,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # uvicorn raises a caught signal again once it has shut down; a clean end must exit with 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    server = Server(application, settings.server, lambda url: on_ready(url, not auth.open))
    try:
        server.run(sockets=sockets)
    finally:
        if traces is not None:
            traces.close()


def _open_traces() -> Traces:
    try:
        return open_traces()
    except ImportError as error:
        raise SettingsError(
            "log.traces needs OpenTelemetry, which is not installed", "run `pip install 'modelway[otel]'`"
        ) from error


def _check_for_keys(settings: Settings, gateway: Gateway) -> None:
    made = gateway.conversations.callers.known_now()
    if not settings.auth.api_keys and not any(key.counts(time.time()) for key in made):
        asyncio.run(gateway.aclose())
        raise KeyNeeded(
            f"server.host {settings.server.host} can be reached from other machines, and there is no API key",
            "make one with `modelway keys create NAME`, configure [auth] api_keys, or say --allow-remote to "
            "let everybody in",
        )


def _ignore(number: int, frame: Any) -> None:
    del number, frame
