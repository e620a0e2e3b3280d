"""The child process that runs the engine: started once for all who wait, watched, and started again."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from msgspec import Struct

from modelway.errors import (
    GatewayError,
    ProviderNotConfigured,
    ShuttingDown,
    UpstreamFailed,
    UpstreamTimeout,
)

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("child.py")
STOP_GRACE_S = 5.0
STABLE_AFTER_S = 30.0
LONGEST_WAIT_S = 30.0


class Load(Struct, frozen=True, kw_only=True):
    """What the child is told to run; `threads` 0 leaves it to the child."""

    path: Path
    alias: str
    context_length: int
    parallel: int
    threads: int

    @property
    def file(self) -> tuple[str, int, int]:
        """Changes whenever another file, or another content, is to be loaded."""
        stat = self.path.stat()
        return str(self.path), stat.st_mtime_ns, stat.st_size


class Child:
    """One child process: where it listens, the key it wants, and how it ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.url = ""
        self.key = secrets.token_urlsafe(32)
        self.stopping = False
        self.started = time.monotonic()
        self.ended_at: float | None = None
        self._process = process
        self._stdin = cast(asyncio.StreamWriter, process.stdin)
        self._stdout = cast(asyncio.StreamReader, process.stdout)
        self._stderr = cast(asyncio.StreamReader, process.stderr)
        self._last_lines: deque[str] = deque(maxlen=20)
        self._following = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, load: Load, timeout_s: float) -> Child:
        """Spawn a child and wait until it can answer; however this fails, no process is left."""
        pipe = asyncio.subprocess.PIPE
        # -P: the program's own folder must not shadow what it imports.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(PROGRAM), stdin=pipe, stdout=pipe, stderr=pipe
        )
        child = cls(process)
        try:
            async with asyncio.timeout(timeout_s):
                await child._introduce(load)
        except TimeoutError as exc:
            await child.stop(grace_s=0)
            raise UpstreamTimeout(
                f"the embedded model was not ready after {timeout_s:g} s", hint="raise local.start_timeout_s"
            ) from exc
        except BaseException:
            await child.stop(grace_s=0)
            raise
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known yet."""
        return self._process.returncode is None

    async def ended(self, within_s: float) -> bool:
        """Whether it ends within that time: its connections break a moment before its end is known."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._process.wait()
        return not self.alive

    @property
    def end(self) -> GatewayError:
        """What to tell those whose answers were under way when it ended."""
        if self.stopping:
            return ShuttingDown("the embedded model is being stopped")
        return UpstreamFailed(
            f"the embedded model's process ended ({self._how()})",
            hint="it is started again with the next request",
        )

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the process: by closing its stdin, and after the grace by force."""
        self.stopping = self.stopping or self.alive
        self._stdin.close()
        if not (grace_s and await self.ended(within_s=grace_s)):
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._following

    async def _introduce(self, load: Load) -> None:
        wanted = {
            "path": str(load.path),
            "alias": load.alias,
            "key": self.key,
            "context_length": load.context_length,
            "parallel": load.parallel,
            "threads": load.threads,
        }
        self._stdin.write(json.dumps(wanted).encode() + b"\n")
        with suppress(ConnectionError):
            await self._stdin.drain()
        line = await self._stdout.readline()
        answer = json.loads(line) if line else {}
        if "url" not in answer:
            await self._process.wait()
            raise self._refusal(load, answer.get("at", ""))
        self.url = answer["url"]

    def _refusal(self, load: Load, at: str) -> ProviderNotConfigured:
        if at == "engine":
            return ProviderNotConfigured(
                "the installed engine of the embedded model cannot be used",
                hint=f"install a current one: {INSTALL_ENGINE}",
            )
        return ProviderNotConfigured(
            f"the engine cannot load the model file {load.path} ({self._how()})",
            hint="it is damaged, of an unknown kind or too large for this machine; the log has the reason",
        )

    def _how(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            return f"signal {-code}"
        return f"exit code {code}"

    async def _follow(self) -> None:
        """Log what the engine writes; its last lines are the best account of a crash."""
        async for line in _lines(self._stderr):
            log.debug("engine: %s", line)
            self._last_lines.append(line)
        await self._process.wait()
        self.ended_at = time.monotonic()
        if not self.stopping:
            log.warning(
                "the embedded model's process ended (%s); it wrote last:\n%s",
                self._how(),
                "\n".join(self._last_lines),
            )


INSTALL_ENGINE = "`python -m pip install 'modelway[local]'`"


class Engine:
    """Has at most one child running, and starts the next one when it is asked for and the last has ended.

    After repeated failures in a row the next start waits, up to half a minute; who asks meanwhile is told
    the last failure. A changed model file is tried at once.
    """

    def __init__(
        self, load: Callable[[], Load], *, start_timeout_s: float, on_progress: Callable[[str], None]
    ) -> None:
        self._load = load
        self._start_timeout_s = start_timeout_s
        self._say = on_progress
        self._child: Child | None = None
        self._starting: asyncio.Task[Child] | None = None
        self._setbacks = _Setbacks()
        self._closed = False

    async def child(self) -> Child:
        """A child that can answer; all who wait share one start, which outlives those who give up."""
        if self._closed:
            raise ShuttingDown("the embedded model is being stopped")
        if self._child is not None and self._child.alive:
            return self._child
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise ShuttingDown("the embedded model is being stopped") from None
            raise

    async def aclose(self) -> None:
        """Stop the child, also one that is still starting."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._child is not None:
            await self._child.stop()

    async def _start(self) -> Child:
        load = await asyncio.to_thread(self._load)
        file = await asyncio.to_thread(lambda: load.file)
        if self._child is not None:
            self._setbacks.ended(self._child, file)
            self._child = None
        self._setbacks.raise_if_too_soon(file)
        self._say(f"loading the embedded model {load.alias}")
        begun = time.monotonic()
        try:
            self._child = await Child.start(load, self._start_timeout_s)
        except GatewayError as exc:
            self._setbacks.add(exc, file, time.monotonic())
            raise
        self._say(f"the embedded model {load.alias} is ready after {time.monotonic() - begun:.1f} s")
        return self._child

    def _started(self, task: asyncio.Task[Child]) -> None:
        self._starting = None
        if not task.cancelled() and (error := task.exception()):
            log.info("the embedded model did not start: %s", error)


class _Setbacks:
    """Failures in a row with one model file, and when the next start may be tried."""

    def __init__(self) -> None:
        self._count = 0
        self._not_before = 0.0
        self._last: GatewayError | None = None
        self._file: tuple[str, int, int] | None = None

    def ended(self, child: Child, file: tuple[str, int, int]) -> None:
        """Count the end of a child, unless it ran well for a while."""
        at = child.ended_at or time.monotonic()
        if at - child.started > STABLE_AFTER_S:
            self._count = 0
        self.add(child.end, file, at)

    def add(self, error: GatewayError, file: tuple[str, int, int], at: float) -> None:
        """Count a failure."""
        self._count = self._count + 1 if file == self._file else 1
        wait = min(LONGEST_WAIT_S, 2.0 ** (self._count - 2)) if self._count > 1 else 0.0
        self._not_before = at + wait
        self._last, self._file = error, file

    def raise_if_too_soon(self, file: tuple[str, int, int]) -> None:
        """Raise the last failure again while the wait after it lasts."""
        wait = self._not_before - time.monotonic()
        if self._last is None or file != self._file or wait <= 0:
            return
        # A copy: raised again and again, one object would gather a traceback without end.
        error = copy.copy(self._last)
        error.retry_after = float(math.ceil(wait))
        error.hint = error.hint if isinstance(error, ProviderNotConfigured) else "it is started again soon"
        raise error


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of any length; StreamReader's own iteration fails on long ones."""
    rest = b""
    while block := await stream.read(8192):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
