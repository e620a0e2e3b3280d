"""Puts the page together: the only module of it that knows all others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from modelway.gateway import Gateway
from modelway.page.actions import Actions
from modelway.page.assets import Assets
from modelway.page.drafts import Drafts
from modelway.page.events import Events
from modelway.page.frame import Frame, Renderings
from modelway.page.keeping import Keeping
from modelway.page.markdown import Markdown
from modelway.page.pages import Pages
from modelway.page.serving import Files
from modelway.page.trash import Trash
from modelway.page.watching import Watching
from modelway.telemetry import Telemetry

Endpoint = Callable[[Request], Awaitable[Response]]

_WARM = "**a** `b` [c](http://d) $x$\n\n```python\npass\n```\n\n| a |\n|---|\n| b |\n"


class Built(Struct, frozen=True):
    """The page: what all share, the stream of events, and each endpoint with its method and address."""

    frame: Frame
    events: Events
    watching: Watching
    endpoints: list[tuple[str, str, Endpoint]]


def build(gateway: Gateway, telemetry: Telemetry, max_body_bytes: int) -> Built:
    """The page of a gateway, ready to answer at once."""
    markdown = Markdown()
    markdown.html(_WARM)
    frame = Frame(
        gateway=gateway,
        telemetry=telemetry,
        drafts=Drafts(gateway, telemetry, lambda: markdown),
        trash=Trash(gateway.conversations),
        assets=Assets(),
        answers=Renderings(markdown),
        questions=Renderings(Markdown(breaks=True)),
    )
    pages, actions = Pages(frame), Actions(frame, max_body_bytes)
    watching = Watching(frame)
    keeping, files = Keeping(frame, max_body_bytes), Files(frame)
    endpoints: list[tuple[str, str, Endpoint]] = [
        ("GET", "/", pages.home),
        ("GET", "/c/{id}", pages.conversation),
        ("GET", "/c/{id}/export", keeping.export),
        ("GET", "/c/{id}/text/{message}", pages.text),
        ("GET", "/c/{id}/files/{message}/{index:int}", pages.file),
        ("GET", "/login", files.login),
        ("GET", "/static/{version}/{name}", files.asset),
        ("GET", "/page/models", pages.models),
        ("GET", "/page/list", keeping.list),
        ("GET", "/page/search", keeping.search),
        ("GET", "/page/export", keeping.export_all),
        ("GET", "/page/thread/{id}", pages.thread),
        ("GET", "/providers", watching.providers),
        ("POST", "/page/test", watching.test),
        ("POST", "/page/sign-in", watching.sign_in),
        ("POST", "/page/sign-in/state", watching.sign_in_state),
        ("GET", "/figures", watching.figures),
        ("GET", "/page/figures", watching.plots),
        ("POST", "/page/send", actions.send),
        ("POST", "/page/stop", actions.stop),
        ("POST", "/page/branch", actions.branch),
        ("POST", "/page/rename", keeping.rename),
        ("POST", "/page/pin", keeping.pin),
        ("POST", "/page/delete", keeping.delete),
        ("POST", "/page/undo", keeping.undo),
        ("POST", "/page/import", keeping.take_in),
    ]
    return Built(frame, Events(frame), watching, endpoints)
