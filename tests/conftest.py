"""What all tests share."""

import logging
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import settings

from modelway.config import UpstreamSettings
from modelway.providers.http import HTTPClient
from modelway.testing.fake_upstream import FakeUpstream
from tests.canary import Listener, files_that_tell
from tests.careful import careful_loops
from tests.fake_m365 import FakeM365

# Files whose tests start programs, load models, measure, or need an SDK that only requirements/dev.txt
# installs; CI runs them, `make test` does not so much as open them.
SLOW = (
    "tests/bench/test_cli.py",
    "tests/bench/test_failover.py",
    "tests/bench/test_load.py",
    "tests/bench/test_local.py",
    "tests/bench/test_modelway.py",
    "tests/bench/test_processes.py",
    "tests/bench/test_report.py",
    "tests/bench/test_scale.py",
    "tests/bench/test_worlds.py",
    "tests/cli/test_processes.py",
    "tests/conversations/test_leases.py",
    "tests/e2e/test_straight.py",
    "tests/dialects/test_anthropic_published.py",
    "tests/dialects/test_openai_responses.py",
    "tests/e2e/test_anthropic_programs.py",
    "tests/e2e/test_anthropic_sdk.py",
    "tests/e2e/test_budget_crash.py",
    "tests/e2e/test_client_programs.py",
    "tests/e2e/test_conversations_api.py",
    "tests/e2e/test_completions.py",
    "tests/e2e/test_copilot.py",
    "tests/e2e/test_copilot_programs.py",
    "tests/e2e/test_documents.py",
    "tests/e2e/test_every_format.py",
    "tests/e2e/test_every_provider.py",
    "tests/e2e/test_faults.py",
    "tests/e2e/test_format_table.py",
    "tests/e2e/test_limits_sdk.py",
    "tests/e2e/test_newest_sdks.py",
    "tests/e2e/test_ollama_client.py",
    "tests/e2e/test_ollama_programs.py",
    "tests/e2e/test_open_responses.py",
    "tests/e2e/test_openai_sdk.py",
    "tests/e2e/test_responses.py",
    "tests/e2e/test_stream_crash.py",
    "tests/e2e/test_stream_survival.py",
    "tests/providers/test_any_llm.py",
    "tests/providers/test_bedrock.py",
    "tests/providers/test_copilot_github.py",
    "tests/providers/test_embedding.py",
    "tests/e2e/test_route_programs.py",
    "tests/e2e/test_upstream_checks.py",
    "tests/page/test_browser.py",
    "tests/page/test_features.py",
    "tests/page/test_local_model.py",
    "tests/providers/test_local.py",
    "tests/reliability/test_crowds.py",
    "tests/reliability/test_kills.py",
    "tests/test_plugins.py",
    "tests/wire/test_leaving.py",
)
# Programs of others as clients, which `make clients` installs.
CLIENTS = "tests/clients/"
# Begun last, one of these would keep one worker busy alone at the end.
LONG = (*SLOW, "tests/e2e/", "tests/contract/test_providers.py")

# How long an example takes says more of the machine than of the code.
settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")

# No test may reach the keyring of whoever runs it, nor any process that a test starts.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"


@pytest.fixture
def anyio_backend() -> Iterator[tuple[str, dict[str, object]]]:
    """An event loop at whose end no connection is open that was made in it."""
    with careful_loops() as new_loop:
        yield "asyncio", {"loop_factory": new_loop}


@pytest.fixture
async def http() -> AsyncIterator[HTTPClient]:
    async with aclosing(HTTPClient(UpstreamSettings())) as client:
        yield client


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture
async def m365() -> AsyncIterator[FakeM365]:
    async with FakeM365() as fake:
        yield fake


@pytest.fixture(autouse=True)
def no_secret_is_told(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no log record, and no database that it made, holds a key or a token."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    listener = Listener()
    logging.getLogger().addHandler(listener)
    yield
    logging.getLogger().removeHandler(listener)
    assert not listener.told
    assert folder is None or not list(files_that_tell(folder))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, in whatever order they have been shuffled into."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files alone that `make test` would leave out: to import an SDK takes a second, if it is there."""
    path, chosen = collection_path.as_posix(), config.getoption("markexpr")
    is_slow = path.endswith(SLOW) and chosen.startswith("not slow")
    return True if is_slow or (CLIENTS in f"{path}/" and chosen != "clients") else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what takes long, and note the checks of tests/reliability/checks.toml that a test shows."""
    if item.nodeid.startswith(SLOW):
        item.add_marker("slow")
    if item.nodeid.startswith(CLIENTS):
        item.add_marker("clients")
    if named := re.match(r"test_check_(\d+)_", item.name):
        item.add_marker(pytest.mark.check(int(named[1])))
    for marker in item.iter_markers("check"):
        item.user_properties += [("check", number) for number in marker.args]
