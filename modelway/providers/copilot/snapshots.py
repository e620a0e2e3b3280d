"""Turns snapshots of an answer, each with all of its text so far, into deltas.

Microsoft's own sample takes for granted that snapshots only grow. Others have seen text rewritten, so
whatever is not a continuation is put right at the end.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from modelway.providers.copilot.citations import citations_of
from modelway.types import Citation

ANCHORS = (48, 24, 12)
_TAGS = ("Event", "Person", "File")
# Code is matched first, so that `Array<File>` in it stays as it is.
_CODE_OR_TAG = re.compile(
    r"(```.*?(?:```|\Z)|`[^`\n]*(?:[`\n]|\Z))|</?(?:Event|Person|File)\b[^<>\n]*>", re.DOTALL
)
_UNFINISHED_TAG = re.compile(r"</?([A-Za-z]*)([^<>\n]*)\Z")


class ReplyMessage(Struct, frozen=True):
    """A message in a snapshot. Nothing tells whose it is."""

    id: str | None = None
    text: str | None = None
    attributions: Any = None
    references: Any = None


class Snapshot(Struct, frozen=True, rename="camel"):
    """The upstream's conversation at one moment of an answer.

    `turn_count` is 0 while the answer is being written. The last snapshot has the prompt before the answer.
    """

    messages: tuple[ReplyMessage, ...] | None = None
    state: str | None = None
    turn_count: int | None = None


class Snapshots:
    """Follows one answer.

    `ended` tells whether its end has come, `disengaged` whether the upstream will take no further turn;
    `citations` are the sources named last.
    """

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._id = ""
        self._raw = ""
        self._emitted = ""
        self.citations: tuple[Citation, ...] = ()
        self.ended = False
        self.disengaged = False

    @property
    def text(self) -> str:
        """All of the answer so far, without markup."""
        return without_tags(self._raw)

    def feed(self, snapshot: Snapshot) -> str:
        """Take the next snapshot; gives the text that it adds, "" where it adds none or has changed some."""
        self.ended = self.ended or bool(snapshot.turn_count)
        self.disengaged = self.disengaged or snapshot.state == "disengagedForRai"
        answer = self._answer_in(snapshot)
        if answer is None or not answer.text:
            return ""
        self._id = answer.id or ""
        self._raw = answer.text
        self.citations = citations_of(answer.attributions, answer.references) or self.citations
        return self._grow(without_tags(_without_unfinished_tag(self._raw)))

    def close(self) -> str:
        """What is still missing; where text that is out already was rewritten, from where both agree."""
        final = self.text
        if final.startswith(self._emitted):
            return self._grow(final)
        for length in ANCHORS:
            anchor = self._emitted[-length:]
            at = final.find(anchor) if len(anchor) == length else -1
            if at >= 0:
                return final[at + length :]
        return f"\n\n---\n{final}"

    def _grow(self, text: str) -> str:
        if not text.startswith(self._emitted):
            return ""
        delta = text[len(self._emitted) :]
        self._emitted = text
        return delta

    def _answer_in(self, snapshot: Snapshot) -> ReplyMessage | None:
        messages = [message for message in snapshot.messages or () if message.text is not None]
        if self._id:
            for message in messages:
                if message.id == self._id:
                    return message
        if not messages:
            return None
        is_lone_echo = len(messages) == 1 and messages[0].text == self._prompt
        return None if is_lone_echo else messages[-1]


def without_tags(text: str) -> str:
    """The text without the tags that mark meetings, people and files; what they enclose stays."""
    return _CODE_OR_TAG.sub(lambda match: match[1] or "", text)


def _without_unfinished_tag(text: str) -> str:
    """The text up to where a tag may have begun whose end has not come yet."""
    found = _UNFINISHED_TAG.search(text)
    if found is None:
        return text
    name, rest = found[1], found[2]
    may_be_tag = name in _TAGS if rest else any(tag.startswith(name) for tag in _TAGS)
    return text[: found.start()] if may_be_tag else text
