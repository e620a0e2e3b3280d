"""The shapes of requests and answers, for the description in OpenAPI."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_STRING = {"type": "string"}
_BOOLEAN = {"type": "boolean"}
_OBJECT = {"type": "object"}
_OBJECTS = {"type": "array", "items": _OBJECT}
_STRINGS = {"oneOf": [_STRING, {"type": "array", "items": _STRING}]}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _count(low: int = 1) -> Schema:
    return {"type": "integer", "minimum": low}


_MODEL = {**_STRING, "description": "may be empty: the provider's default"}
_PROVIDER = {**_STRING, "description": "a provider's name, in any case"}
_CONVERSATION = {
    **_STRING,
    "pattern": "^[A-Za-z0-9._:-]{1,128}$",
    "description": "what was said under this id before is remembered",
}
_ADDRESSED: Schema = {"model": _MODEL, "provider": _PROVIDER, "conversation_id": _CONVERSATION}
_STREAM = {**_BOOLEAN, "default": False}
_SAMPLING: Schema = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "max_tokens": _count(),
    "stop": _STRINGS,
    "seed": {"type": "integer"},
    "n": {**_count(), "maximum": 128},
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
}
_STREAM_OPTIONS = {"type": "object", "properties": {"include_usage": _BOOLEAN}}
_EFFORT = {**_STRING, "description": "none, minimal, low, medium, high, …: the levels are the model's own"}


def _request(description: str, required: list[str], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": required,
        "properties": {**_ADDRESSED, **properties},
    }


def _objects(description: str) -> Schema:
    return {**_OBJECTS, "description": description}


_USAGE = {
    "type": "object",
    "properties": {
        "prompt_tokens": _count(0),
        "completion_tokens": _count(0),
        "total_tokens": _count(0),
        "prompt_tokens_details": _OBJECT,
        "completion_tokens_details": _OBJECT,
    },
}
_MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"const": "assistant"},
        "content": {"type": ["string", "null"]},
        "refusal": {"type": ["string", "null"]},
        "reasoning_content": _STRING,
        "tool_calls": _OBJECTS,
        "annotations": _OBJECTS,
    },
}
_REASONS = ["stop", "length", "tool_calls", "content_filter"]

SCHEMAS: Schema = {
    "ChatRequest": _request(
        "OpenAI's chat completion request, with two fields more. Other fields travel on.",
        ["messages"],
        messages={"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/ChatMessage"}},
        **_SAMPLING,
        max_completion_tokens=_count(),
        reasoning_effort=_EFFORT,
        tools=_objects("functions that the model may call"),
        tool_choice={"oneOf": [{"enum": ["auto", "none", "required"]}, _OBJECT]},
        parallel_tool_calls=_BOOLEAN,
        response_format={"type": "object", "required": ["type"]},
        stream=_STREAM,
        stream_options=_STREAM_OPTIONS,
    ),
    "ChatMessage": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
            "content": {"oneOf": [_STRING, _objects("parts: text, image_url, file, …"), {"type": "null"}]},
            "name": _STRING,
            "tool_calls": _OBJECTS,
            "tool_call_id": _STRING,
        },
    },
    "ChatCompletion": {
        "type": "object",
        "description": "OpenAI's chat completion, with fields of Modelway's.",
        "required": ["id", "object", "created", "model", "choices", "provider"],
        "properties": {
            "id": _STRING,
            "object": {"const": "chat.completion"},
            "created": _count(0),
            "model": _STRING,
            "choices": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "index": _count(0),
                        "message": _MESSAGE,
                        "finish_reason": {"enum": _REASONS},
                    },
                },
            },
            "usage": _USAGE,
            "provider": _STRING,
            "conversation_id": _STRING,
            "ignored": {"type": "array", "items": _STRING},
        },
    },
    "CompletionRequest": _request(
        "OpenAI's request for a completion; relayed where the upstream has the address.",
        ["prompt"],
        prompt={"oneOf": [_STRING, {"type": "array", "minItems": 1, "items": _STRING}]},
        **_SAMPLING,
        echo={**_BOOLEAN, "default": False},
        stream=_STREAM,
        stream_options=_STREAM_OPTIONS,
    ),
    "ResponseRequest": _request(
        "OpenAI's request for a response, with `provider` besides.",
        ["input"],
        input={"oneOf": [_STRING, {"type": "array", "minItems": 1, "items": _OBJECT}]},
        instructions=_STRING,
        conversation={
            "oneOf": [_STRING, _OBJECT],
            "description": 'the `conversation_id` of chats; or `{"id": …}`',
        },
        previous_response_id={**_STRING, "description": "go on after exactly this response"},
        store={**_BOOLEAN, "default": True},
        background={**_BOOLEAN, "default": False},
        temperature=_number(0, 2),
        top_p=_number(0, 1),
        max_output_tokens=_count(),
        reasoning={"type": "object", "properties": {"effort": _EFFORT, "summary": _STRING}},
        text=_OBJECT,
        tools=_objects("functions, alone or in namespaces, and tools that take plain text"),
        tool_choice={"oneOf": [{"enum": ["auto", "none", "required"]}, _OBJECT]},
        parallel_tool_calls=_BOOLEAN,
        metadata=_OBJECT,
        stream=_STREAM,
    ),
    "Response": {
        "type": "object",
        "required": ["id", "object", "status", "output"],
        "properties": {
            "id": _STRING,
            "object": {"const": "response"},
            "status": {"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
            "output": _objects("reasoning, messages and calls"),
            "usage": {"type": ["object", "null"]},
            "error": {"type": ["object", "null"]},
            "provider": _STRING,
        },
    },
    "MessagesRequest": _request(
        "Anthropic's request for a message.",
        ["messages"],
        messages={"type": "array", "minItems": 1, "items": _OBJECT},
        system={"oneOf": [_STRING, _OBJECTS]},
        max_tokens=_count(),
        temperature=_number(0, 1),
        top_p=_number(0, 1),
        stop_sequences={"type": "array", "items": _STRING},
        thinking=_OBJECT,
        output_config=_OBJECT,
        tools=_OBJECTS,
        tool_choice=_OBJECT,
        stream=_STREAM,
    ),
    "OllamaChatRequest": _request(
        "Ollama's request for a chat; without messages the model is only loaded.",
        [],
        messages=_OBJECTS,
        tools=_OBJECTS,
        format={"oneOf": [{"const": "json"}, _OBJECT]},
        think={"oneOf": [_BOOLEAN, _STRING]},
        options=_OBJECT,
        keep_alive={"type": ["string", "number"]},
        stream={**_BOOLEAN, "default": True},
    ),
    "OllamaGenerateRequest": _request(
        "Ollama's request to answer a prompt; without one the model is only loaded.",
        [],
        prompt=_STRING,
        system=_STRING,
        images={"type": "array", "items": _STRING},
        format={"oneOf": [{"const": "json"}, _OBJECT]},
        think={"oneOf": [_BOOLEAN, _STRING]},
        options=_OBJECT,
        keep_alive={"type": ["string", "number"]},
        stream={**_BOOLEAN, "default": True},
    ),
    "Fork": {
        "type": "object",
        "properties": {"conversation_id": _STRING, "at_turn": _STRING},
    },
    "Error": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": _STRING,
                    "type": _STRING,
                    "param": {"type": ["string", "null"]},
                    "code": _STRING,
                },
            }
        },
    },
}
