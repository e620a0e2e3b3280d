"""The newest official SDKs of Python call a tool with the embedded model; `make clients` tries more programs.

Some of those need older SDKs than these.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.clients.conftest import Server
from tests.clients.sdks import Trip, anthropic_messages, openai_chats, openai_responses, openai_socket
from tests.conftest_local import find_model
from tests.e2e.running import Running

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = f'[local]\nmodel = "{find_model()}"\n'
    with Running(tmp_path_factory.mktemp("embedded"), config=config) as running:
        yield Server(running.address, "Local")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask", [openai_chats, openai_responses, openai_socket, anthropic_messages])
async def test_a_tool_is_called_and_its_result_is_told(
    ask: Callable[[Server, bool], Awaitable[Trip]], embedded: Server, streamed: bool
) -> None:
    arguments, text = await ask(embedded, streamed)
    assert arguments in ({"city": "Paris"}, {"city": "Rome"})
    # The model knows it from the tool alone.
    assert "23" in text
