import json
import os
import socket
import sqlite3

import pytest

from modelway import __version__
from modelway.cli.exits import ExitCode
from modelway.fetch import part_of
from modelway.testing.fake_upstream import FakeUpstream
from tests.cli.conftest import Home


@pytest.fixture
def talked(asking_home: Home) -> Home:
    """A home that remembers two conversations."""
    assert asking_home.run("chat", "--conversation", "first", "Why is the sky blue?").code == 0
    assert asking_home.run("chat", "--conversation", "second", "Who was Ada?").code == 0
    return asking_home


def test_the_version_is_told(home: Home) -> None:
    assert home.run("--version").out == f"modelway {__version__}\n"


def test_providers_are_listed_one_a_line(asking_home: Home) -> None:
    done = asking_home.run("providers")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert ["Fake", "not asked", "model-a", ""] in rows
    assert all(len(row) == 4 for row in rows)


def test_providers_as_json_are_one_object(asking_home: Home) -> None:
    listed = asking_home.run("providers", "--json").json["providers"]
    one = asking_home.run("providers", "fAKE", "--json").json
    assert one in listed
    assert one["name"] == "Fake"
    assert (one["ready"], one["untried"]) == (True, False)


def test_a_provider_is_shown_with_what_it_lacks(home: Home) -> None:
    home.environ["GROQ_API_KEY"] = None
    done = home.run("providers", "groq")
    assert done.out.startswith("Groq")
    assert "GROQ_API_KEY" in done.out


def test_an_unknown_provider_gets_the_nearest_name(home: Home) -> None:
    done = home.run("providers", "Grok")
    assert done.code == ExitCode.ERROR
    assert "nearest: Groq" in done.err


def test_models_are_listed_with_what_is_here(home: Home) -> None:
    listed = home.run("models", "list", "--json").json["models"]
    named = {model["name"]: model for model in listed}
    assert named["smollm2"]["default"] is True
    assert not named["qwen3-0.6b"]["installed"]
    text = home.run("models", "list").out
    assert "qwen3-0.6b\t639 MB\tno\t" in text


def test_a_model_is_pulled_and_removed(home: Home) -> None:
    name = "org/repo:tiny.gguf"
    target = home.folder / "models/org/repo/tiny.gguf"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"GGUF")
    done = home.run("models", "pull", name, "--json")
    assert done.json == {"name": name, "path": str(target), "size": 4}
    assert home.run("models", "pull", name).out == f"{target}\n"
    assert name in home.run("models", "list").out
    assert home.run("models", "rm", name, "--json").json == {"name": name, "removed": True}
    assert not target.exists()
    assert not part_of(target).exists()


def test_what_cannot_be_pulled_is_told(home: Home) -> None:
    done = home.run("models", "pull", "nope")
    assert done.code == ExitCode.CONFIG
    assert 'no model is called "nope"' in done.err
    unreachable = home.run("models", "pull", "org/repo:tiny.gguf", "--endpoint", "http://127.0.0.1:9")
    assert unreachable.code == ExitCode.UPSTREAM


def test_conversations_are_listed_newest_first(talked: Home) -> None:
    listed = talked.run("conversations", "list", "--json").json["conversations"]
    assert [one["conversation_id"] for one in listed] == ["second", "first"]
    assert [line.split("\t")[0] for line in talked.run("conversations", "list").out.splitlines()] == [
        "second",
        "first",
    ]
    assert talked.run("conversations", "list", "-n", "1").out.startswith("second\t")
    assert talked.run("conversations", "list", "--before", "second").out.startswith("first\t")


def test_a_conversation_is_shown(talked: Home) -> None:
    assert "Why is the sky blue?" in talked.run("conversations", "show", "first").out
    shown = talked.run("conversations", "show", "first", "--json").json
    assert [message["content"] for message in shown["messages"]] == ["Why is the sky blue?", "Hello"]


def test_a_conversation_that_does_not_exist_is_told(home: Home) -> None:
    done = home.run("conversations", "show", "nope")
    assert done.code == ExitCode.ERROR
    assert '"nope"' in done.err


def test_messages_are_found(talked: Home) -> None:
    found = talked.run("conversations", "search", "blue", "sky", "--json").json["matches"]
    assert [(one["conversation_id"], one["role"]) for one in found] == [("first", "user")]
    assert talked.run("conversations", "search", "blue").out.startswith("first\t")


def test_a_conversation_is_exported(talked: Home) -> None:
    file = talked.folder / "talk.md"
    assert talked.run("conversations", "export", "first", "-o", str(file)).out == ""
    assert file.read_text() == talked.run("conversations", "export", "first").out
    exported = talked.run("conversations", "export", "first", "-f", "json").json
    assert exported["format"]
    assert exported["conversation_id"] == "first"


def test_a_fork_goes_its_own_way(talked: Home) -> None:
    assert talked.run("conversations", "fork", "first", "branch").out == "branch\n"
    made = talked.run("conversations", "fork", "first", "--json").json
    assert made["conversation_id"].startswith("conv_")
    assert "blue" in talked.run("conversations", "show", "branch").out


def test_nothing_is_deleted_without_a_yes(talked: Home) -> None:
    refused = talked.run("conversations", "delete", "first")
    assert refused.code == ExitCode.USAGE
    assert "--yes" in refused.err
    deleted = talked.run("conversations", "delete", "first", "--yes", "--json")
    assert deleted.json == {"conversation_id": "first", "deleted": True}
    assert talked.run("conversations", "show", "first").code == ExitCode.ERROR


def test_config_show_tells_the_origin(home: Home) -> None:
    home.environ["MODELWAY_LOCAL__THREADS"] = "3"
    lines = home.run("config", "show", "--origin").out.splitlines()
    assert "local.threads = 3  # environment MODELWAY_LOCAL__THREADS" in lines
    assert 'provider = "Local"  # default' in lines
    shown = home.run("config", "show", "--json").json
    assert shown["settings"]["local"]["threads"] == 3
    assert shown["origins"]["server.port"] == f"file {home.config}"


def test_config_path_tells_where_files_are(home: Home) -> None:
    paths = home.run("config", "path", "--json").json
    assert paths["user_file"] == str(home.config)
    assert paths["data"] == str(home.folder)
    assert "(not there)" in home.run("config", "path").out


def test_config_check_looks_at_one_file_alone(home: Home) -> None:
    good, bad = home.folder / "good.toml", home.folder / "bad.toml"
    good.write_text('model = "x"')
    bad.write_text("[server]\nport = 'x'")
    assert home.run("config", "check", str(good)).out == "the settings are valid\n"
    assert home.run("config", "check", "--json").json == {"valid": True}
    done = home.run("config", "check", str(bad))
    assert done.code == ExitCode.CONFIG
    assert "line 2" in done.err


def test_the_root_can_name_the_file(home: Home) -> None:
    own = home.folder / "own.toml"
    own.write_text('model = "x"')
    assert 'model = "x"' in home.run("--config", str(own), "config", "show").out
    missing = home.run("--config", str(home.folder / "none.toml"), "config", "show")
    assert missing.code == ExitCode.CONFIG


def statuses(home: Home) -> dict[str, str]:
    found = home.run("doctor", "--json").json
    assert found["ok"] == all(check["status"] != "failed" for check in found["checks"])
    return {check["name"]: check["status"] for check in found["checks"]}


def test_the_doctor_finds_nothing_in_a_good_home(talked: Home) -> None:
    found = statuses(talked)
    for of_the_machine in ("engine", "model"):
        assert found.pop(of_the_machine) in ("ok", "warning")
    assert found.pop("space") in ("ok", "warning")
    assert found.pop("directory") in ("ok", "warning")
    assert set(found.values()) == {"ok"}
    assert talked.run("doctor").code == ExitCode.OK


def test_the_doctor_names_a_port_that_is_taken(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        home.config.write_text(f"[server]\nport = {taken.getsockname()[1]}")
        assert statuses(home)["port"] == "failed"
        assert home.run("doctor").code == ExitCode.ERROR


def test_the_doctor_names_a_damaged_store(talked: Home) -> None:
    store = talked.folder / "conversations.sqlite3"
    with sqlite3.connect(store) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = store.read_bytes()
    store.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    assert statuses(talked)["store"] == "failed"


@pytest.mark.check(39)
@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_doctor_names_files_that_others_may_read(asking_home: Home) -> None:
    key = asking_home.folder / "key"
    key.write_text("sk-secret")
    key.chmod(0o644)
    with asking_home.config.open("a") as file:
        file.write(f'api_key_file = "{key}"\n')
    done = asking_home.run("doctor")
    assert "failed   credentials" in done.out
    assert f"chmod 600 {key}" in done.out
    assert "sk-secret" not in done.out


def test_the_doctor_names_a_model_that_is_not_there(home: Home) -> None:
    home.environ["MODELWAY_LOCAL__MODEL"] = str(home.folder / "none.gguf")
    found = statuses(home)
    assert found["model"] == "failed"
    assert found["providers"] == "failed"
    (home.folder / "none.gguf").write_bytes(b"nope")
    assert statuses(home)["model"] == "failed"


def test_the_doctor_looks_further_where_a_setting_is_wrong(home: Home) -> None:
    home.config.write_text("[server]\nprot = 1")
    found = statuses(home)
    assert found["settings"] == "failed"
    assert found["clock"] == "ok"


def test_text_of_others_cannot_drive_the_terminal() -> None:
    from modelway.cli.output import harmless

    assert harmless("a\x1b[31mred\x1b]0;title\x07\tb\r\nc\x9b") == "ared]0;title\tb\nc"


def test_json_keeps_what_a_model_wrote(asking_home: Home, upstream: FakeUpstream) -> None:
    upstream.reply("\x1b[31mred")
    assert json.loads(asking_home.run("chat", "--json", "hi").out)["text"] == "\x1b[31mred"


def test_a_provider_is_timed_with_one_question(asking_home: Home, upstream: FakeUpstream) -> None:
    done = asking_home.run("providers", "test", "fake", "--json")
    assert (done.code, done.json["ok"], done.json["provider"]) == (0, True, "Fake")
    assert done.json["total_s"] >= done.json["first_text_s"] > 0
    assert (done.json["text"], done.json["output_tokens"]) == ("Hello", 3)
    assert upstream.requests[-1].json["model"] == "model-a"
    told = asking_home.run("providers", "test", "Fake", "-m", "other").out
    assert told.startswith("Fake/model-a: Hello\n")
    assert "7 tokens in, 3 out" in told


def test_a_provider_that_fails_its_test_has_the_code_of_the_failure(
    asking_home: Home, upstream: FakeUpstream
) -> None:
    upstream.fail(500, "out of order")
    done = asking_home.run("providers", "test", "Fake", "--json")
    assert (done.code, done.json["ok"]) == (ExitCode.UPSTREAM, False)
    assert "out of order" in done.json["error"]
    assert asking_home.run("providers", "test", "Fake").code == ExitCode.UPSTREAM
    assert asking_home.run("providers", "test", "nobody").code == ExitCode.ERROR


def test_a_test_without_a_name_is_a_wrong_call(asking_home: Home) -> None:
    done = asking_home.run("providers", "test")
    assert done.code == ExitCode.USAGE
    assert "providers test NAME" in done.err


def test_a_question_that_was_not_sent_took_no_time(asking_home: Home) -> None:
    assert asking_home.run("providers", "test", "nobody", "--json").json["total_s"] < 0.5
    assert asking_home.run("providers", "a", "b").code == ExitCode.USAGE


def test_a_provider_is_shown_with_the_models_of_its_upstream(asking_home: Home) -> None:
    shown = asking_home.run("providers", "fake").out
    assert "model-a, model-b" in shown
    assert "temperature: number" in shown
    assert asking_home.run("providers", "fake", "--json").json["params"]["seed"] == "integer"
