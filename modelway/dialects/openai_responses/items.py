"""Items of a response: what a message of ours is in this format, which has several items for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from modelway.dialects.openai_responses.custom import text_of
from modelway.dialects.openai_responses.wire import ID_PREFIX, Fields, full_name
from modelway.types import Citation, FilePart, ImagePart, Message, OtherPart, Part, TextPart, ToolCall

SUMMARY = "summary_text"


class Manner:
    """How an answer is told to who asked so; `echo` is what the response repeats of it.

    Thoughts are told as such or, to who asks for a summary, in its place: programs show only that.
    """

    def __init__(self, echo: Fields) -> None:
        reasoning, tools = echo.get("reasoning"), echo.get("tools")
        is_summed_up = isinstance(reasoning, dict) and reasoning.get("summary")
        self.thoughts = SUMMARY if is_summed_up else "reasoning_text"
        self._named: dict[str, Fields] = {}
        self._custom: set[str] = set()
        for tool in tools if isinstance(tools, list) else ():
            if tool["type"] == "custom":
                self._custom.add(tool["name"])
            for function in tool.get("tools", ()) if tool["type"] == "namespace" else ():
                own = {"name": function["name"], "namespace": tool["name"]}
                self._named[full_name(tool["name"], function["name"])] = own

    def is_custom(self, function: str) -> bool:
        """Whether it stands for a tool that takes plain text."""
        return function in self._custom

    def prefix(self, function: str) -> str:
        """What the ids of its calls begin with."""
        return "ctc" if function in self._custom else "fc"

    def named(self, function: str) -> Fields:
        """The name of a function, and its namespace if it has one."""
        return self._named.get(function) or {"name": function}


PLAIN = Manner({})


class Names:
    """Ids for the items of one response: always the same ones, so that they need not be stored."""

    def __init__(self, response_id: str, mark: str = "") -> None:
        self._rest = response_id.removeprefix(ID_PREFIX) + mark
        self._used: dict[str, int] = {}

    def new(self, prefix: str) -> str:
        """The next id with this prefix."""
        number = self._used.get(prefix, 0)
        self._used[prefix] = number + 1
        return f"{prefix}_{self._rest}_{number}" if number else f"{prefix}_{self._rest}"


def message_item(id: str, status: str, content: list[Fields]) -> Fields:
    """What the model says."""
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(id: str, status: str, parts: list[Fields]) -> Fields:
    """What the model thinks."""
    summary = [part for part in parts if part["type"] == SUMMARY]
    content = [part for part in parts if part["type"] != SUMMARY]
    return {"id": id, "type": "reasoning", "status": status, "summary": summary, "content": content}


def call_item(id: str, status: str, call: ToolCall, manner: Manner) -> Fields:
    """What the model calls."""
    if manner.is_custom(call.name):
        return {
            "id": id,
            "type": "custom_tool_call",
            "status": status,
            "call_id": call.id or id,
            "name": call.name,
            "input": text_of(call.arguments),
        }
    return {
        "id": id,
        "type": "function_call",
        "status": status,
        "call_id": call.id or id,
        **manner.named(call.name),
        "arguments": call.arguments,
    }


def text_part(text: str, annotations: Iterable[Fields] = ()) -> Fields:
    """Text of an answer and its sources."""
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}


def refusal_part(text: str) -> Fields:
    """The text by which the model declines."""
    return {"type": "refusal", "refusal": text}


def reasoning_part(text: str, kind: str = "reasoning_text") -> Fields:
    """Text of the thoughts."""
    return {"type": kind, "text": text}


def citation_object(citation: Citation) -> Fields:
    """A source. The format demands a place, so one that is not known is the empty one at the beginning."""
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title,
        "start_index": citation.start_index or 0,
        "end_index": citation.end_index or 0,
    }


def output_items(
    message: Message, refusal: str, names: Names, status: str = "completed", manner: Manner = PLAIN
) -> list[Fields]:
    """An answer; `status` is that of its last item, the only one that can have been cut off."""
    items = list(_output(message, refusal, names, manner))
    items[-1]["status"] = status
    return items


def _output(message: Message, refusal: str, names: Names, manner: Manner) -> Iterator[Fields]:
    if message.reasoning:
        yield reasoning_item(
            names.new("rs"), "completed", [reasoning_part(message.reasoning, manner.thoughts)]
        )
    content: list[Fields] = []
    if message.text or message.annotations:
        content.append(text_part(message.text, map(citation_object, message.annotations)))
    if refusal:
        content.append(refusal_part(refusal))
    if content or not (message.reasoning or message.tool_calls):
        yield message_item(names.new("msg"), "completed", content or [text_part("")])
    for call in message.tool_calls:
        yield call_item(names.new(manner.prefix(call.name)), "completed", call, manner)


def answer_items(message: Message, response_id: str) -> list[Fields]:
    """An answer that was kept, under the ids that it came with."""
    return output_items(message, message.refusal, Names(response_id))


def input_items(messages: Iterable[Message], response_id: str) -> list[Fields]:
    """What a caller has sent, as it is listed."""
    names = Names(response_id, "_in")
    return [item for message in messages for item in _input(message, names)]


def conversation_items(messages: Iterable[tuple[str, Message]]) -> list[Fields]:
    """What a conversation holds, as it is listed; each message with its name."""
    return [item for name, message in messages for item in _input(message, Names(name))]


def _input(message: Message, names: Names) -> Iterator[Fields]:
    match message.role:
        case "assistant":
            refusal = message.extra.get("refusal", "")
            yield from output_items(message, refusal if isinstance(refusal, str) else "", names)
        case "tool":
            yield {
                "id": names.new("fco"),
                "type": "function_call_output",
                "status": "completed",
                "call_id": message.tool_call_id,
                "output": message.content if isinstance(message.content, str) else _content(message),
            }
        case role:
            yield {
                "id": names.new("msg"),
                "type": "message",
                "status": "completed",
                "role": role,
                "content": _content(message),
            }


def _content(message: Message) -> list[Fields]:
    if isinstance(message.content, str):
        return [{"type": "input_text", "text": message.content}]
    return [_part(part) for part in message.content]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
        case FilePart():
            return {"type": "input_file", **_file(part)}
        case OtherPart():
            return part.value


def _file(part: FilePart) -> Fields:
    fields = {"file_id": part.file_id, "filename": part.name}
    fields["file_data" if part.url.startswith("data:") else "file_url"] = part.url
    return {name: value for name, value in fields.items() if value}
