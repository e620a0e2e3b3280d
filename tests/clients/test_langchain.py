"""LangChain's own acceptance tests of chat models, in the four formats that its packages write."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from langchain_tests import integration_tests

from tests.clients.conftest import Server

pytestmark = [pytest.mark.anyio, pytest.mark.shows("langchain", "fake", "chat", "tools", "objects")]


class _Standard(integration_tests.ChatModelIntegrationTests):  # type: ignore[misc]
    """What all have in common."""

    @pytest.fixture(autouse=True)
    def _served(self, fake: Server) -> None:
        type(self).server = fake

    server = Server("", "")

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True


class TestChats(_Standard):
    """POST /v1/chat/completions."""

    responses = False

    @property
    def chat_model_class(self) -> Any:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self.server.model,
            "base_url": self.server.v1,
            "api_key": "none",
            "use_responses_api": self.responses,
            "stream_usage": True,
        }


class TestResponses(TestChats):
    """POST /v1/responses."""

    responses = True


class TestMessages(_Standard):
    """POST /v1/messages."""

    @property
    def chat_model_class(self) -> Any:
        return ChatAnthropic

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.server.model, "base_url": self.server.address, "api_key": "none"}

    @property
    def supports_json_mode(self) -> bool:
        return False


class TestOllama(_Standard):
    """POST /api/chat, whose format has no choice of a tool."""

    @property
    def chat_model_class(self) -> Any:
        return ChatOllama

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.server.model, "base_url": self.server.address}

    @property
    def has_tool_choice(self) -> bool:
        return False


del _Standard
