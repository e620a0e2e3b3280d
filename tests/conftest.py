"""What all tests share."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.canary import Listener, files_that_tell

# Files whose tests start programs, load models or measure; CI runs them, `make test` leaves them out.
SLOW = (
    "tests/bench/test_cli.py",
    "tests/bench/test_load.py",
    "tests/bench/test_modelway.py",
    "tests/bench/test_processes.py",
    "tests/bench/test_report.py",
    "tests/cli/test_processes.py",
    "tests/conversations/test_leases.py",
    "tests/dialects/test_anthropic_published.py",
    "tests/e2e/test_client_programs.py",
    "tests/e2e/test_copilot.py",
    "tests/e2e/test_copilot_programs.py",
    "tests/e2e/test_documents.py",
    "tests/e2e/test_faults.py",
    "tests/providers/test_local.py",
    "tests/test_plugins.py",
)
# Begun last, one of these would keep one worker busy alone at the end.
LONG = (*SLOW, "tests/e2e/", "tests/contract/test_providers.py")

# How long an example takes says more of the machine than of the code.
settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")

# No test may reach the keyring of whoever runs it, nor any process that a test starts.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what takes long."""
    if item.nodeid.startswith(SLOW):
        item.add_marker("slow")
