"""The conversation at a prompt."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from modelway.cli.answering import Spoken, Style, tell
from modelway.cli.exits import CommandError, complain, explain
from modelway.cli.output import warn
from modelway.errors import GatewayError

HELP = """\
  /new               begin a new conversation
  /provider [NAME]   ask this provider from now on; without a name, the default one
  /model [NAME]      ask for this model; without a name, the provider's default
  /exit              leave (so does Ctrl-D)
  Enter sends, Esc Enter begins a new line, Ctrl-C stops the answer"""


class Asker(Protocol):
    """What of the client a dialogue needs."""

    def chat(self, message: str, **options: Any) -> Spoken:
        """Ask something."""
        ...


class Dialogue:
    """Questions one after the other, in one conversation until /new."""

    def __init__(self, client: Asker, asked: dict[str, Any], style: Style) -> None:
        self.asked = dict(asked)
        self.over = False
        self._client = client
        self._style = style
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: warn(HELP),
            "/new": self._begin_anew,
            "/provider": self._choose_provider,
            "/model": self._choose_model,
            "/exit": self._end,
        }

    @property
    def commands(self) -> list[str]:
        """What begins with a slash."""
        return list(self._commands)

    def take(self, line: str) -> None:
        """One line of the person: a question or a command. No error ends the dialogue."""
        text = line.strip()
        if text.startswith("/"):
            self._command(text)
        elif text:
            self._ask(text)

    def _ask(self, text: str) -> None:
        try:
            tell(self._client.chat(text, stream=True, **self.asked), self._style)
        except KeyboardInterrupt:
            warn("stopped")
        except (GatewayError, CommandError) as error:
            complain(explain(error))

    def _command(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        command = self._commands.get(name)
        if command:
            command(argument.strip())
        else:
            warn(f"there is no {name}; there are {', '.join(self._commands)}")

    def _begin_anew(self, _: str) -> None:
        if self.asked["conversation_id"]:
            self.asked["conversation_id"] = "conv_" + secrets.token_hex(12)
            warn(f"conversation {self.asked['conversation_id']}")

    def _choose_provider(self, name: str) -> None:
        self.asked["provider"], self.asked["model"] = name, ""
        warn(f"asking {name or 'the default provider'} now")

    def _choose_model(self, name: str) -> None:
        self.asked["model"] = name
        warn(f"asking for {name or 'the default model'} now")

    def _end(self, _: str) -> None:
        self.over = True


def at_terminal(dialogue: Dialogue, history: Path) -> None:
    """Read lines until /exit or Ctrl-D; earlier ones are kept in a file of the user's alone."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory

    history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    history.touch(mode=0o600)
    lines: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)),
        completer=WordCompleter(dialogue.commands, sentence=True),
        complete_while_typing=False,
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation="  ",
    )
    warn(f"conversation {dialogue.asked['conversation_id'] or 'that is not stored'}; /help tells more")
    while not dialogue.over:
        try:
            dialogue.take(lines.prompt("> "))
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _keys() -> Any:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
