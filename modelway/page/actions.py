"""What is done in a conversation: ask, stop, answer again, go on, change the branch."""

from __future__ import annotations

import secrets

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from modelway.conversations import Conversation
from modelway.errors import ConversationNotFound, InvalidRequest
from modelway.page.choices import (
    CHOICE,
    Asked,
    history_of,
    params_of,
    question_of,
    read,
    remembered,
    request_of,
    with_files_of,
)
from modelway.page.draft import TEMPORARY
from modelway.page.frame import Frame, caller_of, decoded, exchange_of
from modelway.page.thread import newest_end, thread_of
from modelway.page.views.composer import Choice
from modelway.server.catalogue import json_response
from modelway.types import Caller, Message


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
        """Begin a turn; the reply names the conversation."""
        asked = read(await exchange_of(request).body(self._max_body_bytes))
        caller = caller_of(request)
        if asked.temporary:
            return self._send_temporary(request, caller, asked)
        if not (asked.text.strip() or asked.attachments or asked.continues or asked.again or asked.retries):
            raise InvalidRequest("there is nothing to send", param="text")
        params_of(asked.choice)
        words = self._frame.look(request).texts
        question: Message | None = question_of(asked, words("thread.go_on"))
        id = asked.conversation or "conv_" + secrets.token_hex(12)
        found = await self._placed(caller, id, asked)
        await self._remember(caller, id, found, asked.choice)
        if asked.retries:
            question = self._unanswered(caller, id, found)
        elif asked.again:
            question = None
        elif asked.edits:
            question = with_files_of(question_of(asked, ""), _message(found, asked.edits))
        chat = request_of(asked, (question or _message(found, asked.again),), id)
        self._frame.drafts.begin(caller, chat, id, exchange_of(request).request_id, question)
        return json_response({"conversation": id, "key": id})

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
        await store.move(caller.name, wanted.conversation, end)
        self._frame.drafts.forget(caller, wanted.conversation)
        return json_response({})

    async def _placed(self, caller: Caller, id: str, asked: Asked) -> Conversation | None:
        """Let the conversation stand where the turn goes on."""
        store = self._frame.gateway.conversations
        try:
            found = await store.show(caller.name, id)
        except ConversationNotFound:
            if asked.edits or asked.again:
                raise
            return None
        if asked.edits:
            parents = {node.id: node.parent for node in found.tree}
            await store.move(caller.name, id, parents.get(asked.edits, found.head))
        elif asked.again and asked.again != found.head:
            await store.move(caller.name, id, asked.again)
        if found.instructions and not asked.choice.instructions.strip():
            await store.drop_instructions(caller.name, id)
        return found

    def _unanswered(self, caller: Caller, id: str, found: Conversation | None) -> Message:
        """The message whose turn failed last."""
        draft = self._frame.drafts.find(caller, id)
        if draft is not None and draft.question is not None:
            return draft.question
        last = thread_of(found).last if found else None
        if last is None or not last.messages:
            raise ConversationNotFound("there is no message that was not answered", param="retries")
        return last.messages[-1]

    async def _remember(self, caller: Caller, id: str, found: Conversation | None, choice: Choice) -> None:
        """Note the choice where it is another one; with the first one the conversation begins."""
        noted = remembered(choice)
        if found is None:
            await self._frame.gateway.conversations.create(caller.name, id, {CHOICE: noted})
        elif found.metadata.get(CHOICE) != noted:
            await self._frame.gateway.conversations.note(caller.name, id, CHOICE, noted)

    def _send_temporary(self, request: Request, caller: Caller, asked: Asked) -> Response:
        question = question_of(asked, self._frame.look(request).texts("thread.go_on"))
        chat = request_of(asked, (*history_of(asked), question), "")
        key = TEMPORARY + asked.temporary[:64]
        self._frame.drafts.begin(caller, chat, key, exchange_of(request).request_id, question)
        return json_response({"conversation": "", "key": key})


def _message(found: Conversation | None, id: str) -> Message:
    for node in found.tree if found else ():
        if node.id == id and node.message.role == "user":
            return node.message
    raise ConversationNotFound("there is no such message", param="message")
