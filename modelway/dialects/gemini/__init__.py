"""Google's generateContent (Gemini API and Vertex AI): the client half.

Source: the reference of the Gemini API (ai.google.dev/api/generate-content), its guides to function
calling, thinking, thought signatures and structured output, and Vertex AI's reference, as of 2026-11.
"""

from modelway.dialects.gemini.problems import decode_error, problem_error, read_problem
from modelway.dialects.gemini.read_answer import EventDecoder, decode_models
from modelway.dialects.gemini.write_request import PARAMS, current_turn, encode_request

__all__ = [
    "PARAMS",
    "EventDecoder",
    "current_turn",
    "decode_error",
    "decode_models",
    "encode_request",
    "problem_error",
    "read_problem",
]
