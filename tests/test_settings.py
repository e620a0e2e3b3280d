import os
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from modelway.config import Settings
from modelway.errors import ProviderNotConfigured
from modelway.setting_keys import setting_keys, variable_of
from modelway.settings import (
    Directories,
    Loaded,
    SettingsError,
    check_file,
    credential,
    dotted,
    load,
    shown,
)

Load = Callable[..., Loaded]
DIGEST = "3f" * 32


@pytest.fixture
def load_from(tmp_path: Path) -> Load:
    """Load with nothing of this machine's; `user` and `project` are texts of files."""

    def load_texts(user: str = "", project: str = "", **options: Any) -> Loaded:
        (tmp_path / "user.toml").write_text(user)
        (tmp_path / "project.toml").write_text(project)
        return load(
            user_file=tmp_path / "user.toml",
            project_file=tmp_path / "project.toml",
            flags=options.get("flags", {}),
            environ={"MODELWAY_CONFIG_DIR": str(tmp_path), **options.get("environ", {})},
        )

    return load_texts


def test_without_any_layer_the_defaults_are_in_force(load_from: Load) -> None:
    loaded = load_from()
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.origin("server.port") == "default"


def test_each_layer_goes_before_the_weaker_ones(load_from: Load, tmp_path: Path) -> None:
    user = "[server]\nport = 1\nkeep_alive_s = 1\nmax_body_bytes = 2000\n[local]\nparallel = 2"
    project = "[server]\nport = 2\nkeep_alive_s = 2\nmax_body_bytes = 3000"
    environ = {"MODELWAY_SERVER__PORT": "3", "MODELWAY_SERVER__KEEP_ALIVE_S": "3"}
    loaded = load_from(user, project, environ=environ, flags={"server.port": 4, "server.host": None})
    assert loaded.settings.server.port == 4
    assert loaded.settings.server.keep_alive_s == 3
    assert loaded.settings.server.max_body_bytes == 3000
    assert loaded.settings.local.parallel == 2
    assert loaded.origins["server.port"] == "flag --port"
    assert loaded.origins["server.keep_alive_s"] == "environment MODELWAY_SERVER__KEEP_ALIVE_S"
    assert loaded.origins["server.max_body_bytes"] == f"file {tmp_path / 'project.toml'}"
    assert loaded.origins["local.parallel"] == f"file {tmp_path / 'user.toml'}"
    assert loaded.origins["server.host"] == "default"


def test_a_flag_is_called_as_on_the_command_line(load_from: Load) -> None:
    loaded = load_from(flags={"log.level": "debug", "server.allow_remote": True, "fallback": ["A"]})
    assert loaded.origin("log.level") == "flag --log-level"
    assert loaded.origin("server.allow_remote") == "flag --allow-remote"
    assert loaded.settings.fallback == ("A",)


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("MODELWAY_PROVIDER", "Groq", "provider", "Groq"),
        ("MODELWAY_FALLBACK", "Groq, Local,", "fallback", ["Groq", "Local"]),
        ("MODELWAY_LOCAL__PRELOAD", "TRUE", "local.preload", True),
        ("MODELWAY_UPSTREAM__IDLE_TIMEOUT_S", " 2.5 ", "upstream.idle_timeout_s", 2.5),
        ("MODELWAY_AUTH__API_KEYS", f"bob={DIGEST}", "auth.api_keys.bob", f"{DIGEST[:8]}…"),
        ("MODELWAY_AUTH__API_KEYS__BOB", DIGEST, "auth.api_keys.bob", f"{DIGEST[:8]}…"),
        ("MODELWAY_PROVIDERS__MINE__MODELS", "a,b", "providers.mine.models", ["a", "b"]),
        ("MODELWAY_PROVIDERS__Mine__NEEDS_AUTH", "false", "providers.Mine.needs_auth", False),
        ("MODELWAY_ROUTES__BEST__CANDIDATES", "A/b,C", "routes.best.candidates", ["A/b", "C"]),
    ],
)
def test_variables_are_read_as_what_the_setting_is(
    load_from: Load, variable: str, text: str, key: str, value: object
) -> None:
    loaded = load_from(environ={variable: text})
    assert dict(dotted(shown(loaded.settings)))[key] == value
    assert loaded.origins[key] == f"environment {variable}"


def test_headers_in_a_variable_are_name_and_value(load_from: Load) -> None:
    loaded = load_from(environ={"MODELWAY_PROVIDERS__MINE__HEADERS": "X-A=1, X-B=2"})
    assert loaded.settings.providers["mine"].headers == {"X-A": "1", "X-B": "2"}
    with pytest.raises(SettingsError, match="name=value"):
        load_from(environ={"MODELWAY_PROVIDERS__MINE__HEADERS": "X-A"})


def test_a_stronger_layer_may_write_a_provider_in_another_case(load_from: Load) -> None:
    user = '[providers.Groq]\nlabel = "Mine"\ndefault_model = "a"'
    loaded = load_from(user, environ={"MODELWAY_PROVIDERS__GROQ__DEFAULT_MODEL": "b"})
    assert list(loaded.settings.providers) == ["Groq"]
    assert loaded.settings.providers["Groq"].default_model == "b"
    assert loaded.settings.providers["Groq"].label == "Mine"


def test_a_name_with_a_dot_stays_whole(load_from: Load) -> None:
    loaded = load_from('[routes."gpt-4.1"]\ncandidates = ["Groq"]')
    assert loaded.settings.routes["gpt-4.1"].candidates == ("Groq",)
    assert 'routes."gpt-4.1".candidates' in loaded.origins


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[server]\n\nprot = 1", 3, "there is no setting server.prot; did you mean server.port?"),
        ("port = 1", 1, "there is no setting port; did you mean server.port?"),
        ("[zzz]", 1, "there is no setting zzz; docs/configuration.md lists all settings"),
        ("[server]\nport = '1'", 2, "server.port: expected int, got str"),
        ("[server]\nport = 70000", 2, "server.port must be from 0 to 65535"),
        ("server = 1", 1, "server must be a table; write [server] above its keys"),
        ("[local]\npreload = 1", 2, "local.preload: expected bool, got int"),
        ("[log]\nlevel = 'loud'", 2, "log.level must be one of debug, info, warning, error"),
        ("[conversations]\nlease_s = nan", 2, "conversations.lease_s must be a number of seconds"),
        ("[upstream]\nidle_timeout_s = inf", 2, "upstream.idle_timeout_s must be a number of seconds"),
        ("[upstream]\nconnect_timeout_s = 0", 2, "upstream.connect_timeout_s must be a number of seconds"),
        ("[upstream]\nretries = 11", 2, "upstream.retries must be from 0 to 10"),
        ("[server]\nmax_body_bytes = 0", 2, "server.max_body_bytes must be at least 1024"),
        ("[server]\nallowed_origins = ['example.org']", 2, "server.allowed_origins must be origins"),
        ("[server]\nallowed_hosts = ['http://a']", 2, "server.allowed_hosts must be host names"),
        ("provider = ''", 1, "provider must name a provider"),
        ("fallback = ['']", 1, "fallback must name providers"),
        ("fallback = 'Groq'", 1, "fallback: expected array, got str"),
        ("[providers.A]\nbase_url = 'ftp://a'", 2, "providers.A.base_url must be http://HOST"),
        ("[providers.A]\nbase_url = 'http://a:b@c'", 2, "providers.A.base_url must be http://HOST"),
        ("[providers.A]\napi_key = 'x'", 2, "there is no setting providers.A.api_key; did you mean"),
        ("[routes.x]", 1, "routes.x has no candidates"),
        ("[routes.x]\nfailover_on_context = true", 1, "routes.x has no candidates"),
        ("[routes.x]\ncandidates = []", 2, "routes.x.candidates must be a list"),
        ("[routes.x]\ncandidates = ['/m']", 2, "routes.x.candidates must be a list"),
        ("[conversations]\nlease_s = 0.1", 1, "conversations.checkpoint_s must be less than"),
    ],
)
def test_a_fault_in_a_file_is_named_with_line_and_remedy(
    load_from: Load, tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_from(text)
    assert str(caught.value).startswith(f"file {tmp_path / 'user.toml'}, line {line}: {message}")
    assert not caught.value.from_flag


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("MODELWAY_PORT", "1", "did you mean MODELWAY_SERVER__PORT?"),
        ("MODELWAY_SERVER_PORT", "1", "did you mean MODELWAY_SERVER__PORT?"),
        ("MODELWAY_PROVIDRE", "1", "did you mean MODELWAY_PROVIDER?"),
        ("MODELWAY_NOTHING__LIKE_IT", "1", "docs/configuration.md"),
        ("MODELWAY_SERVER__PORT", "abc", "server.port: expected int"),
    ],
)
def test_a_fault_in_a_variable_is_named(load_from: Load, variable: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_from(environ={variable: text})
    assert f"environment {variable}: " in str(caught.value)
    assert message in str(caught.value)


def test_a_variable_of_another_program_is_left_alone(load_from: Load) -> None:
    assert load_from(environ={"MODELWAY_KEY_OF_MY_OFFICE": "x"}).settings == Settings()


@pytest.mark.parametrize(
    "text",
    [
        '[auth.api_keys]\nbob = "sk-secret"',
        '[providers.A]\napi_key_env = "sk-secret"',
        '[providers.A]\nbase_url = "https://me:sk-secret@example.org"',
        '[providers.A.headers]\nAuthorization = "sk-secret\\n"',
    ],
)
def test_no_message_repeats_a_secret(load_from: Load, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_from(text)
    assert "secret" not in str(caught.value)


def test_what_may_be_secret_is_not_shown(load_from: Load) -> None:
    text = f'[auth.api_keys]\nbob = "{DIGEST}"\n[providers.A.headers]\nAuthorization = "sk-secret"'
    tables = shown(load_from(text).settings)
    assert tables["auth"]["api_keys"]["bob"] == f"{DIGEST[:8]}…"
    assert tables["providers"]["A"]["headers"] == {"Authorization": "…"}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.9", "::1"])
def test_a_loopback_address_needs_nothing(load_from: Load, host: str) -> None:
    assert load_from(flags={"server.host": host}).settings.server.host == host


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = [1", "is not valid TOML"),
        (b"a = '\xff'", "is not UTF-8 text"),
        (None, "there is no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "own.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        check_file(file)
    assert str(file) in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes(b"\xef\xbb\xbfprovider = 'A'")
    check_file(tmp_path / "own.toml")


@pytest.mark.parametrize(
    "text",
    [
        '[providers.Groq]\nbase_url = "https://evil.example"',
        '[providers.Groq]\napi_key_env = "AWS_SECRET_ACCESS_KEY"',
        "[server]\nallow_remote = true",
        f'[auth.api_keys]\neve = "{DIGEST}"',
    ],
)
def test_a_file_found_in_the_current_directory_cannot_open_doors(tmp_path: Path, text: str) -> None:
    here = tmp_path / "cloned"
    here.mkdir()
    (here / "modelway.toml").write_text(text)
    environ = {"MODELWAY_CONFIG_DIR": str(tmp_path)}
    with chdir(here):
        with pytest.raises(SettingsError, match="--config"):
            load(environ=environ)
        assert load(environ=environ, project_file=here / "modelway.toml").settings != Settings()
        (here / "modelway.toml").write_text('model = "small"')
        assert load(environ=environ).settings.model == "small"


def test_the_users_file_lies_in_the_configuration_directory(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('model = "mine"')
    loaded = load(environ={"MODELWAY_CONFIG_DIR": str(tmp_path)})
    assert loaded.settings.model == "mine"


def test_variables_replace_directories(tmp_path: Path) -> None:
    directories = Directories.default({"MODELWAY_DATA_DIR": str(tmp_path), "MODELWAY_STATE_DIR": "~/x"})
    assert directories.data == tmp_path
    assert directories.state == Path.home() / "x"
    assert directories.cache.name == "modelway"


def test_a_path_may_begin_with_the_home_directory(load_from: Load) -> None:
    loaded = load_from('[conversations]\npath = "~/talks.sqlite3"')
    assert loaded.settings.conversations.path == str(Path.home() / "talks.sqlite3")


def test_a_credential_comes_from_the_file_or_else_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    file.chmod(0o600)
    environ = {"KEY": " from-variable "}
    assert credential("KEY", str(file), environ) == "from-file"
    assert credential("KEY", "", environ) == "from-variable"
    assert credential("OTHER", "", environ) == ""
    assert credential("", "", environ) == ""
    assert credential("KEY", str(tmp_path / "missing"), environ) == ""


@pytest.mark.check(39)
@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-secret")
    file.chmod(0o644)
    with pytest.raises(ProviderNotConfigured, match="chmod 600") as caught:
        credential("", str(file), {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", [key for key in setting_keys() if "<name>" not in key], ids=".".join)
def test_every_setting_has_a_variable(load_from: Load, key: tuple[str, ...]) -> None:
    default = dict(dotted(shown(Settings())))[".".join(key)]
    unset = "http://localhost:1" if key[-1] in ("base_url", "authority") else "x"
    text = ",".join(default) if isinstance(default, list) else str(default) or unset
    loaded = load_from(environ={variable_of(key): text})
    assert loaded.origins[".".join(key)] == f"environment {variable_of(key)}"
