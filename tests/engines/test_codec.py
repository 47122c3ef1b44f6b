"""JSON with and without orjson: the same in both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.engines import codec

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=10,
)


@pytest.fixture(params=[True, False])
def with_orjson(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(codec, "orjson", None)


@given(JSON)
def test_what_is_written_is_read(value: object):
    fast = codec.dumps(value)
    assert codec.loads(fast) == value
    kept, codec.orjson = codec.orjson, None
    try:
        assert codec.loads(fast) == value
        assert codec.loads(codec.dumps(value)) == value
    finally:
        codec.orjson = kept


@pytest.mark.parametrize(
    ("data", "value"), [(b'"\\ud800"', "\ud800"), (b'"\xff"', "\ufffd"), (b'\n\n {"a": 1}', {"a": 1}), (b"18446744073709551616", 2**64)]
)
def test_what_servers_send(with_orjson: None, data: bytes, value: object):
    assert codec.loads(data) == value


@pytest.mark.parametrize("data", [b"", b"{", b"<html>", b'{"a": 1}}'])
def test_what_is_no_json(with_orjson: None, data: bytes):
    with pytest.raises(ValueError):
        codec.loads(data)


@pytest.mark.parametrize(
    ("text", "mended"), [("plain 🍵", "plain 🍵"), ("a\ud83d\ude00b", "a😀b"), ("a\ud800b", "a\ufffdb"), ("\ude00", "\ufffd")]
)
def test_mended_text_can_be_written_anywhere(text: str, mended: str):
    assert codec.mend(text) == mended
    mended.encode()
