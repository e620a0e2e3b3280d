"""A look at the bytes of a body says what taking it apart would say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelway.server.unambiguous import _is_plain

NAMES = st.sampled_from(
    ["model", "Model", "MODEL", "provider", "Provider", "mod\\u0065l", "x", "\\u00fc", "ü"]
)
VALUES = st.sampled_from(
    ['"a"', '"model"', "1", '{"model":1}', '{"Provider":[]}', '"\\"model\\""', "NaN", "'a'", ""]
)


@given(fields=st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_what_looks_plain_names_its_way_once(fields: list[tuple[str, str]]) -> None:
    body = "{" + ",".join(f'"{name}":{value}' for name, value in fields) + "}"
    if _is_plain(body.encode()):
        pairs: list[tuple[str, object]] = json.loads(body, object_pairs_hook=list)
        names = [name for name, _ in pairs if name.casefold() in ("model", "provider")]
        assert len(set(names)) == len(names)
        assert set(names) <= {"model", "provider"}


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b'{"model":"a","messages":[{"role":"user","content":"say \\"model\\""}]}', True),
        (b'{"provider":"a","model":"b"}', True),
        (b"[1]", True),
        (b'{"model":"a","Model":"b"}', False),
        (b'{"model":"a","mod\\u0065l":"b"}', False),
        (b'{"mod\xffel":"a"}', False),
        (b"{'model':'a'}", False),
        (b'{"model":"a"} {"model":"b"}', False),
        (b'{"model":"a"', False),
        (b"[" * 100_000, False),
    ],
)
def test_a_body_that_is_usual_is_not_taken_apart(body: bytes, plain: bool) -> None:
    assert _is_plain(body) is plain
