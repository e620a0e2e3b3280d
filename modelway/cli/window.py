"""Shows Markdown that is still being written: as much of its end as the terminal holds."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown
from rich.segment import Segment


def markdown(text: str) -> Markdown:
    """The text as Markdown. The target of a link is shown: models are not to be trusted."""
    return Markdown(text, hyperlinks=False)


class Window:
    """The last lines of a Markdown text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Narrower, so that the ^C of a terminal does not begin a line that nobody counts.
        narrower = options.update(width=max(1, options.max_width - 2), height=None)
        lines = console.render_lines(markdown(self._text), narrower, pad=False)
        for line in lines[-max(1, console.height - 2) :]:
            yield from line
            yield Segment.line()
