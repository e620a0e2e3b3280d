"""The store that most tests speak with."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from modelway.conversations import Conversations
from tests.conversations.talk import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Conversations]:
    async with aclosing(open_store(tmp_path, wait_s=0.2)) as opened:
        yield opened
