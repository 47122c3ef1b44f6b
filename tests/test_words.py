"""Numbers with their nouns; strangers' words in messages: one line, no control characters, nothing that may be a key."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb import errors
from holynb.errors import BadKey, BadOption, BadPrompt, BadRoute, BadSetting, Fault, HolynbError, InferError, Interrupted, UserError
from holynb.words import address, counted, message

ALL = [
    BadKey,
    BadOption,
    BadPrompt,
    BadRoute,
    BadSetting,
    InferError,
    Interrupted,
    UserError,
    HolynbError,
    lambda text: Fault("server", text),
]


@pytest.mark.parametrize(("n", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows")])
def test_a_number_with_its_noun(n: int, text: str) -> None:
    assert counted(n, "row") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07 title", " title"),
        ("\x1b]8;;http://evil\x1b\\link", "link"),
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1bPq\x1b\\ \x00\x08\x7f\x85a", "q a"),
        ("\x1b]0;no end", "0;no end"),
        ("exe\u202etxt.\u202d \u2066a\u2069", "exetxt. a"),
        ("two\r\nlines\n\n  and\tmore\u2028", "two lines and more "),
        ("half \ud83c", "half \ufffd"),
        ("안녕 🍵 שלום\u200f", "안녕 🍵 שלום\u200f"),
    ],
)
@pytest.mark.parametrize("error", ALL)
def test_a_message_is_one_plain_line(text: str, shown: str, error: type[HolynbError]) -> None:
    raised = error(text)
    assert str(raised) == shown
    assert raised.args == (shown,)


@given(st.text(max_size=60))
def test_no_message_moves_a_cursor(text: str) -> None:
    shown = message(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" for c in shown)


def test_a_message_that_is_set_anew_is_plain_too() -> None:
    fault = Fault("server", "first")
    fault.message = "then\x1b[2J\nmore"
    assert (fault.message, str(fault), fault.args) == ("then more", "then more", ("then more",))


def test_every_error_is_plain() -> None:
    """Whoever adds one need not think of it."""
    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, HolynbError) and v is not Fault]
    assert len(kinds) >= 9
    assert {str(kind("a\x1b[2Jb")) for kind in kinds} == {"ab"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://me:secret@h/v1, or not", "see http://h/v1, or not"),
        ("postgres://me:secret@h/db", "postgres://h/db"),
        ("'http://h/v1?key=SECRET' is wrong", "'http://h/v1' is wrong"),
        ("https://h/v1#access_token=SECRET", "https://h/v1"),
        ("Is it http://h/v1? Set it.", "Is it http://h/v1? Set it."),
        ("https://portal.azure.com/#view/Keys", "https://portal.azure.com/#view/Keys"),
        ("HTTPS_PROXY=http://USER:PASSWORD@proxy:1", "HTTPS_PROXY=http://USER:PASSWORD@proxy:1"),
        ("there is no option sk-proj-0123456789abcdefghij", "there is no option ***"),
        ("mail me@example.com", "mail me@example.com"),
    ],
)
def test_what_may_be_a_key_is_in_no_message(text: str, shown: str) -> None:
    assert message(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@h:1/v1?key=SECRET#SECRET", "http://h:1/v1"),
        (" https://h/v1 ", "https://h/v1"),
        ("SECRET", ""),
        ("h:8000/v1", ""),
        ("http://[bad", ""),
        ("http://h SECRET", ""),
        ("ftp://h/SECRET", ""),
    ],
)
def test_the_address_in_a_message(text: str, shown: str) -> None:
    assert address(text) == shown
