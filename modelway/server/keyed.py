"""Requests with an Idempotency-Key: whoever sends one again gets the turn that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from modelway.accounts import Accounts
from modelway.errors import InvalidRequest, NotFound
from modelway.server.exchange import Exchange, as_sent

KEY_HEADER = b"idempotency-key"
_LONGEST_KEY = 255


def key_of(exchange: Exchange) -> str:
    """The key that came with a request; raises InvalidRequest where it cannot be one."""
    key = exchange.header(KEY_HEADER)
    if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
        raise InvalidRequest(
            f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable characters",
            hint="a random UUID is a good one",
        )
    return key


async def tell_of_turn(
    exchange: Exchange,
    accounts: Accounts,
    begin: Callable[[], Awaitable[str]],
    tell: Callable[[str], Awaitable[None]],
) -> None:
    """Begin a turn, or find the one of the request's key, and answer with it."""
    turn_id = await begin()
    if exchange.release is not None:
        # From now on its turn counts, and its readers do not.
        exchange.release()
        exchange.release = None
    if exchange.caller.rules is not None:
        exchange.reply_headers += as_sent(accounts.headers(exchange.caller))
    while True:
        try:
            await tell(turn_id)
        except NotFound as error:
            # The server that had begun to answer could not, and has left no trace of it.
            is_untold = error.code == "stream_not_found" and not exchange.record.first_ms
            if not is_untold or KEY_HEADER not in exchange.headers:
                raise
        else:
            return
        turn_id = await begin()
