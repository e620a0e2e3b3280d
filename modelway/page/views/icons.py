"""Small drawings, as part of the page."""

from __future__ import annotations

from modelway.page.html import Html, tag

_PATHS = {
    "attach": "m18.5 11.3-7.1 7.1a4.6 4.6 0 0 1-6.5-6.5l7.8-7.8a3.1 3.1 0 0 1 4.3 4.3l-7.7 7.8"
    "a1.5 1.5 0 0 1-2.2-2.2l7.1-7.1",
    "chart": "M4 20V10m5.3 10V4m5.4 16v-7M20 20V7",
    "check": "m5 12.5 4.5 4.5L19 7.5",
    "close": "M6 6l12 12M18 6 6 18",
    "copy": "M9 9h10v11H9zM5 15V4h10",
    "down": "m6 9.5 6 6 6-6",
    "download": "M12 4v11m0 0 4.5-4.5M12 15l-4.5-4.5M5 20h14",
    "edit": "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
    "ghost": "M5 20V11a7 7 0 0 1 14 0v9l-2.4-2-2.3 2-2.3-2-2.3 2-2.3-2zM9.5 11v.6m5-.6v.6",
    "help": "M9.2 9.2a2.9 2.9 0 1 1 4.3 2.5c-1 .6-1.5 1.1-1.5 2.3M12 17.2v.3"
    "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18",
    "left": "m14.5 6-6 6 6 6",
    "menu": "M4 7h16M4 12h16M4 17h16",
    "moon": "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5",
    "more": "M6 12h.01M12 12h.01M18 12h.01",
    "new": "M12 5v14M5 12h14",
    "pin": "m9 4 6 0-.7 6.2L17.5 13v2h-11v-2l3.2-2.8zM12 15v6",
    "plug": "M9 3v5m6-5v5M6.5 8h11v3.5a5.5 5.5 0 0 1-11 0zM12 17v4",
    "repeat": "M19 12a7 7 0 1 1-2-4.9L19 9V4.5M19 9h-4.5",
    "right": "m9.5 6 6 6-6 6",
    "search": "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14m5-2 4.5 4.5",
    "send": "M12 19.5V5m0 0-6 6m6-6 6 6",
    "sliders": "M4 7h9m5 0h2M4 17h2m5 0h9M15.5 7a2 2 0 1 0 .01 0M8.5 17a2 2 0 1 0 .01 0",
    "stop": "M7 7h10v10H7z",
    "trash": "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13M10.3 11v5.5m3.4-5.5v5.5",
    "upload": "M12 15V4m0 0L7.5 8.5M12 4l4.5 4.5M5 20h14",
}


def icon(name: str) -> Html:
    """A drawing that says nothing to screen readers."""
    path = tag("path", d=_PATHS[name])
    return tag("svg", path, viewBox="0 0 24 24", class_="icon", aria_hidden="true")
