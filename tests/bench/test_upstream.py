"""What the upstream answers, and when."""

import itertools
import json
from pathlib import Path

import httptools
import pytest

from modelway.bench.contestants import Contestant, upstream
from modelway.bench.processes import BenchError, exchange
from modelway.bench.upstream import (
    END_OF_TEXT,
    MAX_EVENTS,
    MAX_INTERVAL_MS,
    Plan,
    completion_body,
    due_time,
    plan_for,
    stream_chunks,
)
from modelway.dialects.sse import Decoder


class Answer:
    """An HTTP response as a parser reads it."""

    def __init__(self, raw: bytes) -> None:
        self.body = b""
        self.whole = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(raw)
        self.status = parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


def request(path: str = "/v1/chat/completions", **fields: object) -> bytes:
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_plain_answer_is_a_completion_of_one_kilobyte(direct: Contestant) -> None:
    answer = Answer(exchange(direct.port, request(messages=user("bench:json"))))
    assert answer.whole
    assert len(answer.body) == 1024
    assert answer.body == completion_body()
    assert json.loads(answer.body)["choices"][0]["message"]["content"].endswith(END_OF_TEXT)


@pytest.mark.parametrize("mark", ["bench:sse:50", "bench:paced:1:50", "no mark"])
def test_a_stream_has_its_fifty_events_and_the_end_marker(direct: Contestant, mark: str) -> None:
    answer = Answer(exchange(direct.port, request(stream=True, messages=user(mark))))
    *events, last = Decoder().feed(answer.body)
    chunks = [json.loads(event.data) for event in events]
    assert answer.whole
    assert last.data == b"[DONE]"
    assert len(chunks) == 50
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 49 + ["stop"]


def test_usage_comes_only_where_it_is_asked_for(direct: Contestant) -> None:
    asked = request(stream=True, stream_options={"include_usage": True}, messages=user("bench:sse:5"))
    *events, _ = Decoder().feed(Answer(exchange(direct.port, asked)).body)
    assert len(events) == 6
    assert json.loads(events[-1].data)["choices"] == []
    assert json.loads(events[-1].data)["usage"]["total_tokens"] == 70


def test_the_other_pages(direct: Contestant) -> None:
    assert Answer(exchange(direct.port, request("/healthz"))).body == b"ok"
    models = json.loads(Answer(exchange(direct.port, request("/v1/models"))).body)
    assert [model["id"] for model in models["data"]] == ["bench"]
    assert Answer(exchange(direct.port, request("/elsewhere"))).status == 404


def test_what_is_not_http_gets_400(direct: Contestant) -> None:
    assert Answer(exchange(direct.port, b"hello there\r\n\r\n")).status == 400


def test_a_taken_port_is_refused_and_never_shared(direct: Contestant, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=f"port {direct.port} is taken"), upstream(tmp_path, direct.port):
        pass


def test_the_last_mark_counts_as_history_comes_first() -> None:
    body = json.dumps({"stream": True, "messages": user("bench:sse:9") + user("bench:paced:20:100")})
    assert plan_for(body.encode()) == Plan(100, 20)


def test_marks_are_bounded() -> None:
    assert plan_for(b'{"stream":true, "x": "bench:paced:999999:999999"}') == Plan(MAX_EVENTS, MAX_INTERVAL_MS)
    assert plan_for(b'{"stream":true, "x": "bench:sse:0"}').events == 2


def test_a_mark_without_a_stream_is_a_plain_answer() -> None:
    assert plan_for(b'{"stream":false, "x": "bench:sse:50"}') == Plan()


def test_pacing_counts_from_the_start_so_that_delays_do_not_add_up() -> None:
    role, *due = [due_time(5.0, 20, index) for index in range(102)]
    assert role == due[0] == 5.0
    assert due[100] == 7.0
    assert all(later - earlier == pytest.approx(0.02) for earlier, later in itertools.pairwise(due))


def test_every_event_is_a_chunk_and_the_last_ends_the_body() -> None:
    chunks = stream_chunks(Plan(events=4))
    assert len(chunks) == 4
    assert [chunk.count(b"data: {") for chunk in chunks] == [1, 1, 1, 1]
    assert chunks[-1].endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
