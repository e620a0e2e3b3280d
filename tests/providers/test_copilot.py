"""Copilot before a fake of Microsoft's side: what is sent, what comes back, and what each failure means.

The first classes show documented behaviour; what is under TestRobustness is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import UpstreamSettings
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotEntitled,
    SignInRequired,
    UpstreamError,
    UpstreamFailed,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamTimeout,
)
from modelway.providers.copilot import Copilot, SignIns
from modelway.providers.copilot.microsoft import MicrosoftDoor
from modelway.providers.copilot.profiles import PROFILES, Microsoft
from modelway.providers.http import HTTPClient
from modelway.testing.fake_upstream import End
from modelway.types import (
    ChatRequest,
    Citation,
    Finish,
    ImagePart,
    Message,
    Params,
    ResponseFormat,
    Tool,
    UpstreamState,
    collect,
)
from tests.fake_m365 import FakeM365, cited, frame
from tests.providers.asking import events_of

pytestmark = pytest.mark.anyio


def copilot_of(m365: FakeM365, sign_ins: SignIns, **fields: Any) -> Copilot:
    settings = m365.settings(**fields)
    http = HTTPClient(UpstreamSettings(idle_timeout_s=settings.idle_timeout_s))
    doors = [MicrosoftDoor(profile, settings, http=http, sign_ins=sign_ins) for profile in PROFILES.values()]
    return Copilot(settings, doors, http=http)


@pytest.fixture
async def copilot(m365: FakeM365, tmp_path: Path) -> AsyncIterator[Copilot]:
    async with aclosing(copilot_of(m365, m365.signed_in(tmp_path))) as provider:
        yield provider


def ask(*texts: str, stream: bool = True, **fields: Any) -> ChatRequest:
    """A request whose messages alternate between user and assistant."""
    messages = tuple(
        Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)
    )
    return ChatRequest(**{"messages": messages, "stream": stream, **fields})


async def state_after(copilot: Copilot, request: ChatRequest) -> dict[str, Any]:
    (state,) = [event for event in await events_of(copilot, request) if isinstance(event, UpstreamState)]
    return state.value


class TestTurns:
    async def test_a_first_turn_opens_a_conversation(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.reply("Hello", ", Ada")
        events = await events_of(copilot, ask("Hi"))
        assert collect(events).text == "Hello, Ada"
        assert isinstance(events[-1], Finish)
        assert events[-1].reason == "stop"
        (turn,) = m365.turns
        assert turn.conversation == "conversation-1"
        assert turn.body == {"message": {"text": "Hi"}, "locationHint": {"timeZone": "Europe/Berlin"}}

    async def test_the_state_names_the_conversation_and_its_conditions(
        self, m365: FakeM365, copilot: Copilot
    ) -> None:
        m365.reply("Hello")
        state = await state_after(copilot, ask("Hi"))
        assert state.pop("instructions_hash")
        assert state == {"transport": "workiq", "account": "ada", "conversation": "conversation-1"}

    async def test_a_second_turn_sends_only_what_is_new(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.reply("Hello")
        state = await state_after(copilot, ask("Hi"))
        await events_of(copilot, ask("Hi", "Hello", "And?", new_from=2, upstream_state=state))
        assert m365.opened == 1
        assert m365.turns[1].conversation == "conversation-1"
        assert m365.turns[1].body == {
            "message": {"text": "And?"},
            "locationHint": {"timeZone": "Europe/Berlin"},
        }

    async def test_several_new_messages_go_along_as_context(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.reply("Hello")
        state = await state_after(copilot, ask("Hi"))
        await events_of(copilot, ask("Hi", "Hello", "a", "b", "c", new_from=2, upstream_state=state))
        assert m365.turns[1].body["additionalContext"] == [
            {"text": "User: a", "description": "Earlier conversation"},
            {"text": "Assistant: b", "description": "Earlier conversation"},
        ]

    async def test_a_history_that_the_upstream_does_not_know_goes_along(
        self, m365: FakeM365, copilot: Copilot
    ) -> None:
        m365.reply("Good")
        await events_of(copilot, ask("one", "two", "three", new_from=2))
        assert m365.turns[0].body["message"] == {"text": "three"}
        assert m365.turns[0].body["additionalContext"] == [
            {"text": "User: one", "description": "Earlier conversation"},
            {"text": "Assistant: two", "description": "Earlier conversation"},
        ]

    async def test_instructions_go_along_with_each_turn(self, m365: FakeM365, copilot: Copilot) -> None:
        system = Message(role="system", content="Be brief")
        instructions = [{"text": "Be brief", "description": "Instructions"}]
        m365.reply("Hello")
        first = ask("Hi").messages
        state = await state_after(copilot, ask(messages=(system, *first)))
        later = ask("Hi", "Hello", "And?").messages
        await events_of(copilot, ask(messages=(system, *later), new_from=3, upstream_state=state))
        assert [turn.body["additionalContext"] for turn in m365.turns] == [instructions, instructions]
        assert m365.opened == 1

    @pytest.mark.parametrize(
        "change", [{"account": "grace"}, {"transport": "other"}, {"instructions_hash": "other"}]
    )
    async def test_a_state_that_does_not_fit_is_not_used(
        self, m365: FakeM365, copilot: Copilot, change: dict[str, str]
    ) -> None:
        m365.reply("Hello")
        state = await state_after(copilot, ask("Hi")) | change
        await events_of(copilot, ask("Hi", "Hello", "And?", new_from=2, upstream_state=state))
        assert m365.opened == 2
        assert len(m365.turns[1].body["additionalContext"]) == 2

    async def test_the_web_is_turned_off_in_each_turn(self, m365: FakeM365, tmp_path: Path) -> None:
        m365.reply("Hello")
        async with aclosing(copilot_of(m365, m365.signed_in(tmp_path), web=False)) as copilot:
            await events_of(copilot, ask("Hi"))
        assert m365.turns[0].body["contextualResources"] == {"webContext": {"isWebEnabled": False}}

    async def test_markup_of_microsofts_does_not_reach_the_caller(
        self, m365: FakeM365, copilot: Copilot
    ) -> None:
        m365.reply("At <Eve", "nt>Stand", "-up</Event>, ask <Person>Ada</Per", "son>")
        assert collect(await events_of(copilot, ask("Hi"))).text == "At Stand-up, ask Ada"

    @pytest.mark.parametrize("stream", [True, False])
    async def test_sources_are_named_after_the_text(
        self, m365: FakeM365, copilot: Copilot, stream: bool
    ) -> None:
        sources = {
            "attributions": [
                cited("Stand-up", "https://example.org/a"),
                cited("", "https://example.org/b"),
                cited("Ada", "https://example.org/c", kind="annotation"),
            ]
        }
        m365.show(
            frame(("a", "At 9[^1^]")), frame(("p", "Hi"), ("a", "At 9[^1^]."), turns=1, sources=sources)
        )
        events = await events_of(copilot, ask("Hi", stream=stream))
        assert collect(events).text == "At 9[^1^]."
        assert collect(events).message.annotations == (
            Citation(url="https://example.org/a", title="Stand-up"),
            Citation(url="https://example.org/b"),
        )

    async def test_a_map_of_references_is_read_too(self, m365: FakeM365, copilot: Copilot) -> None:
        references = {
            "1": {"targetLink": "https://example.org/a", "isCitedInResponse": True, "sensitivityLabel": None},
            "2": {"targetLink": "https://example.org/b", "isCitedInResponse": False},
        }
        m365.show(frame(("p", "Hi"), ("a", "At 9"), turns=1, sources={"references": references}))
        answer = collect(await events_of(copilot, ask("Hi")))
        assert answer.message.annotations == (Citation(url="https://example.org/a"),)


class TestRequests:
    @pytest.mark.parametrize(
        ("params", "param"),
        [
            (Params(tools=(Tool("f"),)), "tools"),
            (Params(response_format=ResponseFormat("json_object")), "response_format"),
            (Params(n=2), "n"),
        ],
    )
    async def test_what_copilot_cannot_do_is_refused(
        self, m365: FakeM365, copilot: Copilot, params: Params, param: str
    ) -> None:
        with pytest.raises(InvalidRequest) as raised:
            await events_of(copilot, ask("Hi", params=params))
        assert raised.value.param == param
        assert not m365.requests

    @pytest.mark.parametrize(
        "message",
        [
            Message(role="user", content=(ImagePart(url="https://example.org/a.png"),)),
            Message(role="user", content=" "),
            Message(role="assistant", content="Hello"),
        ],
        ids=["image", "blank", "assistant"],
    )
    async def test_a_message_that_cannot_be_a_prompt_is_refused(
        self, m365: FakeM365, copilot: Copilot, message: Message
    ) -> None:
        with pytest.raises(InvalidRequest) as raised:
            await events_of(copilot, ask(messages=(message,)))
        assert raised.value.param == "messages"
        assert not m365.requests

    async def test_an_image_that_another_provider_saw_is_mentioned(
        self, m365: FakeM365, copilot: Copilot
    ) -> None:
        m365.reply("Hello")
        seen = Message(role="user", content=(ImagePart(url="https://example.org/a.png"),))
        later = ask("x", "A cat", "Whose?").messages[1:]
        await events_of(copilot, ask(messages=(seen, *later), new_from=2))
        assert "not text" in m365.turns[0].body["additionalContext"][0]["text"]

    async def test_there_is_one_model(self, copilot: Copilot) -> None:
        assert [model.id for model in await copilot.models()] == ["m365-copilot"]
        with pytest.raises(ModelNotFound):
            await events_of(copilot, ask("Hi", model="gpt-9"))


class TestAccounts:
    async def test_nobody_has_signed_in(self, m365: FakeM365, tmp_path: Path) -> None:
        async with aclosing(copilot_of(m365, SignIns(tmp_path / "none"))) as copilot:
            assert not copilot.info.ready
            assert "nobody has signed in" in copilot.info.missing
            with pytest.raises(SignInRequired, match="nobody has signed in") as raised:
                await events_of(copilot, ask("Hi"))
        assert raised.value.code == "sign_in_required"
        assert "modelway login copilot" in raised.value.hint
        assert not m365.requests

    async def test_a_sign_in_is_noticed_without_a_restart(self, m365: FakeM365, tmp_path: Path) -> None:
        async with aclosing(copilot_of(m365, SignIns(tmp_path / "credentials"))) as copilot:
            before = copilot.info.ready
            m365.signed_in(tmp_path)
            assert (before, copilot.info.ready) == (False, True)
            m365.reply("Hello")
            assert collect(await events_of(copilot, ask("Hi"))).text == "Hello"

    async def test_auto_takes_the_first_with_a_sign_in(self, m365: FakeM365, tmp_path: Path) -> None:
        async with aclosing(copilot_of(m365, m365.signed_in(tmp_path, "graph"))) as copilot:
            assert "Graph" in copilot.info.label
            m365.signed_in(tmp_path, "workiq")
            assert "Work IQ" in copilot.info.label

    async def test_a_conversation_stays_on_its_transport(self, m365: FakeM365, tmp_path: Path) -> None:
        m365.reply("Hello")
        async with aclosing(copilot_of(m365, m365.signed_in(tmp_path, "graph"))) as copilot:
            state = await state_after(copilot, ask("Hi"))
            m365.signed_in(tmp_path, "workiq")
            await events_of(copilot, ask("Hi", "Hello", "And?", new_from=2, upstream_state=state))
        assert m365.opened == 1

    async def test_a_conversation_does_not_move_by_itself_when_its_account_signs_out(
        self, m365: FakeM365, tmp_path: Path
    ) -> None:
        m365.reply("Hello")
        sign_ins = m365.signed_in(tmp_path, "graph")
        async with aclosing(copilot_of(m365, sign_ins)) as copilot:
            state = await state_after(copilot, ask("Hi"))
            sign_ins.remove("graph")
            m365.signed_in(tmp_path, "workiq")
            with pytest.raises(SignInRequired, match="Graph"):
                await events_of(copilot, ask("Hi", "Hello", "And?", new_from=2, upstream_state=state))
        assert len(m365.turns) == 1

    async def test_a_token_that_was_refused_is_replaced_once(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.reply("Hello")
        await events_of(copilot, ask("Hi"))
        m365.revoke_access()
        await events_of(copilot, ask("Again"))
        assert m365.issued == 2
        assert len(m365.turns) == 2

    async def test_a_revoked_sign_in_asks_for_another(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.refusal = "invalid_grant"
        with pytest.raises(SignInRequired, match="has ended"):
            await events_of(copilot, ask("Hi"))
        assert not copilot.info.ready

    async def test_a_file_that_others_can_read_is_told(
        self, m365: FakeM365, tmp_path: Path, copilot: Copilot
    ) -> None:
        (tmp_path / "credentials/copilot-workiq.json").chmod(0o644)
        assert "others may read" in copilot.info.missing
        with pytest.raises(GatewayError, match="others may read"):
            await events_of(copilot, ask("Hi"))
        assert not m365.requests


NO_PLAN = {"error": {"code": "Forbidden", "message": "Access denied."}}
NO_SCOPE = {"error": {"code": "Forbidden", "message": "Required scopes = [Mail.Read]."}}
BLOCKED = {"error": {"code": "Forbidden", "message": "Blocked by Conditional Access policy."}}
OTHER_ISSUER = {"error": {"code": "AuthenticationError", "message": "Error authenticating with resource"}}


class TestRefusals:
    """The map of failures in the contract, row by row; a rate limit and a time-out are in TestRobustness."""

    @pytest.mark.parametrize(
        ("transport", "status", "body", "cause"),
        [
            ("workiq", 403, NO_PLAN, "billing plan"),
            ("workiq", 402, NO_PLAN, "billing plan"),
            ("graph", 403, NO_PLAN, "licence"),
            ("graph", 403, NO_SCOPE, "consent is missing"),
            ("workiq", 403, BLOCKED, "a policy"),
        ],
    )
    async def test_an_account_that_may_not_use_it_is_told_why(
        self, m365: FakeM365, tmp_path: Path, transport: Microsoft, status: int, body: object, cause: str
    ) -> None:
        m365.fail_with(status, body)
        async with aclosing(copilot_of(m365, m365.signed_in(tmp_path, transport))) as copilot:
            with pytest.raises(NotEntitled) as raised:
                await events_of(copilot, ask("Hi"))
        assert (raised.value.status, raised.value.code) == (403, "copilot_not_entitled")
        assert (raised.value.retryable, raised.value.failover) == (False, True)
        assert cause in raised.value.message
        assert "administrator" in raised.value.hint

    async def test_a_token_of_another_tenant_is_told(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.fail_with(400, OTHER_ISSUER)
        with pytest.raises(UpstreamRefusedCredential) as raised:
            await events_of(copilot, ask("Hi"))
        assert "home tenant" in raised.value.hint

    async def test_a_fresh_token_that_is_refused_asks_for_a_sign_in(
        self, m365: FakeM365, copilot: Copilot
    ) -> None:
        m365.refuses_tokens = True
        with pytest.raises(SignInRequired) as raised:
            await events_of(copilot, ask("Hi"))
        assert (raised.value.status, raised.value.code) == (401, "sign_in_required")
        assert "modelway login copilot" in raised.value.hint
        assert m365.issued == 2

    @pytest.mark.parametrize(
        ("number", "cause"),
        [("65001", "consent is missing"), ("53003", "a policy"), ("50105", "not assigned")],
    )
    async def test_a_refresh_that_an_administrator_must_allow_keeps_the_sign_in(
        self, m365: FakeM365, copilot: Copilot, number: str, cause: str
    ) -> None:
        m365.refusal, m365.number = "invalid_grant", number
        with pytest.raises(NotEntitled, match=cause):
            await events_of(copilot, ask("Hi"))
        assert copilot.info.ready
        m365.refusal = ""
        m365.reply("Hello")
        assert collect(await events_of(copilot, ask("Hi"))).text == "Hello"

    async def test_an_empty_answer_is_an_error(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.reply_with(b"")
        with pytest.raises(UpstreamProtocolError, match="without an answer"):
            await events_of(copilot, ask("Hi"))


class TestRobustness:
    @pytest.mark.parametrize("gone", [404, 410])
    async def test_a_lost_conversation_is_opened_again_with_the_history(
        self, m365: FakeM365, copilot: Copilot, gone: int
    ) -> None:
        m365.reply("Hello")
        state = await state_after(copilot, ask("Hi"))
        m365.gone = gone
        m365.forget()
        request = ask("Hi", "Hello", "And?", new_from=2, upstream_state=state)
        assert (await state_after(copilot, request))["conversation"] == "conversation-2"
        assert [turn.conversation for turn in m365.turns[1:]] == ["conversation-1", "conversation-2"]
        assert len(m365.turns[2].body["additionalContext"]) == 2

    async def test_a_conversation_that_is_lost_at_once_is_not_opened_for_ever(
        self, m365: FakeM365, copilot: Copilot
    ) -> None:
        m365.openings = [(201, {"id": "never"})]
        with pytest.raises(UpstreamProtocolError, match="no trace"):
            await events_of(copilot, ask("Hi"))
        assert len(m365.turns) == 1

    async def test_a_disengaged_conversation_is_opened_again(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.reply("Hello")
        state = await state_after(copilot, ask("Hi"))
        m365.show(frame(state="disengagedForRai", turns=1))
        m365.reply("Better")
        events = await events_of(copilot, ask("Hi", "Hello", "And?", new_from=2, upstream_state=state))
        assert collect(events).text == "Better"
        assert m365.opened == 2

    @pytest.mark.parametrize("text", ["", "I cannot talk about that."])
    async def test_a_turn_that_disengages_ends_as_filtered(
        self, m365: FakeM365, copilot: Copilot, text: str
    ) -> None:
        m365.show(frame(*[("a", text)] if text else [], state="disengagedForRai", turns=1))
        events = await events_of(copilot, ask("Hi"))
        assert collect(events).text == text
        assert collect(events).finish_reason == "content_filter"
        assert not any(isinstance(event, UpstreamState) for event in events)

    async def test_a_rate_limit_was_not_taken_and_says_when(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.fail_with(429, {"error": {"code": "TooManyRequests", "message": "slow"}}, retry_after="7")
        with pytest.raises(UpstreamRateLimited) as raised:
            await events_of(copilot, ask("Hi"))
        assert raised.value.retry_after == 7
        assert not raised.value.sent

    async def test_an_opening_that_failed_may_be_tried_again(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.openings = [(503, {"error": {"code": "x", "message": "busy"}})]
        with pytest.raises(UpstreamError) as raised:
            await events_of(copilot, ask("Hi"))
        assert not raised.value.sent

    async def test_a_gateways_timeout_is_not_tried_again(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.fail_with(504, {})
        with pytest.raises(UpstreamTimeout) as raised:
            await events_of(copilot, ask("Hi"))
        assert raised.value.sent

    @pytest.mark.parametrize("body", [[], {}, {"id": ""}, {"id": 7}])
    async def test_an_opening_without_an_id_is_an_error(
        self, m365: FakeM365, copilot: Copilot, body: object
    ) -> None:
        m365.openings = [(201, body)]
        with pytest.raises(UpstreamProtocolError, match="no conversation"):
            await events_of(copilot, ask("Hi"))

    async def test_an_address_that_is_not_copilots_is_told(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.openings = [(404, {})]
        with pytest.raises(UpstreamProtocolError) as raised:
            await events_of(copilot, ask("Hi"))
        assert "base_url" in raised.value.hint

    async def test_an_answer_that_is_cut_is_no_answer(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.show(frame(("a", "Hel")))
        with pytest.raises(UpstreamProtocolError) as raised:
            await events_of(copilot, ask("Hi"))
        assert raised.value.code == "upstream_truncated"

    async def test_a_lost_connection_is_no_end(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.show(frame(("a", "Hel")), End.RESET, terminated=False)
        with pytest.raises(UpstreamProtocolError) as raised:
            await events_of(copilot, ask("Hi"))
        assert raised.value.code == "upstream_reset"

    async def test_silence_has_an_end(self, m365: FakeM365, tmp_path: Path) -> None:
        m365.show(frame(("a", "Hel")), asyncio.Event())
        async with aclosing(copilot_of(m365, m365.signed_in(tmp_path), idle_timeout_s=0.05)) as copilot:
            with pytest.raises(UpstreamTimeout):
                await events_of(copilot, ask("Hi"))

    @pytest.mark.parametrize(
        "event", [b"data: {not json\n\n", b"data: [1]\n\n", b'data: {"messages": 1}\n\n']
    )
    async def test_an_event_that_cannot_be_read_is_an_error(
        self, m365: FakeM365, copilot: Copilot, event: bytes
    ) -> None:
        m365.show(event)
        with pytest.raises(UpstreamProtocolError, match="cannot be read"):
            await events_of(copilot, ask("Hi"))

    async def test_an_error_inside_the_stream_is_told(self, m365: FakeM365, copilot: Copilot) -> None:
        m365.show(frame(("a", "Hel")), b'data: {"error": {"code": "oops", "message": "broken"}}\n\n')
        with pytest.raises(UpstreamFailed, match="broken"):
            await events_of(copilot, ask("Hi"))

    @pytest.mark.parametrize(
        "sources",
        [
            {"attributions": "x", "references": []},
            {"attributions": [1, {"attributionType": 2}, cited("x", "javascript:alert(1)")]},
            {"references": {"1": None, "2": {"targetLink": 5}, "3": {}}},
        ],
    )
    async def test_sources_that_cannot_be_read_do_not_spoil_the_answer(
        self, m365: FakeM365, copilot: Copilot, sources: dict[str, object]
    ) -> None:
        m365.show(frame(("p", "Hi"), ("a", "Hello"), turns=1, sources=sources))
        answer = collect(await events_of(copilot, ask("Hi")))
        assert (answer.text, answer.message.annotations) == ("Hello", ())

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    async def test_an_answer_cut_at_every_byte_is_the_same(
        self, m365: FakeM365, copilot: Copilot, end: str
    ) -> None:
        final = frame(("p", "Hi"), ("a", "Grüße 👋"), turns=1, end=end)
        answer = frame(("a", "Grü"), end=end) + final.removesuffix(end.encode())
        m365.show(*(answer[at : at + 1] for at in range(len(answer))))
        assert collect(await events_of(copilot, ask("Hi"))).text == "Grüße 👋"

    async def test_a_rewritten_answer_is_put_right_at_its_end(self, m365: FakeM365, copilot: Copilot) -> None:
        for _ in range(2):
            m365.show(frame(("a", "Hello world")), frame(("p", "Hi"), ("a", "Hello [1] world"), turns=1))
        streamed, whole = [
            collect(await events_of(copilot, ask("Hi", stream=stream))).text for stream in (True, False)
        ]
        assert streamed == "Hello world\n\n---\nHello [1] world"
        assert whole == "Hello [1] world"
