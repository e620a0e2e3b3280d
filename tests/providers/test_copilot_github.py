"""GitHub Copilot before a stub of its SDK: what is asked of the runtime, and what each failure means."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelway.config import CopilotGitHubSettings, CopilotSettings, UpstreamSettings
from modelway.errors import (
    ContextTooLong,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotEntitled,
    ProviderNotConfigured,
    SignInRequired,
    UpstreamFailed,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelway.providers.copilot import Copilot, SignIns
from modelway.providers.copilot.github import GitHubDoor
from modelway.providers.copilot.github_account import account_of
from modelway.providers.copilot.microsoft import MicrosoftDoor
from modelway.providers.copilot.profiles import PROFILES, Authority
from modelway.providers.copilot.runtime import Died, Launch, Runtime
from modelway.providers.copilot.sign_ins import SignIn
from modelway.providers.http import HTTPClient
from modelway.types import (
    ChatRequest,
    Finish,
    ImagePart,
    Message,
    Params,
    ReasoningDelta,
    ResponseFormat,
    TextPart,
    Tool,
    UpstreamState,
    Usage,
    collect,
)
from tests.canary import key
from tests.fake_copilot import (
    DEATH,
    SILENCE,
    AssistantMessageData,
    AssistantMessageDeltaData,
    AssistantReasoningDeltaData,
    AssistantUsageData,
    FakeGitHub,
    SessionErrorData,
    SessionIdleData,
    died,
    refusal,
)
from tests.fake_m365 import FakeM365
from tests.providers.asking import events_of

pytestmark = pytest.mark.anyio

TOKEN = key("github_pat")
# The beginning of what runtime 1.0.85 says where GitHub does not list the models.
LISTING = "Request models.list failed with message: GenericFailure, "
PIXEL = ImagePart("data:image/png;base64,AAAA")


@pytest.fixture
def github() -> FakeGitHub:
    return FakeGitHub()


def sign_in(**fields: Any) -> SignIn:
    authority = Authority("https://github.com", "", "")
    known = {"transport": "github", "authority": authority, "account": "ada", "refresh_token": TOKEN}
    return SignIn(**{**known, **fields})


def door_of(
    github: FakeGitHub,
    folder: Path,
    *,
    variables: dict[str, str] | None = None,
    signed_in: bool = True,
    idle_timeout_s: float = 5.0,
    **fields: Any,
) -> GitHubDoor:
    runtime = folder / "copilot-runtime"
    runtime.touch()
    settings = CopilotSettings(
        idle_timeout_s=idle_timeout_s,
        github=CopilotGitHubSettings(**{"runtime_path": str(runtime), **fields}),
    )
    sign_ins = SignIns(folder / "credentials")
    if signed_in:
        sign_ins.save(sign_in())
    return GitHubDoor(
        settings,
        sign_ins=sign_ins,
        home=folder / "home",
        variable=lambda name: (variables or {}).get(name, ""),
        start=github.start,
        pulse_s=0.01,
    )


@pytest.fixture
async def door(github: FakeGitHub, tmp_path: Path) -> AsyncIterator[GitHubDoor]:
    async with aclosing(door_of(github, tmp_path)) as door:
        yield door


def ask(*texts: str, turn: str = "turn-1", **fields: Any) -> ChatRequest:
    """A stored turn whose messages alternate between user and assistant."""
    messages = tuple(
        Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)
    )
    known = {"messages": messages, "stream": True, "conversation_id": "c", "turn_id": turn}
    return ChatRequest(**{**known, **fields})


async def state_after(door: GitHubDoor | Copilot, request: ChatRequest) -> dict[str, Any]:
    (state,) = [event for event in await events_of(door, request) if isinstance(event, UpstreamState)]
    return state.value


class TestTurns:
    async def test_a_first_turn_creates_a_conversation_without_tools(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        github.reply("Hello, ", "Ada")
        events = await events_of(door, ask("I am Ada"))
        assert collect(events).text == "Hello, Ada"
        assert events[-1] == Finish(usage=Usage(input_tokens=7, output_tokens=3), model="gpt-5")
        (session,) = github.sessions
        assert (session.kind, session.prompt) == ("create", "I am Ada")
        assert session.options["available_tools"] == []
        assert session.options["streaming"] is True
        assert session.options["model"] is None
        assert session.options["system_message"]["mode"] == "replace"
        assert type(session.options["on_permission_request"](None, None)).__name__.endswith("Reject")
        assert (session.closed, session.aborted, github.deleted) == (True, False, ["mw-old"])

    async def test_a_second_turn_resumes_and_sends_only_what_is_new(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        state = await state_after(door, ask("Hi"))
        await events_of(door, ask("Hi", "Hello", "And?", turn="turn-2", new_from=2, upstream_state=state))
        first, second = github.sessions
        assert (second.kind, second.name, second.prompt) == ("resume", first.name, "And?")

    async def test_a_lost_conversation_is_created_again_with_the_history(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        state = await state_after(door, ask("Hi"))
        github.conversations.clear()
        request = ask("Hi", "Hello", "And?", turn="turn-2", new_from=2, upstream_state=state)
        newer = await state_after(door, request)
        created = github.sessions[-1]
        assert (created.kind, created.name) == ("create", newer["conversation"])
        assert newer["conversation"] != state["conversation"]
        assert "User: Hi\n\nAssistant: Hello" in created.prompt
        assert created.prompt.endswith("And?")

    async def test_a_history_of_another_providers_goes_before_the_prompt(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        await events_of(door, ask("one", "two", "three", new_from=2))
        assert "User: one\n\nAssistant: two" in github.sessions[0].prompt

    @pytest.mark.parametrize("change", [{"account": "grace"}, {"instructions_hash": "other"}])
    async def test_a_state_that_does_not_fit_is_not_used(
        self, github: FakeGitHub, door: GitHubDoor, change: dict[str, str]
    ) -> None:
        state = await state_after(door, ask("Hi")) | change
        await events_of(door, ask("Hi", "Hello", "And?", turn="turn-2", new_from=2, upstream_state=state))
        assert [session.kind for session in github.sessions] == ["create", "create"]

    async def test_instructions_replace_the_runtimes_own(self, github: FakeGitHub, door: GitHubDoor) -> None:
        system = Message(role="system", content="Be brief")
        await events_of(door, ask(messages=(system, *ask("Hi").messages)))
        assert github.sessions[0].options["system_message"] == {"mode": "replace", "content": "Be brief"}

    async def test_two_callers_with_one_conversation_id_never_meet(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        await events_of(door, ask("Hi", turn="adas-turn"))
        await events_of(door, ask("Hi", turn="graces-turn"))
        first, second = (session.name for session in github.sessions)
        assert first != second
        assert len(first) == 35
        assert first.removeprefix("mw-").isalnum()

    async def test_without_a_conversation_nothing_is_left(self, github: FakeGitHub, door: GitHubDoor) -> None:
        events = await events_of(door, ask("Hi", conversation_id=""))
        assert not any(isinstance(event, UpstreamState) for event in events)
        assert github.conversations == {}

    async def test_a_whole_message_counts_where_no_pieces_came(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        github.say(
            *(AssistantMessageDeltaData(delta_content="Hel", message_id="a"),),
            AssistantMessageData(content="Hello", message_id="a"),
            AssistantMessageData(content=" there", message_id="b"),
            *started(),
        )
        assert collect(await events_of(door, ask("Hi"))).text == "Hello there"

    async def test_thoughts_are_told_and_sub_agents_are_not(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        said = AssistantMessageDeltaData(delta_content="noise", message_id="x")
        thought = AssistantReasoningDeltaData(delta_content="hm", reasoning_id="r")
        answer = AssistantMessageDeltaData(delta_content="Hello", message_id="a")
        github.say(thought, (said, "agent-1"), answer, *started())
        events = await events_of(door, ask("Hi"))
        assert ReasoningDelta(text="hm") in events
        assert collect(events).text == "Hello"

    @pytest.mark.parametrize(
        ("usage", "reason"),
        [
            (AssistantUsageData(model="m", finish_reason="length"), "length"),
            (AssistantUsageData(model="m", finish_reason="stop"), "stop"),
            (AssistantUsageData(model="m", content_filter_triggered=True), "content_filter"),
        ],
    )
    async def test_the_reason_of_the_end_is_passed_on(
        self, github: FakeGitHub, door: GitHubDoor, usage: AssistantUsageData, reason: str
    ) -> None:
        github.reply("Hello", usage=usage)
        assert collect(await events_of(door, ask("Hi"))).finish_reason == reason

    async def test_a_turn_that_is_left_is_stopped_and_forgotten(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        github.say(AssistantMessageDeltaData(delta_content="Hel", message_id="a"), SILENCE)
        async with aclosing(door.stream(ask("Hi"))) as events:
            await anext(events)
        (session,) = github.sessions
        assert (session.aborted, session.closed) == (True, True)
        assert session.name in github.deleted


def started() -> list[object]:
    from copilot.session_events import AssistantTurnStartData

    return [AssistantTurnStartData(turn_id="0"), SessionIdleData()]


class TestRequests:
    async def test_a_model_and_an_effort_are_passed_on(self, github: FakeGitHub, door: GitHubDoor) -> None:
        await events_of(door, ask("Hi", model="small", params=Params(reasoning_effort="high")))
        options = github.sessions[0].options
        assert (options["model"], options["reasoning_effort"]) == ("small", "high")

    async def test_the_models_are_asked_for_once_in_ten_minutes(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        assert [model.id for model in await door.models()] == ["github-copilot", "gpt-5", "small"]
        await door.models()
        await events_of(door, ask("Hi"))
        assert github.listed == 1

    async def test_an_image_goes_along_as_a_blob(self, github: FakeGitHub, door: GitHubDoor) -> None:
        message = Message(role="user", content=(TextPart("What is it?"), PIXEL))
        await events_of(door, ask(messages=(message,)))
        (session,) = github.sessions
        assert session.attachments == [{"type": "blob", "data": "AAAA", "mimeType": "image/png"}]
        assert session.prompt == "What is it?"

    @pytest.mark.parametrize(
        ("model", "image"),
        [
            ("small", PIXEL),
            ("gpt-5", ImagePart("https://example.org/a.png")),
            ("gpt-5", ImagePart("data:text/html;base64,AAAA")),
            ("gpt-5", ImagePart("data:image/png;base64,A")),
        ],
    )
    async def test_an_image_that_cannot_be_seen_is_refused(
        self, github: FakeGitHub, door: GitHubDoor, model: str, image: ImagePart
    ) -> None:
        message = Message(role="user", content=(TextPart("What is it?"), image))
        with pytest.raises(InvalidRequest) as raised:
            await events_of(door, ask(messages=(message,), model=model))
        assert raised.value.code == "unsupported_content"
        assert not any(github.conversations.values())

    @pytest.mark.parametrize(
        ("params", "param", "code"),
        [
            (Params(tools=(Tool("f"),)), "tools", "unsupported_tools"),
            (Params(response_format=ResponseFormat("json_object")), "response_format", "invalid_request"),
            (Params(n=2), "n", "invalid_request"),
            (Params(reasoning_effort="minimal"), "reasoning_effort", "invalid_request"),
        ],
    )
    async def test_what_it_cannot_do_is_refused(
        self, github: FakeGitHub, door: GitHubDoor, params: Params, param: str, code: str
    ) -> None:
        with pytest.raises(InvalidRequest) as raised:
            await events_of(door, ask("Hi", params=params))
        assert (raised.value.param, raised.value.code) == (param, code)
        assert not github.launches


class TestFailures:
    @pytest.mark.parametrize(
        ("said", "kind"),
        [
            (SessionErrorData("authentication", "no"), SignInRequired),
            (SessionErrorData("query", "no", status_code=401), SignInRequired),
            (SessionErrorData("authorization", "no", status_code=401), SignInRequired),
            (SessionErrorData("authorization", "no", status_code=403), NotEntitled),
            (SessionErrorData("authorization", "no"), NotEntitled),
            (SessionErrorData("query", "no", status_code=403), NotEntitled),
            (SessionErrorData("quota", "no", error_code="billing_not_configured"), NotEntitled),
            (SessionErrorData("quota", "no", error_code="quota_exceeded"), UpstreamRateLimited),
            (SessionErrorData("rate_limit", "no", error_code="rate_limited"), UpstreamRateLimited),
            (SessionErrorData("query", "no", status_code=429), UpstreamRateLimited),
            (SessionErrorData("context_limit", "no"), ContextTooLong),
            (SessionErrorData("query", "no", status_code=404), ModelNotFound),
            (SessionErrorData("query", "no", status_code=503), UpstreamOverloaded),
            (SessionErrorData("query", "no", status_code=504), UpstreamTimeout),
            (SessionErrorData("query", "no"), UpstreamFailed),
        ],
    )
    async def test_what_the_runtime_reports_has_its_status(
        self, github: FakeGitHub, door: GitHubDoor, said: SessionErrorData, kind: type[GatewayError]
    ) -> None:
        github.say(said, SessionIdleData())
        with pytest.raises(kind) as raised:
            await events_of(door, ask("Hi"))
        assert type(raised.value) is kind
        if kind is UpstreamRateLimited:
            assert not raised.value.retryable
        assert github.sessions[0].name in github.deleted

    async def test_a_filter_is_a_reason_and_no_error(self, github: FakeGitHub, door: GitHubDoor) -> None:
        github.say(SessionErrorData("query", "no", error_code="content_filter"), SessionIdleData())
        assert collect(await events_of(door, ask("Hi"))).finish_reason == "content_filter"

    @pytest.mark.parametrize(
        ("message", "kind", "code"),
        [
            ('Model "gpt-9" is not available.', ModelNotFound, "model_not_found"),
            ("Not authenticated. Please authenticate first.", SignInRequired, "sign_in_required"),
            ("models.list failed: HTTP 401 Unauthorized", SignInRequired, "sign_in_required"),
            (LISTING + '{"kind":"http","status":401,"headers":[]}', SignInRequired, "sign_in_required"),
            (LISTING + '{"kind":"http","status":403,"headers":[]}', NotEntitled, "copilot_not_entitled"),
            (LISTING + '{"kind":"http","status":429}', UpstreamRateLimited, "upstream_rate_limited"),
            ("Failed to list models: status 403", NotEntitled, "copilot_not_entitled"),
            ("Failed to list models (429 Too Many Requests)", UpstreamRateLimited, "upstream_rate_limited"),
            ("Gateway failed with status code: 504", UpstreamTimeout, "upstream_timeout"),
            ("who knows", UpstreamFailed, "upstream_error"),
        ],
    )
    async def test_what_the_runtime_refuses_has_its_status(
        self, github: FakeGitHub, door: GitHubDoor, message: str, kind: type[GatewayError], code: str
    ) -> None:
        github.fails_to_open = [refusal(message)]
        with pytest.raises(kind) as raised:
            await events_of(door, ask("Hi"))
        assert raised.value.code == code
        assert "{" not in raised.value.message

    async def test_a_model_that_the_account_has_not_is_no_other_model(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        with pytest.raises(ModelNotFound) as raised:
            await events_of(door, ask("Hi", model="gpt-9"))
        assert "gpt-5" in raised.value.others
        assert "gpt-5" not in raised.value.explanation
        with pytest.raises(ModelNotFound):
            await events_of(door, ask("Hi", model="off"))
        assert not github.sessions

    async def test_a_bad_credential_is_noticed_before_the_turn(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        github.fails_to_list = [refusal(LISTING + '{"kind":"http","status":401}')]
        with pytest.raises(SignInRequired):
            await events_of(door, ask("Hi"))
        assert not github.sessions

    async def test_the_token_is_taken_out_of_what_is_told(self, github: FakeGitHub, door: GitHubDoor) -> None:
        github.fails_to_open = [refusal(f"bad token {TOKEN}")]
        with pytest.raises(UpstreamFailed) as raised:
            await events_of(door, ask("Hi"))
        github.say(SessionErrorData("query", f"bad token {TOKEN}"))
        with pytest.raises(UpstreamFailed) as again:
            await events_of(door, ask("Hi"))
        for error in (raised.value, again.value):
            assert "bad token ***" in error.message
            assert TOKEN not in "".join(traceback.format_exception(error))

    async def test_silence_has_an_end_and_stops_the_turn(self, github: FakeGitHub, tmp_path: Path) -> None:
        github.say(SILENCE)
        async with aclosing(door_of(github, tmp_path, idle_timeout_s=0.05)) as door:
            with pytest.raises(UpstreamTimeout, match="silent"):
                await events_of(door, ask("Hi"))
        assert github.sessions[0].aborted

    @pytest.mark.parametrize(
        "said", [[*[SessionIdleData(aborted=True)]], [SessionIdleData()]], ids=["aborted", "empty"]
    )
    async def test_an_end_without_an_answer_is_an_error(
        self, github: FakeGitHub, door: GitHubDoor, said: list[object]
    ) -> None:
        github.say(started()[0], *said)
        with pytest.raises(UpstreamProtocolError):
            await events_of(door, ask("Hi"))


class TestRuntime:
    async def test_a_death_inside_a_turn_is_told_and_the_next_turn_has_a_new_process(
        self, github: FakeGitHub, tmp_path: Path
    ) -> None:
        github.say(AssistantMessageDeltaData(delta_content="Hel", message_id="a"), DEATH)
        async with aclosing(door_of(github, tmp_path)) as door:
            with pytest.raises(UpstreamUnreachable, match="has ended") as raised:
                await events_of(door, ask("Hi"))
            assert (raised.value.status, raised.value.sent) == (502, True)
            assert github.killed == 1

    async def test_a_death_before_the_turn_may_be_tried_again(
        self, github: FakeGitHub, door: GitHubDoor
    ) -> None:
        await events_of(door, ask("Hi"))
        github.is_dead = True
        with pytest.raises(UpstreamUnreachable) as raised:
            await events_of(door, ask("Again"))
        assert not raised.value.sent

    async def test_each_start_after_a_death_waits_longer(self, github: FakeGitHub) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        runtime = Runtime(github.start, sleep=sleep, now=lambda: 0.0)
        launch = Launch(Path("runtime"), Path("home"), {})
        github.fails_to_start = [died() for _ in range(7)]
        for _ in range(7):
            with pytest.raises(Died):
                async with runtime.using(launch):
                    pass
        async with runtime.using(launch):
            pass
        assert slept == [0, 1, 2, 4, 8, 16, 30, 30]
        await runtime.aclose()
        async with runtime.using(launch) as client:
            github.is_dead = True
            with pytest.raises(Died):
                await client.check()
        await runtime.aclose()

    async def test_another_account_gets_a_process_of_its_own(
        self, github: FakeGitHub, tmp_path: Path, door: GitHubDoor
    ) -> None:
        gate = asyncio.Event()
        github.say(AssistantMessageDeltaData(delta_content="Hel", message_id="a"), gate, *started())
        first = door.stream(ask("Hi"))
        await anext(first)
        SignIns(tmp_path / "credentials").save(sign_in(account="grace", refresh_token="other"))
        await events_of(door, ask("Hi"))
        assert [launch.token for launch in github.launches] == [TOKEN, "other"]
        assert github.stopped == 0
        gate.set()
        assert [event async for event in first]
        assert github.stopped == 1

    async def test_the_runtime_gets_a_home_of_its_own_and_none_of_our_secrets(
        self, github: FakeGitHub, tmp_path: Path
    ) -> None:
        variables = {"PATH": "/bin", "HOME": "/home/ada", "OPENAI_API_KEY": "sk", "HTTPS_PROXY": "http://p"}
        async with aclosing(door_of(github, tmp_path, variables=variables)) as door:
            await events_of(door, ask("Hi"))
        (launch,) = github.launches
        home = str(tmp_path / "home")
        assert launch.environment == {"PATH": "/bin", "HTTPS_PROXY": "http://p", "HOME": home}
        assert (tmp_path / "home").stat().st_mode & 0o077 == 0
        assert TOKEN not in repr(launch)

    async def test_a_missing_runtime_is_told_and_nothing_is_downloaded(
        self, github: FakeGitHub, tmp_path: Path
    ) -> None:
        missing = str(tmp_path / "none")
        async with aclosing(door_of(github, tmp_path, runtime_path=missing)) as door:
            with pytest.raises(ProviderNotConfigured) as raised:
                await events_of(door, ask("Hi"))
        assert (raised.value.status, raised.value.code) == (503, "copilot_runtime_missing")
        assert "pip install" in raised.value.hint
        assert raised.value.failover

    def test_a_missing_runtime_shows_before_a_call(self, github: FakeGitHub, tmp_path: Path) -> None:
        assert door_of(github, tmp_path).credential_source() == "file"
        for variables in ({"COPILOT_CLI_PATH": "none"}, {"COPILOT_CLI_EXTRACT_DIR": str(tmp_path / "none")}):
            door = door_of(github, tmp_path, variables=variables, runtime_path="")
            with pytest.raises(ProviderNotConfigured, match="runtime of GitHub Copilot"):
                door.credential_source()
        kept = {"COPILOT_CLI_EXTRACT_DIR": str(tmp_path)}
        assert door_of(github, tmp_path, variables=kept, runtime_path="").credential_source() == "file"

    def test_the_github_cli_shows_whether_somebody_has_signed_in(
        self, github: FakeGitHub, tmp_path: Path
    ) -> None:
        variables = {"GH_CONFIG_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}

        def source(**more: str) -> str:
            door = door_of(github, tmp_path, variables=variables | more, sign_in="gh", signed_in=False)
            return door.credential_source()

        assert source() == ""
        (tmp_path / "hosts.yml").write_text("{}\n")
        assert source() == ""
        assert source(GH_TOKEN="x") == "gh"
        (tmp_path / "hosts.yml").write_text("github.com:\n    user: ada\n")
        assert source() == "gh"

    def test_without_the_extras_there_is_no_runtime_and_no_keyring(self) -> None:
        program = """
import sys
sys.modules["copilot"] = sys.modules["keyring"] = None
from modelway.errors import ProviderNotConfigured
from modelway.providers.copilot.launching import require_sdk
from modelway.providers.copilot.vault import system_vault
try:
    require_sdk()
except ProviderNotConfigured as error:
    print(error.code, system_vault())
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "copilot_runtime_missing None\n"


class TestAccounts:
    async def test_nobody_has_signed_in(self, github: FakeGitHub, tmp_path: Path) -> None:
        async with aclosing(door_of(github, tmp_path, signed_in=False)) as door:
            assert door.credential_source() == ""
            with pytest.raises(SignInRequired):
                await events_of(door, ask("Hi"))
        assert not github.launches

    async def test_the_first_variable_that_is_set_counts(self, github: FakeGitHub, tmp_path: Path) -> None:
        variables = {"GH_TOKEN": key("gho_second"), "GITHUB_TOKEN": key("gho_third")}
        door = door_of(github, tmp_path, variables=variables, sign_in="environment")
        async with aclosing(door):
            assert door.credential_source() == "environment"
            state = await state_after(door, ask("Hi"))
        assert github.launches[0].token == key("gho_second")
        assert state["account"] == account_of(key("gho_second"))

    async def test_a_classic_token_is_refused(self, github: FakeGitHub, tmp_path: Path) -> None:
        variables = {"GITHUB_TOKEN": key("ghp_classic")}
        async with aclosing(door_of(github, tmp_path, variables=variables, sign_in="environment")) as door:
            with pytest.raises(ProviderNotConfigured, match="classic") as raised:
                await events_of(door, ask("Hi"))
        assert "ghp_" not in raised.value.explanation

    @pytest.mark.parametrize(
        ("fields", "home"), [({}, "theirs"), ({"home": "set"}, "set")], ids=["theirs", "set"]
    )
    async def test_the_copilot_clis_sign_in_is_found_by_the_runtime(
        self, github: FakeGitHub, tmp_path: Path, fields: dict[str, str], home: str
    ) -> None:
        variables = {"COPILOT_HOME": str(tmp_path / "theirs"), "HOME": "/home/ada"}
        settings: dict[str, Any] = {name: str(tmp_path / value) for name, value in fields.items()}
        door = door_of(github, tmp_path, variables=variables, sign_in="copilot-cli", **settings)
        async with aclosing(door):
            assert door.credential_source() == "copilot-cli"
            await events_of(door, ask("Hi"))
        (launch,) = github.launches
        assert (launch.token, launch.home) == ("", tmp_path / home)
        assert launch.environment["HOME"] == "/home/ada"

    @pytest.mark.parametrize("change", [{"ended": "revoked"}, {"authority": Authority("https://x", "", "")}])
    async def test_a_sign_in_that_does_not_count_is_nobodys(
        self, github: FakeGitHub, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        async with aclosing(door_of(github, tmp_path)) as door:
            SignIns(tmp_path / "credentials").save(sign_in(**change))
            assert door.credential_source() == ""

    async def test_auto_prefers_github_and_a_conversation_stays_where_it_is(
        self, github: FakeGitHub, tmp_path: Path
    ) -> None:
        async with FakeM365() as m365:
            sign_ins = m365.signed_in(tmp_path, "workiq")
            http = HTTPClient(UpstreamSettings())
            settings = m365.settings()
            microsoft = MicrosoftDoor(PROFILES["workiq"], settings, http=http, sign_ins=sign_ins)
            door = door_of(github, tmp_path, signed_in=False)
            async with aclosing(Copilot(settings, [door, microsoft], http=http)) as copilot:
                assert "Work IQ" in copilot.info.label
                m365.reply("Hello")
                state = await state_after(copilot, ask("Hi"))
                sign_ins.save(sign_in())
                assert copilot.info.label == "GitHub Copilot"
                assert copilot.info.params == ("reasoning_effort",)
                later = ask("Hi", "Hello", "And?", turn="turn-2", new_from=2, upstream_state=state)
                await events_of(copilot, later)
                assert len(m365.turns) == 2
                await events_of(copilot, ask("New", conversation_id="d"))
                assert len(github.sessions) == 1

    async def test_no_more_than_two_answer_at_once(self, github: FakeGitHub, tmp_path: Path) -> None:
        gate = asyncio.Event()
        for _ in range(3):
            said = AssistantMessageDeltaData(delta_content="Hello", message_id="a")
            github.say(said, gate, *started())
        http = HTTPClient(UpstreamSettings())
        door = door_of(github, tmp_path)
        async with aclosing(Copilot(CopilotSettings(max_concurrency=2), [door], http=http)) as copilot:
            streams = [copilot.stream(ask("Hi", turn=str(number))) for number in range(3)]
            await asyncio.gather(anext(streams[0]), anext(streams[1]))
            third = asyncio.create_task(anext(streams[2]))
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(github.sessions) == 2
            gate.set()
            assert [event async for event in streams[0]]
            await third
            for stream in streams:
                await stream.aclose()
