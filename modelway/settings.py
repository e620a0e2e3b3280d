"""Loads settings: flag over environment over project file over user file over default."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
from msgspec import Struct

from modelway.config import Settings
from modelway.errors import ProviderNotConfigured
from modelway.setting_keys import (
    PREFIX,
    Fault,
    Key,
    convert,
    flatten,
    key_of_variable,
    nearest_variable,
    nested,
    written,
)
from modelway.setting_rules import check, check_may_be_set_by_project, check_together

PROJECT_FILE = "modelway.toml"
USER_FILE = "config.toml"

# Variables with our prefix that are not settings.
DIRECTORY_VARIABLES = {
    "config": "MODELWAY_CONFIG_DIR",
    "data": "MODELWAY_DATA_DIR",
    "state": "MODELWAY_STATE_DIR",
    "cache": "MODELWAY_CACHE_DIR",
}
DEBUG_VARIABLE = "MODELWAY_DEBUG"
API_KEY_VARIABLE = "MODELWAY_API_KEY"
BASE_URL_VARIABLE = "MODELWAY_BASE_URL"

_FLAGS = {"log.level": "--log-level"}
_TABLE_LINE = re.compile(r"\s*\[([^\[\]]+)\]")
_KEY_LINE = re.compile(r"\s*([^=#\[\]]+?)\s*=")
_KEY_PART = re.compile(r""""[^"]*"|'[^']*'|[\w-]+""")


class SettingsError(Exception):
    """A setting is wrong: `message` names the place and the key, `hint` the remedy.

    `from_flag` tells that it was given on the command line.
    """

    def __init__(self, message: str, hint: str = "", *, from_flag: bool = False) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.from_flag = from_flag


class Loaded(Struct, frozen=True):
    """The settings, and where each came from.

    `origins` maps a dotted key to "default", "file PATH", "environment MODELWAY_X" or "flag --port".
    """

    settings: Settings
    origins: dict[str, str]

    def origin(self, key: str) -> str:
        """Where a setting's value comes from."""
        return self.origins.get(key, "default")


class Directories(Struct, frozen=True):
    """Where files are kept. On Linux they follow the XDG base directories."""

    config: Path
    data: Path
    state: Path
    cache: Path

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> Directories:
        """The user's own, each of which a variable MODELWAY_…_DIR may replace."""
        own = platformdirs.PlatformDirs("modelway", appauthor=False)
        defaults = {
            "config": own.user_config_path,
            "data": own.user_data_path,
            "state": own.user_state_path,
            "cache": own.user_cache_path,
        }
        chosen = {
            name: Path(environ.get(variable) or defaults[name]).expanduser()
            for name, variable in DIRECTORY_VARIABLES.items()
        }
        return cls(**chosen)


class _Layer(Struct, frozen=True):
    """One place that sets something. `file` is its text, `may_set` raises Fault for what it may not."""

    place: str
    table: Mapping[str, Any]
    file: str = ""
    text: bool = False
    may_set: Callable[[Key], None] | None = None

    def error(self, fault: Fault) -> SettingsError:
        """The fault, with the place it stands at."""
        line = _line_of(self.file, fault.key)
        at = f"{self.place}, line {line}" if line else self.place
        return SettingsError(f"{at}: {fault.what}", fault.hint, from_flag=self.place.startswith("flag"))


def load(
    *,
    flags: Mapping[str, object] = {},
    environ: Mapping[str, str] = os.environ,
    user_file: Path | None = None,
    project_file: Path | None = None,
) -> Loaded:
    """The settings out of all layers; SettingsError where one is wrong.

    `flags` maps dotted keys to values; None means that the flag was not given. The files default to
    config.toml in the configuration directory and modelway.toml in the current one; a file that is named
    must exist, and may set more than one that merely lies in the current directory.
    """
    user, project = settings_files(Directories.default(environ))
    layers = [
        _file_layer(user_file or user, must_exist=user_file is not None),
        _file_layer(project_file or project, must_exist=project_file is not None),
    ]
    if project_file is None:
        layers[-1] = msgspec.structs.replace(layers[-1], may_set=check_may_be_set_by_project)
    return _assemble((*layers, *_environment_layers(environ), *_flag_layers(flags)))


def check_file(path: Path) -> None:
    """SettingsError where the file could not be used, whatever the other layers say."""
    _assemble((_file_layer(path, must_exist=True),))


def settings_files(directories: Directories) -> tuple[Path, Path]:
    """Where the user's file and the project's file are looked for."""
    return directories.config / USER_FILE, Path(PROJECT_FILE)


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as tables, fit to be shown: what may be a secret is cut."""
    tables: dict[str, Any] = _plain(msgspec.to_builtins(settings))
    for name, digest in tables["auth"]["api_keys"].items():
        tables["auth"]["api_keys"][name] = f"{digest[:8]}…"
    for provider in tables["providers"].values():
        if "headers" in provider:
            provider["headers"] = dict.fromkeys(provider["headers"], "…")
    return tables


def dotted(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in the tables."""
    for key, value, _ in flatten(tables):
        yield written(key), value


def credential(variable: str, path: str, environ: Mapping[str, str] = os.environ) -> str:
    """A secret from a file (which must be the user's alone) or else a variable; "" where it is not set."""
    if path:
        return _secret_of(Path(path).expanduser())
    return environ.get(variable, "").strip() if variable else ""


def client_variables(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Address and API key of the gateway that the command line talks to; "" where not set."""
    return environ.get(BASE_URL_VARIABLE, ""), environ.get(API_KEY_VARIABLE, "")


def debugging(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether errors are to be shown with all they know."""
    return environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _assemble(layers: Iterable[_Layer]) -> Loaded:
    """Put the layers, weakest first, on top of each other."""
    values: dict[Key, Any] = {}
    setters: dict[Key, _Layer] = {}
    for layer in layers:
        try:
            for key, value in _read(layer):
                same = _spelled_as_before(key, values)
                values[same], setters[same] = value, layer
        except Fault as fault:
            raise layer.error(fault) from None
    settings = _settings(values, setters)
    found = dict.fromkeys((key for key, _ in dotted(_plain(msgspec.to_builtins(settings)))), "default")
    return Loaded(settings, found | {written(key): layer.place for key, layer in setters.items()})


def _settings(values: Mapping[Key, Any], setters: Mapping[Key, _Layer]) -> Settings:
    try:
        for key in values:
            if key[0] == "routes" and (*key[:2], "candidates") not in values:
                raise Fault(
                    key[:2], f"{written(key[:2])} has no candidates", 'write candidates = ["Provider"]'
                )
        settings = msgspec.convert(nested(values), Settings)
        check_together(settings)
    except Fault as fault:
        setter = next((layer for key, layer in setters.items() if key[: len(fault.key)] == fault.key), None)
        raise (setter or _Layer("settings", {})).error(fault) from None
    return settings


def _read(layer: _Layer) -> Iterator[tuple[Key, Any]]:
    for key, given, kind in flatten(layer.table):
        if layer.may_set:
            layer.may_set(key)
        value = convert(key, given, kind, text=layer.text)
        check(key, value)
        if key == ("conversations", "path") and value:
            value = str(Path(value).expanduser())
        yield key, value


def _spelled_as_before(key: Key, known: Iterable[Key]) -> Key:
    """Names of providers are the same in any case: a stronger layer must not make a second one."""
    if key[0] == "providers" and len(key) > 1:
        for other in known:
            if other[0] == "providers" and other[1].casefold() == key[1].casefold():
                return ("providers", other[1], *key[2:])
    return key


def _file_layer(path: Path, *, must_exist: bool) -> _Layer:
    if not must_exist and not path.is_file():
        return _Layer(f"file {path}", {})
    try:
        text = path.read_text("utf-8-sig")
        return _Layer(f"file {path}", tomllib.loads(text), file=text)
    except FileNotFoundError:
        raise SettingsError(
            f"there is no file {path}", "`modelway config path` shows where files are"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"file {path} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"file {path} is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"file {path} cannot be read: {error.strerror}") from error


def _environment_layers(environ: Mapping[str, str]) -> Iterator[_Layer]:
    others = {*DIRECTORY_VARIABLES.values(), DEBUG_VARIABLE, API_KEY_VARIABLE, BASE_URL_VARIABLE}
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name.upper() in others:
            continue
        place = f"environment {name}"
        try:
            found = key_of_variable(name)
            if found is None:
                _refuse_misspelt(name)
                continue
            key, kind = found
            is_table = kind == dict[str, str]
            value = convert(key, environ[name], kind, text=True) if is_table else environ[name]
        except Fault as fault:
            raise _Layer(place, {}).error(fault) from None
        yield _Layer(place, nested({key: value}), text=True)


def _refuse_misspelt(name: str) -> None:
    """Other programs may keep variables with our prefix, so only what resembles a setting is refused."""
    nearest = nearest_variable(name)
    if nearest or "__" in name:
        hint = f"did you mean {nearest}?" if nearest else "docs/configuration.md lists all settings"
        raise Fault((), "there is no such setting", hint)


def _flag_layers(flags: Mapping[str, object]) -> Iterator[_Layer]:
    for key, value in flags.items():
        if value is not None:
            name = _FLAGS.get(key, "--" + key.rpartition(".")[2].replace("_", "-"))
            yield _Layer(f"flag {name}", nested({tuple(key.split(".")): value}))


def _line_of(text: str, key: Key) -> int:
    """The line on which a TOML text sets a key, 0 where it is not found."""
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE_LINE.match(line):
            table = assigned = _parts(header[1])
        elif setting := _KEY_LINE.match(line):
            assigned = (*table, *_parts(setting[1]))
        else:
            continue
        if assigned == key:
            return number
    return 0


def _parts(text: str) -> Key:
    return tuple(part.strip("\"'") for part in _KEY_PART.findall(text))


def _plain(value: Any) -> Any:
    """The value as TOML and JSON have it."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    return list(value) if isinstance(value, tuple) else value


def _secret_of(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ProviderNotConfigured(f"the key file {path} cannot be read") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ProviderNotConfigured(f"others may read the key file {path}", hint=f"run `chmod 600 {path}`")
    return text
