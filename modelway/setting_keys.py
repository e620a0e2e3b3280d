"""Knows every setting by its key: finds it, reads its value, and names the nearest one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from modelway.config import Settings

PREFIX = "MODELWAY_"
Key = tuple[str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Fault(Exception):
    """Something about one key is wrong; the one who knows where it stands makes a SettingsError of it."""

    def __init__(self, key: Key, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.key = key
        self.what = what
        self.hint = hint


def written(key: Key) -> str:
    """The key as TOML writes it."""
    return ".".join(part if _BARE.fullmatch(part) else f'"{part}"' for part in key)


def flatten(table: Mapping[str, Any], kind: Any = Settings, at: Key = ()) -> Iterator[tuple[Key, Any, Any]]:
    """Key, value and type of everything that the table sets; Fault for a key that does not exist."""
    for name, value in table.items():
        key = (*at, name)
        inner = _member(kind, name)
        if inner is None:
            raise _unknown(key, kind)
        if not _is_table(inner):
            yield key, value, inner
        elif not isinstance(value, Mapping):
            raise Fault(key, f"{written(key)} must be a table", f"write [{written(key)}] above its keys")
        elif value:
            yield from flatten(value, inner, key)
        else:
            yield key, {}, inner


def nested(values: Mapping[Key, Any]) -> dict[str, Any]:
    """The tables that `flatten` took apart."""
    root: dict[str, Any] = {}
    for key, value in sorted(values.items(), key=lambda item: len(item[0])):
        table = root
        for part in key[:-1]:
            table = table.setdefault(part, {})
        table[key[-1]] = value
    return root


def convert(key: Key, value: Any, kind: Any, *, text: bool = False) -> Any:
    """The value as the setting's type; Fault where it is of another one. `text`: it is a variable's.

    An empty table stays: what it lacks is seen once all layers are together.
    """
    if _is_table(kind) and not value:
        return value
    if text:
        value = _split(key, value.strip(), kind)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices and value not in choices:
        raise Fault(key, f"{written(key)} must be one of {', '.join(choices)}")
    try:
        return msgspec.convert(value, kind, strict=not text)
    except msgspec.ValidationError as error:
        what = str(error).partition(" - at ")[0].replace("`", "").replace("Expected", "expected")
        raise Fault(key, f"{written(key)}: {what}") from None


def key_of_variable(name: str) -> tuple[Key, Any] | None:
    """Key and type of the setting that a variable names; None where there is none.

    Names that the user chose (of providers, routes, callers) stay as they are written, but in lower case
    where all is in upper case, as variables usually are.
    """
    kind: Any = Settings
    key: Key = ()
    for part in name.removeprefix(PREFIX).split("__"):
        if not part or not _is_table(kind):
            return None
        own_name = part.lower() if part.isupper() or isinstance(kind, type) else part
        kind = _member(kind, own_name)
        if kind is None:
            return None
        key = (*key, own_name)
    is_struct = isinstance(kind, type) and issubclass(kind, Struct)
    return None if is_struct or _value_type(kind) not in (None, str) else (key, kind)


def nearest_variable(name: str) -> str:
    """The variable that was probably meant; "" where the name resembles none."""
    known = {variable_of(key): key for key in setting_keys()}
    asked = name.removeprefix(PREFIX).replace("__", "_").upper()
    for variable, key in known.items():
        if asked in ("_".join(key).upper(), key[-1].upper()):
            return variable
    return next(iter(difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)), "")


def variable_of(key: Key) -> str:
    """The variable that sets a key."""
    return PREFIX + "__".join(key).upper()


def setting_keys(kind: Any = Settings, at: Key = ()) -> Iterator[Key]:
    """The key of every setting; names that the user chooses are <name>."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        for field in msgspec.structs.fields(kind):
            yield from setting_keys(field.type, (*at, field.name))
    elif _is_table(kind):
        yield from setting_keys(_value_type(kind), (*at, "<name>"))
    else:
        yield at


def _member(kind: Any, name: str) -> Any:
    if get_origin(kind) is dict:
        return _value_type(kind)
    return next((field.type for field in msgspec.structs.fields(kind) if field.name == name), None)


def _is_table(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Struct))


def _value_type(kind: Any) -> Any:
    return get_args(kind)[1] if get_origin(kind) is dict else None


def _unknown(key: Key, kind: Any) -> Fault:
    siblings = {field.name: (*key[:-1], field.name) for field in msgspec.structs.fields(kind)}
    elsewhere = {known[-1]: known for known in setting_keys() if "<name>" not in known}
    near = difflib.get_close_matches(key[-1], siblings, n=1)
    meant = siblings[near[0]] if near else elsewhere.get(key[-1])
    hint = f"did you mean {written(meant)}?" if meant else "docs/configuration.md lists all settings"
    return Fault(key, f"there is no setting {written(key)}", hint)


def _split(key: Key, text: str, kind: Any) -> Any:
    """A variable's text as a list (a,b) or a table (name=value,name=value) where the setting is one."""
    types = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)
    items = [item.strip() for item in text.split(",") if item.strip()]
    if any(get_origin(one) is tuple for one in types):
        return items
    if any(get_origin(one) is dict for one in types):
        pairs = [item.partition("=") for item in items]
        if not all(name and sign for name, sign, _ in pairs):
            raise Fault(key, f"{written(key)} must be written name=value,name=value")
        return {name.strip(): value.strip() for name, _, value in pairs}
    return text.lower() if bool in types else text
