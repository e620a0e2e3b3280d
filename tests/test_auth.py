"""An API key names a caller."""

import pytest

from modelway.auth import LOCAL_CALLER, Auth, hash_key
from modelway.errors import AuthenticationError
from modelway.keys import ApiKey, make_key
from modelway.types import Rules

KEYS = Auth({"alice": hash_key("sk-fake-alice"), "bob": hash_key("sk-fake-bob").upper()})


def stored(name: str, secret: str = "sk-fake-carol", **fields: object) -> ApiKey:
    return ApiKey(name=name, digest=hash_key(secret), hint="", **fields)  # type: ignore[arg-type]


def test_without_keys_everybody_is_local() -> None:
    assert Auth({}).identify("") == Auth({}).identify("anything") == LOCAL_CALLER


def test_without_keys_nobody_is_let_in_where_one_is_needed() -> None:
    auth = Auth({}, needs_key=True)
    assert not auth.open
    with pytest.raises(AuthenticationError, match="missing"):
        auth.identify("")


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


def test_a_key_of_the_store_counts_beside_those_of_the_configuration() -> None:
    auth = Auth({"alice": hash_key("sk-fake-alice")})
    auth.learn([stored("carol", rules=Rules(streams=2))])
    assert auth.identify("sk-fake-alice").name == "alice"
    assert auth.identify("sk-fake-carol").rules == Rules(streams=2)
    auth.learn([])
    with pytest.raises(AuthenticationError):
        auth.identify("sk-fake-carol")


def test_a_caller_without_rules_has_none_to_be_asked_about() -> None:
    auth = Auth({})
    auth.learn([stored("carol")])
    assert auth.identify("sk-fake-carol").rules is None


def test_to_revoke_the_last_key_does_not_open_the_door() -> None:
    auth = Auth({})
    auth.learn([stored("carol", revoked_at=1.0)])
    for key in ("", "sk-fake-carol"):
        with pytest.raises(AuthenticationError):
            auth.identify(key)


def test_a_key_counts_until_it_expires() -> None:
    now = 10.0
    auth = Auth({}, clock=lambda: now)
    auth.learn([stored("carol", expires_at=20.0)])
    assert auth.identify("sk-fake-carol").name == "carol"
    now = 20.0
    with pytest.raises(AuthenticationError, match="expired"):
        auth.identify("sk-fake-carol")


def test_keys_are_long_and_all_different() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("mw-") and len(key) == 35 for key in keys)


def test_a_key_that_was_found_is_known_again_until_any_keys_change() -> None:
    now = 10.0
    auth = Auth({}, clock=lambda: now)
    nobody = auth.find("")
    assert auth.recall(nobody) == LOCAL_CALLER
    auth.learn([stored("carol", expires_at=20.0)])
    assert auth.recall(nobody) is None
    found = auth.find("sk-fake-carol")
    caller = auth.recall(found)
    assert caller is not None
    assert caller.name == "carol"
    now = 20.0
    with pytest.raises(AuthenticationError, match="expired"):
        auth.recall(found)
    now = 10.0
    auth.learn([stored("carol", revoked_at=1.0)])
    assert auth.recall(found) is None
