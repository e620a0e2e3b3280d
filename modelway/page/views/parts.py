"""What messages consist of, as text for people."""

from __future__ import annotations

import msgspec

from modelway.conversations import TurnRecord
from modelway.page.draft import Figures
from modelway.page.html import Html, tag
from modelway.page.texts import Texts
from modelway.types import Citation, Message, TextPart

# In `extra` of a part or a message: what the page knows about it.
OF_PAGE = "page"


def measures(t: Texts, turn: TurnRecord, known: Figures) -> list[str]:
    """Provider, model, tokens, tokens a second, time to the first text, cost."""
    told = [" · ".join(name for name in (turn.provider, turn.model) if name)]
    usage, began, ended = turn.usage, turn.created_at, turn.finished_at
    if usage is not None and usage.output_tokens:
        told.append(t.counted("thread.tokens", usage.output_tokens))
        writing = (ended or began) - began - known.first_s
        if writing > 0.05 and usage.output_tokens > 1:
            told.append(t("thread.speed", speed=f"{usage.output_tokens / writing:.0f}"))
    if known.first_s:
        told.append(t("thread.first", seconds=_seconds(known.first_s)))
    elif ended:
        told.append(t("thread.total", seconds=_seconds(ended - began)))
    if known.cost is not None:
        told.append(f"${known.cost:.4f}")
    return [one for one in told if one]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 1 else f"{seconds:.1f}"


def attachment_name(part: TextPart) -> str:
    """The name of the file that a part holds the text of, "" where it is none."""
    noted = part.extra.get(OF_PAGE)
    name = noted.get("name") if isinstance(noted, dict) else None
    return name if isinstance(name, str) else ""


def written_by(message: Message) -> str:
    """The text of a message without the files that came with it."""
    if isinstance(message.content, str):
        return message.content
    return "".join(
        part.text for part in message.content if isinstance(part, TextPart) and not attachment_name(part)
    )


def source(citation: Citation) -> Html | None:
    """A link to what an answer cites; None where it is none that may be followed."""
    if not citation.url.startswith(("http://", "https://")):
        return None
    return tag(
        "a",
        citation.title or citation.url,
        href=citation.url,
        target="_blank",
        rel="noopener noreferrer nofollow",
    )


def pretty(arguments: str) -> str:
    """JSON with line breaks; anything else as it is."""
    try:
        return msgspec.json.format(arguments)
    except msgspec.DecodeError:
        return arguments
