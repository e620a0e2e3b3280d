"""What docs/clients.md tells to do, done with the embedded model; and its table held against the tests."""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import Programs, Server
from tests.clients.test_claude_code import quiet

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

DOCUMENT = (Path(__file__).parent.parent.parent / "docs/clients.md").read_text()
ADDRESS = "http://localhost:1337"
# What a block imports first from the program that it is for.
CLIENTS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "ollama": "ollama",
    "langchain_openai": "langchain",
    "langchain_anthropic": "langchain",
    "langchain_ollama": "langchain",
    "pydantic_ai": "pydantic-ai",
    "instructor": "instructor",
    '"openai"': "openai (Node)",
    '"@ai-sdk/openai-compatible"': "Vercel AI SDK",
    '"@anthropic-ai/sdk"': "anthropic (Node)",
    '"ollama"': "ollama (Node)",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def examples() -> list[object]:
    """Each block that is a program, and whose it is."""
    found: list[object] = []
    for language, first in (("python", r"^(?:import|from) (\w+)"), ("js", r"^import .* from (.*);")):
        for block in blocks(language):
            imported = re.findall(first, block, re.MULTILINE)[0]
            marks = pytest.mark.shows(CLIENTS[imported], "embedded", "chat")
            found.append(pytest.param(language, block, id=imported, marks=marks))
    return found


async def said(programs: Programs, language: str, program: str, folder: Path) -> str:
    if language == "js":
        return await programs.script(program, folder)
    return await programs.run(sys.executable, "-c", program, folder=folder)


@pytest.mark.parametrize(("language", "block"), examples())
async def test_an_example_remembers_the_name(
    embedded: Server, programs: Programs, tmp_path: Path, language: str, block: str
) -> None:
    assert ADDRESS in block
    # So small a model does not say the name every time.
    for _ in range(4):
        id = uuid.uuid4().hex
        program = block.replace(ADDRESS, embedded.address).replace('"heiner"', f'"{id}"')
        lines = (await said(programs, language, program, tmp_path)).strip()
        async with httpx.AsyncClient() as client:
            kept = (await client.get(f"{embedded.address}/v1/conversations/{id}")).json()
        roles = [message["role"] for message in kept["messages"] if message["role"] != "system"]
        assert roles == ["user", "assistant", "user", "assistant"]
        if "Heiner" in lines:
            return
    pytest.fail(f"the name is not in what was said last: {lines}")


@pytest.mark.shows("Claude Code", "embedded", "chat")
async def test_claude_code_remembers_the_name(embedded: Server, programs: Programs, tmp_path: Path) -> None:
    environ = quiet(embedded.address, "Local")
    [told] = blocks("sh")
    assert set(re.findall(r"export (\w+)=", told)) <= environ.keys()
    # Left alone it asks at a temperature of 1, at which so small a model may find no end.
    environ["CLAUDE_CODE_EXTRA_BODY"] = '{"temperature": 0, "max_tokens": 200}'
    short = ("--tools", "", "--system-prompt", "Be brief.")
    await programs.outcome("claude", "-p", "Hello, I am Heiner.", *short, folder=tmp_path, environ=environ)
    again = ("claude", "-p", "What is my name?", "--continue", *short)
    _, said, error = await programs.outcome(*again, folder=tmp_path, environ=environ)
    assert "Heiner" in said, error


@pytest.mark.shows("Codex", "embedded", "chat")
async def test_codex_goes_on(embedded: Server, programs: Programs, tmp_path: Path) -> None:
    home = tmp_path / "home/.codex"
    home.mkdir(parents=True)
    (tmp_path / "brief.md").write_text("Be brief.")
    [told] = blocks("toml")
    told = told.replace(ADDRESS, embedded.address).replace("Groq/openai/gpt-oss-120b", "Local")
    first = f'web_search = "disabled"\nmodel_instructions_file = "{tmp_path}/brief.md"\n'
    (home / "config.toml").write_text(f"{first}{told}[analytics]\nenabled = false\n")
    environ = {"MODELWAY_API_KEY": "none"}
    options = ("--skip-git-repo-check", "--json")
    before = len(embedded.log)
    for asked in (("Hello, I am Heiner.",), ("resume", "--last", "What is my name?")):
        command = ("codex", "exec", *asked[:-1], *options, asked[-1])
        # An answer that the model finds no end for is an error there, and said all the same.
        _, out, error = await programs.outcome(*command, folder=tmp_path, environ=environ)
        kinds = [json.loads(line).get("item", {}).get("type") for line in out.splitlines()]
        assert "agent_message" in kinds, out + error
    requests = [json.loads(line) for line in embedded.log[before:] if line.startswith("{")]
    read = [request["input_tokens"] for request in requests if request["dialect"] == "openai_responses"]
    # The model seldom says the name among so many words, but it has read more of them.
    assert read[-1] > read[0]


def test_the_table_says_what_is_tested(request: pytest.FixtureRequest) -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCUMENT, re.MULTILINE)[1:]
    told = {
        (client, against, word)
        for client, *columns in rows
        for against, cell in zip(("embedded", "fake"), columns, strict=True)
        for word in cell.split(", ")
    }
    if not all(Path(name).is_dir() for name in request.config.args):
        pytest.skip("only some of the tests were asked for")
    shown = {
        (marker.args[0], marker.args[1], word)
        for item in request.session.items
        for marker in item.iter_markers("shows")
        for word in marker.args[2:]
    }
    assert told == shown
