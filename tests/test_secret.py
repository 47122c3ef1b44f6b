"""Keys in what a server gives: found whole and in part, in every form, and over the joins of a stream; other text stays as it is."""

from __future__ import annotations

import base64
import html
import json
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.secret import Mask, Secret

KEY = "sk-proj-Zq7RwX2vK9mTb4YhNc8LpDs3GfJe6Ua1"
MASK = Mask((Secret(KEY),))
#: What a key may look like elsewhere.
FORMS = {
    "as it is": KEY,
    "header": f"Authorization: Bearer {KEY}",
    "base64": base64.b64encode(KEY.encode()).decode(),
    "basic": f"Basic {base64.b64encode(f':{KEY}'.encode()).decode()}",
    "bearer in base64": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
}
#: Pieces of text that look like the key's beginning, its middle, its end, or like nothing.
PIECES = st.lists(
    st.one_of(
        st.builds(lambda a, b: KEY[min(a, b) : max(a, b)], st.integers(0, len(KEY)), st.integers(0, len(KEY))),
        st.sampled_from([KEY, *FORMS.values(), "sk-", "s", "sk-proj-", "Get one: ", "\n", "🍵", KEY[:20] + KEY]),
        st.text(max_size=12),
    ),
    max_size=8,
)


def streamed(text: str, cuts: list[int], mask: Mask = MASK) -> list[str]:
    """What comes out of a stream, piece by piece, and at its end."""
    stream = mask.stream()
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    return [*(stream.feed(text[a:b]) for a, b in pairwise(edges)), stream.end()]


def told(text: str, key: str = KEY, length: int = 16) -> bool:
    return any(key[i : i + length] in text for i in range(len(key) - length + 1))


@given(PIECES.map("".join), st.lists(st.integers(0, 300), max_size=60))
def test_a_stream_comes_out_as_the_whole_does(text: str, cuts: list[int]):
    shown = streamed(text, cuts)
    assert "".join(shown) == MASK.answer(text)
    assert not told("".join(shown))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 15, 16, 17, 30])
def test_a_key_in_pieces_is_masked_wherever_it_begins(size: int, form: str):
    for offset in range(size + 1):
        text = f"{'Here: '[:offset]}{form}. And more words, so many that no one waits for them."
        cuts = list(range(offset % size, len(text), size))
        shown = streamed(text, cuts)
        assert "".join(shown) == MASK.answer(text)
        for so_far in range(len(shown) + 1):  # what a stopped row keeps
            partial = "".join(shown[:so_far])
            assert not told(partial, length=4)
            assert not told(partial, base64.b64encode(KEY.encode()).decode(), 4)
        assert "***" in "".join(shown)
        assert "".join(shown).endswith(". And more words, so many that no one waits for them.")


@given(st.text(alphabet="ab", min_size=16, max_size=24), st.text(alphabet="ab", max_size=120), st.lists(st.integers(0, 120), max_size=40))
def test_keys_that_repeat_themselves(key: str, text: str, cuts: list[int]):
    """The hardest keys for what is held back: runs overlap, touch and go on."""
    mask = Mask((Secret(key), Secret(key[::-1])))
    assert "".join(streamed(text, cuts, mask)) == mask.answer(text)
    assert not told(mask.answer(text), key)


@pytest.mark.parametrize("text", ["Tea, sk-proj- and tea", KEY[:15], KEY[-15:], "", "s", "***"])
def test_what_is_no_key_comes_out_as_it_went_in(text: str):
    assert "".join(streamed(text, list(range(len(text))))) == text
    assert MASK.answer(text) is text


def test_words_are_shown_as_they_come():
    words = ["The", " answer", " is", " 42", ",", " as", " everybody", " knows", "."]
    stream = MASK.stream()
    assert [stream.feed(w) for w in words] == words


def test_a_key_of_a_few_characters_may_be_a_word():
    mask = Mask((Secret("token-abc123"),))
    assert mask.answer("say token-abc123") == "say token-abc123"
    assert mask.message("say token-abc123") == "say ***"
    assert Mask((Secret("abc"),)).message("abc") == "***"


@pytest.mark.parametrize("key", ["sk/1+2=3&<4>56789 0abcdefghijk", KEY])
@pytest.mark.parametrize("write", [str, lambda k: quote(k, safe=""), lambda k: json.dumps(k)[1:-1], html.escape])
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_every_form_is_masked(key: str, write, before: str):
    coded = base64.b64encode(f"{before}{key}!".encode()).decode()
    urlsafe = base64.urlsafe_b64encode(f"{before}{key}!".encode()).decode()
    mask = Mask((Secret(key),))
    for form in (write(key), coded, urlsafe):
        assert not told(mask.message(f"{before}{form}"), form, 12)
        assert not told(mask.answer(f"{before}{form}"), form, 20)


def test_a_stream_that_repeats_the_key_for_ever_keeps_nothing():
    stream = MASK.stream()
    shown = "".join(stream.feed(KEY) for _ in range(200))
    assert not told(shown)
    assert len(stream._kept) < 100
