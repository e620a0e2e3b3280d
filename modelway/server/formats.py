"""Which format is spoken at which address: for answers, and for errors from the first check on."""

from __future__ import annotations

from collections.abc import Mapping

from modelway.dialects import anthropic_messages, ollama_chat, openai_chat, openai_responses
from modelway.dialects.ollama_chat import generate as ollama_generate
from modelway.server.dialect import Dialect

# Where chats are answered in another format than OpenAI's chat completions.
CHATS: dict[str, Dialect] = {
    "/v1/responses": openai_responses,
    "/v1/messages": anthropic_messages,
    "/api/chat": ollama_chat,
    "/api/generate": ollama_generate,
}
# Where a connection may stay open for several requests.
SOCKET_PATH = "/v1/responses"
_BEGINNINGS: tuple[tuple[str, Dialect], ...] = (
    ("/v1/responses", openai_responses),
    ("/v1/messages", anthropic_messages),
    ("/api/", ollama_chat),
)
_OPENAI_S_END = "/chat/completions"
_MODELS = "/v1/models"
# Programs written for Anthropic say so in every request.
ANTHROPIC_VERSION = b"anthropic-version"


def dialect_of(path: str, headers: Mapping[bytes, bytes]) -> Dialect:
    """The format that the caller at this address reads."""
    if not path.endswith(_OPENAI_S_END):
        for beginning, dialect in _BEGINNINGS:
            if path.startswith(beginning):
                return dialect
    if path.startswith(_MODELS) and ANTHROPIC_VERSION in headers:
        return anthropic_messages
    return openai_chat


def is_ollama_s(path: str) -> bool:
    """Whether an address is one that only programs for Ollama ask for."""
    return path.startswith("/api/") and not path.endswith(_OPENAI_S_END)
