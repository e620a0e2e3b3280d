"""Who is measured: the upstream itself, nginx and Modelway in front of it, and any gateway that runs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from modelway.bench.load import ID_MARK, Load, LoadResult
from modelway.bench.processes import (
    BenchError,
    ask_line,
    check_ours,
    free_port,
    listeners,
    readline,
    started,
    wait_until_answers,
)
from modelway.bench.upstream import MODEL

DIRECT, NGINX, MODELWAY, MODELWAY_STORED = "direct", "nginx", "modelway", "modelway, stored"
PROVIDER = "Bench"
_PATH = "/v1/chat/completions"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Contestant(Struct, frozen=True, kw_only=True):
    """Something that answers: where, and which process trees do its work (none: not known).

    `provider` is named in the request where it is Modelway; `stored` gives each request a conversation.
    """

    name: str
    port: int
    host: str = "127.0.0.1"
    path: str = _PATH
    model: str = MODEL
    provider: str = ""
    stored: bool = False
    roots: tuple[int, ...] = ()

    def body(self, mark: str, *, stream: bool) -> str:
        """The request's body; `mark` tells the upstream what to answer."""
        fields: dict[str, object] = {
            "model": self.model,
            "stream": stream,
            "messages": [{"role": "user", "content": f"{mark} What is the fastest way home?"}],
        }
        if self.provider:
            fields["provider"] = self.provider
        if self.stored:
            fields["conversation_id"] = ID_MARK
        return json.dumps(fields)


class Entrant(Struct, frozen=True):
    """A contestant that is not started yet; `start` is given an empty folder of its own.

    `ours` is False where `start` only finds what somebody else runs.
    """

    name: str
    start: Callable[[Path], AbstractContextManager[Contestant]]
    ours: bool = True


class LoadProcess:
    """The load generator in a process of its own."""

    def __init__(self, send: Callable[[bytes], bytes]) -> None:
        self._send = send

    def run(self, load: Load) -> LoadResult:
        """Put the load on and wait for its end."""
        return msgspec.json.decode(self._send(msgspec.json.encode(load) + b"\n"), type=LoadResult)


@contextmanager
def load_process(folder: Path) -> Iterator[LoadProcess]:
    """Start the load generator."""
    command = [sys.executable, "-m", "modelway.bench.load"]
    with started(command, log=folder / "load.log", pipes=True) as process:
        yield LoadProcess(lambda line: ask_line(process, line))


@contextmanager
def upstream(folder: Path, port: int = 0) -> Iterator[Contestant]:
    """Start the upstream."""
    command = [sys.executable, "-m", "modelway.bench.upstream", str(free_port(port))]
    with started(command, log=folder / "upstream.log", pipes=True) as process:
        bound = int(readline(process))
        check_ours(bound, [process.pid], "the upstream")
        yield Contestant(name=DIRECT, port=bound, roots=(process.pid,))


def entrants(upstream_port: int, *, addresses: Collection[str] = (), model: str = MODEL) -> list[Entrant]:
    """Everyone who can be measured here in front of the upstream, without the upstream itself."""
    found = [
        Entrant(MODELWAY, lambda folder: modelway(folder, upstream_port, stored=False)),
        Entrant(MODELWAY_STORED, lambda folder: modelway(folder, upstream_port, stored=True)),
    ]
    if shutil.which("nginx"):
        found.insert(0, Entrant(NGINX, lambda folder: nginx(folder, upstream_port)))
    return found + [other(address, model) for address in addresses]


def other(address: str, model: str) -> Entrant:
    """A gateway that the user runs, in front of our upstream. Raises BenchError unless on loopback."""
    url = urlsplit(address if "//" in address else f"http://{address}")
    if url.scheme != "http" or url.hostname not in _LOOPBACK:
        raise BenchError(f"{address} is not an http address of this machine; only loopback is measured")
    path = f"{url.path.rstrip('/')}/chat/completions" if url.path.strip("/") else _PATH
    name, host, port = url.netloc, url.hostname, url.port or 80

    @contextmanager
    def start(_: Path) -> Iterator[Contestant]:
        roots = tuple(sorted(listeners(port)))
        yield Contestant(name=name, host=host, port=port, path=path, model=model, roots=roots)

    return Entrant(name, start, ours=False)


@contextmanager
def modelway(folder: Path, upstream_port: int, *, stored: bool) -> Iterator[Contestant]:
    """Start Modelway with nothing configured but our upstream, and with a store of its own."""
    port = free_port()
    command, settings = serve_command(folder, upstream_port, port)
    name = MODELWAY_STORED if stored else MODELWAY
    with started(command, log=folder / "modelway.log", settings=settings) as process:
        wait_until_answers(port, process, folder / "modelway.log")
        check_ours(port, [process.pid], name)
        yield Contestant(name=name, port=port, provider=PROVIDER, stored=stored, roots=(process.pid,))


def serve_command(folder: Path, upstream_port: int, port: int) -> tuple[list[str], dict[str, str]]:
    """How Modelway is started: the command and the environment settings."""
    config = folder / "modelway.toml"
    config.write_text(
        f'[log]\nlevel = "warning"\n\n[providers.{PROVIDER}]\n'
        f'base_url = "http://127.0.0.1:{upstream_port}/v1"\nneeds_auth = false\ndefault_model = "{MODEL}"\n'
    )
    command = [sys.executable, "-m", "modelway", "serve", "--port", str(port), "--config", str(config)]
    return command, {"MODELWAY_DATA_DIR": str(folder)}


@contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[Contestant]:
    """Start nginx, one worker, relaying to our upstream."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(nginx_config(upstream_port, port))
    log = folder / "nginx.log"
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)]
    with started(command, log=log) as process:
        wait_until_answers(port, process, log)
        check_ours(port, [process.pid], NGINX)
        yield Contestant(name=NGINX, port=port, roots=(process.pid,))


def nginx_config(upstream_port: int, port: int) -> str:
    """The configuration that a careful administrator would write for streams of events."""
    folders = "\n".join(
        f"  {kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 32m;
{folders}
  upstream bench {{
    server 127.0.0.1:{upstream_port};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
