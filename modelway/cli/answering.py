"""Prints one answer: as it comes or in one piece, as text, Markdown, a code block or JSON."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from msgspec import Struct, field

from modelway.cli.exits import CommandError
from modelway.cli.output import err_console, harmless, out_console, say, say_json, warn

if TYPE_CHECKING:
    from rich.status import Status

    from modelway.types import Completion

_CODE_BLOCK = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n(?P<code>.*?)^(?P=fence)", re.DOTALL | re.MULTILINE)


class Spoken(Protocol):
    """An answer as the client gives it: iterated for text, and complete after its end."""

    @property
    def provider(self) -> str:
        """Who answers."""
        ...

    @property
    def conversation_id(self) -> str:
        """Where the answer is remembered, "" for nowhere."""
        ...

    @property
    def completion(self) -> Completion:
        """The whole answer."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Pieces of text."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Waiting:
    """What is being waited for, as a terminal shows it until the first piece of an answer."""

    def __init__(self) -> None:
        self._text = "waiting for the answer"
        self._status: Status | None = None

    def tell(self, text: str) -> None:
        """Show this from now on; any thread may call it."""
        self._text = text
        if self._status is not None:
            self._status.update(text)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while inside."""
        console = err_console()
        if not console.is_terminal:
            yield
            return
        with console.status(self._text) as self._status:
            yield
        self._status = None


class Style(Struct, frozen=True, kw_only=True):
    """How answers are printed. `live` prints Markdown while it comes, `usage` tells the tokens."""

    json: bool = False
    extract: bool = False
    usage: bool = False
    markdown: bool = False
    live: bool = False
    waiting: Waiting = field(default_factory=Waiting)


class Printed(Struct, frozen=True, kw_only=True):
    """The object of `modelway chat --json`."""

    provider: str
    model: str
    conversation_id: str
    text: str
    reasoning: str
    tool_calls: tuple[Any, ...]
    finish_reason: str | None
    usage: Any


def tell(reply: Spoken, style: Style) -> Completion:
    """Print an answer to its end and return it. Leaving early, with Ctrl-C say, stops the answer."""
    started = time.monotonic()
    with reply, closing(_begun(reply, style.waiting)) as pieces:
        if style.json or style.extract:
            for _ in pieces:
                pass
        else:
            _print(pieces, style)
        completion = reply.completion
        provider, conversation_id = reply.provider, reply.conversation_id
    if style.json:
        say_json(_printed(completion, provider, conversation_id))
    elif style.extract:
        say(code_block(completion.text).rstrip("\n"))
    elif completion.choices[0].refusal:
        say(completion.choices[0].refusal)
    _remark(completion, provider, style, time.monotonic() - started)
    return completion


def code_block(text: str) -> str:
    """The first fenced block; CommandError where there is none, so that no prose is run as code."""
    found = _CODE_BLOCK.search(text)
    if found is None:
        raise CommandError("the answer has no code block", hint="leave -x out to see it")
    return found["code"]


def _begun(reply: Spoken, waiting: Waiting) -> Generator[str, None, None]:
    """The pieces, with a sign of life on a terminal until the first one: a model may have to load."""
    pieces = iter(reply)
    with waiting.shown():
        first = next(pieces, "")
    yield first
    yield from pieces


def _print(pieces: Iterator[str], style: Style) -> None:
    if style.markdown and style.live:
        _print_live(pieces)
    elif style.markdown:
        _print_markdown("".join(pieces))
    else:
        _print_plain(pieces)


def _print_plain(pieces: Iterator[str]) -> None:
    last = ""
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
            last = piece or last
    finally:
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


def _print_live(pieces: Iterator[str]) -> None:
    """Markdown while it comes: the end of it in a window, and all of it once it is complete."""
    from rich.live import Live

    from modelway.cli.window import Window

    console = out_console()
    text = next(pieces, "")
    try:
        begun = Window(harmless(text))
        with Live(begun, console=console, transient=True, refresh_per_second=12) as live:
            for piece in pieces:
                text += piece
                live.update(Window(harmless(text)))
    finally:
        _print_markdown(text)


def _print_markdown(text: str) -> None:
    from modelway.cli.window import markdown

    if text.strip():
        out_console().print(markdown(harmless(text)))


def _printed(completion: Completion, provider: str, conversation_id: str) -> Printed:
    return Printed(
        provider=provider,
        model=completion.model,
        conversation_id=conversation_id,
        text=completion.text,
        reasoning=completion.message.reasoning,
        tool_calls=completion.message.tool_calls,
        finish_reason=completion.finish_reason,
        usage=completion.usage,
    )


def _remark(completion: Completion, provider: str, style: Style, seconds: float) -> None:
    if not style.json:
        for source in completion.message.annotations:
            warn(f"source: {source.title} {source.url}" if source.title else f"source: {source.url}")
    if completion.finish_reason == "length":
        warn("the answer was cut off at the limit of tokens")
    if completion.finish_reason == "content_filter":
        warn("the answer was cut off by the upstream's filter")
    if style.usage:
        used = completion.usage
        tokens = f"{used.input_tokens} tokens in, {used.output_tokens} out" if used else "tokens not told"
        warn(f"{tokens}, {seconds:.1f} s, {provider}/{completion.model}")
