"""A server in a thread of its own, on the loop that it has in earnest, for tests that send it raw bytes."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Literal, TypeVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from modelway.bench.loop import run
from modelway.server.protocol import Protocol

T = TypeVar("T")
Kind = type[asyncio.Protocol]


def ours(patience_s: float = 20) -> Kind:
    """The protocol that is tested; it waits so long for a head and for a body."""
    return Protocol.waiting(patience_s, patience_s, 20)


def plain() -> Kind:
    """uvicorn's own in pure Python: slow, strict, and written by others."""
    return H11Protocol


@contextmanager
def in_a_thread(serve: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """What `serve` gives, while it runs on a loop in another thread. No exception may get into the log."""
    began: Future[tuple[T, Callable[[], object]]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serve() as served:
            began.set_result((served, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    def body() -> None:
        try:
            run(main())
        except BaseException as error:
            if began.done():
                raise
            began.set_exception(error)

    thread = threading.Thread(target=body)
    thread.start()
    log = logging.getLogger()
    bugs = _Bugs()
    log.addHandler(bugs)
    try:
        served, stop = began.result(30)
        try:
            yield served
        finally:
            stop()
    finally:
        thread.join(30)
        log.removeHandler(bugs)
        assert not thread.is_alive(), "the server does not end"
        assert not bugs.found


class _Bugs(logging.Handler):
    """Keeps every exception that was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@asynccontextmanager
async def application(app: Any, kind: Kind, lifespan: Literal["on", "off"] = "off") -> AsyncIterator[int]:
    """Serve an ASGI application by a protocol; gives the port."""
    config = uvicorn.Config(
        app, port=0, http=kind, ws="none", lifespan=lifespan, log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.005)
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await serving
