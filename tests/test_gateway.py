"""The path of a request: what is tried, what is recorded, what the caller sees."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import pytest

from modelway.answer import Answer
from modelway.config import ConversationSettings, Settings
from modelway.errors import (
    InvalidRequest,
    SignInRequired,
    UpstreamFailed,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from modelway.gateway import Gateway
from modelway.telemetry import Attempt
from modelway.types import Caller, ChatRequest, Finish, Message, TextDelta, UpstreamState, Usage
from tests.polling import until
from tests.scripted import Scripted, says
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio
CALLER = Caller("local")


def asking(text: str, conversation_id: str = "", provider: str = "") -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", content=text),),
        conversation_id=conversation_id,
        provider=provider,
    )


async def ask(gateway: Gateway, request: ChatRequest) -> Answer:
    async with aclosing(await gateway.answer(request, CALLER)) as answer:
        await answer.collect()
        return answer


def texts(request: ChatRequest) -> list[str]:
    return [message.text for message in request.messages]


async def test_the_second_question_knows_the_first(tmp_path: Path) -> None:
    local = Scripted("Local", says("I am ", "fine, Heiner"), says("It is German"))
    async with aclosing(gateway_of([local], tmp_path)) as gateway:
        await ask(gateway, asking("Hello, i am Heiner", "c"))
        answer = await ask(gateway, asking("Tell me about my name", "c"))
    assert answer.completion.text == "It is German"
    assert texts(local.requests[1]) == ["Hello, i am Heiner", "I am fine, Heiner", "Tell me about my name"]
    assert local.requests[1].new_from == 2


async def test_the_next_turn_may_go_to_another_provider_with_all_of_the_history(tmp_path: Path) -> None:
    first, second = Scripted("One", says("from one")), Scripted("Two", says("from two"))
    async with aclosing(gateway_of([first, second], tmp_path)) as gateway:
        await ask(gateway, asking("a", "c", "One"))
        await ask(gateway, asking("b", "c", "Two"))
        await ask(gateway, asking("c", "c", "One"))
    assert texts(second.requests[0]) == ["a", "from one", "b"]
    assert texts(first.requests[1]) == ["a", "from one", "b", "from two", "c"]


async def test_without_a_conversation_nothing_is_remembered(tmp_path: Path) -> None:
    local = Scripted("Local", says("x"))
    async with aclosing(gateway_of([local], tmp_path)) as gateway:
        await ask(gateway, asking("a"))
        await ask(gateway, asking("b"))
        assert await gateway.conversations.list("local") == []
    assert texts(local.requests[1]) == ["b"]


async def test_the_fallback_answers_and_says_so(tmp_path: Path) -> None:
    copilot = Scripted("Copilot", [SignInRequired("nobody has signed in")])
    local = Scripted("Local", says("I can"))
    settings = Settings(provider="Copilot", fallback=("Local",))
    async with aclosing(gateway_of([copilot, local], tmp_path, settings)) as gateway:
        answer = await ask(gateway, asking("a", "c", "Copilot"))
    assert (answer.provider, answer.model) == ("Local", "local-1")
    assert [(attempt.provider, attempt.code) for attempt in answer.attempts] == [
        ("Copilot", "sign_in_required"),
        ("Local", ""),
    ]
    assert local.requests[0].model == "local-1"


async def test_when_nobody_answers_the_error_is_that_of_the_one_who_was_asked(tmp_path: Path) -> None:
    copilot = Scripted("Copilot", [SignInRequired("nobody has signed in", hint="sign in")])
    local = Scripted("Local", [UpstreamTimeout("too slow")])
    settings = Settings(provider="Copilot", fallback=("Local",))
    attempts: list[Attempt] = []
    async with aclosing(gateway_of([copilot, local], tmp_path, settings)) as gateway:
        with pytest.raises(SignInRequired, match="sign in; Local could not answer instead: too slow"):
            await gateway.answer(asking("a"), CALLER, attempts)
    assert [attempt.code for attempt in attempts] == ["sign_in_required", "upstream_timeout"]


async def test_without_a_fallback_the_error_is_the_answer(tmp_path: Path) -> None:
    copilot = Scripted("Copilot", [SignInRequired("nobody has signed in")])
    async with aclosing(gateway_of([copilot], tmp_path)) as gateway:
        with pytest.raises(SignInRequired):
            await ask(gateway, asking("a", "c"))
        shown = await gateway.conversations.show("local", "c")
    assert [turn.status for turn in shown.turns] == ["failed"]
    assert list(shown.messages) == []


async def test_a_request_that_is_wrong_is_not_passed_around(tmp_path: Path) -> None:
    first, second = Scripted("One", [InvalidRequest("bad")]), Scripted("Two")
    settings = Settings(provider="One", fallback=("Two",))
    async with aclosing(gateway_of([first, second], tmp_path, settings)) as gateway:
        with pytest.raises(InvalidRequest):
            await ask(gateway, asking("a"))
    assert second.requests == []
    assert len(first.requests) == 1


async def test_a_passing_failure_is_tried_again(tmp_path: Path) -> None:
    shaky = Scripted("Shaky", [UpstreamFailed("500", retry_after=0)], says("now"))
    async with aclosing(gateway_of([shaky], tmp_path)) as gateway:
        answer = await ask(gateway, asking("a"))
    assert answer.completion.text == "now"
    assert [attempt.code for attempt in answer.attempts] == ["upstream_error", ""]


async def test_a_stateful_upstream_is_never_sent_a_turn_twice(tmp_path: Path) -> None:
    shaky = Scripted("Shaky", [UpstreamFailed("500", retry_after=0)], says("now"), stateful=True)
    async with aclosing(gateway_of([shaky], tmp_path)) as gateway:
        with pytest.raises(UpstreamFailed):
            await ask(gateway, asking("a"))
    assert len(shaky.requests) == 1


@pytest.mark.parametrize(("on_crash", "raw"), [("continue", None), ("interrupt", b"{}")])
async def test_what_another_server_may_go_on_with_is_not_in_the_bytes_of_the_upstream(
    tmp_path: Path, on_crash: Literal["continue", "interrupt"], raw: bytes | None
) -> None:
    one = Scripted(
        "One", [TextDelta(text="half", raw=b"{}"), TextDelta(text=" and half", raw=b"{}"), Finish()]
    )
    settings = Settings(provider="One", conversations=ConversationSettings(on_crash=on_crash))
    asked = ChatRequest(
        messages=(Message(role="user", content="hi"),),
        conversation_id="c",
        stream=True,
        dialect="openai_chat",
    )
    gateway = gateway_of([one], tmp_path, settings)
    async with aclosing(gateway), aclosing(await gateway.answer(asked, CALLER)) as answer:
        events = [event async for event in answer]
    assert [event.raw for event in events if isinstance(event, TextDelta)] == [raw, raw]


async def test_what_has_no_price_costs_nothing(tmp_path: Path) -> None:
    one = Scripted("One")
    async with aclosing(gateway_of([one], tmp_path)) as gateway:
        assert gateway.charge(CALLER, None, one, "unheard-of", Usage(9, 9)) == 0


async def test_no_failover_after_first_delta(tmp_path: Path) -> None:
    first = Scripted("One", [TextDelta(text="half"), UpstreamTimeout("stalled")])
    second = Scripted("Two")
    settings = Settings(provider="One", fallback=("Two",))
    async with aclosing(gateway_of([first, second], tmp_path, settings)) as gateway:
        with pytest.raises(UpstreamTimeout):
            await ask(gateway, asking("a", "c"))
        shown = await gateway.conversations.show("local", "c")
    assert second.requests == []
    assert [turn.status for turn in shown.turns] == ["interrupted"]
    assert [message.text for message in shown.messages] == ["a", "half"]


async def test_state_alone_does_not_count_as_a_beginning(tmp_path: Path) -> None:
    first = Scripted("One", [UpstreamState({"id": 1}), UpstreamFailed("x", retry_after=60)])
    second = Scripted("Two", says("instead"))
    settings = Settings(provider="One", fallback=("Two",))
    async with aclosing(gateway_of([first, second], tmp_path, settings)) as gateway:
        answer = await ask(gateway, asking("a"))
    assert answer.provider == "Two"
    assert first.closed == 1


async def test_a_provider_that_ends_without_finish_is_an_error(tmp_path: Path) -> None:
    for script in ([], [TextDelta(text="half")]):
        broken = Scripted("Broken", script)
        async with aclosing(gateway_of([broken], tmp_path)) as gateway:
            with pytest.raises(UpstreamProtocolError) as caught:
                await ask(gateway, asking("a"))
        assert caught.value.code == "upstream_truncated"
        assert "the answer of Broken ended" in caught.value.message


async def test_the_turn_is_durable_before_the_finish_is_given(tmp_path: Path) -> None:
    local = Scripted("Local", says("done"))
    async with (
        aclosing(gateway_of([local], tmp_path)) as gateway,
        aclosing(await gateway.answer(asking("a", "c"), CALLER)) as answer,
    ):
        async for event in answer:
            shown = await gateway.conversations.show("local", "c")
            assert shown.turns[0].status == ("done" if isinstance(event, Finish) else "open")


async def test_a_caller_who_leaves_ends_the_upstream_call_and_keeps_the_text(tmp_path: Path) -> None:
    forever = asyncio.Event()
    slow = Scripted("Slow", [TextDelta(text="half "), TextDelta(text="an"), forever, *says("never")])
    async with aclosing(gateway_of([slow], tmp_path)) as gateway:
        async with aclosing(await gateway.answer(asking("a", "c"), CALLER)) as answer:
            async for event in answer:
                if isinstance(event, TextDelta) and event.text == "an":
                    break
        assert slow.closed == 1
        async with asyncio.timeout(5):
            while (shown := await gateway.conversations.show("local", "c")).turns[0].status == "open":
                pass
    assert shown.turns[0].status == "interrupted"
    assert [message.text for message in shown.messages] == ["a", "half an"]


async def test_a_cancelled_wait_for_the_first_delta_leaves_nothing_behind(tmp_path: Path) -> None:
    forever = asyncio.Event()
    silent = Scripted("Silent", [forever], says("ok"))
    async with aclosing(gateway_of([silent], tmp_path)) as gateway:
        task = asyncio.create_task(gateway.answer(asking("a", "c"), CALLER))
        await until(lambda: silent.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert silent.closed == 1
        answer = await ask(gateway, asking("a", "c"))
    assert answer.completion.text == "ok"
    assert texts(silent.requests[1]) == ["a"]


async def test_state_comes_back_to_the_provider_that_gave_it_while_it_is_current(tmp_path: Path) -> None:
    one = Scripted("One", [UpstreamState({"id": 7}), *says("x")], says("y"), says("z"))
    two = Scripted("Two")
    async with aclosing(gateway_of([one, two], tmp_path)) as gateway:
        await ask(gateway, asking("a", "c", "One"))
        await ask(gateway, asking("b", "c", "One"))
        await ask(gateway, asking("c", "c", "Two"))
        await ask(gateway, asking("d", "c", "One"))
    assert [request.upstream_state for request in one.requests] == [None, {"id": 7}, None]
    assert two.requests[0].upstream_state is None
