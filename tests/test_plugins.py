"""Plug-ins: the one of the documents, installed and asked; and those that are broken."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import aclosing
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from modelway.config import ProviderSettings
from modelway.errors import ProviderNotConfigured
from modelway.plugins import GROUP, PluginContext, load_plugins
from modelway.provider import Provider, ProviderInfo
from modelway.providers.announced import Announced
from modelway.providers.http import HTTPClient
from modelway.types import ChatRequest, Message

DOCUMENT = Path(__file__).parent.parent / "docs" / "adding-a-provider.md"
PROVIDER, PROJECT, ACME, CONTRACT = re.findall(
    r"^```(?:python|toml)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
)

SHOUT_CONTRACT = """
import pytest
from modelway.testing import ProviderContract, plugin_context
from modelway_shout import Shout


class TestShout(ProviderContract):
    @pytest.fixture
    def provider(self) -> Shout:
        return Shout(plugin_context("Shout"))
"""


# The ones of the documents.


@pytest.fixture(scope="module")
def shout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the document's package is installed."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    (source / "modelway_shout.py").write_text(PROVIDER)
    (source / "pyproject.toml").write_text(PROJECT)
    install(source, target)
    return target


def install(source: Path, target: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def modelway(path: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELWAY_")}
    own = {f"MODELWAY_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    return subprocess.run(
        [sys.executable, "-m", "modelway", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**kept, **own, "PYTHONPATH": str(path)},
        cwd=home,
        timeout=30,
        check=False,
    )


def test_the_documents_provider_answers(shout: Path, tmp_path: Path) -> None:
    done = modelway(shout, tmp_path, "chat", "--no-server", "--provider", "shout", "hello there")
    assert (done.returncode, done.stdout.strip()) == (0, "HELLO THERE"), done.stderr


def test_the_documents_provider_is_short_and_listed(shout: Path, tmp_path: Path) -> None:
    assert max(len(PROVIDER.splitlines()), len(ACME.splitlines())) <= 30
    assert len(DOCUMENT.read_text().splitlines()) <= 90
    done = modelway(shout, tmp_path, "providers", "Shout", "--json")
    assert '"ready":true' in done.stdout.replace(" ", ""), done.stdout + done.stderr


def test_the_documents_tests_pass(shout: Path, tmp_path: Path) -> None:
    (tmp_path / "modelway_acme.py").write_text(ACME)
    (tmp_path / "test_acme.py").write_text(CONTRACT)
    (tmp_path / "test_shout.py").write_text(SHOUT_CONTRACT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(shout), str(tmp_path)))},
        cwd=tmp_path,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_a_broken_plug_in_stops_nobody(shout: Path, tmp_path: Path) -> None:
    described = tmp_path / "broken-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{GROUP}]\nBroken = no_such_module_at_all:Provider\n")
    both = Path(os.pathsep.join((str(shout), str(tmp_path))))
    done = modelway(both, tmp_path, "chat", "--no-server", "--provider", "Shout", "hello")
    assert (done.returncode, done.stdout.strip()) == (0, "HELLO"), done.stderr
    listed = modelway(both, tmp_path, "providers", "Broken", "--json")
    assert "no_such_module_at_all" in listed.stdout
    assert '"ready":false' in listed.stdout.replace(" ", "")


# Broken ones, and what they get.


class Named(Announced):
    """A provider that does nothing but remember what it was made of."""

    def __init__(self, plugin: PluginContext) -> None:
        super().__init__(ProviderInfo(name="Mine"), ProviderNotConfigured, "")
        self.plugin = plugin


def no_provider(plugin: PluginContext) -> object:
    return object()


def failing(plugin: PluginContext) -> Provider:
    raise ValueError(f"cannot do with {plugin.key('OURS')()}")


def leaving(plugin: PluginContext) -> Provider:
    sys.exit("goodbye")


def entry(value: str, name: str = "Mine") -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{value}", GROUP)


def loaded(
    http: HTTPClient,
    *entries: EntryPoint,
    settings: Mapping[str, ProviderSettings] = {},
    taken: tuple[str, ...] = (),
) -> list[Provider]:
    return load_plugins(entries, settings, http, taken=taken, key_lookup=lambda env, file: f"key of {env}")


@pytest.mark.anyio
async def test_a_plug_in_gets_its_name_settings_key_and_the_shared_client(http: HTTPClient) -> None:
    own = ProviderSettings(base_url="http://127.0.0.1:1", api_key_env="MINE")
    [provider] = loaded(http, entry("Named"), settings={"mine": own})
    assert isinstance(provider, Named)
    plugin = provider.plugin
    assert (plugin.name, plugin.settings, plugin.key("OURS")()) == ("Mine", own, "key of MINE")
    assert plugin.http is http
    [provider] = loaded(http, entry("Named"))
    assert isinstance(provider, Named)
    assert provider.plugin.key("OURS")() == "key of OURS"
    assert "key of" not in repr(plugin)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_provider", "what it makes is not a provider"),
        ("failing", "ValueError: cannot do with ***"),
        ("leaving", "SystemExit: goodbye"),
        ("absent", "AttributeError"),
        ("GROUP", "TypeError"),
    ],
)
async def test_a_broken_one_is_not_ready_and_says_why(
    http: HTTPClient, caplog: pytest.LogCaptureFixture, value: str, reason: str
) -> None:
    broken, fine = loaded(http, entry(value, "Broken"), entry("Named"))
    assert fine.info.ready
    assert (broken.info.name, broken.info.ready) == ("Broken", False)
    assert reason in broken.info.missing
    assert reason in caplog.text
    request = ChatRequest(messages=(Message(role="user", content="Hi"),))
    async with aclosing(broken.stream(request)) as events:
        with pytest.raises(ProviderNotConfigured, match=re.escape(reason)):
            await anext(events)


@pytest.mark.anyio
async def test_the_provider_bears_the_entry_points_name(http: HTTPClient) -> None:
    [provider] = loaded(http, entry("Named", "Yours"))
    assert "its provider is called 'Mine'" in provider.info.missing


@pytest.mark.anyio
async def test_a_name_that_is_taken_stays_where_it_is(
    http: HTTPClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert loaded(http, entry("Named"), taken=("MINE",)) == []
    assert "left out" in caplog.text
    assert len(loaded(http, entry("Named"), entry("Named"))) == 1
