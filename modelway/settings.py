"""Reads settings: flag over environment over project file over user file over default."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
from msgspec import Struct

from modelway.config import ProviderSettings, RouteSettings, Settings
from modelway.errors import ProviderNotConfigured

PREFIX = "MODELWAY_"
PROJECT_FILE = "modelway.toml"
USER_FILE = "config.toml"

# Variables with our prefix that are not settings.
DIRECTORY_VARIABLES = {
    "config": "MODELWAY_CONFIG_DIR",
    "data": "MODELWAY_DATA_DIR",
    "state": "MODELWAY_STATE_DIR",
    "cache": "MODELWAY_CACHE_DIR",
}
OTHER_VARIABLES = {"MODELWAY_DEBUG", "MODELWAY_API_KEY", "MODELWAY_BASE_URL"}

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_KEYED = {"providers": ProviderSettings, "routes": RouteSettings}
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?:\.(?P<path>.*?))?`)?$", re.DOTALL)


class SettingsError(Exception):
    """A setting is wrong; the message names where it stands, its key, and the remedy."""


class Loaded(Struct, frozen=True):
    """The settings, and where each that is not a default came from (dotted key -> place)."""

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
            name: Path(environ.get(variable) or defaults[name])
            for name, variable in DIRECTORY_VARIABLES.items()
        }
        return cls(**chosen)


def load(
    *,
    flags: Mapping[str, object] = {},
    environ: Mapping[str, str] = os.environ,
    user_file: Path | None = None,
    project_file: Path | None = None,
) -> Loaded:
    """The settings out of all layers; SettingsError where one is wrong.

    `flags` maps dotted keys to values; None means that the flag was not given. The files default to
    config.toml in the configuration directory and modelway.toml in the current one.
    """
    user = user_file or Directories.default(environ).config / USER_FILE
    project = project_file or Path(PROJECT_FILE)
    for named in (user_file, project_file):
        if named is not None and not named.is_file():
            raise SettingsError(f"{named} does not exist")
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for place, layer in _layers(flags, environ, user, project):
        _check_layer(place, layer)
        _merge(merged, layer, origins, place)
    settings = msgspec.convert(merged, Settings)
    _check_values(settings, Loaded(settings, origins))
    return Loaded(settings, origins)


def credential(variable: str, path: str, environ: Mapping[str, str] = os.environ) -> str:
    """A secret from a file (which must be the user's alone) or else a variable; "" where it is not set."""
    if path:
        return _secret_of(Path(path).expanduser())
    return environ.get(variable, "").strip() if variable else ""


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


def _layers(
    flags: Mapping[str, object], environ: Mapping[str, str], user: Path, project: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each layer with the words for where it stands, the weakest first."""
    for path in (user, project):
        if path.is_file():
            yield f"file {path}", _read(path)
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in {*DIRECTORY_VARIABLES.values(), *OTHER_VARIABLES}:
            keys = name.removeprefix(PREFIX).split("__")
            yield f"environment {name}", _nested(_spelled(keys), environ[name])
    for key, value in flags.items():
        if value is not None:
            yield f"flag --{key.rpartition('.')[2].replace('_', '-')}", _nested(key.split("."), value)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def _nested(keys: list[str], value: object) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value if isinstance(value, dict) else {}


def _spelled(keys: list[str]) -> list[str]:
    """Keys of a variable in lower case, but for the names of providers and routes, which stay."""
    lowered = [key.lower() for key in keys]
    if len(keys) > 1 and lowered[0] in _KEYED:
        lowered[1] = keys[1]
    return lowered


def _check_layer(place: str, layer: dict[str, Any]) -> None:
    """Check one layer alone, so that the error can say where it stands."""
    from_text = place.startswith("environment")
    converted = _from_text(layer, Settings, place) if from_text else layer
    layer.update(converted)
    try:
        msgspec.convert(layer, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{place}: {_explained(str(error), layer)}") from None


def _explained(text: str, layer: dict[str, Any]) -> str:
    match = _AT.match(text)
    what, path = (match["what"], match["path"] or "") if match else (text, "")
    if "missing required field" in what and path.startswith("routes"):
        what = "a route needs `candidates`"
    unknown = re.search(r"unknown field `(.+)`", what)
    if unknown:
        key = f"{path}.{unknown[1]}" if path else unknown[1]
        near = difflib.get_close_matches(unknown[1], _fields_at(path), n=1)
        return f"there is no setting {key}" + (f"; did you mean {near[0]}?" if near else "")
    del layer
    return f"{path or 'the whole'}: {what[:1].lower()}{what[1:]}"


def _fields_at(path: str) -> list[str]:
    current: Any = Settings
    for key in filter(None, path.split(".")):
        name = key.removesuffix("[...]")
        if current is Settings and name in _KEYED:
            current = _KEYED[name]
        elif isinstance(current, type) and name in getattr(current, "__struct_fields__", ()):
            current = next(field.type for field in msgspec.structs.fields(current) if field.name == name)
    return list(getattr(current, "__struct_fields__", ()))


def _from_text(layer: dict[str, Any], struct: Any, place: str) -> dict[str, Any]:
    """Values of variables are text: read them as what the setting is."""
    types = {field.name: field.type for field in msgspec.structs.fields(struct)}
    read: dict[str, Any] = {}
    for key, value in layer.items():
        wanted = types.get(key)
        if isinstance(value, dict) and key in _KEYED and struct is Settings:
            read[key] = {name: _from_text(inner, _KEYED[key], place) for name, inner in value.items()}
        elif isinstance(value, dict) and hasattr(wanted, "__struct_fields__"):
            read[key] = _from_text(value, wanted, place)
        else:
            read[key] = _one_from_text(value, wanted)
    return read


def _one_from_text(value: Any, wanted: Any) -> Any:
    if not isinstance(value, str):
        return value
    if "tuple" in str(wanted):
        return [item.strip() for item in value.split(",") if item.strip()]
    if wanted in (bool, int, float) or "bool" in str(wanted):
        kind = bool if "bool" in str(wanted) else wanted
        try:
            return msgspec.convert(value.strip().lower(), kind, strict=False)
        except msgspec.ValidationError:
            return value
    return value


def _merge(
    into: dict[str, Any], layer: dict[str, Any], origins: dict[str, str], place: str, at: str = ""
) -> None:
    for key, value in layer.items():
        dotted = f"{at}{key}"
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value, origins, place, f"{dotted}.")
        else:
            into[key] = value
            origins[dotted] = place


def _check_values(settings: Settings, loaded: Loaded) -> None:
    """What the types cannot say."""

    def require(good: bool, key: str, remedy: str) -> None:
        if not good:
            raise SettingsError(f"{loaded.origin(key)}: {key} {remedy}")

    server = settings.server
    require(0 <= server.port <= 65535, "server.port", "must be from 0 to 65535")
    require(bool(server.host), "server.host", "must not be empty")
    require(server.max_body_bytes > 0, "server.max_body_bytes", "must be more than 0")
    for section in ("server", "conversations", "local", "upstream"):
        part = getattr(settings, section)
        for name in part.__struct_fields__:
            if name.endswith("_s"):
                allow_zero = name in ("wait_s", "shutdown_grace_s")
                good = getattr(part, name) > 0 or (allow_zero and getattr(part, name) == 0)
                require(good, f"{section}.{name}", "must be a number of seconds more than 0")
    require(settings.local.context_length >= 256, "local.context_length", "must be at least 256")
    require(settings.local.parallel >= 1, "local.parallel", "must be at least 1")
    require(settings.local.threads >= 0, "local.threads", "must not be negative (0 chooses)")
    require(0 <= settings.upstream.retries <= 10, "upstream.retries", "must be from 0 to 10")
    require(bool(settings.provider), "provider", "must name a provider")
    for name, digest in settings.auth.api_keys.items():
        key = f"auth.api_keys.{name}"
        require(bool(_DIGEST.fullmatch(digest)), key, "must be the SHA-256 of the key, 64 hexadecimal digits")
    for name, route in settings.routes.items():
        require(bool(route.candidates), f"routes.{name}.candidates", "must name at least one candidate")
    remote = server.host not in ("localhost", "127.0.0.1", "::1")
    require(
        not remote or server.allow_remote or bool(settings.auth.api_keys),
        "server.host",
        "is not loopback: configure [auth] api_keys, or say --allow-remote to let anybody in",
    )
