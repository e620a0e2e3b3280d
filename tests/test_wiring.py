"""Which providers a gateway has."""

from pathlib import Path

import pytest

from modelway.config import ProviderSettings, Settings, UpstreamSettings
from modelway.errors import ProviderNotConfigured
from modelway.providers.http import HTTPClient
from modelway.settings import SettingsError
from modelway.wiring import build, build_providers

LOCAL = "http://127.0.0.1:9/v1"


def named(tmp_path: Path, **own: ProviderSettings) -> dict[str, str]:
    http = HTTPClient(UpstreamSettings())
    providers = build_providers(Settings(providers=own), http, data_dir=tmp_path)
    return {provider.info.name: provider.info.default_model for provider in providers}


def test_the_embedded_model_comes_first_and_every_name_once(tmp_path: Path) -> None:
    names = list(named(tmp_path))
    assert names[:3] == ["Local", "Copilot", "Lockchat"]
    assert len({name.casefold() for name in names}) == len(names) > 30


def test_a_preset_is_changed_under_its_name_in_any_case(tmp_path: Path) -> None:
    found = named(tmp_path, groq=ProviderSettings(default_model="mine"))
    assert found["Groq"] == "mine"
    assert "groq" not in found


def test_a_provider_of_the_user_s_own_joins(tmp_path: Path) -> None:
    found = named(tmp_path, Mine=ProviderSettings(base_url=LOCAL, default_model="m"))
    assert found["Mine"] == "m"


def test_a_provider_without_address_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProviderNotConfigured, match="base_url"):
        named(tmp_path, Mine=ProviderSettings())


def test_settings_that_name_nobody_are_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match='no provider is called "Nope"'):
        build(Settings(provider="Nope"), data_dir=tmp_path)
