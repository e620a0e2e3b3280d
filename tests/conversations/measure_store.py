"""Measures a stored turn: `python -m tests.conversations.measure_store [FOLDER]`. Prints a table.

A turn here is open_turn(), two events and finish(). CPU is that of the whole process, the callers' included.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path

import uvloop

from modelway.conversations import Conversations
from modelway.types import Finish, TextDelta
from tests.conversations.talk import begin, open_store

TURNS = 2000
ROUNDS = 5
TURNS_OF_A_CONVERSATION = 20
QUESTION = "Hello there, how are you?"
ANSWER = "word " * 200


async def caller(store: Conversations, names: Iterator[str], took: list[float]) -> None:
    for name in names:
        begun = time.perf_counter()
        turn = await begin(store, name, QUESTION)
        turn.record(TextDelta(text=ANSWER))
        turn.record(Finish())
        await turn.finish("Provider", "model-1")
        took.append(time.perf_counter() - begun)


def names(number: Iterator[int], turns: int, turns_of_each: int) -> Iterator[str]:
    for _ in range(turns // turns_of_each):
        name = f"c{next(number)}"
        for _ in range(turns_of_each):
            yield name


async def measure(
    store: Conversations, callers: int, turns_of_each: int, number: Iterator[int]
) -> list[float]:
    """CPU and time of a turn in us, the median and the 99th of 100 in ms."""
    took: list[float] = []
    cpu, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(
        *(caller(store, names(number, TURNS // callers, turns_of_each), took) for _ in range(callers))
    )
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - begun
    took.sort()
    turns = len(took)
    return [cpu / turns * 1e6, elapsed / turns * 1e6, took[turns // 2] * 1e3, took[turns * 99 // 100] * 1e3]


async def table(folder: Path) -> None:
    number = count()
    print("callers  conversations   cpu us  (best)   us    p50 ms   p99 ms")
    async with aclosing(open_store(folder)) as store:
        for callers in (1, 16, 64):
            for turns_of_each, kind in ((1, "new"), (TURNS_OF_A_CONVERSATION, "continued")):
                rounds = [await measure(store, callers, turns_of_each, number) for _ in range(ROUNDS)]
                cpu, elapsed, p50, p99 = (statistics.median(column) for column in zip(*rounds, strict=True))
                best = min(row[0] for row in rounds)
                print(
                    f"{callers:7}  {kind:13} {cpu:8.0f} {best:7.0f} {elapsed:7.0f} {p50:8.2f} {p99:8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as made:
        uvloop.run(table(Path(made)))
