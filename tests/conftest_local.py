"""The real embedded model for tests: found where `modelway models pull smollm2` puts it, or fetched once."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelway import models
from modelway.errors import ProviderNotConfigured
from modelway.settings import Directories


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The file of smollm2, 98 MB; a test run without it fails rather than pass without having looked."""
    return find_model()


def find_model() -> Path:
    """The file of smollm2, fetched if need be."""
    directories = Directories.default()
    try:
        return models.resolve("smollm2", directories.data)
    except ProviderNotConfigured:
        return models.pull("smollm2", directories.cache / "tests")


def few_words() -> dict[str, str]:
    """The environment of a program that runs the embedded model, and need not hear it out."""
    return {"MODELWAY_LOCAL__MODEL": str(find_model()), "MODELWAY_LOCAL__MAX_TOKENS": "16"}
