"""The words of the page: the same in all languages, and none anywhere else."""

from __future__ import annotations

import ast
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from modelway.page.texts import LANGUAGES, chosen_language, texts

FOLDER = Path(str(files("modelway.page")))
FORMS = re.compile(r"\.(one|few|many|other)$")
# Names, units and keys, which are the same in all languages.
SAME_EVERYWHERE = {
    "Modelway",
    "px",
    "utf-8",
    "off",
    "log",
    "group",
    "menu",
    "menuitem",
    "img",
    "auto",
    "Ctrl K",
    "?",
    " · ",
}


def words(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((FOLDER / "languages" / f"{language}.json").read_text())
    return found


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_has_the_same_texts(language: str) -> None:
    assert {FORMS.sub("", key) for key in words(language)} == {FORMS.sub("", key) for key in words("en")}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_puts_the_same_values_into_a_text(language: str) -> None:
    def values(of: dict[str, str]) -> dict[str, set[str]]:
        return {FORMS.sub("", key): set(re.findall(r"\{(\w+)\}", text)) for key, text in of.items()}

    assert values(words(language)) == values(words("en"))


def test_a_number_has_the_form_that_its_language_asks_for() -> None:
    russian = texts("ru")
    told = [russian.counted("thread.tokens", count) for count in (1, 2, 5, 11, 21, 22, 112)]
    assert told == ["1 токен", "2 токена", "5 токенов", "11 токенов", "21 токен", "22 токена", "112 токенов"]
    assert [texts("en").counted("thread.tokens", count) for count in (1, 2)] == ["1 token", "2 tokens"]


def test_the_language_is_the_chosen_one_or_the_first_that_the_browser_asks_for() -> None:
    assert chosen_language("ru", "en-US,en;q=0.9") == "ru"
    assert chosen_language("", "fr-FR,ru;q=0.9,en;q=0.8") == "ru"
    assert chosen_language("xx", "") == "en"


def used_keys() -> set[str]:
    found = set()
    for path in [*FOLDER.rglob("*.py"), *FOLDER.rglob("*.js")]:
        source = path.read_text()
        found |= set(re.findall(r"""["'`]((?:[a-z_]+\.)*[a-z_0-9]+)["'`]""", source))
    return found


def test_every_text_is_used_and_there_is_one_for_every_use() -> None:
    used, known = used_keys(), {FORMS.sub("", key) for key in words("en")}
    counted_by_number = re.compile(
        r"date\.month\.\d+|welcome\.idea\.\d|theme\.\w+|settings\.effort\.\w+|supports\.\w+"
        r"|providers\.source\.\w+"
    )
    unused = {key for key in known - used if not counted_by_number.fullmatch(key)}
    assert unused == set()
    asked = set()
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if name in ("t", "_t", "texts", "words") and isinstance(node.args[0].value, str):
                    asked.add(node.args[0].value)
    assert asked - known - set(LANGUAGES) == set()


def test_no_view_says_anything_but_by_its_texts() -> None:
    said = []
    for path in (FOLDER / "views").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tag":
                constants = [one.value for one in node.args[1:] if isinstance(one, ast.Constant)]
                said += [text for text in constants if isinstance(text, str)]
    assert [text for text in said if re.search(r"[A-Za-z]", text) and text not in SAME_EVERYWHERE] == []
