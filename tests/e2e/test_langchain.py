"""LangChain's own acceptance tests of chat models, over chat completions and over responses.

They run where `langchain-openai` and `langchain-tests` are installed, which nothing of ours installs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.obliging import obliging

openai = pytest.importorskip("langchain_openai")
acceptance: Any = pytest.importorskip("langchain_tests.integration_tests")

# How these close what they open is their own.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with obliging(tmp_path_factory.mktemp("langchain")) as address:
        yield address


class _Standard(acceptance.ChatModelIntegrationTests):  # type: ignore[misc]
    """What both have in common."""

    responses = False

    @pytest.fixture(autouse=True)
    def _served(self, address: str) -> None:
        type(self).address = address

    address = ""

    @property
    def chat_model_class(self) -> Any:
        return openai.ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "Fake/m",
            "base_url": f"{self.address}/v1",
            "api_key": "none",
            "use_responses_api": self.responses,
            "stream_usage": True,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True


class TestChats(_Standard):
    """POST /v1/chat/completions."""


class TestResponses(_Standard):
    """POST /v1/responses."""

    responses = True


del _Standard
