"""Measures what a turn costs in a conversation that is already long."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import count

from msgspec import Struct

from modelway.bench.contestants import Contestant
from modelway.bench.processes import BenchError, cpu_usage
from modelway.bench.stats import Spread, spread

NEW_ONLY = "only the new message"
WHOLE = "the whole history again"
UNSTORED = "the whole history, nothing stored"
WAYS = (NEW_ONLY, WHOLE, UNSTORED)
_TALKS = 4
_TURNS_EACH = 5
_QUESTION = "And what would you do in the second case, if there were no other way to go home? " * 2

Message = dict[str, str]


class TurnRow(Struct, frozen=True, kw_only=True):
    """One way to ask in conversations of `turns` turns: CPU of the gateway, and how long the caller waits."""

    way: str
    turns: int
    body_kb: float
    cpu_us: Spread | None
    wall_ms: Spread | None


class Sample(Struct, frozen=True):
    """Some turns of one way and length: the means of a round, and the size of the last body."""

    cpu_us: float | None
    wall_ms: float
    body_bytes: int


class Talk:
    """A conversation of a caller who keeps its history himself; `turns` is how long it is already."""

    def __init__(self, contestant: Contestant, name: str, turns: int, way: str) -> None:
        self._contestant = contestant
        self._way = way
        self._name = name
        self._connection = http.client.HTTPConnection(contestant.host, contestant.port, timeout=60)
        self._history: list[Message] = []
        for number in range(turns - 1):
            self._history.append(_said("user", f"{number}: {_QUESTION}"))
            self._history.append(_said("assistant", f"{number}: {_QUESTION * 3}"))
        self.body_bytes = 0

    def begin(self) -> None:
        """Give the gateway the history, with a question."""
        self._history.append(_said("user", f"bench:json {_QUESTION}"))
        self._send(self._history)

    def turn(self) -> float:
        """Ask once more; how long it took, in seconds."""
        self._history.append(_said("user", f"bench:json {_QUESTION}"))
        return self._send(self._history[-1:] if self._way == NEW_ONLY else self._history)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _send(self, messages: list[Message]) -> float:
        fields: dict[str, object] = {"model": self._contestant.model, "provider": self._contestant.provider}
        if self._way != UNSTORED:
            fields["conversation_id"] = self._name
        body = json.dumps({**fields, "messages": messages}).encode()
        self.body_bytes = len(body)
        begun = time.perf_counter()
        self._connection.request("POST", self._contestant.path, body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        took = time.perf_counter() - begun
        if response.status != 200:
            raise BenchError(f"a turn was answered with {response.status}: {answer[:300].decode()}")
        self._history.append(_said("assistant", json.loads(answer)["choices"][0]["message"]["content"]))
        return took


def measure_turns(
    contestant: Contestant, lengths: Sequence[int], rounds: int, step: Callable[[str], None]
) -> list[TurnRow]:
    """Every way in every length once a round, in a new order; each time in conversations that are new."""
    cases = [(way, turns) for way in WAYS for turns in lengths]
    samples: dict[tuple[str, int], list[Sample]] = {case: [] for case in cases}
    names = count()
    for number in range(rounds):
        for way, turns in random.sample(cases, len(cases)):
            step(f"conversations of {turns} turns, round {number + 1}: {way}")
            samples[way, turns].append(_sample(contestant, way, turns, names))
    return [_row(way, turns, taken) for (way, turns), taken in samples.items()]


def _sample(contestant: Contestant, way: str, turns: int, names: count[int]) -> Sample:
    with ExitStack() as stack:
        talks = [
            stack.enter_context(closing(Talk(contestant, f"talk-{next(names)}", turns, way)))
            for _ in range(_TALKS)
        ]
        for talk in talks:
            talk.begin()
        before = cpu_usage(contestant.roots)
        walls = [talk.turn() for _ in range(_TURNS_EACH) for talk in talks]
        after = cpu_usage(contestant.roots)
    cpu = after.since(before) / len(walls) * 1e6 if before and after else None
    return Sample(cpu, sum(walls) / len(walls) * 1000, talks[-1].body_bytes)


def _row(way: str, turns: int, samples: Sequence[Sample]) -> TurnRow:
    return TurnRow(
        way=way,
        turns=turns,
        body_kb=samples[-1].body_bytes / 1e3,
        cpu_us=spread([sample.cpu_us for sample in samples]),
        wall_ms=spread([sample.wall_ms for sample in samples]),
    )


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}
