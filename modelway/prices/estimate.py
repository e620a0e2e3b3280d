"""Guesses how many tokens a text has, where nobody has counted them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelway.types import Completion, FilePart, ImagePart, Message, OtherPart, TextPart, Usage

# English text has about four characters to a token, in every vendor's tokenizer.
_CHARACTERS = 4
_MESSAGE = 4
# What OpenAI counts for a picture of 1024 x 1024 pixels in full detail.
_PICTURE = 765
_FILE = 2000


def tokens_of(messages: Iterable[Message]) -> int:
    """About how many tokens messages have."""
    return sum(_MESSAGE + _tokens(message) for message in messages)


def usage_of(messages: Iterable[Message], completion: Completion) -> Usage:
    """About what an answer took, as far as it came."""
    written = sum(
        _tokens(choice.message) + -(-len(choice.refusal) // _CHARACTERS) for choice in completion.choices
    )
    return Usage(tokens_of(messages), written)


def tokens_of_characters(characters: int) -> int:
    """About how many tokens a text of this length has."""
    return -(-characters // _CHARACTERS)


def tokens_of_fields(fields: Any) -> int:
    """About how many tokens are in the texts of a JSON value; numbers in lists are tokens themselves."""
    tokens, left = 0, [fields]
    while left:
        match left.pop():
            case str() as text:
                tokens += _PICTURE if text.startswith("data:") else tokens_of_characters(len(text))
            case dict() as found:
                left += found.values()
            case list() as found:
                tokens += sum(type(one) is int for one in found)
                left += (one for one in found if isinstance(one, (str, dict, list)))
    return tokens


def _tokens(message: Message) -> int:
    characters = len(message.reasoning)
    tokens = 0
    for call in message.tool_calls:
        characters += len(call.name) + len(call.arguments)
    if isinstance(message.content, str):
        characters += len(message.content)
    else:
        for part in message.content:
            match part:
                case TextPart():
                    characters += len(part.text)
                case ImagePart():
                    tokens += _PICTURE
                case FilePart() | OtherPart():
                    tokens += _FILE
    return tokens + -(-characters // _CHARACTERS)
