"""Who is measured: something that answers, where it does, and which processes do its work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from modelway.bench.load import ID_MARK, Load, LoadResult
from modelway.bench.processes import ask_line, check_ours, free_port, readline, started
from modelway.bench.upstream import MODEL

DIRECT, NGINX, MODELWAY, MODELWAY_STORED = "direct", "nginx", "modelway", "modelway-stored"
PATH = "/v1/chat/completions"


class Contestant(Struct, frozen=True, kw_only=True):
    """Something that answers: where, and which process trees do its work (none: not known).

    `provider` is named in the request where it is Modelway; `stored` gives each request a conversation.
    `headers` are sent beside the key, or in its place.
    """

    name: str
    port: int
    host: str = "127.0.0.1"
    path: str = PATH
    model: str = MODEL
    api_key: str = "bench"
    provider: str = ""
    stored: bool = False
    headers: dict[str, str] = {}
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

    def load(self, mark: str, *, stream: bool, run: str) -> Load:
        """What asks it for `mark`; how much and how often is the caller's to add."""
        return Load(
            host=self.host,
            port=self.port,
            path=self.path,
            headers={"authorization": f"Bearer {self.api_key}", **self.headers},
            body=self.body(mark, stream=stream),
            stream=stream,
            stamped=stream and "paced" in mark,
            run=run,
        )


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
