"""The words of the page, in each language that it speaks."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

LANGUAGES = {"en": "English", "ru": "Русский"}
_FOR_SCRIPTS = "js."


class Texts:
    """The words of one language."""

    def __init__(self, language: str, words: dict[str, str]) -> None:
        self.language = language
        self._words = words

    def __call__(self, key: str, **values: object) -> str:
        """The text of this key, with values put in."""
        text = self._words[key]
        return text.format(**values) if values else text

    def __contains__(self, key: str) -> bool:
        return key in self._words

    def counted(self, key: str, count: int, shown: str = "") -> str:
        """The text of this key in the form that the number asks for."""
        return self(f"{key}.{_form(self.language, count)}", count=shown or count)

    def for_scripts(self) -> dict[str, str]:
        """What the page's scripts say."""
        return {key: text for key, text in self._words.items() if key.startswith(_FOR_SCRIPTS)}


@cache
def texts(language: str) -> Texts:
    """The words of a language that there is."""
    source = files("modelway.page") / "languages" / f"{language}.json"
    return Texts(language, msgspec.json.decode(source.read_bytes(), type=dict[str, str]))


def chosen_language(cookie: str, accepted: str) -> str:
    """The language that was chosen, else the first one that the browser asks for, else English."""
    wanted = [cookie, *(part.partition(";")[0].strip()[:2].lower() for part in accepted.split(","))]
    return next((language for language in wanted if language in LANGUAGES), "en")


def _form(language: str, count: int) -> str:
    """The plural form, as Unicode's rules for the language name it."""
    if language != "ru":
        return "one" if count == 1 else "other"
    if count % 10 == 1 and count % 100 != 11:
        return "one"
    return "few" if count % 10 in (2, 3, 4) and count % 100 not in (12, 13, 14) else "many"
