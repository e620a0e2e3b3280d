"""Gateways that are measured: Modelway, bare and with everything switched on, and any other that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, structs

from modelway.bench.contestants import MODELWAY, MODELWAY_STORED, PATH, Contestant, Entrant
from modelway.bench.processes import (
    BenchError,
    check_ours,
    child_environment,
    free_port,
    listeners,
    started,
    wait_until_answers,
)
from modelway.bench.relays import relays
from modelway.bench.upstream import MODEL

PROVIDER = "Bench"
ROUTE = "bench-route"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What a request to another gateway cannot say differently.
_OURS = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})
# What stands before `=`, unless it is the beginning of an address.
_CALLED = re.compile(r"[^/:?]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\x20-\x7e]*")
# Limits that are counted and never reached.
_LIMITS = ("--requests-per-minute", "--tokens-per-minute", "--streams")
_MUCH = "100000000"


class Others(Struct, frozen=True, kw_only=True):
    """Gateways that the user runs: their addresses, the model and the headers that they are asked with."""

    addresses: tuple[str, ...] = ()
    model: str = MODEL
    headers: tuple[str, ...] = ()

    @property
    def parsed_headers(self) -> dict[str, str]:
        """The headers by their names. Raises BenchError where one is none."""
        return dict(map(header, self.headers))


_NOBODY = Others()


def entrants(upstream_port: int, others: Others = _NOBODY) -> list[Entrant]:
    """Everyone who can be measured here in front of the upstream, without the upstream itself."""
    if others.parsed_headers and not others.addresses:
        raise BenchError("--address-header is for gateways at an --address, and there is none")
    return [
        *relays(upstream_port),
        Entrant(MODELWAY, lambda folder: modelway(folder, upstream_port, stored=False)),
        Entrant(MODELWAY_STORED, lambda folder: modelway(folder, upstream_port, stored=True)),
        *(other(address, others) for address in others.addresses),
    ]


def other(address: str, others: Others) -> Entrant:
    """A gateway that the user runs, in front of our upstream. Raises BenchError unless on loopback.

    The address may have a name before it: `name=http://localhost:4000/v1`.
    """
    called, equals, rest = address.partition("=")
    if equals and _CALLED.fullmatch(called):
        address = rest
    else:
        called = ""
    if "," in called:
        raise BenchError("a name of an address has no comma: --only separates names with them")
    url = urlsplit(address if "//" in address else f"http://{address}")
    if url.scheme != "http" or url.hostname not in _LOOPBACK:
        raise BenchError(f"{address} is not an http address of this machine; only loopback is measured")
    path = f"{url.path.rstrip('/')}/chat/completions" if url.path.strip("/") else PATH
    name, host, port = called or url.netloc, url.hostname, url.port or 80
    headers = others.parsed_headers

    @contextmanager
    def start(_: Path) -> Iterator[Contestant]:
        roots = tuple(sorted(listeners(port)))
        yield Contestant(
            name=name, host=host, port=port, path=path, model=others.model, headers=headers, roots=roots
        )

    return Entrant(name, start, ours=False)


def header(line: str) -> tuple[str, str]:
    """Name and value of a header as `--address-header` takes it. Raises BenchError where it is none."""
    name, colon, value = line.partition(":")
    name, value = name.strip().lower(), value.strip()
    if not colon or not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
        # What follows the first word may be a key.
        raise BenchError(
            f"--address-header {line.split(' ', maxsplit=1)[0]}… is no header; write it as 'x-name: value'"
        )
    if name in _OURS:
        raise BenchError(f"--address-header cannot say {name}, which the bench says itself")
    return name, value


@contextmanager
def modelway(folder: Path, upstream_port: int, *, stored: bool) -> Iterator[Contestant]:
    """Start Modelway with our upstream, and with a store of its own.

    `stored` is what a real request needs: a caller's key with limits is checked, a route of two candidates
    says who answers, and the turn is in the store before the caller sees its end.
    """
    port = free_port()
    command, settings = serve_command(folder, upstream_port, port)
    name = MODELWAY_STORED if stored else MODELWAY
    api_key = make_key(folder) if stored else "bench"
    with started(command, log=folder / "modelway.log", settings=settings) as process:
        wait_until_answers(port, process, folder / "modelway.log")
        check_ours(port, [process.pid], name)
        yield Contestant(
            name=name,
            port=port,
            model=ROUTE if stored else MODEL,
            api_key=api_key,
            provider="" if stored else PROVIDER,
            stored=stored,
            roots=(process.pid,),
        )


@contextmanager
def beside(first: Contestant, folder: Path, upstream_port: int) -> Iterator[Contestant]:
    """Start another Modelway on the store of one that runs."""
    port = free_port()
    command, settings = serve_command(folder, upstream_port, port)
    log = folder / f"modelway-{port}.log"
    with started(command, log=log, settings=settings) as process:
        wait_until_answers(port, process, log)
        check_ours(port, [process.pid], first.name)
        yield structs.replace(first, port=port, roots=(process.pid,))


def serve_command(folder: Path, upstream_port: int, port: int) -> tuple[list[str], dict[str, str]]:
    """How Modelway is started: the command and the environment settings."""
    config = folder / "modelway.toml"
    config.write_text(configuration(upstream_port))
    command = [sys.executable, "-m", "modelway", "serve", "--port", str(port), "--config", str(config)]
    return command, {"MODELWAY_DATA_DIR": str(folder)}


def configuration(upstream_port: int) -> str:
    """Two providers, both of which are our upstream, and a route over them.

    The load opens all of its connections at first; those that wait for their turn are not too slow.
    """
    providers = "".join(
        f'[providers.{name}]\nbase_url = "http://127.0.0.1:{upstream_port}/v1"\nneeds_auth = false\n'
        f'default_model = "{MODEL}"\n'
        for name in (PROVIDER, f"{PROVIDER}2")
    )
    return (
        f'[log]\nlevel = "warning"\n[server]\nhead_timeout_s = 60\n{providers}'
        f'[routes.{ROUTE}]\ncandidates = ["{PROVIDER}/{MODEL}", "{PROVIDER}2/{MODEL}"]\n'
    )


def make_key(folder: Path) -> str:
    """A key with limits in the store of this folder."""
    limits = [word for option in _LIMITS for word in (option, _MUCH)]
    done = subprocess.run(  # noqa: S603 - the command is our own
        [sys.executable, "-m", "modelway", "keys", "create", "bench", *limits],
        check=False,
        capture_output=True,
        text=True,
        env=child_environment({"MODELWAY_DATA_DIR": str(folder)}),
        timeout=60,
    )
    if done.returncode:
        raise BenchError(f"no key could be made: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()
