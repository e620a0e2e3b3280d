"""An upstream that repeats the credential it was called with, raw and escaped: no error tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import aclosing
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from modelway.errors import GatewayError
from modelway.providers._redaction import MIN_HALF, Secret
from modelway.testing import FakeStage, FakeUpstream
from modelway.testing.provider_contract import ask, events_of
from tests.contract.test_providers import STAGES, marked
from tests.fake_bedrock import FakeBedrock, frame

pytestmark = pytest.mark.anyio

SECRET = "sk-acme/With+Signs=0123456789"
FORMS: dict[str, Callable[[str], str]] = {
    "raw": lambda key: key,
    "escaped as JSON": lambda key: "".join(f"\\u{ord(letter):04X}" for letter in key),
    "escaped twice": lambda key: "".join(f"\\\\u{ord(letter):04x}" for letter in key),
    "percent-encoded": lambda key: "".join(f"%{ord(letter):02X}" for letter in key),
}
# How many characters stand before it: errors are cut to size, so that only a part of it may be left.
PADDING = (0, 470, 485)
HEADERS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")
# What these upstreams say in the middle of a stream; the others say it in OpenAI's way.
IN_STREAM = {
    "Anthropic": 'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"%s"}}\n\n',
    "Gemini": 'data: {"error":{"code":500,"status":"INTERNAL","message":"%s"}}\n\n',
    "Vertex": 'data: {"error":{"code":500,"status":"INTERNAL","message":"%s"}}\n\n',
    "Ollama": '{"error":"%s"}\n',
}


def reveals(text: str, secret: str) -> bool:
    """Whether a part of the secret that is worth something can be read out of the text."""
    plain = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), unquote(text))
    return secret[: MIN_HALF + 1] in plain or secret[-MIN_HALF:] in plain


def secret_of(upstream: FakeUpstream) -> str:
    """What the last call had to show."""
    request = upstream.requests[-1]
    found = [request.headers[name] for name in HEADERS if name in request.headers]
    found += parse_qs(urlsplit(request.path).query).get("auth", [])
    return found[0].removeprefix("Bearer ")


def error_body(message: str, name: str) -> bytes:
    if name == "Ollama":
        return b'{"error":"%b"}' % message.encode()
    return b'{"message":"%b","error":{"code":400,"message":"%b"}}' % (message.encode(), message.encode())


def play(upstream: FakeUpstream, name: str, message: str, *, in_stream: bool) -> None:
    if not in_stream:
        upstream.reply_with(error_body(message, name), kind="application/json", status=400)
    elif isinstance(upstream, FakeBedrock):
        headers = {":message-type": "exception", ":exception-type": "internalServerException"}
        upstream.show(frame(headers, b'{"message":"%b"}' % message.encode()))
    else:
        said = IN_STREAM.get(name, 'data: {"error":{"message":"%s"}}\n\n') % message
        upstream.stream(said.encode())


@pytest.mark.parametrize("in_stream", [True, False], ids=["in a stream", "in a body"])
@pytest.mark.parametrize("name", [marked(name) for name in STAGES if name not in ("Local", "LMStudio")])
async def test_no_error_tells_the_secret(name: str, in_stream: bool) -> None:
    async with STAGES[name]() as stage:
        assert isinstance(stage, FakeStage)
        upstream = stage._upstream
        stage.say("Hello")
        await events_of(stage.provider, ask("Hi"))
        secret = secret_of(upstream)
        assert len(secret) > MIN_HALF
        for form in FORMS.values():
            for padding in PADDING:
                play(upstream, name, f"{'x' * padding} no: {form(secret)}", in_stream=in_stream)
                async with aclosing(stage.provider.stream(ask("Hi"))) as events:
                    with pytest.raises(GatewayError) as caught:
                        await anext(events)
                said = f"{caught.value.explanation} {caught.value.args}"
                assert "xxx" in said or "no: ***" in said
                assert not reveals(said, secret), said


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_taken_out_wherever_it_stands(form: Callable[[str], str]) -> None:
    written = form(SECRET)
    assert Secret(SECRET).out_of_text(f"{written}, and {written}!") == "***, and ***!"
    assert Secret(SECRET).out_of_text(json.dumps({"key": SECRET}).replace("/", "\\/")) == '{"key": "***"}'


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_a_cut_leaves_of_it_is_taken_out(form: Callable[[str], str]) -> None:
    written = form(SECRET)
    for length in range(len(written)):
        assert not reveals(Secret(SECRET).out_of_text(f"no: {written[:length]}"), SECRET)


def test_other_texts_stay_as_they_are() -> None:
    text = "sk-acme is no key, sk-acme/With neither: ü"
    assert Secret(SECRET).out_of_text(text) == text
    assert Secret("").out_of_text(text) == text
