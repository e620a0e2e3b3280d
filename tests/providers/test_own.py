"""Where providers with code of their own find address and key."""

from __future__ import annotations

import pytest

from modelway.config import ProviderSettings
from modelway.errors import GatewayError, ProviderNotConfigured, SignInRequired
from modelway.providers._own import KeyLookup, address_of, kept_out_of_errors, key_of


def lookup(**known: str) -> KeyLookup:
    return lambda variable, file: known.get(variable or file, "")


def test_the_first_variable_that_is_set_has_the_key() -> None:
    key = key_of("Acme", ProviderSettings(), ("A", "B"), lookup(B="b"))
    assert (key(), key.missing(), key.source()) == ("b", "", "environment")


def test_the_users_variable_and_file_go_before_the_vendors() -> None:
    known = lookup(A="a", MINE="mine", path="filed")
    assert key_of("Acme", ProviderSettings(api_key_env="MINE"), ("A",), known)() == "mine"
    filed = key_of("Acme", ProviderSettings(api_key_file="path"), ("A",), known)
    assert (filed(), filed.source()) == ("filed", "file")


def test_a_missing_key_says_where_to_set_it() -> None:
    key = key_of("Acme", ProviderSettings(), ("A", "B"), lookup())
    assert key.source() == ""
    assert "A or B" in key.missing()
    with pytest.raises(SignInRequired, match="Acme"):
        key.required()


def test_a_file_that_cannot_be_used_is_told_and_no_reason_to_fail() -> None:
    def refuse(variable: str, file: str) -> str:
        raise ProviderNotConfigured("others can read the file")

    key = key_of("Acme", ProviderSettings(api_key_file="path"), (), refuse)
    assert key.missing() == "others can read the file"


def test_a_key_that_is_there_is_not_looked_for_at_every_description() -> None:
    looked = []

    def look(variable: str, file: str) -> str:
        looked.append(variable)
        return "key"

    key = key_of("Acme", ProviderSettings(), ("A",), look)
    assert [key.missing() for _ in range(3)] == [""] * 3
    assert len(looked) == 1


@pytest.mark.parametrize("base_url", ["acme.example", "https://a.example/?x=1", "https://a.example/#x"])
def test_an_address_that_can_be_none_is_refused(base_url: str) -> None:
    with pytest.raises(ProviderNotConfigured, match=r"\[providers.Acme\] base_url"):
        address_of("Acme", ProviderSettings(base_url=base_url), "")


def test_a_secret_is_taken_out_of_errors() -> None:
    with pytest.raises(GatewayError) as caught, kept_out_of_errors("hush"):
        raise GatewayError("it said hush")
    assert str(caught.value) == "it said ***"
