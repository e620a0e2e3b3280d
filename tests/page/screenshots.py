"""Takes the pictures of docs/page.md: `make screenshots`. The upstream is made up, so they stay the same."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from msgspec import Struct
from playwright.async_api import Browser, Page

from modelway.gateway import Gateway
from modelway.telemetry import RequestRecord, Telemetry
from modelway.telemetry.records import Attempt
from modelway.types import ChatRequest, Event, Finish, ReasoningDelta, TextDelta, Usage
from tests.page.told import told_before
from tests.page.watched import PHONE, WIDE, answered, chromium
from tests.scripted import Scripted
from tests.serving import gateway_of, serving

FOLDER = Path(__file__).parents[2] / "docs" / "page"
DAY_S = 86_400
FIRST_S = 0.21


class Words(Struct, frozen=True):
    """What is said in one language."""

    question: str
    reasoning: str
    answer: str
    titles: tuple[str, ...]


ENGLISH = Words(
    question="Which sorting algorithm should I use for ten million log lines that are almost sorted?",
    reasoning="Almost sorted input; stability may matter. Compare Timsort, merge sort, quicksort.",
    answer="""\
Use **Timsort**, which Python, Java and Rust's stable sort build on. It finds the runs that are sorted already
and only merges them, so almost sorted input costs close to \\(O(n)\\) instead of \\(O(n \\log n)\\).

| | Timsort | Quicksort | Heapsort |
|---|:-:|:-:|:-:|
| Almost sorted input | \\(O(n)\\) | \\(O(n \\log n)\\) | \\(O(n \\log n)\\) |
| Keeps equal lines in order | yes | no | no |

Sort by the time alone, so that lines of the same moment keep their order:

```python
def in_order(lines: list[str]) -> list[str]:
    \"\"\"Log lines by their time stamp, the first field.\"\"\"
    return sorted(lines, key=lambda line: line.split(" ", 1)[0])  # stable
```

- [x] fits in memory: about 2 GB
- [ ] otherwise: sort pieces, then merge them with `heapq.merge`
""",
    titles=(
        "Plan for the garden in spring",
        "Letter to the landlord",
        "Why is the sky blue at noon?",
        "Regular expression for dates",
        "Trip to Lisbon: three days",
        "Compare two mortgage offers",
        "Explain monads with boxes",
        "Names for a sailing boat",
        "Sourdough that does not rise",
    ),
)
RUSSIAN = Words(
    question="Какой сортировкой упорядочить десять миллионов почти отсортированных строк журнала?",
    reasoning="Данные почти упорядочены, важна устойчивость. Сравнить Timsort, слияние и быструю сортировку.",
    answer="""\
Возьмите **Timsort** — на ней построены сортировки Python, Java и Rust. Она находит уже упорядоченные
участки и лишь сливает их, поэтому почти отсортированные данные обходятся в \\(O(n)\\) вместо
\\(O(n \\log n)\\).

| | Timsort | Быстрая | Пирамидальная |
|---|:-:|:-:|:-:|
| Почти упорядоченные данные | \\(O(n)\\) | \\(O(n \\log n)\\) | \\(O(n \\log n)\\) |
| Сохраняет порядок равных строк | да | нет | нет |

Сортируйте только по времени, тогда строки одного мгновения сохранят свой порядок:

```python
def in_order(lines: list[str]) -> list[str]:
    \"\"\"Строки журнала по времени, которое стоит в начале.\"\"\"
    return sorted(lines, key=lambda line: line.split(" ", 1)[0])  # устойчиво
```

- [x] помещается в память: около 2 ГБ
- [ ] иначе: сортировать части и слить их через `heapq.merge`
""",
    titles=(
        "План сада на весну",
        "Письмо хозяину квартиры",
        "Почему днём небо голубое?",
        "Регулярное выражение для дат",
        "Три дня в Лиссабоне",
        "Сравнить два предложения по ипотеке",
        "Монады на примере коробок",
        "Имя для парусной лодки",
        "Закваска не поднимается",
    ),
)
LANGUAGES = {"en": ("en-US", ENGLISH), "ru": ("ru-RU", RUSSIAN)}


class Upstream(Scripted):
    """Answers in the language of the question."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        words = RUSSIAN if "й" in request.messages[-1].text else ENGLISH
        await asyncio.sleep(FIRST_S)
        yield ReasoningDelta(text=words.reasoning)
        for begin in range(0, len(words.answer), 40):
            yield TextDelta(text=words.answer[begin : begin + 40])
            await asyncio.sleep(0.1)
        yield Finish(usage=Usage(31, 312))


async def fill(gateway: Gateway, words: Words) -> None:
    """Conversations of today, of yesterday, and older ones; one is pinned."""
    now, store = time.time(), gateway.conversations
    ages = (0, 0.01, 0.02, 1, 1, 3, 5, 12, 20)
    for n, (title, age) in enumerate(zip(words.titles, ages, strict=True)):
        past = told_before(title, (title, title), at=now - age * DAY_S - 60 * n, model="smollm2")
        await store.shelf.take_in("local", f"talk-{n}", past)
    await store.shelf.annotate("local", "talk-4", {"page.pinned": "1"})


def count(telemetry: Telemetry) -> None:
    """An hour of requests."""
    chance = random.Random(7)
    now = time.time()
    for second in range(0, 3500, 11):
        for provider, model, first, cost in (
            ("Local", "smollm2", 90, 0.0),
            ("Anthropic", "claude-opus-5", 620, 0.0081),
            ("Groq", "llama-4", 210, 0.0004),
        ):
            wave = 1 + 0.6 * abs(((second / 60) % 24) - 12) / 12
            if chance.random() > 0.42 * wave:
                continue
            first_ms = first * chance.uniform(0.7, 1.5)
            total = first_ms + chance.uniform(800, 4000)
            failed = chance.random() < 0.03
            record = RequestRecord(
                time=now - 3540 + second,
                request_id="r",
                dialect="openai_chat",
                provider=provider,
                model=model,
                status=502 if failed else 200,
                code="upstream_error" if failed else "",
                first_ms=0 if failed else first_ms,
                total_ms=total,
                input_tokens=200,
                output_tokens=int(chance.uniform(40, 160)),
                cost=0 if failed else cost * chance.uniform(0.5, 2),
                attempts=[Attempt(provider, model, total)],
            )
            telemetry.figures.open = chance.choice((0, 0, 0, 1, 1, 2))
            telemetry.figures.count(record)
    telemetry.figures.open = 0


async def ask(page: Page, words: Words) -> None:
    await page.locator("#composer textarea").fill(words.question)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/c/*")
    await answered(page)


async def pictures_of(chrome: Browser, language: str, folder: Path) -> None:
    """Everything that is shown in one language."""
    locale, words = LANGUAGES[language]
    providers: Sequence[Upstream] = [
        Upstream("Local", default_model="smollm2"),
        Upstream("Anthropic", default_model="claude-opus-5"),
        Upstream("Groq", default_model="llama-4"),
        Upstream("Mistral", ready=False, missing="no key: set MISTRAL_API_KEY", needs_auth=True),
    ]
    telemetry = Telemetry()
    gateway = gateway_of(providers, folder)
    await fill(gateway, words)
    async with serving(gateway, telemetry=telemetry) as url:
        count(telemetry)
        for size_name, size in (("wide", WIDE), ("phone", PHONE)):
            for colours in ("light", "dark"):
                context = await chrome.new_context(
                    viewport={"width": size[0], "height": size[1]}, color_scheme=colours, locale=locale
                )
                page = await context.new_page()
                await page.goto(url)
                if colours == "light" and size_name == "wide":
                    await shoot(page, f"new-{language}")
                await page.locator("select[name=model]").select_option("Anthropic/claude-opus-5")
                await ask(page, words)
                await page.locator("#main").evaluate("(main) => { main.scrollTop = 0 }")
                await shoot(page, f"chat-{language}-{size_name}-{colours}")
                if language == "en" and size_name == "wide":
                    for name in ("figures", "providers"):
                        await page.goto(f"{url}/{name}")
                        await shoot(page, f"{name}-{colours}")
                await context.close()
                for found in await gateway.conversations.list("local", limit=3):
                    if found.conversation_id.startswith("conv_"):
                        await gateway.conversations.delete("local", found.conversation_id)


async def shoot(page: Page, name: str) -> None:
    await page.evaluate("document.fonts.ready")
    await page.screenshot(path=FOLDER / f"{name}.png", animations="disabled", caret="initial")


async def main() -> None:
    """All pictures."""
    FOLDER.mkdir(exist_ok=True)
    async with chromium() as chrome:
        for language in LANGUAGES:
            with tempfile.TemporaryDirectory() as folder:
                await pictures_of(chrome, language, Path(folder))


if __name__ == "__main__":
    asyncio.run(main())
