"""The real command in a process of its own, at a terminal and without one."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from modelway.testing.fake_upstream import FakeUpstream
from tests.cli.conftest import Home
from tests.e2e.running import Running

DEADLINE_S = 20.0
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def environ(home: Home) -> dict[str, str]:
    own = {name: value for name, value in home.environ.items() if value is not None}
    return {
        **os.environ,
        **own,
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "COLUMNS": "80",
        "LINES": "24",
    }


def modelway(home: Home, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelway", *arguments],
        input=input,
        capture_output=True,
        text=True,
        env=environ(home),
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_pipe_is_answered(asking_home: Home) -> None:
    done = modelway(asking_home, "chat", "-n", "Review this", input="the diff")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello\n", "")


def test_an_error_is_two_lines_and_a_code(asking_home: Home) -> None:
    done = modelway(asking_home, "chat", "-p", "Grok", "hi")
    assert done.returncode == 1
    assert done.stderr.startswith('modelway: no provider is called "Grok"\n')
    assert "Traceback" not in done.stderr


def test_serve_tells_what_programs_need(home: Home, tmp_path: Path) -> None:
    with Running(tmp_path) as server:
        assert server.stop() == 0
    assert f"  export OPENAI_BASE_URL={server.address}/v1\n" in server.log
    assert "  export OPENAI_API_KEY=modelway\n" in server.log
    assert any(line.startswith(f"  curl {server.address}/v1/chat/completions ") for line in server.log)


def test_serve_tells_who_has_the_port(home: Home, tmp_path: Path) -> None:
    with Running(tmp_path) as server:
        done = modelway(home, "serve", "--port", server.address.rpartition(":")[2])
    assert done.returncode == 3
    assert "is in use" in done.stderr
    assert "--port" in done.stderr


def test_an_open_address_is_refused(home: Home) -> None:
    done = modelway(home, "serve", "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--allow-remote" in done.stderr
    assert "[auth] api_keys" in done.stderr


def test_an_address_that_others_reach_is_served_to_who_has_a_key(home: Home, tmp_path: Path) -> None:
    secret = home.run("keys", "create", "alice").out.strip()
    with Running(tmp_path, "--host", "0.0.0.0") as server:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(HTTPError, match="401") as caught:
            urlopen(f"{address}/v1/models")
        caught.value.close()
        asked = Request(f"{address}/v1/models", headers={"authorization": f"Bearer {secret}"})
        with urlopen(asked) as reply:
            assert reply.status == 200
    assert "YOUR_API_KEY" in "".join(server.log)


class Terminal:
    """A process at a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.shown = ""
        self._descriptor = descriptor

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._descriptor, text.encode())

    def expect(self, text: str) -> None:
        """Wait until the text is shown, in whatever style, and forget what was shown up to it."""
        until = time.monotonic() + DEADLINE_S
        while text not in self.shown:
            assert time.monotonic() < until, f"{text!r} did not come; there was {self.shown!r}"
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self.shown += os.read(self._descriptor, 4096).decode(errors="replace")
                self.shown = STYLE.sub("", self.shown)
        self.shown = self.shown.partition(text)[2]


@contextmanager
def at_terminal(home: Home, *arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "modelway", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ(home),
        start_new_session=True,
        close_fds=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


needs_terminals = pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX's")


@needs_terminals
def test_a_dialogue_at_the_prompt(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.reply("It is **Rayleigh** scattering.")
    upstream.reply("Then it is red.")
    with at_terminal(asking_home, "chat") as terminal:
        terminal.expect(">")
        terminal.type("Why is the sky blue?\r")
        terminal.expect("It is Rayleigh scattering.")
        terminal.expect(">")
        terminal.type("And at\x1b\rsunset?\r")
        terminal.expect("Then it is red.")
        terminal.expect(">")
        terminal.type("\x04")
        assert terminal.process.wait(DEADLINE_S) == 0
    texts = [message["content"] for message in upstream.requests[1].json["messages"]]
    assert texts == ["Why is the sky blue?", "It is **Rayleigh** scattering.", "And at\nsunset?"]
    history = asking_home.folder / "chat_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+Why is the sky blue?" in history.read_text()


@needs_terminals
def test_ctrl_c_stops_the_answer_and_not_the_program(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.stall("Once upon a time")
    upstream.reply("The end.")
    with at_terminal(asking_home, "chat") as terminal:
        terminal.expect(">")
        terminal.type("Tell me a story\r")
        terminal.expect("Once upon a time")
        terminal.process.send_signal(signal.SIGINT)
        terminal.expect("stopped")
        terminal.type("How does it end?\r")
        terminal.expect("The end.")
        terminal.type("/exit\r")
        assert terminal.process.wait(DEADLINE_S) == 0
    assert upstream.hung_up.is_set()


@needs_terminals
def test_ctrl_c_ends_a_single_question_with_130(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.stall("Once upon a time")
    with at_terminal(asking_home, "chat", "Tell me a story") as terminal:
        terminal.expect("Once upon a time")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(DEADLINE_S) == 130
    assert "Once upon a time" in asking_home.run("conversations", "search", "once").out


@needs_terminals
def test_a_model_that_is_missing_is_offered(home: Home) -> None:
    home.environ["MODELWAY_LOCAL__MODEL"] = "qwen3-0.6b"
    with at_terminal(home, "chat", "hi") as terminal:
        terminal.expect("Fetch it now?")
        terminal.type("n\r")
        assert terminal.process.wait(DEADLINE_S) == 3
