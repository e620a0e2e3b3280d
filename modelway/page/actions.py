"""What is done in a conversation: ask, stop, answer again, go on, change the branch."""

from __future__ import annotations

import secrets

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from modelway.accounts import resolved
from modelway.conversations import Conversation, StoredMessage
from modelway.errors import ConversationNotFound, InvalidRequest
from modelway.page.choices import (
    CHOICE,
    Asked,
    history_of,
    question_of,
    read,
    remembered,
    request_of,
    with_files_of,
)
from modelway.page.draft import TEMPORARY
from modelway.page.frame import Frame, caller_of, decoded, exchange_of, json_response
from modelway.page.thread import newest_end, thread_of
from modelway.page.views.composer import Choice
from modelway.types import Caller, ChatRequest, Message


class _Moved(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    conversation: str
    message: str


class _Stopped(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    conversation: str


class Actions:
    """Each takes JSON, and answers before the upstream does: the page then looks at what comes."""

    def __init__(self, frame: Frame, max_body_bytes: int) -> None:
        self._frame = frame
        self._max_body_bytes = max_body_bytes

    async def send(self, request: Request) -> Response:
        """Begin a turn; the reply names the conversation. What is refused changes nothing."""
        asked = read(await exchange_of(request).body(self._max_body_bytes))
        caller, go_on = caller_of(request), self._frame.look(request).texts("thread.go_on")
        if asked.temporary:
            key, said = TEMPORARY + asked.temporary[:64], question_of(asked, go_on)
            question: Message | None = said
            chat = request_of(asked, (*history_of(asked), said), "")
            self._check(caller, key, chat)
        else:
            key = asked.conversation or "conv_" + secrets.token_hex(12)
            found = await self._frame.conversation(caller, key) if asked.conversation else None
            question, after = self._placed(caller, key, asked, found, go_on)
            chat = request_of(asked, (question or _message(found, asked.again).message,), key, after)
            self._check(caller, key, chat)
            await self._remember(caller, key, found, asked.choice)
        self._frame.drafts.begin(caller, chat, key, exchange_of(request).request_id, question)
        return json_response({"conversation": chat.conversation_id, "key": key})

    async def stop(self, request: Request) -> Response:
        """End an answer; what has come of it stays."""
        stopped = await decoded(request, _Stopped)
        await self._frame.drafts.stop(caller_of(request), stopped.conversation)
        return json_response({})

    async def branch(self, request: Request) -> Response:
        """Show the newest branch that leads through a message."""
        wanted, caller = await decoded(request, _Moved), caller_of(request)
        store = self._frame.gateway.conversations
        end = newest_end(await store.show(caller.name, wanted.conversation), wanted.message)
        await store.shelf.move(caller.name, wanted.conversation, end)
        self._frame.drafts.forget(caller, wanted.conversation)
        return json_response({})

    def _check(self, caller: Caller, key: str, chat: ChatRequest) -> None:
        """Raises what would be raised as soon as the turn is begun."""
        self._frame.drafts.check_free(caller, key)
        resolved(self._frame.gateway.router, chat, caller)

    def _placed(
        self, caller: Caller, id: str, asked: Asked, found: Conversation | None, go_on: str
    ) -> tuple[Message | None, str | None]:
        """What is asked, None where it is an earlier question once more, and the message that it follows."""
        if asked.retries:
            return self._unanswered(caller, id, found)
        if asked.again:
            return None, _message(found, asked.again).id
        question = question_of(asked, go_on)
        if asked.edits:
            edited = _message(found, asked.edits)
            return with_files_of(question, edited.message), edited.parent
        if not (asked.text.strip() or asked.attachments or asked.continues):
            raise InvalidRequest("there is nothing to send", param="text")
        return question, None

    def _unanswered(self, caller: Caller, id: str, found: Conversation | None) -> tuple[Message, str | None]:
        """The message whose turn failed last, and what it follows."""
        draft = self._frame.drafts.find(caller, id)
        if draft is not None and draft.question is not None:
            return draft.question, draft.after
        last = thread_of(found).last if found else None
        if last is None or not last.messages:
            raise ConversationNotFound("there is no message that was not answered", param="retries")
        return last.messages[-1], None

    async def _remember(self, caller: Caller, id: str, found: Conversation | None, choice: Choice) -> None:
        """Keep the choice where it is another one; with the first one the conversation begins."""
        noted, shelf = remembered(choice), self._frame.gateway.conversations.shelf
        if found is None:
            await shelf.create(caller.name, id, {CHOICE: noted})
            return
        if found.metadata.get(CHOICE) != noted:
            await shelf.note(caller.name, id, CHOICE, noted)
        if found.instructions and not choice.instructions.strip():
            await shelf.drop_instructions(caller.name, id)


def _message(found: Conversation | None, id: str) -> StoredMessage:
    """A message that was asked."""
    for node in found.tree if found else ():
        if node.id == id and node.message.role == "user":
            return node
    raise ConversationNotFound("there is no such message", param="message")
