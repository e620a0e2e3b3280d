"""The messages of a conversation and the parts that they are made of."""

from __future__ import annotations

from typing import Any, Literal, Union

from msgspec import Struct

from modelway.types.events import Citation

Role = Literal["system", "developer", "user", "assistant", "tool"]

# In `extra` of instructions: the next turn does not inherit them.
THIS_TURN_ONLY = "this_turn_only"


class TextPart(Struct, frozen=True, tag="text", omit_defaults=True):
    """Text inside a message. `extra`: see Message."""

    text: str
    extra: dict[str, Any] = {}


class ImagePart(Struct, frozen=True, tag="image", omit_defaults=True):
    """An image: `url` is an http(s) or `data:` URL. Modelway never fetches it. `extra`: see Message."""

    url: str
    detail: str = ""
    extra: dict[str, Any] = {}


class FilePart(Struct, frozen=True, tag="file", omit_defaults=True):
    """A document, a PDF for example: `url` is a `data:` or http(s) URL, or else `file_id` names an upload.

    An upload is known only to the upstream that it was made to. `media_type` is "" where nobody said it.
    Modelway never fetches the file. `extra`: see Message.
    """

    url: str = ""
    file_id: str = ""
    name: str = ""
    media_type: str = ""
    extra: dict[str, Any] = {}


class OtherPart(Struct, frozen=True, tag="other"):
    """A content part that the waist has no type for (audio, ...), as its dialect wrote it."""

    dialect: str
    value: dict[str, Any]


Part = Union[TextPart, ImagePart, FilePart, OtherPart]


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """A call that the model asks for. `arguments` is the JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"


class Message(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One message of a conversation.

    `content` is plain text where there is nothing but text, otherwise a tuple of parts. `annotations`
    are the sources that an answer cites. `extra` holds the fields that the waist does not know, under
    the name of the dialect that they came in.
    """

    role: Role
    content: str | tuple[Part, ...] = ""
    name: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    annotations: tuple[Citation, ...] = ()
    extra: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """All text of the message, parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def refusal(self) -> str:
        """What the assistant declined with: kept by the store, or as the caller's dialect wrote it."""
        for fields in (self.extra, *self.extra.values()):
            if isinstance(fields, dict) and isinstance(said := fields.get("refusal"), str):
                return said
        return ""
