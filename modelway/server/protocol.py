"""The HTTP protocol under the server: uvicorn's on httptools, with fewer system calls and more patience."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelway.errors import GatewayError, InvalidRequest, RequestTimeout, RequestTooLarge
from modelway.server.corking import CorkedTransport, Flow, Taking
from modelway.server.cycle import CYCLE, Cycle
from modelway.server.exchange import IS_GONE, ON_GONE
from modelway.server.formats import SOCKET_PATH
from modelway.server.heads import HEAD, Head, head_of
from modelway.server.refusals import refusal
from modelway.server.upgrades import become_socket, decline_upgrade

MAX_HEAD_BYTES = 64 * 1024
LINGER_S = 1.0
MIN_BYTES_S = 1024
_MOST_MISSES = 3
_VERSIONS = ("1.1", "1.0")
_TOLD_TO_US = frozenset({b"expect", b"transfer-encoding"})


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol over a corked transport.

    What is not HTTP is answered in the format of the address, and never into the middle of another answer.
    Heads are bounded, trailers ignored, offers to upgrade declined without losing the body. When the
    connection is lost the request that is being answered is told, also where another one waits behind it. A
    client that is too slow to send its request gets 408; one that takes nothing of its answer is hung up on.
    """

    head_timeout_s = 10.0
    body_timeout_s = 30.0
    write_timeout_s = 60.0

    @classmethod
    def waiting(cls, head_s: float, body_s: float, write_s: float) -> type[Protocol]:
        """This protocol with other limits; uvicorn makes the instances."""
        limits = {"head_timeout_s": head_s, "body_timeout_s": body_s, "write_timeout_s": write_s}
        return type("Protocol", (cls,), limits)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: Any = None
        # Since when it waits for a request; 0: it has one.
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._asgi = {"version": self.asgi_version, "spec_version": "2.3"}
        self._head: Head | None = None
        self._misses = 0
        self._is_parsing = False
        self._unstarted: tuple[Any, Any] | None = None
        self._head_is_open = False
        self._head_bytes = 0
        self._is_deaf = False
        # What is being received ("head", "body" or ""), how much of it has come, and when it is too late.
        self._receiving = ""
        self._received = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection."""
        super().connection_made(CorkedTransport(transport))  # type: ignore[arg-type]
        self.flow = Flow(self.transport, self.pipeline)
        self._taking = Taking(self.transport, self.write_timeout_s)
        self._watch("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered; uvicorn tells only the one that came last."""
        self.stop_timers()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
            running.scope[IS_GONE] = True
            if on_gone := running.scope.get(ON_GONE):
                on_gone()
        super().connection_lost(exc)
        for cycle in (self.cycle, running):
            if cycle is not None:
                # Each knows the other: together they would stay until the garbage is collected.
                cycle.on_response = _nothing

    def stop_timers(self) -> None:
        """Wait for nothing any more: the connection is lost, or somebody else's."""
        self._watch("")
        self._taking.watch(False)
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        is_free = self._is_free()
        if is_free and self._head is not None:
            if (request := self._head.read(data)) is not None:
                self._begin_again(self._head, *request)
                return
            self._misses += 1
        if not self._parse(data):
            return
        if is_free and self._is_whole_request():
            self._keep_head(data)
        if self._unstarted is not None:
            self._start(*self._unstarted)
        self._received += len(data)
        waits_for_head = self._head_is_open or self._running is None
        receiving = "head" if waits_for_head else "body" if self._lacks_body() else ""
        if receiving != self._receiving:
            self._watch(receiving)

    def _parse(self, data: bytes) -> bool:
        """Feed the parser; False where the connection is another protocol's from now on."""
        size = len(data)
        self._is_parsing = True
        while data and not self._is_deaf:
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                if self._should_upgrade():
                    become_socket(self, data)
                    return False
                decline_upgrade(self)
            except httptools.HttpParserError:
                self._refuse(
                    InvalidRequest("the request is not valid HTTP/1.1 to this server", code="invalid_http")
                )
            else:
                self._check_head(size)
        self._is_parsing = False
        return True

    def pause_writing(self) -> None:
        """The client does not keep up; it may not stand still for ever."""
        super().pause_writing()
        self._taking.watch(True)

    def resume_writing(self) -> None:
        """The client keeps up again."""
        super().resume_writing()
        self._taking.watch(False)

    def on_response_complete(self) -> None:
        """A reply is complete; a request that has waited behind it has all of its time from now on."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self._is_idle_from(self.loop.time())
        if self._receiving:
            self._watch(self._receiving)

    def _is_idle_from(self, moment: float) -> None:
        """One timer serves all of a connection's requests: a timer for each would be most of its work."""
        self._idle_since = moment
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_at(moment + self.timeout_keep_alive, self._look_if_idle)

    def _look_if_idle(self) -> None:
        self._idle_timer = None
        if not self._idle_since:
            return
        if self.loop.time() >= self._idle_since + self.timeout_keep_alive:
            self.timeout_keep_alive_handler()
        else:
            self._is_idle_from(self._idle_since)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._idle_since = 0.0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        scope: Any = {
            "type": "http",
            "asgi": self._asgi,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        self.scope = scope
        self._head_is_open, self._head_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; the parser leaves the spaces behind its value."""
        name, value = name.lower(), value.rstrip(b" \t")
        if name in _TOLD_TO_US:
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif value.lower() != b"chunked":
                raise ValueError("a body in a coding that is not understood")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is complete; what comes as a header from now on is a trailer, and no part of it."""
        self._head_is_open = False
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError("another version of HTTP")
        self._describe(version)
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        waits = self.cycle is not None and not self.cycle.response_complete
        cycle = self._new_cycle(keep_alive=version != "1.0" and self.parser.should_keep_alive())
        self.headers = _Ignored()
        if waits:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def _new_cycle(self, *, keep_alive: bool) -> Cycle:
        """The request that the scope describes, and its reply."""
        cycle = self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if self.scope["method"] != "HEAD":
            self.scope[CYCLE] = cycle  # type: ignore[literal-required]
        return cycle

    def _is_free(self) -> bool:
        """Whether the parser is between two requests, of which the first one is answered."""
        cycle = self.cycle
        is_answered = cycle is None or (cycle.response_complete and not cycle.more_body)
        return is_answered and not self._head_is_open and not self._is_deaf

    def _is_whole_request(self) -> bool:
        """Whether a request is there with all of its body, and none behind it."""
        unstarted = self._unstarted
        if unstarted is None or unstarted[0] is not self.cycle:
            return False
        return self.cycle.keep_alive and not self.cycle.more_body and not self._head_is_open

    def _keep_head(self, data: bytes) -> None:
        """Know this head again, if it can come again; not where others come all the time."""
        if self._misses > _MOST_MISSES:
            self._head = None
            return
        head = self._head = head_of(data, self.url, self.scope)
        if head is not None:
            self.scope[HEAD] = head  # type: ignore[literal-required]

    def _begin_again(self, head: Head, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer a request that has the head of the one before, which need not be parsed again."""
        self._idle_since, self._misses = 0.0, 0
        scope: Any = {**head.scope, "headers": headers, HEAD: head, "state": self.app_state.copy()}
        self.scope, self.url, self.expect_100_continue = scope, head.url, False
        cycle = self._running = self._new_cycle(keep_alive=True)
        cycle.body, cycle.more_body = body, False  # type: ignore[assignment]
        cycle.message_event.set()
        self._start(cycle, self.app)

    def _describe(self, version: str) -> None:
        """Say in ASGI's words what is asked for."""
        scope = self.scope
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = url.path, url.query or b""

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """A request is to be answered: once what has come is parsed, perhaps with all of its body."""
        self._running = cycle
        self._unstarted = (cycle, app)
        if not self._is_parsing:
            self._start(cycle, app)

    def _start(self, cycle: Any, app: Any) -> None:
        self._unstarted = None
        begin = getattr(app, "begin_at_once", None)
        if begin is None or cycle.more_body or not begin(cycle.scope, cycle, partial(self._run, cycle)):
            self._run(cycle, app)

    def _run(self, cycle: Any, app: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _lacks_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    def _watch(self, receiving: str) -> None:
        """From now on this is received, and may not take for ever."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._receiving, self._received = receiving, 0
        if receiving:
            limit_s = self.head_timeout_s if receiving == "head" else self.body_timeout_s
            self._deadline = self.loop.call_later(limit_s, self._is_late)

    def _is_late(self) -> None:
        if self._is_deaf:
            return
        running = self._running
        is_answering = running is not None and not running.response_complete
        if is_answering and (self._receiving == "head" or self.cycle is not running):
            # What waits behind an answer may not be read at all meanwhile.
            self._watch(self._receiving)
        elif self._receiving == "head":
            if self._received or running is not None:
                self._refuse(RequestTimeout("the head of the request did not come in time"))
            else:
                self.transport.close()
        elif self._received >= MIN_BYTES_S * self.body_timeout_s:
            self._watch("body")
        elif is_answering:
            self._refuse(RequestTimeout("the body of the request did not come in time"))
        else:
            # It has been answered without its body.
            self.transport.close()

    def _check_head(self, size: int) -> None:
        if not self._head_is_open:
            return
        # The read in which the head began is not counted: other requests may have been in it.
        self._head_bytes += size if self._head_bytes else 1
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(RequestTooLarge(f"the head of the request is larger than {MAX_HEAD_BYTES} bytes"))

    def _should_upgrade(self) -> bool:
        """Whether a WebSocket is asked for where there is one, and nothing is being answered."""
        scope, is_free = self.scope, self.cycle is None or self.cycle.response_complete
        is_there = (
            scope["path"] == SOCKET_PATH and scope["method"] == "GET" and scope["http_version"] == "1.1"
        )
        return is_free and is_there and self._get_upgrade() == b"websocket"

    def _refuse(self, error: GatewayError) -> None:
        """Answer what cannot be parsed, after the answers to what came before it, and read no more."""
        self._is_deaf = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._reply(error)
        elif not cycle.more_body:
            cycle.keep_alive = False
        elif cycle is not self._running:
            # Its body cannot be read, and what it waits for is still to be answered.
            self.pipeline.popleft()
            last = self.pipeline[0][0] if self.pipeline else self._running
            last.keep_alive = False
        elif not cycle.response_started:
            cycle.disconnected, cycle.waiting_for_100_continue = True, False
            cycle.message_event.set()
            self._reply(error)
        else:
            self.transport.close()

    def _reply(self, error: GatewayError) -> None:
        self.transport.write(refusal(error, getattr(self, "url", b"")))
        # A connection that is closed with bytes unread is reset, and the client might lose the reply.
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)


def _nothing() -> None:
    """For the end of a reply whose connection is lost."""


class _Ignored(list[tuple[bytes, bytes]]):
    """A list that stays empty."""

    def append(self, item: tuple[bytes, bytes]) -> None:
        """Do not keep it."""
