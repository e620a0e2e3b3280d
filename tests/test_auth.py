"""An API key names a caller."""

import pytest

from modelway.auth import LOCAL_CALLER, Auth, hash_key
from modelway.errors import AuthenticationError

KEYS = Auth({"alice": hash_key("sk-fake-alice"), "bob": hash_key("sk-fake-bob").upper()})


def test_without_keys_everybody_is_local() -> None:
    assert Auth({}).identify("") == Auth({}).identify("anything") == LOCAL_CALLER


def test_a_key_names_its_caller() -> None:
    assert KEYS.identify("sk-fake-alice").name == "alice"
    assert KEYS.identify("sk-fake-bob").name == "bob"


@pytest.mark.parametrize(
    "key", ["", "sk-fake-alic", "sk-fake-alice ", "SK-FAKE-ALICE", hash_key("sk-fake-alice")]
)
def test_anything_else_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        KEYS.identify(key)
    assert not key or key not in caught.value.explanation
