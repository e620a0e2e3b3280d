"""Measures the embedded model: `python -m tests.providers.measure_local [GGUF]`. Linux; prints a table."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from contextlib import aclosing
from pathlib import Path

from modelway import models
from modelway.config import LocalSettings
from modelway.settings import Directories
from modelway.types import ChatRequest, Finish, Message, Params
from tests.providers.test_local import Embedded, embedded

ROUNDS = 5
SENTENCES = " ".join(f"Item {number} of the list is heavier than the one before it." for number in range(20))


def rss_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


async def answer(running: Embedded, text: str, tokens: int) -> tuple[float, float, Finish]:
    """Seconds to the first delta, tokens a second after it, and the end."""
    asked = ChatRequest(
        messages=(Message(role="user", content=text),),
        stream=True,
        params=Params(temperature=0.0, max_tokens=tokens),
        dialect="openai_chat",
        extra={"ignore_eos": True},
    )
    begun = time.perf_counter()
    async with aclosing(running.local.stream(asked)) as events:
        event = await anext(events)
        first = time.perf_counter()
        async for later in events:
            event = later
    assert isinstance(event, Finish)
    return first - begun, (tokens - 1) / (time.perf_counter() - first), event


def row(what: str, values: list[float], unit: str, best: float) -> None:
    print(f"{what:58} {statistics.median(values):8.2f} {unit:6} (best {best:.2f})")


async def measure(path: Path) -> None:
    starts, memory = [], []
    for _ in range(ROUNDS):
        async with embedded(lambda: path, LocalSettings()) as running:
            before = rss_mb(os.getpid())
            begun = time.perf_counter()
            await running.local.start()
            starts.append(time.perf_counter() - begun)
            assert running.local.pid is not None
            memory.append(float(rss_mb(running.local.pid)))
    row("start: spawn until it can answer", starts, "s", min(starts))
    async with embedded(lambda: path, LocalSettings()) as running:
        await running.local.start()
        short = [await answer(running, f"{number}: who are you?", 64) for number in range(ROUNDS)]
        cold = [await answer(running, f"{number}. {SENTENCES}", 2) for number in range(ROUNDS)]
        warm = [await answer(running, f"{ROUNDS - 1}. {SENTENCES}", 2) for _ in range(ROUNDS)]
        tokens = cold[0][2].usage.input_tokens if cold[0][2].usage else 0
        row("first delta, short question", [s[0] for s in short], "s", min(s[0] for s in short))
        row("tokens a second, one answer", [s[1] for s in short], "tok/s", max(s[1] for s in short))
        row(f"first delta, {tokens} new tokens to read", [s[0] for s in cold], "s", min(s[0] for s in cold))
        row("first delta, the same again", [s[0] for s in warm], "s", min(s[0] for s in warm))
        begun = time.perf_counter()
        await asyncio.gather(*(answer(running, f"{number}: tell me a story", 64) for number in range(4)))
        total = 4 * 64 / (time.perf_counter() - begun)
        row("tokens a second, four answers together", [total], "tok/s", total)
        assert running.local.pid is not None
        row("memory of the child, after start", memory, "MB", min(memory))
        used = float(rss_mb(running.local.pid))
        row("memory of the child, after these answers", [used], "MB", used)
        grown = float(rss_mb(os.getpid()) - before)
        row("memory that all this added to this process", [grown], "MB", grown)


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
    asyncio.run(measure(models.resolve(chosen, Directories.default().data)))
