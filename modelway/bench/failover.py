"""Sixteen ways in which an upstream fails, and whether Modelway keeps its promise in each.

The faults are those that gateways are compared by: what is not there, what is silent, what says no, what
answers nonsense, and what breaks off. Each is asked for streamed and whole, on a route with a second
candidate that works; those that break off are asked for once more on a route that lets the second go on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from modelway.bench.faults import TEXT, WORDS
from modelway.bench.faulty import FaultyUpstream
from modelway.bench.processes import free_port, started, wait_until_answers
from modelway.config import UpstreamSettings
from modelway.providers.http import HTTPClient

SAID = 3
LIMIT_S = 0.5
BACKUP = "Backup"

Way = Literal["streamed", "whole", "continued"]


class Case(Struct, frozen=True):
    """A fault of the first candidate. `breaks_off`: after some words. `mends`: a second try is answered."""

    name: str
    fault: str
    breaks_off: bool = False
    mends: bool = False

    @property
    def route(self) -> str:
        """The name of its route."""
        return f"case-{self.name}"

    @property
    def ways(self) -> tuple[Way, ...]:
        """How it is asked for."""
        return ("streamed", "whole", "continued") if self.breaks_off else ("streamed", "whole")


CASES = (
    Case("refused", "refuse"),
    Case("reset", "reset"),
    Case("closed", "empty"),
    Case("silent", "silent"),
    Case("silent-body", "silent-body"),
    Case("status-500", "status:500"),
    Case("status-503", "status:503"),
    Case("overloaded-529", "status:529"),
    Case("rate-limit-short", "retry-after:0.1+ok", mends=True),
    Case("rate-limit-absurd", "retry-after:absurd"),
    Case("key-refused", "status:401"),
    Case("web-page", "html"),
    Case("error-in-200", "error-inside:0"),
    Case("stall", f"stall:{SAID}", breaks_off=True),
    Case("reset-inside", f"reset-inside:{SAID}", breaks_off=True),
    Case("cut-short", f"cut:{SAID}", breaks_off=True),
)


class Outcome(Struct, frozen=True, kw_only=True):
    """What a caller got, who gave it, and who was asked."""

    status: int
    provider: str
    text: str = ""
    error: str = ""
    finished: bool = False
    tells_of_change: bool = False
    asked: tuple[str, ...] = ()
    ms: float = 0.0


class Verdict(Struct, frozen=True):
    """Whether a promise was kept; `what` says what was seen instead."""

    case: str
    way: Way
    kept: bool
    what: str
    ms: float


def settings_text(upstream: FaultyUpstream) -> str:
    """The configuration of a gateway in which every case has its route."""
    lines = [
        'provider = "Backup"',
        f"[upstream]\nfirst_byte_timeout_s = {LIMIT_S}\nidle_timeout_s = {LIMIT_S}\nretries = 1",
        f'[providers.{BACKUP}]\nbase_url = "{upstream.url()}"\ndefault_model = "m"',
    ]
    for case in CASES:
        url = upstream.refused_url if case.fault == "refuse" else upstream.url(case.fault)
        lines.append(f'[providers.First-{case.name}]\nbase_url = "{url}"\ndefault_model = "m"')
        candidates = f'candidates = ["First-{case.name}", "{BACKUP}"]'
        lines.append(f"[routes.{case.route}]\n{candidates}")
        if case.breaks_off:
            lines.append(f'[routes.{case.route}-continued]\n{candidates}\non_break = "continue"')
    return "\n".join(lines) + "\n"


async def judge(case: Case, way: Way, address: str, upstream: FaultyUpstream, http: HTTPClient) -> Verdict:
    """Ask for one case in one way."""
    seen = await _ask(case, way, address, upstream, http)
    promise = _promise(case, way)
    return Verdict(case.name, way, promise(seen), _told(seen), seen.ms)


def _promise(case: Case, way: Way) -> Callable[[Outcome], bool]:
    if case.mends:
        return lambda seen: seen.text == TEXT and seen.finished and seen.provider.startswith("First-")
    if way == "continued":
        return lambda seen: seen.text == _said() + TEXT and seen.finished and seen.tells_of_change
    if case.breaks_off and way == "streamed":
        # What was said stays, what happened is told, and nobody else's words follow.
        return lambda seen: (
            seen.text == _said() and bool(seen.error) and not seen.finished and "ok" not in seen.asked
        )
    return lambda seen: (
        seen.text == TEXT and seen.finished and seen.provider == BACKUP and seen.asked.count(case.fault) <= 2
    )


async def _ask(case: Case, way: Way, address: str, upstream: FaultyUpstream, http: HTTPClient) -> Outcome:
    upstream.forget()
    body = {
        "model": f"{case.route}-continued" if way == "continued" else case.route,
        "stream": way != "whole",
        "messages": [{"role": "user", "content": "What does the fox do?"}],
    }
    started_at = time.monotonic()
    headers = {"content-type": "application/json"}
    response = await http.request(
        "POST", f"{address}/v1/chat/completions", headers=headers, body=json.dumps(body).encode()
    )
    async with aclosing(response):
        reply = await response.body()
    return _read(
        reply,
        status=response.status,
        headers=response.headers,
        asked=tuple(one.fault for one in upstream.heard),
        ms=(time.monotonic() - started_at) * 1000,
    )


def _read(
    reply: bytes, *, status: int, headers: Mapping[str, str], asked: tuple[str, ...], ms: float
) -> Outcome:
    is_stream = headers["content-type"].startswith("text/event-stream")
    parts = [part.removeprefix(b"data: ") for part in reply.split(b"\n\n")] if is_stream else [reply]
    values = [json.loads(part) for part in parts if part.startswith(b"{")]
    text, finish, error = "", "", ""
    for value in values:
        error = (value.get("error") or {}).get("code", "") or error
        for choice in value.get("choices", ()):
            text += (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            finish = choice.get("finish_reason") or finish
    return Outcome(
        status=status,
        provider=headers.get("x-modelway-provider", ""),
        text=text,
        error=error,
        finished=finish == "stop" and (not is_stream or b"[DONE]" in parts),
        tells_of_change=any("continued" in value.get("modelway", {}) for value in values),
        asked=asked,
        ms=ms,
    )


def _said() -> str:
    return "".join(WORDS[:SAID])


def _told(seen: Outcome) -> str:
    who = seen.provider or "nobody"
    ended = "whole" if seen.finished else f"ended with {seen.error or 'nothing'}"
    return f"{seen.status} from {who}, {len(seen.text)} characters, {ended}"


@contextmanager
def gateway(folder: Path, config: str) -> Iterator[str]:
    """A Modelway server in a process of its own, with this configuration."""
    (folder / "failover.toml").write_text(config)
    log, port = folder / "modelway.log", free_port()
    own = {f"MODELWAY_{name}_DIR": str(folder) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    command = [sys.executable, "-m", "modelway", "serve", "--config", str(folder / "failover.toml")]
    with started([*command, "--port", str(port)], log=log, settings=own) as process:
        wait_until_answers(port, process, log)
        yield f"http://127.0.0.1:{port}"


async def run(folder: Path, each: Callable[[Verdict], None]) -> None:
    """Judge all cases against a server of our own; `each` is told of every verdict."""
    async with FaultyUpstream() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        with gateway(folder, settings_text(upstream)) as address:
            for case in CASES:
                for way in case.ways:
                    each(await judge(case, way, address, upstream, http))
