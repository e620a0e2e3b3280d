"""Measures what the page costs its server: `python -m tests.page.measure_page`. Prints a table.

All times are of the processor, in one process; what is compared is measured in the same run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from modelway.page.markdown import Markdown
from modelway.page.patches import Patcher
from tests.page.browsing import browsing
from tests.page.test_features import local, long_conversation

ROUNDS = 5
PATCHES_A_SECOND = 20
PARAGRAPH = "A sentence with **bold** text, `code`, a [link](http://example.org) and $x^2$. " * 4 + "\n\n"
ANSWER = (PARAGRAPH + "- one\n- two\n\n" + "```python\nx = 1\n```\n\n") * 12
TURN = "A paragraph with **bold** text, `code` and $x^2$.\n\n- a list\n\n```python\nprint(1)\n```\n"
LINE = "def f(x): return x + 1  # a line of code\n"


def flushed(markdown: Markdown, pieces: Sequence[str]) -> list[float]:
    """The seconds that each piece of an answer takes until its patch is there."""
    patcher, took = Patcher(markdown), []
    for seq, piece in enumerate(pieces, 1):
        begun = time.process_time()
        patcher.add(piece)
        patcher.flush(seq)
        patcher.patches(seq - 1)
        took.append(time.process_time() - begun)
    return took


async def opened(turns: int) -> float:
    """The seconds that a conversation of so many turns takes to open, in a page that is warm."""
    with tempfile.TemporaryDirectory() as folder:
        async with browsing([local()], Path(folder)) as browser:
            await browser.get("/")
            await browser.gateway.conversations.shelf.take_in("local", "long", long_conversation(turns, TURN))
            await browser.get("/c/long")
            begun = time.process_time()
            await browser.get("/c/long")
            return time.process_time() - begun


def main() -> None:
    """Measure, and print medians of all rounds."""
    markdown = Markdown()
    size = len(ANSWER) // (PATCHES_A_SECOND * 10)
    pieces = [ANSWER[begin : begin + size] for begin in range(0, len(ANSWER), size)]
    flushed(markdown, pieces)
    a_patch = statistics.median(statistics.mean(flushed(markdown, pieces)) for _ in range(ROUNDS))
    print(f"a patch of a growing answer      {a_patch * 1000:8.2f} ms")
    share = a_patch * PATCHES_A_SECOND
    print(f"{PATCHES_A_SECOND} of them a second                {share:8.1%} of one core")
    code = [flushed(markdown, ["```python\n", *[LINE] * 2000]) for _ in range(ROUNDS)]
    ratio = statistics.median(sum(took[-200:]) / sum(took[1:201]) for took in code)
    print(f"open code, lines 1,801 to 2,000  {ratio:8.1f} x lines 1 to 200")
    short, long = (statistics.median(asyncio.run(opened(n)) for _ in range(ROUNDS)) for n in (50, 1000))
    print(f"a conversation of 1,000 turns    {long * 1000:8.0f} ms, {long / short:.1f} x one of 50")


if __name__ == "__main__":
    main()
