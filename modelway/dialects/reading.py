"""Takes a caller's JSON apart; every mistake in it becomes an InvalidRequest that names the field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from modelway.errors import InvalidRequest

MAX_NESTING = 200

_TYPE_NAMES = {str: "a string", bool: "true or false", int: "an integer", dict: "an object", list: "an array"}

T = TypeVar("T")
Fields = dict[str, Any]


def read_object(body: bytes) -> Fields:
    """The body as an object."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error) or "it cannot be read"
        raise InvalidRequest(f"the body is not valid JSON: {reason}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    # What can be read in one piece might still be too deep to be written again further down.
    if body.count(b"[") + body.count(b"{") > MAX_NESTING and _is_deep(value):
        raise _too_deep()
    return value


def wrong(path: str, must: str) -> InvalidRequest:
    """What to raise for a field that is not what it must be."""
    return InvalidRequest(f"`{path}` must be {must}", param=path)


def check(value: Any, kind: type[T], path: str) -> T:
    """The value, if it is of this type."""
    # In Python True is an int; in JSON it is not.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong(path, _TYPE_NAMES[kind])
    return value


def take(fields: Fields, name: str, kind: type[T], default: T, prefix: str = "") -> T:
    """Remove a field and check its type; null counts as absent."""
    value = fields.pop(name, None)
    return default if value is None else check(value, kind, prefix + name)


def take_number(fields: Fields, name: str, low: float, high: float, prefix: str = "") -> float | None:
    """Remove a number and check its range; null counts as absent."""
    value = fields.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise wrong(prefix + name, f"a number from {low} to {high}")
    return value


def take_integer(fields: Fields, name: str, low: int, high: int, prefix: str = "") -> int | None:
    """Remove an integer and check its range; null counts as absent."""
    value = fields.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(prefix + name, f"an integer from {low} to {high}")
    return value


def items(value: Any, path: str, read: Callable[[Any, str], T]) -> tuple[T, ...]:
    """Each item of an array, read with its own path."""
    return tuple(read(item, f"{path}[{position}]") for position, item in enumerate(check(value, list, path)))


def take_strings(
    fields: Fields, name: str, most: int, prefix: str = "", *, or_one: bool = True
) -> tuple[str, ...] | None:
    """Remove an array of at most `most` strings, `or_one` string; null counts as absent."""
    value = fields.pop(name, None)
    if value is None:
        return None
    strings = [value] if or_one and isinstance(value, str) else value
    path = prefix + name
    if not isinstance(strings, list) or len(strings) > most:
        raise wrong(path, f"{'a string or ' if or_one else ''}an array of at most {most} strings")
    return items(strings, path, lambda item, at: check(item, str, at))


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested too deeply; at most {MAX_NESTING} levels", code="invalid_json")


def _is_deep(value: Fields) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        below = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        level = [item for item in below if isinstance(item, dict | list)]
        if not level:
            return False
    return True
