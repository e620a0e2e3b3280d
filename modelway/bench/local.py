"""Measures the embedded model through Modelway, beside its engine asked directly."""

from __future__ import annotations

import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

from modelway import models
from modelway.bench.processes import BenchError, ask_line, free_port, started, wait_until_answers
from modelway.bench.report import Machine, this_machine
from modelway.bench.stats import Spread, ratios, spread
from modelway.config import LocalSettings
from modelway.errors import ProviderNotConfigured
from modelway.providers.local.process import PROGRAM
from modelway.settings import Directories

ENGINE, GATEWAY = "engine", "modelway"
PARALLEL = 8
_TURNS = 5
_TOKENS = {"one": 32, "turn": 16, "parallel": 24}
_WAIT_S = 300
_SAID = "Item {} of the list is heavier than the one before it, and lighter than all that come behind it. "

Step = Callable[[str, int], None]
Message = dict[str, str]


class Figure(Struct, frozen=True, kw_only=True):
    """One figure of both, and the ratio of Modelway's to the engine's inside each round."""

    what: str
    unit: str
    engine: Spread | None
    modelway: Spread | None
    ratio: Spread | None


class LocalReport(Struct, kw_only=True):
    """Everything that was measured."""

    version: int = 1
    machine: Machine
    model: str
    rounds: int
    figures: list[Figure] = field(default_factory=list)


class Answer(Struct, frozen=True):
    """What came: the text, seconds to its first piece and to its end, tokens written, read, and kept."""

    text: str
    first_s: float
    whole_s: float
    tokens: int
    read: int
    kept: int


class Talker(Struct, frozen=True):
    """Somebody to ask. `remembers`: only the new message is sent, with the conversation's name."""

    name: str
    port: int
    api_key: str
    remembers: bool

    def ask(self, history: Sequence[Message], conversation: str, tokens: int) -> Answer:
        """Send the last message, or all, and read the answer to its end."""
        fields: dict[str, Any] = {
            "messages": history[-1:] if self.remembers else history,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "max_tokens": tokens,
            "ignore_eos": True,
        }
        if self.remembers:
            fields |= {"provider": "Local", "conversation_id": conversation}
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.api_key}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_WAIT_S)
        try:
            begun = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", json.dumps(fields), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise BenchError(f"{self.name} answered {response.status}: {response.read(300).decode()}")
            return _read(response, begun)
        finally:
            connection.close()


def _read(response: http.client.HTTPResponse, begun: float) -> Answer:
    first, pieces = 0.0, list[str]()
    usage: dict[str, Any] = {}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise BenchError(f"the answer broke off: {event['error']}")
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                first = first or time.perf_counter()
                pieces.append(text)
    kept = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Answer(
        text="".join(pieces),
        first_s=(first or time.perf_counter()) - begun,
        whole_s=time.perf_counter() - begun,
        tokens=usage.get("completion_tokens", len(pieces)),
        read=usage.get("prompt_tokens", 0) - kept,
        kept=kept,
    )


def measure_local(model: str, rounds: int, step: Step) -> LocalReport:
    """Ask both the same, round by round, in a new order. Raises BenchError where the model is not here."""
    try:
        path = models.resolve(model, Directories.default().data)
    except ProviderNotConfigured as exc:
        raise BenchError(exc.explanation) from exc
    taken: dict[str, list[Mapping[str, float]]] = {ENGINE: [], GATEWAY: []}
    words = count()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        talkers = [stack.enter_context(_engine(folder, path)), stack.enter_context(_gateway(folder, path))]
        for talker in talkers:
            talker.ask([_said("user", "Hello")], "warm", 4)
        for number in range(rounds):
            for talker in random.sample(talkers, len(talkers)):
                step(f"round {number + 1}: {talker.name}", rounds * len(talkers))
                taken[talker.name].append(_round(talker, words))
    return LocalReport(machine=this_machine(), model=model, rounds=rounds, figures=figures(taken))


# What a round comes to, with its unit.
_UNITS = {
    "first token, a short question": "ms",
    "tokens a second, one answer": "tokens/s",
    f"first token, turns 2 to {_TURNS} of a conversation": "ms",
    f"tokens read anew, turns 2 to {_TURNS}": "tokens",
    f"tokens kept from the turn before, turns 2 to {_TURNS}": "tokens",
    f"tokens a second, {PARALLEL} chats at once": "tokens/s",
    f"first token, {PARALLEL} chats at once": "ms",
    f"last of {PARALLEL} chats at once is answered": "ms",
}


def figures(taken: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Figure]:
    """Medians, and the medians of the ratios inside each round."""
    found = []
    for what, unit in _UNITS.items():
        engine = [own[what] for own in taken[ENGINE]]
        modelway = [own[what] for own in taken[GATEWAY]]
        found.append(
            Figure(
                what=what,
                unit=unit,
                engine=spread(engine),
                modelway=spread(modelway),
                ratio=ratios(modelway, engine),
            )
        )
    return found


def _round(talker: Talker, words: count[int]) -> dict[str, float]:
    alone = talker.ask([_question(words)], f"one-{next(words)}", _TOKENS["one"])
    later = _conversation(talker, words)
    begun = time.perf_counter()
    with ThreadPoolExecutor(PARALLEL) as threads:
        asked = [
            threads.submit(talker.ask, [_question(words)], f"parallel-{next(words)}", _TOKENS["parallel"])
            for _ in range(PARALLEL)
        ]
        together = [one.result() for one in asked]
    took = time.perf_counter() - begun
    values = (
        alone.first_s * 1000,
        (alone.tokens - 1) / (alone.whole_s - alone.first_s),
        sum(answer.first_s for answer in later) / len(later) * 1000,
        sum(answer.read for answer in later),
        sum(answer.kept for answer in later),
        sum(answer.tokens for answer in together) / took,
        sum(answer.first_s for answer in together) / PARALLEL * 1000,
        took * 1000,
    )
    return dict(zip(_UNITS, values, strict=True))


def _conversation(talker: Talker, words: count[int]) -> list[Answer]:
    """The answers of the second turn and those behind it."""
    name, history = f"talk-{next(words)}", list[Message]()
    answers = []
    for _ in range(_TURNS):
        history.append(_question(words))
        answers.append(talker.ask(history, name, _TOKENS["turn"]))
        history.append(_said("assistant", answers[-1].text))
    return answers[1:]


def _question(words: count[int]) -> Message:
    """A question that nobody has asked before, of some forty tokens."""
    number = next(words)
    return _said("user", f"{number}. {_SAID.format(number)} What do you say to it?")


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}


@contextmanager
def _engine(folder: Path, model: Path) -> Iterator[Talker]:
    """The engine with the settings that Modelway gives it."""
    defaults, key = LocalSettings(), "bench"
    wanted = {
        "path": str(model),
        "alias": "bench",
        "key": key,
        "context_length": defaults.context_length,
        "parallel": defaults.parallel,
        "threads": defaults.threads,
    }
    with started([sys.executable, "-P", str(PROGRAM)], log=folder / "engine.log", pipes=True) as process:
        told = json.loads(ask_line(process, json.dumps(wanted).encode() + b"\n"))
        if "url" not in told:
            raise BenchError(f"the engine does not start: {told['error']}")
        yield Talker(ENGINE, urlsplit(told["url"]).port or 80, key, False)


@contextmanager
def _gateway(folder: Path, model: Path) -> Iterator[Talker]:
    """Modelway with the same model, and a store."""
    config, port = folder / "modelway.toml", free_port()
    config.write_text(
        f'[log]\nlevel = "warning"\n[local]\nmodel = {json.dumps(str(model))}\npreload = true\n'
    )
    command = [sys.executable, "-m", "modelway", "serve", "--port", str(port), "--config", str(config)]
    log = folder / "modelway.log"
    with started(command, log=log, settings={"MODELWAY_DATA_DIR": str(folder)}) as process:
        wait_until_answers(port, process, log, wait_s=LocalSettings().start_timeout_s)
        yield Talker(GATEWAY, port, "bench", True)
