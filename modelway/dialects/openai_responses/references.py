"""Items that a request only refers to: what was said before, by its id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from modelway.dialects.openai_responses.wire import Fields, turn_id
from modelway.dialects.reading import check, read_object
from modelway.errors import InvalidRequest

_KIND = "item_reference"
# A reference may leave out its type: it is what has an id and nothing else.
_ONLY_ID = frozenset({"id", "type"})
_named = re.compile(r"(?:msg|rs|fc|ctc|fco)_(?P<turn>[0-9a-f]+)(?P<in>_in)?(?P<number>_\d+)?").fullmatch


def references(body: bytes) -> dict[int, str]:
    """The ids of the items that `input` refers to, by their places in it; none where it cannot be read so."""
    if b'"input"' not in body or (_KIND.encode() not in body and b'"id"' not in body):
        return {}
    input = read_object(body).get("input")
    found: dict[int, str] = {}
    for place, item in enumerate(input if isinstance(input, list) else ()):
        if isinstance(item, dict) and item.get("type") in (None, _KIND) and item.keys() <= _ONLY_ID:
            found[place] = check(item.get("id"), str, f"input[{place}].id")
    return found


def conversation_named(body: bytes) -> str:
    """The conversation that a request names; "" where it names none."""
    fields = read_object(body)
    named = fields.get("conversation") or fields.get("conversation_id") or ""
    id = named.get("id") if isinstance(named, dict) else named
    return id if isinstance(id, str) else ""


def turn_of_item(id: str) -> str:
    """The turn that an item of a response belongs to; "" where this cannot be the id of such an item."""
    found = _named(id)
    return turn_id(f"resp_{found['turn']}") if found else ""


def put_in(body: bytes, items: Mapping[int, Fields | None]) -> bytes:
    """The body with items in the place of references to them; None: with nothing there."""
    fields = read_object(body)
    input: list[Any] = fields["input"]
    kept = [items.get(place, item) for place, item in enumerate(input)]
    fields["input"] = [item for item in kept if item is not None]
    return msgspec.json.encode(fields)


def pick(id: str, place: int, there: Mapping[str, Fields]) -> Fields | None:
    """The item that a reference means; None where another one has its content.

    A stream may begin a second item of a kind (thoughts after text), whose content is kept with the first.
    """
    if id in there:
        return there[id]
    found = _named(id)
    if found and found["number"] and not found["in"] and id.removesuffix(found["number"]) in there:
        return None
    raise missing(id, place)


def missing(id: str, place: int) -> InvalidRequest:
    """What to raise for a reference to nothing."""
    return InvalidRequest(
        f"`input[{place}]` refers to the item {id[:80]!r}, which is not here",
        param=f"input[{place}].id",
        code="item_not_found",
        hint="it was not stored, or deleted: send the item itself",
    )
