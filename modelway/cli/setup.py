"""What every command begins with: the settings and the directories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from msgspec import Struct

if TYPE_CHECKING:
    from modelway.config import Settings
    from modelway.settings import Directories, Loaded


class Setup(Struct, frozen=True):
    """The settings with their origins, and where files are kept."""

    loaded: Loaded
    directories: Directories

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.loaded.settings

    @property
    def store_path(self) -> Path:
        """The database of the conversations."""
        from modelway.wiring import STORE_FILE

        chosen = self.settings.conversations.path
        return Path(chosen).expanduser() if chosen else self.directories.data / STORE_FILE


def set_up(
    context: typer.Context, flags: Mapping[str, object] | None = None, *, config: Path | None = None
) -> Setup:
    """Load the settings; SettingsError where one is wrong. `config` goes before the root's --config."""
    from modelway.settings import Directories, load

    chosen = config or context.obj
    return Setup(load(flags=flags or {}, project_file=chosen), Directories.default())
