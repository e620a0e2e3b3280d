"""Tools that take plain text, for upstreams whose tools take objects: functions of one text."""

from __future__ import annotations

import msgspec

from modelway.dialects.reading import Fields, check, wrong
from modelway.types import Tool

_TEXT = "input"
_PARAMETERS: Fields = {
    "type": "object",
    "properties": {_TEXT: {"type": "string"}},
    "required": [_TEXT],
    "additionalProperties": False,
}


def as_function(fields: Fields, path: str) -> Tool:
    """The function that stands for such a tool; a grammar of its text becomes a part of the description."""
    description = check(fields.get("description") or "", str, f"{path}.description")
    form = check(fields.get("format") or {"type": "text"}, dict, f"{path}.format")
    if form.get("type") not in ("text", "grammar"):
        raise wrong(f"{path}.format.type", '"text" or "grammar"')
    if form["type"] == "grammar":
        syntax = check(form.get("syntax"), str, f"{path}.format.syntax")
        grammar = check(form.get("definition"), str, f"{path}.format.definition")
        description += f"\n\n`{_TEXT}` must be what this {syntax} grammar describes:\n{grammar}"
    return Tool(
        name=check(fields.get("name"), str, f"{path}.name"),
        description=description.strip(),
        parameters=_PARAMETERS,
    )


def arguments_of(text: str) -> str:
    """The arguments of the function for a text."""
    return msgspec.json.encode({_TEXT: text}).decode()


def text_of(arguments: str) -> str:
    """The text in a function's arguments; a model that keeps to no form may have written it as it is."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    text = value.get(_TEXT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments
