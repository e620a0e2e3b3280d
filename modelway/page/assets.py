"""The files that a page loads: compressed once, and named after what is in them."""

from __future__ import annotations

import gzip
import hashlib
from functools import cached_property
from importlib.resources import files

from msgspec import Struct

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Asset(Struct, frozen=True):
    """A file, as it is and compressed."""

    media_type: str
    plain: bytes
    packed: bytes


class Assets:
    """Every file of `static`, read when the first page is asked for."""

    @cached_property
    def files(self) -> dict[str, Asset]:
        """Each by its name."""
        found = {}
        for file in sorted((files("modelway.page") / "static").iterdir(), key=lambda one: one.name):
            media_type = _TYPES.get(file.name.rpartition(".")[2])
            if media_type is not None:
                plain = file.read_bytes()
                found[file.name] = Asset(media_type, plain, gzip.compress(plain, mtime=0))
        return found

    @cached_property
    def version(self) -> str:
        """Another one whenever a file is another one, so that browsers may keep them for ever."""
        digest = hashlib.blake2b(digest_size=6)
        for name, asset in self.files.items():
            digest.update(name.encode() + asset.plain)
        return digest.hexdigest()

    def url(self, name: str) -> str:
        """The address of a file."""
        return f"/static/{self.version}/{name}"
