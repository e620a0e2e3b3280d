"""Writes conversations down as files that can be read without the server."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from modelway.conversations import Conversation
from modelway.page.html import Html, tag
from modelway.page.thread import thread_of
from modelway.page.views.messages import Writer

FORMAT = "modelway.conversation.v1"


def export_lines(conversations: Iterable[Conversation]) -> bytes:
    """A line of JSON for each, with everything about it."""
    return b"".join(
        msgspec.json.encode({"format": FORMAT, **msgspec.structs.asdict(one)}) + b"\n"
        for one in conversations
    )


def export_html(conversation: Conversation, writer: Writer, style: str, language: str) -> Html:
    """The current branch as a document of its own, which loads nothing."""
    thread = thread_of(conversation, length=len(conversation.tree) + 1)
    articles = [writer.exported(entry) for entry in thread.entries]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="content-security-policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", conversation.title),
        tag("style", Html(style.replace("</", "<\\/"))),
    )
    shown = tag("main", tag("h1", conversation.title), tag("div", *articles, id="thread"), id="main")
    return Html("<!doctype html>" + tag("html", head, tag("body", shown, class_="exported"), lang=language))
