"""One conversation that goes from provider to provider: each upstream is given what was said before.

The upstreams are the stages of the providers' contract; a new one joins by its name in ORDER.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import ProviderSettings, UpstreamSettings
from modelway.errors import InvalidRequest
from modelway.gateway import Gateway
from modelway.providers.http import HTTPClient
from modelway.providers.ollama import Ollama
from modelway.types import (
    Caller,
    ChatRequest,
    Completion,
    ImagePart,
    Message,
    Params,
    TextPart,
    Tool,
    ToolCall,
)
from tests.contract.test_providers import STAGES
from tests.fake_ollama import FakeOllama
from tests.serving import gateway_of

pytestmark = pytest.mark.anyio

# LMStudio stands for the embedded model, which is spoken to in the same way.
ORDER = ("LMStudio", "OpenAI", "Copilot", "Anthropic", "Bedrock", "Gemini", "Ollama")
CALL_TOOLS = tuple(name for name in ORDER if name != "Copilot")
# Each upstream with a rule of its own about calls is asked for a model that has it.
MODELS = {"Gemini": "gemini-3-flash"}
PNG = "iVBORw0KGgoAAAANSUhEUg=="
LOOK = Tool("look", "Looks at a place", {"type": "object", "properties": {"at": {"type": "string"}}})


class Talk:
    """A conversation of one caller, held through a gateway of every stage."""

    def __init__(self, gateway: Gateway, stages: dict[str, Any]) -> None:
        self.stages = stages
        self._gateway = gateway

    async def ask(self, provider: str, *messages: Message, **params: Any) -> Completion:
        """One turn with this provider; only what is new is sent."""
        request = ChatRequest(
            messages=messages,
            model=MODELS.get(provider, "model-a"),
            provider=provider,
            conversation_id="voyage",
            stream=True,
            params=Params(**params),
            dialect="openai_chat",
        )
        async with aclosing(await self._gateway.answer(request, Caller("ada"))) as answer:
            return await answer.collect()

    def upstream(self, provider: str) -> Any:
        """The fake behind a provider."""
        return self.stages[provider]._upstream

    def sent(self, provider: str) -> str:
        """The last body that a provider sent."""
        bodies = [request.body for request in self.upstream(provider).requests if request.body]
        body: bytes = bodies[-1]
        return body.decode()


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[Talk]:
    async with AsyncExitStack() as stack:
        stages = {name: await stack.enter_async_context(STAGES[name]()) for name in ORDER}
        providers = [stage.provider for stage in stages.values()]
        gateway = await stack.enter_async_context(aclosing(gateway_of(providers, tmp_path)))
        yield Talk(gateway, stages)


def user(text: str) -> Message:
    return Message(role="user", content=text)


async def test_each_upstream_is_given_all_that_was_said_to_the_others(talk: Talk) -> None:
    said: list[tuple[str, str]] = []
    for number, name in enumerate((*ORDER, *reversed(ORDER))):
        talk.stages[name].say(f"answer {number}")
        answered = await talk.ask(name, user(f"question {number}"))
        said.append(("user", f"question {number}"))
        assert talk.stages[name].heard()[-1] == said, name
        said.append(("assistant", answered.text))
        assert answered.text == f"answer {number}"
        assert answered.provider == name


async def test_instructions_images_calls_and_results_reach_the_next_upstream_exactly_once(talk: Talk) -> None:
    picture = (TextPart("Where is this?"), ImagePart(f"data:image/png;base64,{PNG}"))
    new = [Message(role="system", content="Speak like a pirate"), Message(role="user", content=picture)]
    facts = ["Speak like a pirate", "Where is this?", PNG]
    for number, name in enumerate((*CALL_TOOLS, *reversed(CALL_TOOLS))):
        call = ToolCall(f"call_{number}", "look", f'{{"at":"harbour-{number}"}}')
        talk.upstream(name).reply(f"I look, {number}.", calls=[call])
        answered = await talk.ask(name, *new, tools=(LOOK,))
        sent = talk.sent(name)
        assert {fact: sent.count(fact) for fact in facts} == dict.fromkeys(facts, 1), name
        (made,) = answered.message.tool_calls
        assert (made.name, made.arguments) == (call.name, call.arguments)
        new = [Message(role="tool", content=f"A ship number {number}", tool_call_id=made.id)]
        facts += [f"I look, {number}.", f"harbour-{number}", f"A ship number {number}"]
        # One begins with the other's number.
        facts = [fact for fact in facts if not any(fact != other and fact in other for other in facts)]


async def test_copilot_is_told_in_words_of_calls_and_of_what_it_cannot_be_shown(talk: Talk) -> None:
    picture = (TextPart("Where is this?"), ImagePart(f"data:image/png;base64,{PNG}"))
    talk.upstream("Gemini").reply(calls=[ToolCall("c", "look", '{"at":"harbour"}')])
    answered = await talk.ask("Gemini", Message(role="user", content=picture), tools=(LOOK,))
    (made,) = answered.message.tool_calls
    talk.stages["Ollama"].say("Aye")
    await talk.ask("Ollama", Message(role="tool", content="A ship", tool_call_id=made.id), tools=(LOOK,))
    talk.stages["Copilot"].say("Aye, aye")
    await talk.ask("Copilot", user("Which one?"))
    told = [text for _, text in talk.stages["Copilot"].heard()[-1]]
    assert told[-1] == "Which one?"
    assert "Where is this?" in told[0]
    assert "not text" in told[0]
    assert all(word in told[1] for word in ("look", "harbour"))
    assert told[2:4] == ["A ship", "Aye"]


async def test_thinking_of_anthropic_is_kept_with_the_conversation_while_tools_are_called(talk: Talk) -> None:
    anthropic = talk.upstream("Anthropic")
    new, wanted = [user("Look around")], list[Any]()
    for number in range(3):
        thought = {"type": "thinking", "thinking": f"thought {number}", "signature": f"signed {number}"}
        use = {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {"at": "sea"}}
        anthropic.reply_with_blocks(thought, use)
        (made,) = (await talk.ask("Anthropic", *new, tools=(LOOK,))).message.tool_calls
        new = [Message(role="tool", content=f"Sea {number}", tool_call_id=made.id)]
        wanted.append([thought, use])
    talk.stages["Anthropic"].say("Only sea")
    await talk.ask("Anthropic", *new, tools=(LOOK,))
    turns = anthropic.asked[-1]["messages"]
    assert [turn["content"] for turn in turns if turn["role"] == "assistant"] == wanted
    talk.stages["Anthropic"].say("Again")
    await talk.ask("Anthropic", user("And now?"), tools=(LOOK,))
    assert "signed" not in talk.sent("Anthropic")


@pytest.mark.parametrize("name", ["Gemini", "Ollama"])
async def test_what_cannot_be_translated_is_refused_and_the_conversation_goes_on_elsewhere(
    talk: Talk, name: str
) -> None:
    seen = (TextPart("What is it?"), ImagePart("https://example.org/cat.png"))
    talk.stages["OpenAI"].say("A cat")
    await talk.ask("OpenAI", Message(role="user", content=seen))
    with pytest.raises(InvalidRequest, match="data: URL") as caught:
        await talk.ask(name, user("Which one?"))
    assert caught.value.param == "messages"
    assert not talk.upstream(name).requests
    talk.stages["OpenAI"].say("Mine")
    assert (await talk.ask("OpenAI", user("Whose?"))).text == "Mine"
    assert "https://example.org/cat.png" in talk.sent("OpenAI")


async def test_thought_signatures_of_gemini_are_kept_with_the_conversation(talk: Talk) -> None:
    gemini = talk.upstream("Gemini")
    new = [user("Look around")]
    for number in range(3):
        gemini.reply(calls=[ToolCall(f"call_{number}", "look", "{}")])
        answered = await talk.ask("Gemini", *new, tools=(LOOK,))
        (made,) = answered.message.tool_calls
        new = [Message(role="tool", content=f"Sea {number}", tool_call_id=made.id)]
    parts = [part for content in gemini.asked[-1]["contents"] for part in content["parts"]]
    sent = [part.get("thoughtSignature") for part in parts if "functionCall" in part]
    assert len(sent) == 2
    assert set(sent) < gemini.issued


async def test_a_model_that_the_provider_finds_is_named_in_the_answer(tmp_path: Path) -> None:
    async with FakeOllama() as upstream, aclosing(HTTPClient(UpstreamSettings())) as http:
        settings = ProviderSettings(base_url=upstream.root)
        provider = Ollama(settings, http=http, key_lookup=lambda variable, file: "")
        request = ChatRequest(messages=(user("Hi"),), stream=True)
        async with (
            aclosing(gateway_of([provider], tmp_path)) as gateway,
            aclosing(await gateway.answer(request, Caller("ada"))) as answer,
        ):
            assert answer.model == "model-a"
            assert (await answer.collect()).text == "Hello"
