"""What anybody may load: the page's own files, and the page that asks for a key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from modelway.errors import NotFound
from modelway.page.frame import Frame, html_response
from modelway.page.views.login import login

_FOR_EVER = {
    "cache-control": "public, max-age=31536000, immutable",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
}


class Files:
    """Answers everybody."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def asset(self, request: Request) -> Response:
        """A style sheet or a script. The version in the address only keeps browsers from using an old one."""
        asset = self._frame.assets.files.get(request.path_params["name"])
        if asset is None:
            raise NotFound("the page has no such file")
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers = {**_FOR_EVER, "content-encoding": "gzip"}
            return Response(asset.packed, headers=headers, media_type=asset.media_type)
        return Response(asset.plain, headers=_FOR_EVER, media_type=asset.media_type)

    async def login(self, request: Request) -> Response:
        """Asks for a key."""
        return html_response(login(self._frame.look(request)))
