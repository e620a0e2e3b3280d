"""Callers' keys and what they spend, in the database of their conversations, so that all replicas know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from modelway.conversations.allotments import Allotment, Share, put_back, take
from modelway.conversations.failures import unavailable
from modelway.conversations.leases import Leases
from modelway.conversations.ledger import Ledger
from modelway.conversations.spending import Spending, Sums, spend, sums, usage
from modelway.conversations.writer import Writer
from modelway.errors import InvalidRequest, NotFound
from modelway.keys import ApiKey, check_name, hash_key, hint_of, make_key
from modelway.types import Rules

if TYPE_CHECKING:
    from modelway.conversations.database import Database

T_co = TypeVar("T_co", covariant=True)

_INSERT = """INSERT INTO api_keys (id, name, digest, hint, rules, created_at, expires_at)
    VALUES (:id, :name, :digest, :hint, :rules, :created_at, :expires_at)"""
_COUNTING = """SELECT 1 FROM api_keys WHERE name = :name AND revoked_at IS NULL
    AND (expires_at IS NULL OR expires_at > :now)"""
_CHANGE = """UPDATE api_keys SET rules = :rules, expires_at = :expires_at
    WHERE name = :name AND revoked_at IS NULL"""
_REVOKE = "UPDATE api_keys SET revoked_at = :now WHERE name = :name AND revoked_at IS NULL"
_FORGET = "DELETE FROM api_keys WHERE name = :name"
_READ = "SELECT name, digest, hint, rules, created_at, expires_at, revoked_at FROM api_keys ORDER BY id"


class Read(Protocol):
    """Runs work that only reads, on a thread of the store's."""

    def __call__(self, work: Callable[[Ledger], T_co], /) -> Awaitable[T_co]:
        """What the work gives."""
        ...


class Callers:
    """Who may call, by keys of which only hashes are kept, and who has spent what.

    A name has one key that counts at a time.

    Raises StoreUnavailable as Conversations does.
    """

    def __init__(self, database: Database, writer: Writer, read: Read, leases: Leases) -> None:
        self._database = database
        self._writer = writer
        self._read = read
        self._leases = leases
        self._watching: Ledger | None = None
        self._watches = 0

    async def create(self, name: str, rules: Rules, *, expires_at: float | None = None) -> tuple[str, ApiKey]:
        """Make a key for a caller, and give it: nobody can read it again.

        Raises InvalidRequest where the name cannot be one or has a key that counts.
        """
        check_name(name)
        secret = make_key()
        key = ApiKey(
            name=name,
            digest=hash_key(secret),
            hint=hint_of(secret),
            rules=rules,
            created_at=time.time(),
            expires_at=expires_at,
        )
        await self._writer.submit(lambda ledger: _insert(ledger, key), is_quick=False)
        return secret, key

    async def change(self, name: str, rules: Rules, *, expires_at: float | None) -> None:
        """Give a key other rules, and another end; raises NotFound where none has the name."""
        await self._writer.submit(lambda ledger: _change(ledger, name, rules, expires_at), is_quick=False)

    async def revoke(self, name: str, *, forget: bool = False) -> None:
        """Let the key of this name no longer count; `forget` drops what is known of all that it has had.

        Raises NotFound where there is nothing to revoke.
        """
        await self._writer.submit(lambda ledger: _revoke(ledger, name, forget=forget), is_quick=False)

    async def keys(self) -> Sequence[ApiKey]:
        """All keys that were made here, oldest first, those that no longer count among them."""
        return await self._read(_keys)

    def known_now(self) -> Sequence[ApiKey]:
        """As keys(), for who has no event loop yet."""
        with self._database.reading() as ledger:
            return _keys(ledger)

    async def spend(self, charges: Sequence[Spending], day: str) -> Sums:
        """Write charges down; tells what each caller has spent on a day and in its month, these included."""

        def work(ledger: Ledger) -> Sums:
            spend(ledger, charges)
            return sums(ledger, day)

        return await self._writer.submit(work, may_refuse=False)

    def spend_later(self, charges: list[Spending], failed: Callable[[list[Spending]], None]) -> None:
        """Write charges down without waiting; `failed` gets them back where that could not be done."""

        def written(future: asyncio.Future[None]) -> None:
            if future.exception() is not None:
                failed(charges)

        future = self._writer.submit(lambda ledger: spend(ledger, charges), may_refuse=False)
        future.add_done_callback(written)

    async def usage(self, caller: str, first: str, last: str) -> Sequence[Spending]:
        """What was spent from one day to another, by one caller or ("") all of them."""
        return await self._read(lambda ledger: usage(ledger, caller, first, last))

    async def allot(self, caller: str, choose: Callable[[Allotment], Allotment]) -> Share:
        """Take of a caller's limits, for this server, what `choose` says when it is told what others have."""
        leases = self._leases
        return await self._writer.submit(
            lambda ledger: take(ledger, caller, leases.owner, choose, leases.lives), may_refuse=False
        )

    def put_back(self, kept: Mapping[str, Allotment]) -> None:
        """Note what this server keeps of the limits of some callers, without waiting."""
        self._writer.send(lambda ledger: put_back(ledger, self._leases.owner, kept))

    def version(self) -> tuple[int, int]:
        """What is another one after any change of the database, by whichever process.

        It is read from memory that all processes share, which takes microseconds.
        """
        with unavailable("read"):
            if self._watching is None or not self._watching.is_in_place:
                self.close()
                self._watching = self._database.ledger(waits=False)
                self._watches += 1
            (version,) = self._watching.one("PRAGMA data_version", {})
        # Each connection counts for itself.
        return self._watches, int(version)

    def close(self) -> None:
        """Give back the connection of version()."""
        if self._watching is not None:
            self._watching.close()
            self._watching = None


def _insert(ledger: Ledger, key: ApiKey) -> None:
    if ledger.one(_COUNTING, {"name": key.name, "now": key.created_at}):
        raise InvalidRequest(
            f"there is a key of the name {key.name}",
            hint=f"choose another name, or `modelway keys revoke {key.name}` first",
            param="name",
        )
    values = msgspec.structs.asdict(key) | {"id": ledger.new_id(), "rules": msgspec.json.encode(key.rules)}
    ledger.run(_INSERT, values)


def _change(ledger: Ledger, name: str, rules: Rules, expires_at: float | None) -> None:
    values = {"name": name, "rules": msgspec.json.encode(rules), "expires_at": expires_at}
    if not ledger.run(_CHANGE, values):
        raise _unknown(name)


def _revoke(ledger: Ledger, name: str, *, forget: bool) -> None:
    statement = _FORGET if forget else _REVOKE
    if not ledger.run(statement, {"name": name, "now": time.time()}):
        raise _unknown(name)


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"there is no such key of the name {name[:64]}", hint="`modelway keys list` shows what there is"
    )


def _keys(ledger: Ledger) -> list[ApiKey]:
    return [
        ApiKey(
            name=name,
            digest=digest,
            hint=hint,
            rules=msgspec.json.decode(rules, type=Rules),
            created_at=created_at,
            expires_at=expires_at,
            revoked_at=revoked_at,
        )
        for name, digest, hint, rules, created_at, expires_at, revoked_at in ledger.all(_READ, {})
    ]
