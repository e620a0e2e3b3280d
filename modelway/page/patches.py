"""Renders an answer while it grows: blocks that are complete are never rendered again."""

from __future__ import annotations

import re
from html import escape
from typing import Union

from modelway.page.html import Html
from modelway.page.markdown import Markdown, code_block

# A block by its place with new HTML, or with the text that is added to the code in it.
Patch = Union[tuple[int, str], tuple[int, None, str]]

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)\n")


class Growing:
    """Text that is only added to; knows what was added since a moment."""

    def __init__(self) -> None:
        self.text = ""
        self._marks: list[tuple[int, int]] = []

    def add(self, seq: int, text: str) -> None:
        """Add text at the moment `seq`."""
        self._marks.append((seq, len(self.text)))
        self.text += text

    def since(self, seq: int) -> str:
        """What was added after the moment `seq`."""
        begin = len(self.text)
        for at, offset in reversed(self._marks):
            if at <= seq:
                break
            begin = offset
        return self.text[begin:]


class _Block:
    def __init__(self, seq: int, html: str, code: Growing | None = None) -> None:
        self.began = seq
        self.changed = seq
        self._html = html
        self.code = code

    @property
    def html(self) -> Html:
        # A block of open code: its begin, then what has come of the code.
        written = self._html if self.code is None else self._html % escape(self.code.text)
        return Html(written)

    def patch(self, index: int, seq: int) -> Patch:
        if self.code is not None and self.began <= seq:
            return (index, None, self.code.since(seq))
        return (index, self.html)


class Patcher:
    """The blocks of a text under way. Only the last one, which is open, is parsed again.

    A block is frozen when a later one has begun, whose first line is complete: until then the line might
    still turn out to belong to the block. Code is plain text until its fence is closed, which makes every
    piece of it cost the same, however long it has become.
    """

    def __init__(self, markdown: Markdown) -> None:
        self._markdown = markdown
        self._text: list[str] = []
        self._tail = ""
        self._blocks: list[_Block] = []
        self._frozen = 0
        self._fence = ""
        self._shown = 0
        self._is_mid_line = False
        self.seq = 0

    @property
    def waiting(self) -> int:
        """How many characters the next flush has to read at most."""
        new = sum(map(len, self._text))
        return new if self._fence else new + len(self._tail)

    @property
    def is_fresh(self) -> bool:
        """Whether everything that was added is rendered."""
        return not self._text

    def add(self, text: str) -> None:
        """Take more of the text."""
        self._text.append(text)

    def flush(self, seq: int) -> None:
        """Render what was added, as the moment `seq`."""
        self.seq = seq
        # Swapped, not cleared: what is added while another thread renders must not be lost.
        new, self._text = self._text, []
        self._tail += "".join(new)
        while self._fence and self._grow_code():
            pass
        if not self._fence and self._tail:
            self._parse()

    def patches(self, seq: int) -> list[Patch]:
        """What changed after the moment `seq`."""
        # One before others may have changed after them: what was two blocks is one as soon as a list goes on.
        return [block.patch(index, seq) for index, block in enumerate(self._blocks) if block.changed > seq]

    def html(self) -> list[Html]:
        """All blocks as they are now."""
        return [block.html for block in self._blocks]

    def _parse(self) -> None:
        blocks = self._markdown.blocks(self._tail)
        complete = self._tail.count("\n")
        lines = self._tail.split("\n")
        begun = [begin for begin, _ in blocks if begin < complete]
        freeze_to = begun[-1] if len(begun) > 1 else 0
        for begin, html in blocks:
            if begin < freeze_to:
                self._put(html)
                self._frozen += 1
        if freeze_to:
            self._tail = "\n".join(lines[freeze_to:])
        still_open = [html for begin, html in blocks if begin >= freeze_to]
        if self._opens_fence():
            return
        for offset in range(max(len(still_open), len(self._blocks) - self._frozen)):
            self._put(still_open[offset] if offset < len(still_open) else Html(""), offset)

    def _put(self, html: Html, offset: int = 0) -> None:
        index = self._frozen + offset
        if index == len(self._blocks):
            self._blocks.append(_Block(self.seq, html))
        elif self._blocks[index].code is not None or self._blocks[index].html != html:
            self._blocks[index] = _Block(self.seq, html)

    def _opens_fence(self) -> bool:
        """Whether the tail is one block of code that is still open; it then grows as text."""
        match = _FENCE.match(self._tail)
        if match is None or (match[1][0] == "`" and "`" in match[2]):
            return False
        self._fence, self._shown, self._is_mid_line = match[1], match.end(), False
        language = match[2].split(maxsplit=1)[0][:40] if match[2].strip() else ""
        begin, end = code_block("\0", language, plain=True).replace("%", "%%").split("\0")
        block = _Block(self.seq, f"{begin}%s{end}", Growing())
        del self._blocks[self._frozen :]
        self._blocks.append(block)
        while self._fence and self._grow_code():
            pass
        return True

    def _grow_code(self) -> bool:
        """Take the next lines of open code; True where the fence was closed and more follows."""
        block = self._blocks[-1]
        code = block.code
        if code is None:
            return False
        end = self._tail.find("\n", self._shown)
        grown: list[str] = []
        while end >= 0:
            line = self._tail[self._shown : end]
            if not self._is_mid_line and self._closes(line):
                self._close(end + 1)
                return False
            grown.append(line + "\n")
            self._shown, self._is_mid_line = end + 1, False
            end = self._tail.find("\n", self._shown)
        rest = self._tail[self._shown :]
        if self._is_mid_line or rest.strip().strip(self._fence[0]):
            grown.append(rest)
            self._shown, self._is_mid_line = len(self._tail), True
        if text := "".join(grown):
            code.add(self.seq, text)
            block.changed = self.seq
        return False

    def _closes(self, line: str) -> bool:
        mark = line.strip()
        return (
            len(line) - len(line.lstrip(" ")) <= 3
            and len(mark) >= len(self._fence)
            and not mark.strip(self._fence[0])
        )

    def _close(self, end: int) -> None:
        """The fence is closed: colour the code, and go on behind it."""
        [(_, html), *_] = self._markdown.blocks(self._tail[:end])
        self._blocks[-1] = _Block(self.seq, html)
        self._frozen = len(self._blocks)
        self._tail = self._tail[end:]
        self._fence = ""
        if self._tail:
            self._parse()
