"""What all tests share."""

import pytest

# Files whose tests wait for processes: begun last, one of them would keep one worker busy alone at the end.
SLOW = (
    "tests/providers/test_local.py",
    "tests/cli/test_processes.py",
    "tests/e2e/",
    "tests/bench/",
    "tests/test_plugins.py",
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first, in whatever order they have been shuffled into."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW))
