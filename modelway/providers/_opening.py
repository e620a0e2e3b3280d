"""The beginning of an answer, which may be words about a missing model instead."""

from __future__ import annotations

from modelway.errors import GatewayError
from modelway.types import Event, Finish, Opaque, TextDelta

MAX_REMEMBERED_BYTES = 4096


class ModelMissing(Exception):
    """The upstream says, in place of an answer, that it does not have the model."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class Opening:
    """Holds back the beginning of an answer for as long as it may be the words about a missing model."""

    def __init__(self, model: str) -> None:
        self.words = f"The model: `{model}` does not exist"
        self._over = False
        self._text = ""
        self._held: list[Event] = []
        self._bytes = b""

    def remember(self, chunk: bytes) -> None:
        """Take bytes of the body, which may hold the words outside of any event."""
        if not self._over and len(self._bytes) < MAX_REMEMBERED_BYTES:
            self._bytes += chunk[:MAX_REMEMBERED_BYTES]

    def add(self, event: Event) -> list[Event]:
        """What may be given now. Raises ModelMissing where the words are all that the upstream says."""
        if self._over:
            return [event]
        self._held.append(event)
        match event:
            case Finish() if self._is_words():
                raise ModelMissing(self.words)
            case TextDelta():
                self._text += event.text
                self._over = not (self._is_words() or self.words.startswith(self._text.strip()))
            case Opaque():
                pass
            case _:
                self._over = True
        if not self._over:
            return []
        held, self._held = self._held, []
        return held

    def says_missing(self, error: GatewayError) -> bool:
        """Whether a call failed because the words came where an answer was to begin."""
        if self._over:
            return False
        said = self.words in error.message or self.words.encode() in self._bytes
        return said or self._is_words()

    def _is_words(self) -> bool:
        return self._text.strip().removesuffix(".") == self.words
