"""Counts the tokens of a request where it would be answered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from modelway.accounts import Accounts, Size, resolved
from modelway.attempting import Attempting
from modelway.conversations import Conversations
from modelway.errors import ConversationNotFound, NotFound
from modelway.provider import CountsTokens
from modelway.routing import Candidate, Router
from modelway.telemetry import Attempt
from modelway.types import Caller, ChatRequest, Usage


class Counting:
    """Asks upstreams how many tokens they would read. `told` is a request as a candidate is told it."""

    def __init__(
        self,
        router: Router,
        accounts: Accounts,
        conversations: Conversations,
        attempting: Attempting,
        told: Callable[[Candidate, ChatRequest], ChatRequest],
    ) -> None:
        self._router = router
        self._accounts = accounts
        self._conversations = conversations
        self._attempting = attempting
        self._told = told

    async def tokens_of(self, request: ChatRequest, caller: Caller, attempts: list[Attempt]) -> int:
        """How many tokens a request has, with what it follows, where it would be answered.

        NotFound where nobody counts them.
        """
        candidate = resolved(self._router, request, caller)[0]
        permit = None
        if caller.rules is not None:
            await self._accounts.make_room(caller, Size())
            permit = self._accounts.admit(caller, Size())
        try:
            return await self._counted(candidate, request, caller, attempts)
        finally:
            if permit is not None:
                self._accounts.end(permit, Usage())

    async def _counted(
        self, candidate: Candidate, request: ChatRequest, caller: Caller, attempts: list[Attempt]
    ) -> int:
        if not isinstance(candidate.provider, CountsTokens):
            raise NotFound(
                f"{candidate.name} does not count tokens",
                hint="an answer tells in `usage` what it took",
                param="model",
            )
        asked = self._told(candidate, await self._recalled(request, caller))
        count = partial(candidate.provider.count_tokens, asked)
        return await self._attempting.once_it_works((*candidate.key, "count_tokens"), count, attempts)

    async def _recalled(self, request: ChatRequest, caller: Caller) -> ChatRequest:
        """The request with what it follows, of which nothing is opened or kept."""
        if request.after_turn:
            return await self._conversations.after(caller.name, request)
        if not request.conversation_id:
            return request
        try:
            stored = await self._conversations.messages(caller.name, request.conversation_id)
        except ConversationNotFound:
            return request
        known = tuple(message for _, message in stored)
        is_sent_again = request.messages[: len(known)] == known
        return request if is_sent_again else replace(request, messages=known + request.messages)
