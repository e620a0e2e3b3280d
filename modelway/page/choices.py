"""What a message is sent with: as the page asks for it, and as it is remembered."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import Struct

from modelway.conversations import Conversation
from modelway.errors import InvalidRequest
from modelway.page.views.composer import Choice
from modelway.page.views.parts import OF_PAGE, attachment_name
from modelway.types import ChatRequest, FilePart, ImagePart, Message, Params, Part, TextPart

CHOICE = "page.choice"
DIALECT = "page"


class Attachment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that comes with a message: its text, or else a `data:` URL."""

    name: str
    text: str = ""
    url: str = ""


class Said(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message of a chat that is not kept, as the page remembers it."""

    role: str
    text: str


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page asks for.

    `conversation` is "" for a new one. `edits` is the message that this one replaces. `history` is what
    was said in a chat that is not kept, whose name is `temporary`. `continues`: the last answer was cut
    off. `again`: the message `again` is to be answered once more.
    """

    conversation: str = ""
    text: str = ""
    attachments: tuple[Attachment, ...] = ()
    choice: Choice = Choice()
    edits: str = ""
    again: str = ""
    continues: bool = False
    retries: bool = False
    temporary: str = ""
    history: tuple[Said, ...] = ()


def read(body: bytes) -> Asked:
    """What the page sent; InvalidRequest where it is not that."""
    try:
        return msgspec.json.decode(body, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from None


def with_files_of(question: Message, edited: Message) -> Message:
    """An edited message with the files that came with it before."""
    if isinstance(edited.content, str):
        return question
    files = tuple(part for part in edited.content if not isinstance(part, TextPart) or attachment_name(part))
    said = question.content
    written = ((TextPart(text=said),) if said.strip() else ()) if isinstance(said, str) else said
    return msgspec.structs.replace(question, content=(*files, *written)) if files else question


def question_of(asked: Asked, go_on: str) -> Message:
    """The message; `go_on` is what is said to have a cut answer continued."""
    if asked.continues:
        return Message(role="user", content=go_on, extra={OF_PAGE: {"continues": True}})
    parts = [_part(attachment) for attachment in asked.attachments]
    if not parts:
        return Message(role="user", content=asked.text)
    written = (TextPart(text=asked.text),) if asked.text.strip() else ()
    return Message(role="user", content=(*parts, *written))


def request_of(
    asked: Asked, messages: tuple[Message, ...], conversation_id: str, after: str | None = None
) -> ChatRequest:
    """The request that the gateway answers; `after`: see ChatRequest.after_message."""
    choice = asked.choice
    instructions: tuple[Message, ...] = ()
    if choice.instructions.strip():
        instructions = (Message(role="system", content=choice.instructions.strip()),)
    provider, _, model = choice.model.partition("/")
    return ChatRequest(
        messages=instructions + messages,
        provider=provider,
        model=model,
        conversation_id=conversation_id,
        after_message=after,
        stream=True,
        params=params_of(choice),
        dialect=DIALECT,
    )


def params_of(choice: Choice) -> Params:
    """What is asked of the sampling; InvalidRequest where that is no number."""
    return Params(
        temperature=_number(choice.temperature, "temperature"),
        max_tokens=_whole(choice.max_tokens, "max_tokens"),
        reasoning_effort=choice.effort or None,
    )


def history_of(asked: Asked) -> tuple[Message, ...]:
    """What was said before, in a chat that is not kept."""
    roles: dict[str, Any] = {"user": "user", "assistant": "assistant"}
    if any(said.role not in roles for said in asked.history):
        raise InvalidRequest("a role must be user or assistant", param="history")
    return tuple(Message(role=roles[said.role], content=said.text) for said in asked.history)


def remembered(choice: Choice) -> str:
    """A choice as it is noted with its conversation; the instructions are kept there already."""
    return msgspec.json.encode(msgspec.structs.replace(choice, instructions="")).decode()


def choice_of(found: Conversation) -> Choice:
    """What the next message of a conversation is sent with, if nothing else is chosen."""
    choice = _noted(found.metadata.get(CHOICE, ""))
    last = next((turn for turn in reversed(found.turns) if turn.provider), None)
    model = choice.model
    if not model and last is not None and CHOICE not in found.metadata:
        model = f"{last.provider}/{last.model}"
    instructions = [message.text for message in found.instructions]
    return msgspec.structs.replace(choice, model=model, instructions="\n\n".join(instructions))


def _noted(text: str) -> Choice:
    try:
        return msgspec.json.decode(text, type=Choice)
    except msgspec.DecodeError:  # noted by somebody else, or nothing is
        return Choice()


def _part(attachment: Attachment) -> Part:
    if attachment.url:
        if not attachment.url.startswith("data:"):
            raise InvalidRequest("an attachment must come with the message", param="attachments")
        media_type = attachment.url[5:].partition(";")[0]
        if media_type.startswith("image/"):
            return ImagePart(url=attachment.url)
        return FilePart(url=attachment.url, name=attachment.name, media_type=media_type)
    written = f"{attachment.name}:\n\n{attachment.text}\n\n"
    return TextPart(text=written, extra={OF_PAGE: {"name": attachment.name}})


def _number(text: str, param: str) -> float | None:
    try:
        number = float(text) if text.strip() else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise InvalidRequest(f"`{param}` must be a number", param=param)
    return number


def _whole(text: str, param: str) -> int | None:
    number = _number(text, param)
    if number is None:
        return None
    if not number.is_integer() or not 1 <= number <= 10_000_000:
        raise InvalidRequest(f"`{param}` must be a whole number from 1 on", param=param)
    return int(number)
