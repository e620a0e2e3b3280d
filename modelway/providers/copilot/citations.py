"""Reads the sources that Microsoft 365 Copilot names for an answer.

There are two published forms: a list of `attributions`, and a map of `references`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from modelway.types import Citation

_Kind = TypeVar("_Kind", bound=Struct)

_WEB = ("https://", "http://")


class _Attribution(Struct, rename="camel"):
    attribution_type: str = ""
    provider_display_name: str | None = None
    see_more_web_url: str | None = None


class _Reference(Struct, rename="camel"):
    target_link: str | None = None
    is_cited_in_response: bool | None = None


def citations_of(attributions: Any, references: Any) -> tuple[Citation, ...]:
    """What the answer cites, each address once. Whatever cannot be read is passed over."""
    found: dict[str, Citation] = {}
    for citation in (*_attributed(attributions), *_referenced(references)):
        # The address is somebody else's text: only what a reader may follow goes out.
        if citation.url.casefold().startswith(_WEB):
            found.setdefault(citation.url, citation)
    return tuple(found.values())


def _attributed(attributions: Any) -> Iterator[Citation]:
    for entry in attributions if isinstance(attributions, list) else ():
        one = _converted(entry, _Attribution)
        # The other kind, "annotation", marks words of the answer and is no source.
        if one is not None and one.attribution_type == "citation":
            yield Citation(url=one.see_more_web_url or "", title=one.provider_display_name or "")


def _referenced(references: Any) -> Iterator[Citation]:
    for entry in references.values() if isinstance(references, dict) else ():
        one = _converted(entry, _Reference)
        if one is not None and one.is_cited_in_response is not False:
            yield Citation(url=one.target_link or "")


def _converted(value: Any, kind: type[_Kind]) -> _Kind | None:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None
