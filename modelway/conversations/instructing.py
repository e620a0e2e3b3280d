"""Which instructions hold in a turn."""

from __future__ import annotations

from modelway.types import THIS_TURN_ONLY, Message

_INSTRUCTING = ("system", "developer")


def split_instructions(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Part the leading system messages from the chain that follows."""
    for index, message in enumerate(messages):
        if message.role not in _INSTRUCTING:
            return messages[:index], messages[index:]
    return messages, ()


def is_passing(message: Message) -> bool:
    """Whether the next turn does not inherit this instruction."""
    return bool(message.extra.get(THIS_TURN_ONLY))


def in_force(asked: tuple[Message, ...], standing: tuple[Message, ...]) -> tuple[Message, ...]:
    """The instructions of a turn: those for it only, then its lasting ones or else those that stand."""
    passing = tuple(message for message in asked if is_passing(message))
    lasting = tuple(message for message in asked if not is_passing(message))
    return passing + (lasting or tuple(message for message in standing if not is_passing(message)))
