"""`modelway serve` as a process of its own, for tests that kill it or talk to it from programs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

START_TIMEOUT_S = 20


class Running:
    """A server in a process, in a data directory of its own; `address` is known once it is ready.

    What it writes to stderr is in `log`. It can be started again after kill(), on the same port and data.
    """

    def __init__(
        self, folder: Path, *arguments: str, config: str = "", environ: Mapping[str, str] = {}
    ) -> None:
        self._folder = folder
        self._arguments = arguments
        self._config = folder / "test.toml"
        self._config.write_text(config)
        self._environ = environ
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._port = "0"
        self.address = ""
        self.log: list[str] = []

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it takes requests."""
        own = {"MODELWAY_DATA_DIR": str(self._folder), "MODELWAY_CONFIG_DIR": str(self._folder)}
        port = () if "--port" in self._arguments else ("--port", self._port)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "modelway",
                "serve",
                "--config",
                str(self._config),
                *port,
                *self._arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **own, **self._environ},
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(ready,))
        self._reader.start()
        ended = not ready.wait(START_TIMEOUT_S)
        if ended or not self.address:
            self.kill()
            raise AssertionError("the server did not start:\n" + "".join(self.log))
        return self

    def kill(self) -> None:
        """Kill it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end; gives its exit code."""
        return self._end(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the end that it has been asked for; gives its exit code."""
        return self._wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process is not None:
            self.kill()

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._wait()

    def _wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(30)
        if self._reader is not None:
            self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None
        return code

    def _read(self, ready: threading.Event) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if found := re.search(r"listens on (http://[^ ]+:(\d+))", line):
                self.address, self._port = found[1], found[2]
                ready.set()
        ready.set()


@contextmanager
def two_running(folder: Path, upstream: str, conversations: str) -> Iterator[tuple[Running, Running]]:
    """Two servers that share a database and an upstream; `conversations` are their settings of these."""
    config = f"""
        provider = "Recorder"
        [conversations]
        {conversations}
        [providers.Recorder]
        base_url = "{upstream}"
        default_model = "recorded"
    """
    with Running(folder, config=config) as one, Running(folder, config=config) as other:
        yield one, other
