"""Refuses bodies in which an upstream might read another model than the rules were asked about."""

from __future__ import annotations

import json
import re
from collections import Counter

import msgspec

from modelway.errors import InvalidRequest
from modelway.server.exchange import Exchange

_NAMES = ("model", "provider")
_AS_THEY_ARE = frozenset(f'"{name}"'.encode() for name in _NAMES)
_QUOTED = re.compile(rb'"(?:model|provider)"', re.IGNORECASE)
# A letter of ASCII may be written as its number.
_HIDDEN = re.compile(rb"\\u00[4-7]")
_skimmer = msgspec.json.Decoder(msgspec.Raw)


def refuse_ambiguous(exchange: Exchange, body: bytes) -> None:
    """InvalidRequest where a caller with rules names its way twice, or in other letters.

    Which one of two an upstream takes, and whether it looks at the case, only the upstream knows.
    """
    if exchange.caller.rules is None or not body or _is_plain(body):
        return
    try:
        # Numbers stay text, because those of thousands of digits are an error only here.
        pairs = json.loads(body, object_pairs_hook=_Pairs, parse_int=str, parse_float=str, strict=False)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not valid JSON", code="invalid_json") from None
    if not isinstance(pairs, _Pairs):
        return
    names = [name for name, _ in pairs if name.casefold() in _NAMES]
    for name, times in Counter(name.casefold() for name in names).items():
        if times > 1:
            raise InvalidRequest(f"`{name}` stands twice in the body", param=name, hint="send it once")
    for name in names:
        if name not in _NAMES:
            raise InvalidRequest(
                f"`{name}` is not `{name.casefold()}`", param=name, hint="write it in small letters"
            )


def _is_plain(body: bytes) -> bool:
    """Whether neither name stands in it more than once, as a key or as anything else; a look at the bytes.

    To take the body apart costs more than the whole of its answer.
    """
    if _HIDDEN.search(body):
        return False
    try:
        body.decode()
        _skimmer.decode(body)
    except (ValueError, RecursionError):
        return False
    found = _QUOTED.findall(body)
    return not found or (len(set(found)) == len(found) and _AS_THEY_ARE.issuperset(found))


class _Pairs(list[tuple[str, object]]):
    """The fields of an object, with those that stand twice."""
