"""The waist: typed requests, and the events that answer them.

Every dialect decodes into these types and encodes from them; every provider takes a ChatRequest and
yields Events; the store keeps Messages. Nothing here does I/O and nothing here knows a wire format.
"""

from __future__ import annotations

from modelway.types.callers import Caller, Model, Rules
from modelway.types.completions import Choice, Collector, Completion, collect
from modelway.types.events import (
    Citation,
    Continued,
    Delta,
    Event,
    Finish,
    FinishReason,
    Opaque,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UpstreamState,
    Usage,
)
from modelway.types.messages import (
    THIS_TURN_ONLY,
    FilePart,
    ImagePart,
    Message,
    OtherPart,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from modelway.types.requests import ChatRequest, Params, ResponseFormat, Tool, ToolChoice

__all__ = [
    "THIS_TURN_ONLY",
    "Caller",
    "ChatRequest",
    "Choice",
    "Citation",
    "Collector",
    "Completion",
    "Continued",
    "Delta",
    "Event",
    "FilePart",
    "Finish",
    "FinishReason",
    "ImagePart",
    "Message",
    "Model",
    "Opaque",
    "OtherPart",
    "Params",
    "Part",
    "ReasoningDelta",
    "RefusalDelta",
    "ResponseFormat",
    "Role",
    "Rules",
    "TextDelta",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "UpstreamState",
    "Usage",
    "collect",
]
