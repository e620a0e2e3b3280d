from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import pytest
from anyio.from_thread import start_blocking_portal

from modelway.auth import Auth, hash_key
from modelway.cli.answering import Style, code_block, tell
from modelway.cli.exits import ExitCode
from modelway.cli.prompt import Dialogue
from modelway.errors import UpstreamTimeout
from modelway.gateway import Gateway
from modelway.testing.fake_upstream import FakeUpstream
from modelway.types import Citation, Completion, Finish, FinishReason, RefusalDelta, TextDelta, Usage, collect
from tests.cli.conftest import Home
from tests.scripted import Scripted, says
from tests.serving import gateway_of, serving


def asked(upstream: FakeUpstream) -> list[str]:
    """The last thing that each request asked."""
    return [request.json["messages"][-1]["content"] for request in upstream.requests]


def test_a_question_is_answered_on_stdout_alone(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.reply("Rayleigh", " scattering.")
    done = asking_home.run("chat", "Why is the sky blue?")
    assert done.code == ExitCode.OK
    assert done.out == "Rayleigh scattering.\n"
    assert done.err.startswith("conversation conv_")
    assert asked(upstream) == ["Why is the sky blue?"]


def test_what_is_piped_in_goes_before_the_question(asking_home: Home, upstream: FakeUpstream) -> None:
    asking_home.run("chat", "Review this", input="the diff\n")
    asking_home.run("chat", input="only the pipe")
    assert asked(upstream) == ["the diff\n\nReview this", "only the pipe"]


def test_asking_nothing_is_a_usage_error(asking_home: Home, upstream: FakeUpstream) -> None:
    assert asking_home.run("chat").code == ExitCode.USAGE
    assert asking_home.run("chat", " ").code == ExitCode.USAGE
    assert not upstream.requests


def test_the_last_conversation_is_continued(asking_home: Home, upstream: FakeUpstream) -> None:
    asking_home.run("chat", "I am Heiner")
    asking_home.run("chat", "-c", "Who am I?")
    texts = [message["content"] for message in upstream.requests[-1].json["messages"]]
    assert texts == ["I am Heiner", "Hello", "Who am I?"]
    assert len(asking_home.run("conversations", "list").out.splitlines()) == 1


def test_nothing_to_continue_is_told(asking_home: Home) -> None:
    done = asking_home.run("chat", "-c", "And?")
    assert done.code == ExitCode.ERROR
    assert "no conversation to continue" in done.err


def test_without_a_store_nothing_is_remembered(asking_home: Home) -> None:
    done = asking_home.run("chat", "--no-store", "hi")
    assert done.out == "Hello\n"
    assert not done.err
    assert not asking_home.run("conversations", "list").out


def test_json_is_one_object(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.reply("Hi", reasoning="hm")
    done = asking_home.run("chat", "--json", "--conversation", "mine", "hi")
    assert done.json == {
        "provider": "Fake",
        "model": "model-a",
        "conversation_id": "mine",
        "text": "Hi",
        "reasoning": "hm",
        "tool_calls": [],
        "finish_reason": "stop",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
    assert not done.err


@pytest.mark.parametrize(("flags", "stream"), [((), True), (("--no-stream",), False)])
def test_options_become_the_request(
    asking_home: Home, upstream: FakeUpstream, flags: tuple[str, ...], stream: bool
) -> None:
    fields = ("-o", "temperature=0.5", "-o", 'stop=["x"]', "-o", "user=me")
    done = asking_home.run("chat", *flags, "-m", "Fake/model-b", "-s", "Be short", *fields, "hi")
    assert done.out == "Hello\n", done.err
    sent = upstream.requests[0].json
    assert sent["model"] == "model-b"
    assert sent["messages"][0] == {"role": "system", "content": "Be short"}
    assert (sent["temperature"], sent["stop"], sent["user"]) == (0.5, ["x"], "me")
    assert sent.get("stream", False) is stream


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "temperature"),
        ("-o", "=1"),
        ("-o", "model=x"),
        ("-o", "temperature=9"),
        ("-c", "--conversation", "x"),
        ("-c", "-n"),
        ("--json", "-x"),
        ("--server", "http://localhost:1", "--no-server"),
        ("--server", "localhost:1337"),
        ("--conversation", "a b"),
    ],
)
def test_wrong_options_are_usage_errors(
    asking_home: Home, upstream: FakeUpstream, arguments: tuple[str, ...]
) -> None:
    done = asking_home.run("chat", *arguments, "hi")
    assert done.code == ExitCode.USAGE
    assert 1 <= len(done.err.splitlines()) <= 2
    assert not upstream.requests


def test_a_dry_run_shows_the_request_and_sends_nothing(asking_home: Home, upstream: FakeUpstream) -> None:
    done = asking_home.run("chat", "--dry-run", "-n", "-s", "Be short", "-o", "seed=1", "hi")
    assert done.json == {
        "url": None,
        "body": {
            "messages": [{"role": "system", "content": "Be short"}, {"role": "user", "content": "hi"}],
            "seed": 1,
            "stream": True,
        },
    }
    assert not upstream.requests


def test_only_the_code_is_extracted(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.reply("Sure:\n```sh\nls -l\n```\nThat lists files.")
    assert asking_home.run("chat", "-x", "How?").out == "ls -l\n"


def test_an_answer_without_code_is_not_passed_on_as_code(asking_home: Home) -> None:
    done = asking_home.run("chat", "-x", "How?")
    assert done.code == ExitCode.ERROR
    assert not done.out


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("~~~\na\n~~~", "a\n"),
        ("````md\n```\nb\n```\n````", "```\nb\n```\n"),
        ("```\n```", ""),
    ],
)
def test_a_code_block_ends_at_its_own_fence(text: str, code: str) -> None:
    assert code_block(text) == code


def test_usage_is_told_on_stderr(asking_home: Home) -> None:
    done = asking_home.run("chat", "-u", "-n", "hi")
    assert done.err.startswith("7 tokens in, 3 out, ")
    assert done.err.endswith(" s, Fake/model-a\n")


def test_an_answer_that_breaks_off_ends_with_the_error(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.cut("Half an ", "answer")
    done = asking_home.run("chat", "-n", "hi")
    assert done.out == "Half an answer\n"
    assert done.code == ExitCode.UPSTREAM
    assert done.err.startswith("modelway: ")


def test_a_refused_credential_has_its_own_exit_code(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.fail(401, "bad key")
    assert asking_home.run("chat", "-n", "hi").code == ExitCode.AUTH


def test_a_model_that_is_not_here_is_told_with_the_command_that_helps(home: Home) -> None:
    home.environ["MODELWAY_LOCAL__MODEL"] = "qwen3-0.6b"
    done = home.run("chat", "hi")
    assert done.code == ExitCode.CONFIG
    assert "modelway models pull qwen3-0.6b" in done.err


@pytest.fixture
def server(home: Home) -> Iterator[tuple[str, Scripted]]:
    """A server of ours on the port that the home's settings name, and its provider."""
    provider = Scripted("There", says("from the server"))
    with serving_at_home(home, provider, Auth({})) as address:
        yield address, provider


@contextmanager
def serving_at_home(home: Home, provider: Scripted, auth: Auth) -> Iterator[str]:
    async def gateway() -> Gateway:
        return gateway_of([provider], home.folder / "server")

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(portal.call(gateway), auth)) as address,
    ):
        home.config.write_text(f"[server]\nport = {address.rpartition(':')[2]}")
        yield address


def test_a_server_that_wants_a_key_gets_it_from_the_environment(home: Home) -> None:
    with serving_at_home(home, Scripted("There"), Auth({"me": hash_key("sk-mine")})):
        refused = home.run("chat", "hi")
        assert refused.code == ExitCode.AUTH
        assert "MODELWAY_API_KEY" in refused.err
        home.environ["MODELWAY_API_KEY"] = "sk-mine"
        assert home.run("chat", "hi").out == "hello\n"
        assert home.run("chat", "-c", "again").code == ExitCode.OK


def test_a_running_server_is_asked(home: Home, server: tuple[str, Scripted]) -> None:
    address, provider = server
    done = home.run("chat", "hi")
    assert done.out == "from the server\n"
    assert home.run("chat", "-c", "again").out == "from the server\n"
    assert [message.text for message in provider.requests[1].messages] == ["hi", "from the server", "again"]
    assert home.run("chat", "--dry-run", "hi").json["url"] == f"{address}/v1/chat/completions"
    assert {check["name"]: check["status"] for check in home.run("doctor", "--json").json["checks"]}[
        "port"
    ] == "ok"


def test_a_running_server_can_be_passed_over(home: Home, server: tuple[str, Scripted]) -> None:
    home.environ["MODELWAY_LOCAL__MODEL"] = "qwen3-0.6b"
    assert home.run("chat", "--no-server", "hi").code == ExitCode.CONFIG
    assert not server[1].requests


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_server_is_named_with_or_without_v1(home: Home, server: tuple[str, Scripted], suffix: str) -> None:
    home.config.write_text("")
    assert home.run("chat", "-n", "--server", server[0] + suffix, "hi").out == "from the server\n"
    home.environ["MODELWAY_BASE_URL"] = server[0] + suffix
    assert home.run("chat", "-n", "hi").out == "from the server\n"


def test_another_program_on_the_port_is_not_asked(asking_home: Home, upstream: FakeUpstream) -> None:
    text = asking_home.config.read_text().replace("port = ", f"port = {upstream.port} # ")
    asking_home.config.write_text(text)
    assert asking_home.run("chat", "-n", "hi").out == "Hello\n"


# Printing, with answers that need no gateway.


class Said:
    """An answer of these pieces; an exception among them is raised."""

    provider, conversation_id = "Fake", "mine"

    def __init__(
        self,
        *pieces: str | BaseException,
        reason: FinishReason = "stop",
        refusal: str = "",
        sources: Sequence[Citation] = (),
    ) -> None:
        self.closed = 0
        self._sources = sources
        self._pieces = pieces
        self._reason: FinishReason = reason
        self._refusal = refusal

    @property
    def completion(self) -> Completion:
        texts = [TextDelta(text=piece) for piece in self._pieces if isinstance(piece, str)]
        refused = [RefusalDelta(text=self._refusal)] if self._refusal else []
        finish = Finish(reasons=(self._reason,), usage=Usage(1, 2), model="m")
        return collect([*texts, *refused, *self._sources, finish])

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1


def test_a_line_end_is_added_only_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Said("a\n"), Style())
    tell(Said("b"), Style())
    assert capsys.readouterr().out == "a\nb\n"


def test_markdown_is_shown_whole_after_it_came_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Said("# Ti", "tle\n\n", "* one\n", "* [two](http://a.example)"), Style(markdown=True, live=True))
    live = capsys.readouterr().out
    tell(Said("# Title\n\n* one\n* [two](http://a.example)"), Style(markdown=True))
    assert capsys.readouterr().out == live
    assert "Title" in live
    assert "# Title" not in live
    assert "http://a.example" in live


def test_markdown_that_breaks_off_is_shown_as_far_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    reply = Said("# Title\n\nhalf", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        tell(reply, Style(markdown=True, live=True))
    assert "half" in capsys.readouterr().out
    assert reply.closed == 1


@pytest.mark.parametrize(("reason", "told"), [("length", "limit"), ("content_filter", "filter")])
def test_an_early_end_is_told(capsys: pytest.CaptureFixture[str], reason: FinishReason, told: str) -> None:
    tell(Said("a", reason=reason), Style())
    assert told in capsys.readouterr().err


def test_sources_are_told_after_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    sources = [Citation(url="https://a.example", title="A\x1b[31m"), Citation(url="https://b.example")]
    tell(Said("a", sources=sources), Style())
    told = capsys.readouterr()
    assert told.out == "a\n"
    assert "source: A" in told.err
    assert "https://a.example\nsource: https://b.example\n" in told.err
    assert "\x1b" not in told.err
    tell(Said("a", sources=sources), Style(json=True))
    assert capsys.readouterr().err == ""


def test_a_refusal_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Said(refusal="I will not"), Style())
    assert capsys.readouterr().out == "I will not\n"


# The prompt.


class Replies:
    """A client that plays replies, and notes what it was asked."""

    def __init__(self, *replies: Said | Exception) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._replies = list(replies)

    def chat(self, message: str, **options: Any) -> Said:
        self.asked.append((message, options))
        reply = self._replies.pop(0) if self._replies else Said("yes")
        if isinstance(reply, Exception):
            raise reply
        return reply


def dialogue(client: Replies, conversation_id: str = "first") -> Dialogue:
    asked = {"provider": "", "model": "", "system": "", "conversation_id": conversation_id}
    return Dialogue(client, asked, Style())


def test_a_dialogue_stays_in_one_conversation_until_a_new_one_begins() -> None:
    client = Replies()
    talk = dialogue(client)
    for line in ("one", "  ", "two", "/new", "three"):
        talk.take(line)
    assert [text for text, _ in client.asked] == ["one", "two", "three"]
    ids = [options["conversation_id"] for _, options in client.asked]
    assert ids[:2] == ["first", "first"]
    assert ids[2].startswith("conv_")


def test_a_dialogue_that_is_not_stored_stays_so() -> None:
    client = Replies()
    talk = dialogue(client, conversation_id="")
    talk.take("/new")
    talk.take("one")
    assert client.asked[0][1]["conversation_id"] == ""


def test_provider_and_model_change_in_the_middle() -> None:
    client = Replies()
    talk = dialogue(client)
    for line in ("/model large", "one", "/provider Groq", "two", "/provider", "three"):
        talk.take(line)
    chosen = [(options["provider"], options["model"]) for _, options in client.asked]
    assert chosen == [("", "large"), ("Groq", ""), ("", "")]


def test_no_error_and_no_interrupt_ends_a_dialogue(capsys: pytest.CaptureFixture[str]) -> None:
    client = Replies(
        UpstreamTimeout("too slow", hint="wait"), Said("half", KeyboardInterrupt()), Said("whole")
    )
    talk = dialogue(client)
    for line in ("one", "two", "/nope", "three"):
        talk.take(line)
    printed = capsys.readouterr()
    assert printed.out == "half\nwhole\n"
    assert "modelway: too slow\n  wait\n" in printed.err
    assert "stopped\n" in printed.err
    assert "there is no /nope; there are /help, /new" in printed.err
    assert not talk.over


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    talk = dialogue(Replies())
    talk.take("/help")
    told = capsys.readouterr().err
    assert all(command in told for command in talk.commands if command != "/help")
    talk.take("/exit")
    assert talk.over


def test_a_dialogue_error_in_the_extraction_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"provider": "", "model": "", "system": "", "conversation_id": "x"}
    talk = Dialogue(Replies(Said("no code")), asked, Style(extract=True))
    talk.take("one")
    assert "no code block" in capsys.readouterr().err
