"""Shows examples in a command's --help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

Command = TypeVar("Command", bound=Callable[..., None])


def examples(*lines: str) -> Callable[[Command], Command]:
    """Put lines that a person can copy under the first sentence of --help."""

    def add(command: Command) -> Command:
        # The backspace keeps the lines from being joined into a paragraph.
        shown = "\n".join(f"  {line}" for line in lines)
        command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n\b\n{shown}"
        return command

    return add
