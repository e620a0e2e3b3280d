"""The embedded model, with the real engine and the real model."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelway import models
from modelway.config import LocalSettings, UpstreamSettings
from modelway.errors import (
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    ShuttingDown,
    UpstreamFailed,
    UpstreamTimeout,
)
from modelway.provider import Provider, ProviderInfo
from modelway.providers.http import HTTPClient
from modelway.providers.local import Local
from modelway.providers.openai_compatible import OpenAICompatible
from modelway.types import (
    ChatRequest,
    Completion,
    Event,
    Finish,
    ImagePart,
    Message,
    Params,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolChoice,
    collect,
)
from tests.careful import careful_loops
from tests.polling import until
from tests.scripted import Scripted

pytestmark = pytest.mark.anyio
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SMALL = LocalSettings(context_length=1024, parallel=1)
HELLO = Message(role="user", content="Hello, i am Heiner. How are you?")


@pytest.fixture(scope="module")
def anyio_backend() -> Iterator[tuple[str, dict[str, object]]]:
    with careful_loops() as new_loop:
        yield "asyncio", {"loop_factory": new_loop}


class Embedded:
    """A Local, what it said while it started, and where its children listened."""

    def __init__(self, settings: LocalSettings, path: Callable[[], Path], http: HTTPClient) -> None:
        self.http = http
        self.said: list[str] = []
        self.children: list[tuple[str, str]] = []
        self.local = Local(settings, path, self._upstream, on_progress=self.said.append)

    @property
    def starts(self) -> int:
        return sum(text.startswith("loading") for text in self.said)

    async def ask(self, *messages: Message, stream: bool = True, **fields: Any) -> Completion:
        return collect(await self.events(request(*messages, stream=stream, **fields)))

    async def events(self, asked: ChatRequest) -> list[Event]:
        async with aclosing(self.local.stream(asked)) as events:
            return [event async for event in events]

    async def at_work(self) -> bool:
        """Whether the child is answering anything, by its own metrics."""
        if not self.children:
            return False
        base_url, key = self.children[-1]
        url = f"{base_url.removesuffix('/v1')}/metrics"
        response = await self.http.request("GET", url, headers={"authorization": f"Bearer {key}"})
        async with aclosing(response):
            text = (await response.body()).decode()
        found = re.search(r"^llamacpp:requests_processing (\d+)", text, re.MULTILINE)
        assert found
        return found[1] != "0"

    def _upstream(self, base_url: str, key: str) -> Provider:
        self.children.append((base_url, key))
        return OpenAICompatible(ProviderInfo(name="Local"), base_url, http=self.http, key=lambda: key)


@asynccontextmanager
async def embedded(path: Callable[[], Path], settings: LocalSettings = SMALL) -> AsyncIterator[Embedded]:
    http = HTTPClient(UpstreamSettings())
    running = Embedded(settings, path, http)
    try:
        yield running
    finally:
        await running.local.aclose()
        await http.aclose()


@pytest.fixture(scope="module")
async def shared(model_path: Path, anyio_backend: object) -> AsyncGenerator[Embedded, None]:
    async with embedded(lambda: model_path, LocalSettings(max_tokens=7)) as running:
        yield running


def request(*messages: Message, stream: bool = True, extra: Any = None, **params: Any) -> ChatRequest:
    fields = {"temperature": 0.0, "seed": 1, "max_tokens": 24, **params}
    return ChatRequest(
        messages=messages or (HELLO,),
        model="smollm2",
        stream=stream,
        params=Params(**fields),
        dialect="openai_chat" if extra else "",
        extra=extra or {},
    )


def runs(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def cpu_time(pid: int) -> float:
    """Seconds of processor time that the process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def own_children() -> set[int]:
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in lists for pid in path.read_text().split() if runs(int(pid))}


async def test_it_remembers_the_name_in_the_history(shared: Embedded) -> None:
    first = await shared.ask(HELLO)
    assert first.text
    question = Message(role="user", content="Tell me somethings about my name")
    alone = await shared.ask(question, max_tokens=1)
    # So small a model does not say the name every time; it has never said it four times in vain.
    for seed in range(4):
        told = await shared.ask(HELLO, first.message, question, seed=seed, temperature=0.2)
        if "Heiner" in told.text:
            break
    assert "Heiner" in told.text
    assert told.model == "smollm2"
    assert told.usage is not None
    assert alone.usage is not None
    assert told.usage.input_tokens > alone.usage.input_tokens


async def test_the_engine_is_not_loaded_into_this_process(shared: Embedded) -> None:
    await shared.local.start()
    assert "xllamacpp" not in sys.modules


async def test_it_streams_token_by_token(shared: Embedded) -> None:
    events = await shared.events(request(max_tokens=8))
    assert sum(isinstance(event, TextDelta) for event in events) >= 4
    assert isinstance(events[-1], Finish)
    assert sum(isinstance(event, Finish) for event in events) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_usage_is_what_the_engine_counted(shared: Embedded, stream: bool) -> None:
    answer = await shared.ask(stream=stream, max_tokens=5)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5
    assert answer.usage.input_tokens == 41
    assert answer.finish_reason == "length"


async def test_the_settings_end_an_answer_whose_caller_sets_no_limit(shared: Embedded) -> None:
    answer = await shared.ask(max_tokens=None)
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.finish_reason) == (7, "length")


async def test_a_stop_sequence_ends_the_answer(shared: Embedded) -> None:
    answer = await shared.ask(stop=("welcome",), max_tokens=40)
    assert answer.text == "Heiner, "
    assert answer.finish_reason == "stop"


async def test_one_seed_gives_one_answer(shared: Embedded) -> None:
    answers = [await shared.ask(temperature=1.0, seed=seed) for seed in (7, 7, 8)]
    assert answers[0].text == answers[1].text != answers[2].text


async def test_a_json_schema_is_enforced(shared: Embedded) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "maximum": 150},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = ResponseFormat(kind="json_schema", name="person", json_schema=schema)
    answer = await shared.ask(response_format=wanted, max_tokens=64)
    assert answer.finish_reason == "stop"
    person = json.loads(answer.text)
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)


WEATHER = Tool(
    name="get_weather",
    description="The weather in a city",
    parameters={
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"city": {"enum": ["Paris", "Rome"]}},
    },
)
CLOCK = Tool(name="get_time", description="The time now")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_demanded_call_is_made(shared: Embedded, stream: bool) -> None:
    answer = await shared.ask(
        Message(role="user", content="How is the weather in Paris?"),
        stream=stream,
        max_tokens=64,
        tools=(WEATHER, CLOCK),
        tool_choice=ToolChoice(mode="required"),
    )
    assert answer.finish_reason == "tool_calls"
    assert answer.text == ""
    (call,) = answer.message.tool_calls
    assert call.id
    assert call.name in {"get_weather", "get_time"}
    assert isinstance(json.loads(call.arguments), dict)


async def test_a_named_call_keeps_to_the_schema_of_its_tool(shared: Embedded) -> None:
    answer = await shared.ask(
        Message(role="system", content="You are terse."),
        Message(role="user", content="What time is it?"),
        max_tokens=64,
        tools=(WEATHER, CLOCK),
        tool_choice=ToolChoice(mode="named", name="get_weather"),
    )
    (call,) = answer.message.tool_calls
    assert call.name == "get_weather"
    assert json.loads(call.arguments)["city"] in {"Paris", "Rome"}


async def test_a_call_that_the_length_limit_cuts_is_none(shared: Embedded) -> None:
    answer = await shared.ask(max_tokens=3, tools=(WEATHER,), tool_choice=ToolChoice(mode="required"))
    assert answer.finish_reason == "length"
    assert answer.message.tool_calls == ()


async def test_a_demanded_tool_must_be_offered(shared: Embedded) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await shared.ask(tools=(CLOCK,), tool_choice=ToolChoice(mode="named", name="other"))
    assert caught.value.param == "tool_choice"


async def test_four_answers_are_written_at_the_same_time(shared: Embedded) -> None:
    seen: list[tuple[str, int]] = []

    async def ask(number: int) -> None:
        hello = Message(role="user", content=f"Hello, I am number {number}. Tell me a story.")
        async with aclosing(shared.local.stream(request(hello, max_tokens=32))) as events:
            async for event in events:
                kind = "end" if isinstance(event, Finish) else "text"
                seen.append((kind, number))

    await asyncio.gather(*(ask(number) for number in range(4)))
    begun = [seen.index(("text", number)) for number in range(4)]
    ended = [seen.index(("end", number)) for number in range(4)]
    assert max(begun) < min(ended)


async def test_closing_the_stream_stops_the_generation(shared: Embedded) -> None:
    stream = shared.local.stream(request(max_tokens=4000, extra={"ignore_eos": True}))
    async with aclosing(stream):
        await anext(stream)
        assert await shared.at_work()
    deadline = time.monotonic() + 1.0
    while await shared.at_work():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@linux_only
async def test_a_prompt_being_read_is_given_up_too(shared: Embedded) -> None:
    long = Message(role="user", content=" ".join(str(number) for number in range(900)))
    asking = asyncio.create_task(shared.ask(long))
    while not await shared.at_work():
        assert not asking.done()
        await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait([asking])
    # Not by the metrics: each answer of the child's puts off its next look at the connection.
    deadline = time.monotonic() + 12.0
    assert shared.local.pid is not None
    used = -1.0
    while used != (used := cpu_time(shared.local.pid)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def test_too_long_a_conversation_is_said_to_be_that(shared: Embedded) -> None:
    with pytest.raises(InvalidRequest, match="context size"):
        await shared.ask(Message(role="user", content="a b c " * 3000))


async def test_pictures_are_refused(shared: Embedded) -> None:
    with pytest.raises(InvalidRequest, match="text only"):
        await shared.ask(Message(role="user", content=(ImagePart(url="data:image/png;base64,AA=="),)))


async def test_another_model_is_not_answered_for(shared: Embedded) -> None:
    with pytest.raises(ModelNotFound) as raised:
        await shared.events(ChatRequest(messages=(HELLO,), model="gpt-9"))
    assert raised.value.others == ["smollm2"]
    assert "smollm2" not in raised.value.explanation


async def test_a_model_is_loaded_while_its_child_runs(shared: Embedded, model_path: Path) -> None:
    await shared.local.start()
    assert [model.id for model in shared.local.loaded] == ["smollm2"]
    async with embedded(lambda: model_path) as fresh:
        assert fresh.local.loaded == []


async def test_models_lists_the_one_model(shared: Embedded) -> None:
    assert [model.id for model in await shared.local.models()] == ["smollm2"]


@linux_only
async def test_signals_meant_for_the_server_do_not_end_answers(shared: Embedded) -> None:
    await shared.local.start()
    pid = shared.local.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert (await shared.ask(max_tokens=2)).text
    assert shared.local.pid == pid


async def test_the_small_model_is_asked_with_little_chance_unless_told(model_path: Path) -> None:
    upstream = Scripted("Child")
    local = Local(SMALL, lambda: model_path, lambda _url, _key: upstream)
    async with aclosing(local):
        for params in (Params(), Params(temperature=1.0), Params(top_p=0.5)):
            asked = ChatRequest(messages=(HELLO,), model="smollm2", params=params)
            async with aclosing(local.stream(asked)) as events:
                assert [event async for event in events]
    given = [(request.params.temperature, request.params.top_p) for request in upstream.requests]
    assert given == [(0.2, 0.9), (1.0, None), (0.2, 0.5)]


async def test_closing_in_the_middle_of_a_start_is_said_to_who_waits(model_path: Path) -> None:
    async with embedded(lambda: model_path) as running:
        start = asyncio.create_task(running.local.start())
        await until(lambda: running.starts == 1)
    with pytest.raises(ShuttingDown):
        await start


async def test_callers_share_one_start_which_leaves_the_event_loop_free(model_path: Path) -> None:
    async with embedded(lambda: model_path) as running:
        starts = asyncio.gather(*(running.local.start() for _ in range(3)))
        ticks = 0
        while not starts.done():
            await asyncio.sleep(0.005)
            ticks += 1
        await starts
        assert running.starts == 1
        assert ticks >= 10


async def test_a_crash_costs_only_the_answers_under_way(model_path: Path) -> None:
    async with embedded(lambda: model_path) as running:
        stream = running.local.stream(request(max_tokens=400, extra={"ignore_eos": True}))
        async with aclosing(stream):
            await anext(stream)
            assert running.local.pid is not None
            os.kill(running.local.pid, signal.SIGABRT)
            with pytest.raises(UpstreamFailed, match=r"process ended \(signal 6\)") as caught:
                async for _ in stream:
                    pass
        assert "next request" in caught.value.hint
        assert (await running.ask(max_tokens=2)).text
        assert running.starts == 2


async def test_after_crashes_in_a_row_the_next_start_waits(model_path: Path) -> None:
    async with embedded(lambda: model_path) as running:
        for _ in range(2):
            await running.local.start()
            pid = running.local.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: running.local.pid is None)
        with pytest.raises(UpstreamFailed) as caught:
            await running.local.start()
        assert caught.value.retry_after == 1
        assert running.starts == 2


def crafted(model: bytes) -> bytes:
    """The model with a number in its header that makes native code abort rather than complain."""
    key = b"llama.block_count"
    at = model.index(key) + len(key) + 4
    return model[:at] + (100_000).to_bytes(4, "little") + model[at + 4 :]


@pytest.mark.check(44)
@pytest.mark.parametrize("content", ["cut", "text", "empty", "crafted"])
async def test_a_bad_file_is_named_and_not_tried_for_ever(
    model_path: Path, tmp_path: Path, content: str
) -> None:
    bad = tmp_path / "bad.gguf"
    good = model_path.read_bytes()
    contents = {"cut": good[:1_000_000], "text": b"hello", "empty": b"", "crafted": crafted(good)}
    bad.write_bytes(contents[content])
    async with embedded(lambda: bad) as running:
        for _ in range(5):
            with pytest.raises(ProviderNotConfigured, match=r"bad\.gguf"):
                await running.local.start()
        assert running.starts == 2
        shutil.copyfile(model_path, bad)
        await running.local.start()


async def test_a_missing_model_is_answered_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    async with embedded(lambda: models.resolve("smollm2", tmp_path)) as running:
        assert not running.local.info.ready
        assert "modelway models pull smollm2" in running.local.info.missing
        with pytest.raises(ProviderNotConfigured) as caught:
            await running.ask()
        assert "modelway models pull smollm2" in caught.value.hint


async def test_a_missing_engine_is_answered_with_the_command_that_installs_it() -> None:
    program = (
        "import sys; sys.modules['xllamacpp'] = None\n"
        "from modelway.config import LocalSettings\n"
        "from modelway.providers.local import Local\n"
        "print(Local(LocalSettings(), None, None).info.missing)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert b"python -m pip install 'modelway[local]'" in output


@linux_only
async def test_a_start_that_takes_too_long_leaves_no_process(model_path: Path) -> None:
    before = own_children()
    async with embedded(lambda: model_path, LocalSettings(start_timeout_s=0.05)) as running:
        with pytest.raises(UpstreamTimeout, match="start_timeout_s"):
            await running.local.start()
        assert own_children() == before


@linux_only
async def test_a_cancelled_start_leaves_no_process(model_path: Path) -> None:
    before = own_children()
    async with embedded(lambda: model_path) as running:
        start = asyncio.create_task(running.local.start())
        await until(lambda: own_children() != before)
        start.cancel()
        await asyncio.wait([start])
    assert start.cancelled()
    assert own_children() == before


@linux_only
async def test_closing_ends_the_process_and_what_comes_later(model_path: Path) -> None:
    async with embedded(lambda: model_path) as running:
        await running.local.start()
        pid = running.local.pid
        assert pid is not None
        await running.local.aclose()
        assert not runs(pid)
        with pytest.raises(ShuttingDown):
            await running.ask()


@linux_only
async def test_the_child_ends_when_its_parent_is_killed(model_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from modelway.config import LocalSettings\n"
        "from modelway.providers.local import Local\n"
        "async def main():\n"
        "    local = Local(LocalSettings(), lambda: pathlib.Path(sys.argv[1]), lambda url, key: None)\n"
        "    await local.start()\n"
        "    print(local.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(model_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert runs(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not runs(pid))
