"""The checks of `modelway doctor`."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import typer
from msgspec import Struct

import modelway
from modelway.cli.output import size
from modelway.cli.providers import described, find
from modelway.cli.reach import running_server
from modelway.cli.routes import routes_here
from modelway.cli.setup import Setup, set_up
from modelway.config import Settings
from modelway.errors import GatewayError
from modelway.models import CATALOGUE, resolve
from modelway.server.run import PortInUse, bind
from modelway.settings import Directories, Loaded, SettingsError, credential

ENGINE = "xllamacpp"
ENGINE_TIMEOUT_S = 60.0
LITTLE_SPACE = 1_000_000_000
NO_SPACE = 50_000_000
DAY_S = 86_400.0


class Check(Struct, frozen=True):
    """What was looked at and how it is."""

    name: str
    status: Literal["ok", "warning", "failed"]
    message: str
    hint: str = ""


def check_all(context: typer.Context) -> list[Check]:
    """Every check, in an order in which the first failure is likely the cause of the others."""
    try:
        setup = set_up(context)
    except SettingsError as error:
        broken = Check("settings", "failed", error.message, error.hint)
        return [broken, *_checks(Setup(Loaded(Settings(), {}), Directories.default()))]
    return [Check("settings", "ok", "valid"), *_checks(setup)]


def _checks(setup: Setup) -> Iterator[Check]:
    checks: tuple[Callable[[Setup], Check], ...] = (
        check_port,
        check_directory,
        check_store,
        check_model,
        check_engine,
        check_providers,
        check_routes,
        check_credentials,
        check_space,
        check_clock,
    )
    for check in checks:
        try:
            yield check(setup)
        except OSError as error:
            name = check.__name__.removeprefix("check_")
            yield Check(name, "failed", f"{error.filename or ''} {error.strerror or error}".strip())


def check_port(setup: Setup) -> Check:
    """The port is free, or our server has it."""
    server = setup.settings.server
    if url := running_server(server):
        return Check("port", "ok", f"Modelway answers on {url}")
    try:
        for sock in bind(server):
            sock.close()
    except PortInUse:
        hint = "set another one with server.port or --port"
        return Check("port", "failed", f"another program has port {server.port}", hint)
    return Check("port", "ok", f"{server.port} is free")


def check_directory(setup: Setup) -> Check:
    """The data directory belongs to the user alone."""
    data = setup.directories.data
    if not data.exists():
        return Check("directory", "ok", f"{data} will be made when it is needed")
    if not os.access(data, os.W_OK):
        return Check("directory", "failed", f"{data} cannot be written to", "change its owner or its mode")
    if _is_open_to_others(data):
        return Check("directory", "warning", f"others may look into {data}", f"run `chmod 700 {data}`")
    return Check("directory", "ok", str(data))


def check_store(setup: Setup) -> Check:
    """The database is whole, and nobody else may read it."""
    path = setup.store_path
    if not path.exists():
        return Check("store", "ok", "no conversation is stored yet")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return Check("store", "failed", f"{path}: {error}", "restore it from a copy, or move it away")
    if found != "ok":
        return Check(
            "store", "failed", f"{path} is damaged: {found}", "restore it from a copy, or move it away"
        )
    if _is_open_to_others(path):
        return Check("store", "warning", f"others may read {path}", f"run `chmod 600 {path}`")
    return Check("store", "ok", f"{path}, {size(path.stat().st_size)}")


def check_model(setup: Setup) -> Check:
    """The file of the embedded model is there, and the one that it should be."""
    name = setup.settings.local.model
    try:
        path = resolve(name, setup.directories.data)
    except GatewayError as error:
        status: Literal["failed", "warning"] = "failed" if _is_default(setup) else "warning"
        return Check("model", status, error.message, error.hint)
    known = next((model for model in CATALOGUE if model.name == name.lower()), None)
    if known and _sha256(path) != known.sha256:
        hint = f"run `modelway models rm {known.name}`, then `modelway models pull {known.name}`"
        return Check("model", "failed", f"{path} is not what it should be", hint)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            return Check("model", "failed", f"{path} is not a GGUF file", "set local.model to another one")
    return Check(
        "model", "ok", f"{path}, {size(path.stat().st_size)}{', SHA-256 as expected' if known else ''}"
    )


def check_engine(setup: Setup) -> Check:
    """The engine of the embedded model can be loaded; tried in another process, which it might crash."""
    status: Literal["failed", "warning"] = "failed" if _is_default(setup) else "warning"
    try:
        command = [sys.executable, "-c", f"import {ENGINE}"]
        done = subprocess.run(command, capture_output=True, timeout=ENGINE_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return Check("engine", status, f"{ENGINE} did not load within {ENGINE_TIMEOUT_S:.0f} s")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"ended with {done.returncode}"
        return Check("engine", status, why, "install it with `pip install 'modelway[local]'`")
    return Check("engine", "ok", f"{ENGINE} loads")


def check_providers(setup: Setup) -> Check:
    """The default provider exists and can answer."""
    try:
        known = described(setup)
        default = find(known, setup.settings.provider)
    except GatewayError as error:
        return Check("providers", "failed", error.message, error.hint)
    if not default.ready:
        return Check("providers", "failed", f"the default provider {default.name} lacks: {default.missing}")
    ready = [info.name for info in known if info.ready]
    return Check("providers", "ok", f"default {default.name}; ready: {', '.join(ready)}")


def check_routes(setup: Setup) -> Check:
    """Every route leads somewhere, and somebody on it can answer."""
    try:
        told = routes_here(setup)
    except SettingsError as error:
        return Check("routes", "failed", error.message, error.hint)
    dead = [route.name for route in told if all(one.verdict == "skipped" for one in route.candidates)]
    if dead:
        return Check(
            "routes",
            "warning",
            f"nobody can answer on {', '.join(dead)}",
            "`modelway routes test NAME` says why",
        )
    return Check("routes", "ok", ", ".join(route.name for route in told) or "no routes")


def check_credentials(setup: Setup) -> Check:
    """Key files are there, and the user's alone."""
    files = {name: own.api_key_file for name, own in setup.settings.providers.items() if own.api_key_file}
    for name, path in files.items():
        try:
            if not credential("", path):
                return Check(
                    "credentials", "failed", f"{name}: {path} is missing or empty", "write the key there"
                )
        except GatewayError as error:
            return Check("credentials", "failed", f"{name}: {error.message}", error.hint)
    return Check("credentials", "ok", f"{len(files)} key files" if files else "no key files")


def check_space(setup: Setup) -> Check:
    """There is room for conversations and models."""
    place = setup.directories.data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < NO_SPACE:
        return Check("space", "failed", f"{size(free)} free at {place}", "make room")
    return Check("space", "warning" if free < LITTLE_SPACE else "ok", f"{size(free)} free at {place}")


def check_clock(_: Setup) -> Check:
    """The clock is not behind the time at which Modelway was installed; certificates would be refused."""
    installed = Path(modelway.__file__).stat().st_mtime
    if time.time() < installed - DAY_S:
        return Check("clock", "failed", "the clock is behind", "set it, or let NTP do so")
    return Check("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %z"))


def _is_default(setup: Setup) -> bool:
    return setup.settings.provider.casefold() == "local"


def _is_open_to_others(path: Path) -> bool:
    return os.name == "posix" and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
