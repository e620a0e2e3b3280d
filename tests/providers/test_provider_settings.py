"""Where providers find address and key, and what the user may change of their descriptions."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from modelway.config import ProviderSettings
from modelway.errors import ProviderNotConfigured, SignInRequired
from modelway.provider import ProviderInfo
from modelway.providers._settings import Key, KeyLookup, address_of, as_set, key_of


def lookup(**known: str) -> KeyLookup:
    return lambda variable, file: known.get(variable or file, "")


INFO = ProviderInfo(name="Acme", label="Acme", default_model="a", models=("a",), supports=("tools",))


def known(key: Key) -> tuple[bool, str, str]:
    info = key.told_in(INFO)
    return info.ready, info.missing, info.credential_source


def test_the_first_variable_that_is_set_has_the_key() -> None:
    key = key_of("Acme", ProviderSettings(), ("A", "B"), lookup(B="b"))
    assert (key(), known(key), key.source()) == ("b", (True, "", "environment"), "environment")


def test_the_users_variable_and_file_go_before_the_vendors() -> None:
    found = lookup(A="a", MINE="mine", path="filed")
    assert key_of("Acme", ProviderSettings(api_key_env="MINE"), ("A",), found)() == "mine"
    filed = key_of("Acme", ProviderSettings(api_key_file="path"), ("A",), found)
    assert (filed(), filed.source()) == ("filed", "file")


@pytest.mark.parametrize(
    ("settings", "variables", "where"),
    [
        (
            ProviderSettings(),
            ("A", "B"),
            "set the environment variable A or B, or [providers.Acme] api_key_file",
        ),
        (ProviderSettings(api_key_env="MINE"), ("A",), "set the environment variable MINE, or"),
        (ProviderSettings(api_key_env=""), ("A",), "set [providers.Acme] api_key_env or api_key_file"),
        (
            ProviderSettings(api_key_file="path"),
            ("A",),
            "put the key into the file named by [providers.Acme] api_key_file",
        ),
    ],
)
def test_a_missing_key_says_where_to_set_it(
    settings: ProviderSettings, variables: tuple[str, ...], where: str
) -> None:
    key = key_of("Acme", settings, variables, lookup())
    ready, missing, source = known(key)
    assert (ready, source) == (False, "")
    assert where in missing
    with pytest.raises(SignInRequired, match="Acme") as caught:
        key.required()
    assert where in caught.value.hint


def test_a_key_that_is_not_needed_is_not_missed() -> None:
    key = key_of("Acme", ProviderSettings(), ("A",), lookup(), needed=False)
    assert (key.required(), known(key)) == ("", (True, "", ""))


@pytest.mark.parametrize("needed", [True, False])
def test_a_file_that_cannot_be_used_is_told(needed: bool) -> None:
    def refuse(variable: str, file: str) -> str:
        raise ProviderNotConfigured("others can read the file")

    key = key_of("Acme", ProviderSettings(api_key_file="path"), (), refuse, needed=needed)
    assert known(key) == (False, "others can read the file", "")


def test_a_key_that_is_there_is_not_looked_for_at_every_description() -> None:
    looked = []

    def look(variable: str, file: str) -> str:
        looked.append(variable)
        return "key"

    key = key_of("Acme", ProviderSettings(), ("A",), look)
    assert [known(key) for _ in range(3)] == [(True, "", "environment")] * 3
    assert len(looked) == 1


def test_what_else_is_missing_goes_before_the_key() -> None:
    key = key_of("Acme", ProviderSettings(), ("A",), lookup())
    assert key.told_in(replace(INFO, ready=False, missing="no address")).missing == "no address"


def test_the_description_has_what_the_user_has_set() -> None:
    own = ProviderSettings(label="Mine", default_model="", models=())
    assert as_set(INFO, own) == replace(INFO, label="Mine", models=())


@pytest.mark.parametrize("base_url", ["acme.example", "https://a.example/?x=1", "https://a.example/#x"])
def test_an_address_that_can_be_none_is_refused(base_url: str) -> None:
    with pytest.raises(ProviderNotConfigured, match=r"\[providers.Acme\] base_url"):
        address_of("Acme", ProviderSettings(base_url=base_url), "")
