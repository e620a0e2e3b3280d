"""Kills a server under many streams, over and over, and looks at what is left."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx

from modelway.bench.upstream import STAMP, STAMP_DIGITS
from tests.e2e.running import Running

INTERVAL_MS, EVENTS = 20, 30
# Each event says when it was sent; the last two are the reason for the end, and the end.
_WORD = re.compile(rf"{STAMP.decode()}(\d{{{STAMP_DIGITS}}}) ")
WORD_LENGTH = len(STAMP) + STAMP_DIGITS + 1


@dataclass
class Said:
    """One turn as its client knows it: what it asked, what it has seen, and whether it saw the end."""

    question: str
    seen: str = ""
    acknowledged: bool = False


@dataclass
class Outcome:
    """What all rounds together have shown; `faults` says what must not be."""

    kills: int = 0
    acknowledged: int = 0
    cut: int = 0
    furthest_behind: int = 0
    starts_s: list[float] = field(default_factory=list)
    # Of an interpreter that does nothing, at the same time: how busy the machine is.
    empty_starts_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def figure(self) -> str:
        """In words, for the report."""
        return (
            f"{self.kills} kills, {self.acknowledged} acknowledged turns, {self.cut} cut off; at most "
            f"{self.furthest_behind} characters behind the client; ready again after "
            f"{_spread(self.starts_s)}, where `python -c pass` takes {_spread(self.empty_starts_s)}"
        )


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} s (median), {max(seconds):.2f} s (slowest)"


@contextmanager
def upstream() -> Iterator[str]:
    """The upstream of the benchmark, in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "modelway", "bench", "upstream", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        found = None
        while found is None:
            line = process.stdout.readline()
            assert line, "the upstream did not start"
            found = re.search(r"http://[\d.]+:\d+", line)
        yield f"{found[0]}/v1"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def config_for(base_url: str) -> str:
    """A server that knows this upstream alone."""
    return f"""
        provider = "Up"
        [log]
        level = "warning"
        [providers.Up]
        base_url = "{base_url}"
        default_model = "bench"
    """


async def kill_many(folder: Path, *, kills: int, streams: int, seed: int) -> Outcome:
    """Kill, start and look, `kills` times, each time at another moment of `streams` dialogues."""
    chance, outcome = random.Random(seed), Outcome()
    with upstream() as base_url, Running(folder, config=config_for(base_url)) as server:
        for number in range(kills):
            dialogues = await one_round(server, f"round-{number}", streams, chance.uniform(0.2, 2.0))
            check_file(folder, outcome)
            outcome.starts_s.append(await asyncio.to_thread(seconds_of, server.start))
            outcome.empty_starts_s.append(await asyncio.to_thread(seconds_of, start_nothing))
            await compare(server.address, dialogues, outcome)
            outcome.kills += 1
    return outcome


def seconds_of(act: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def start_nothing() -> None:
    """Let an interpreter begin and end."""
    subprocess.run([sys.executable, "-c", "pass"], check=True)


async def one_round(server: Running, name: str, streams: int, moment_s: float) -> dict[str, list[Said]]:
    """Let the dialogues run until the server is killed."""
    dialogues: dict[str, list[Said]] = {f"{name}-{number}": [] for number in range(streams)}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.address, limits=limits, timeout=30) as client:
        talks = [asyncio.create_task(talk(client, *item)) for item in dialogues.items()]
        await asyncio.sleep(moment_s)
        await asyncio.to_thread(server.kill)
        await asyncio.gather(*talks)
    return dialogues


async def talk(client: httpx.AsyncClient, conversation: str, said: list[Said]) -> None:
    """Ask one question after another until nobody answers."""
    while True:
        turn = Said(f"{conversation}, question {len(said)}: bench:paced:{INTERVAL_MS}:{EVENTS}")
        said.append(turn)
        body = {
            "messages": [{"role": "user", "content": turn.question}],
            "conversation_id": conversation,
            "stream": True,
        }
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                assert reply.status_code == 200, await reply.aread()
                async for line in reply.aiter_lines():
                    take(turn, line)
        except httpx.TransportError:
            return


def take(turn: Said, line: str) -> None:
    """Note what a line of the stream says."""
    if line == "data: [DONE]":
        turn.acknowledged = True
    elif line.startswith("data: "):
        delta = json.loads(line[6:])["choices"][0]["delta"]
        turn.seen += delta.get("content") or ""


def check_file(folder: Path, outcome: Outcome) -> None:
    """The database is sound, as the kill left it. A copy is looked at: who opens a file mends it, too."""
    [file] = folder.glob("*.sqlite3")
    looked_at = folder / "looked-at"
    looked_at.mkdir(exist_ok=True)
    for path in (file, file.with_name(f"{file.name}-wal")):
        shutil.copy(path, looked_at)
    with closing(sqlite3.connect(looked_at / file.name)) as connection:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
    if sound != "ok":
        outcome.faults.append(f"integrity_check says {sound}")


async def compare(address: str, dialogues: dict[str, list[Said]], outcome: Outcome) -> None:
    """Hold what is stored against what the clients know."""
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:
        for conversation, said in dialogues.items():
            reply = await client.get(f"/v1/conversations/{conversation}")
            messages = reply.json()["messages"] if reply.status_code == 200 else []
            for turn in said:
                weigh(conversation, turn, messages, outcome)


def is_beginning(text: str, words: int | None = None) -> bool:
    """Whether it is what the upstream has said from its first word on: so many words, or however many."""
    said = _WORD.findall(text)
    in_order = all(earlier < later for earlier, later in pairwise(said))
    return len(text) == len(said) * WORD_LENGTH and in_order and words in (None, len(said))


def weigh(conversation: str, turn: Said, messages: list[dict[str, str]], outcome: Outcome) -> None:
    """One turn, as its client knows it and as it is stored."""
    places = [number for number, message in enumerate(messages) if message["content"] == turn.question]
    kept = ""
    if len(places) == 1 and places[0] + 1 < len(messages):
        kept = messages[places[0] + 1]["content"]
    if turn.acknowledged:
        outcome.acknowledged += 1
        if len(places) != 1 or kept != turn.seen or not is_beginning(kept, EVENTS - 2):
            outcome.faults.append(f"{conversation}: an acknowledged turn, {len(places)} times: {kept!r}")
    elif turn.seen:
        outcome.cut += 1
        outcome.furthest_behind = max(outcome.furthest_behind, len(turn.seen) - len(kept))
        is_part = kept.startswith(turn.seen) or turn.seen.startswith(kept)
        if len(places) != 1 or not is_part or not is_beginning(kept):
            outcome.faults.append(f"{conversation}: a cut turn, {len(places)} times: {kept!r}")
    elif len(places) > 1:
        outcome.faults.append(f"{conversation}: a turn without an answer is there {len(places)} times")
