"""Keys: found in order, four faults told apart, and shown nowhere."""

from __future__ import annotations

import os
import pickle
import random
import string
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb import port_tokens, words
from holynb.config import dotenv, keys, providers, settings
from holynb.errors import BadKey, BadRoute, BadSetting
from holynb.secret import Mask, Secret
from holynb.types import Endpoint, Route

GOOD = "sk-test-0123456789abcdef"
PAGE = "https://keys.example/page"
NEEDED = Endpoint(Route("acme", "m"), "openai", "https://x.example/v1", "ACME_API_KEY", PAGE)
OPTIONAL = Endpoint(Route("vllm", "m"), "openai", "http://127.0.0.1/v1", "VLLM_API_KEY", None, key_optional=True)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    keys.forget()
    yield folder
    keys.forget()


def error_line(endpoint=NEEDED) -> str:
    """The line of the BadKey; the whole traceback, locals too, is searched for what must not be there."""
    with pytest.raises(BadKey) as caught:
        keys.resolve(endpoint)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(error: BaseException | None) -> str:
    """All that a debugger could show of an error: its words, its fields, the locals of our own frames, and the same of its context."""
    shown = []
    while error is not None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        shown += [str(error), repr(error.args), repr(vars(error))]
        shown += [repr(f.f_locals) for f in frames if f.f_code.co_filename != __file__]
        error = error.__context__
    return "\n".join(shown)


# -- where ---------------------------------------------------------------------------------------------------------------
def test_the_environment_then_dotenv_then_keyring(place, monkeypatch):
    monkeypatch.setattr(keys, "_keyring", Drawer)
    assert keys.resolve(NEEDED).reveal() == "keyring-key-77"
    (place.parent / ".env").write_text(f"OTHER=1\nACME_API_KEY={GOOD}\n")
    assert keys.resolve(NEEDED).reveal() == GOOD
    monkeypatch.setenv("ACME_API_KEY", "environment-key-1")
    assert keys.resolve(NEEDED).reveal() == "environment-key-1"
    assert "OTHER" not in os.environ


class Drawer:
    """A keyring with one key in it."""

    priority = 1.0
    kept = {}  # noqa: RUF012 - every drawer is the same drawer

    def get_password(self, service, name):
        return "keyring-key-77" if (service, name) == ("holynb", "ACME_API_KEY") else None

    def set_password(self, service, name, value):
        self.kept[service, name] = value


def test_the_nearest_dotenv_counts(place):
    (place.parent / ".env").write_text("ACME_API_KEY=from-the-parent-1\n")
    (place / ".env").write_text("ACME_API_KEY='from-here-22'  # mine\n")
    assert keys.resolve(NEEDED).reveal() == "from-here-22"
    (place / ".env").unlink()
    (place / ".env").mkdir()  # a virtual environment may bear this name
    assert keys.resolve(NEEDED).reveal() == "from-the-parent-1"


def test_a_typed_key_holds_until_the_variable_changes(monkeypatch):
    assert keys.remember(NEEDED, Secret(GOOD, "ACME_API_KEY")).reveal() == GOOD
    assert keys.resolve(NEEDED).reveal() == GOOD
    monkeypatch.setenv("ACME_API_KEY", "set-afterwards-1")
    assert keys.resolve(NEEDED).reveal() == "set-afterwards-1"
    keys.remember(NEEDED, Secret("typed-again-123", "ACME_API_KEY"))
    assert keys.resolve(NEEDED).reveal() == "typed-again-123"
    keys.forget("ACME_API_KEY")
    assert keys.resolve(NEEDED).reveal() == "set-afterwards-1"


def test_who_needs_none_gets_none():
    assert keys.resolve(Endpoint(Route("sim", "echo"), "sim")) is None
    assert keys.resolve(OPTIONAL) is None


def test_an_optional_key_is_sent_where_there_is_one(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "EMPTY")
    assert keys.resolve(OPTIONAL).reveal() == "EMPTY"
    monkeypatch.setenv("VLLM_API_KEY", "YOUR_API_KEY")
    assert "placeholder" in error_line(OPTIONAL)


def test_a_keyring_that_never_answers_is_asked_once(monkeypatch):
    monkeypatch.setattr(keys, "KEYRING_S", 0.05)
    monkeypatch.setattr(keys, "_keyring_hangs", threading.Event())
    held, calls = threading.Event(), []
    monkeypatch.setattr(keys, "_keyring", lambda: calls.append(1) or held.wait(30))
    assert "is not set" in error_line()
    assert "is not set" in error_line()
    held.set()
    assert calls == [1]


def test_a_keyring_that_fails_is_no_key(monkeypatch):
    def broken():
        raise RuntimeError("locked")

    monkeypatch.setattr(keys, "_keyring", broken)
    assert "is not set" in error_line()
    assert keys.save_to_keyring(Secret(GOOD, "ACME_API_KEY")) is False


def test_store_puts_a_key_where_find_looks(monkeypatch):
    monkeypatch.setattr(keys, "_keyring", Drawer)
    assert keys.save_to_keyring(Secret(GOOD, "ACME_API_KEY")) is True
    assert Drawer.kept == {("holynb", "ACME_API_KEY"): GOOD}


def test_no_keyring_on_this_machine(monkeypatch):
    assert keys._keyring() is None  # the null backend of the tests
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert keys._keyring() is None


# -- what is wrong -------------------------------------------------------------------------------------------------------
def test_missing(place):
    line = error_line()
    assert "acme needs a key, but ACME_API_KEY is not set" in line
    assert PAGE in line
    assert "%infer key acme" in line


@pytest.mark.parametrize(
    "value",
    [
        "YOUR_HOLYSHEEP_API_KEY",
        "your-api-key",
        "sk-...",
        "<your key>",
        "changeme",
        "CHANGE_ME",
        "sk-your-key-here",
        "{API_KEY}",
        "$OPENAI_API_KEY",
        "${KEY}",
        "%KEY%",
        "ACME_API_KEY",
        "api_key",
        "insert-your-key",
        "paste key here",
        "replace_with_key",
        "sk-…",
        "'YOUR_API_KEY'",
        "PLACEHOLDER",
    ],
)
def test_placeholders(monkeypatch, value):
    monkeypatch.setenv("ACME_API_KEY", value)
    line = error_line()
    assert "ACME_API_KEY holds a placeholder, not a key" in line
    assert PAGE in line
    assert value == "ACME_API_KEY" or value not in line.replace("%infer key", "")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "is empty"),
        ("sk-abc def-123456", "white space"),
        ("sk-abcdef-123456\n", "white space"),
        ("'sk-abcdef-123456'", "quotes"),
        ("“sk-abcdef-123456”", "quotes"),
        ("sk-abcdéf-123456", "no key has"),
        ("sk-\x07bcdef-123456", "no key has"),
        ("abc1234", "shorter than 8"),
    ],
)
def test_malformed(monkeypatch, value, why):
    monkeypatch.setenv("ACME_API_KEY", value)
    line = error_line()
    assert why in line
    assert PAGE in line
    assert not value or value.strip() not in line


@pytest.mark.parametrize(
    "value", ["aaaaaaaa", "12345678", "test-key", "no-prefix-at-all", "sk-" + "x" * 40, "a/b+c==12", "hunter2-hunter2"]
)
def test_no_check_of_prefix_or_repetition(monkeypatch, value):
    monkeypatch.setenv("ACME_API_KEY", value)
    assert keys.resolve(NEEDED).reveal() == value


@pytest.mark.parametrize("value", ["sk-1234", "EMPTY", "test"])
def test_a_server_of_ones_own_may_have_a_short_key(monkeypatch, value):
    """LiteLLM's and vLLM's usual ones."""
    monkeypatch.setenv("ACME_API_KEY", value)
    here = replace(NEEDED, base_url="http://127.0.0.1:4000/v1")
    for endpoint in (here, replace(NEEDED, key_page=None)):
        assert keys.resolve(endpoint).reveal() == value
        assert keys.describe_source(endpoint) == "key in ACME_API_KEY"
    assert "shorter than 8" in error_line()
    masked = {
        "sk-1234": "Wrong key ***: EMPTY tests.",
        "EMPTY": "Wrong key sk-1234: EMPTY tests.",
        "test": "Wrong key sk-1234: EMPTY tests.",
    }
    assert keys.resolve(here).mask("Wrong key sk-1234: EMPTY tests.") == masked[value]


def test_an_empty_variable_does_not_hide_a_key_further_on(place, monkeypatch):
    monkeypatch.setenv("ACME_API_KEY", "")
    (place / ".env").write_text(f"ACME_API_KEY={GOOD}")
    assert keys.resolve(NEEDED).reveal() == GOOD


def test_a_dotenv_that_is_no_text(place):
    (place / ".env").write_bytes(f"ACME_API_KEY={GOOD}".encode("utf-16"))
    with pytest.raises(BadSetting, match="not UTF-8") as caught:
        keys.resolve(NEEDED)
    assert GOOD not in everything(caught.value)


@pytest.mark.parametrize("value", ["sk-hunter2 with space-987", "'sk-hunter2-987654'", "<sk-hunter2-987654>", "sk-hünter2-987654"])
@pytest.mark.parametrize("how", ["environment", "dotenv", "typed"])
def test_nothing_shows_a_key(place, monkeypatch, value, how):
    if how == "environment":
        monkeypatch.setenv("ACME_API_KEY", value)
    elif how == "dotenv":
        (place / ".env").write_text(f'ACME_API_KEY="{value}"', "utf-8")
    typed = Secret(value, "ACME_API_KEY")
    with pytest.raises(BadKey) as caught:
        keys.remember(NEEDED, typed) if how == "typed" else keys.resolve(NEEDED)
    assert ("remember" if how == "typed" else "resolve") in [f.f_code.co_name for f, _ in traceback.walk_tb(caught.value.__traceback__)]
    assert "nter2" not in everything(caught.value)


# -- what is shown -------------------------------------------------------------------------------------------------------
def test_where_a_key_comes_from_in_words(place, monkeypatch):
    assert keys.describe_source(NEEDED) == "no ACME_API_KEY"
    assert keys.describe_source(OPTIONAL) == "no key, not needed"
    assert keys.describe_source(Endpoint(Route("sim", "echo"), "sim")) == "not needed"
    (place / ".env").write_text("ACME_API_KEY=\n")
    assert keys.describe_source(NEEDED) == "ACME_API_KEY in .env is empty"
    (place / ".env").write_text(f"ACME_API_KEY={GOOD}\n")
    assert keys.describe_source(NEEDED) == "key in ACME_API_KEY in .env"
    monkeypatch.setenv("ACME_API_KEY", "YOUR_KEY")
    assert keys.describe_source(NEEDED) == "ACME_API_KEY holds a placeholder, not a key"


def test_settings_beside_keys_come_from_the_same_places(place, monkeypatch):
    (place / ".env").write_text("ACME_BASE_URL= https://x.example/v1 \nEMPTY=\n")
    file = str(place / ".env")
    assert dotenv.read_variable("ACME_BASE_URL") == ("https://x.example/v1", file)
    assert dotenv.read_variable("EMPTY") == dotenv.read_variable("NOWHERE") == (None, None)
    monkeypatch.setenv("ACME_BASE_URL", "https://y.example/v1")
    assert dotenv.read_variable("ACME_BASE_URL") == ("https://y.example/v1", None)
    monkeypatch.setenv("ACME_BASE_URL", "https://x.example/v1")
    assert dotenv.read_variable("ACME_BASE_URL") == ("https://x.example/v1", file), "an editor may have read the file into the environment"


# -- a key on a magic's line ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "sk-proj-" + "aB3" * 20,
        "sk-ant-api03-" + "x1Y" * 20,
        "AIza" + "Sy4" * 12,
        "hf_" + "aB3" * 10,
        "hs-" + "a1" * 16,
        "gsk_" + "aB3" * 10,
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "ABSK" + "aB3+/" * 20 + "==",
        "bedrock-api-key-" + "aB3" * 20,
        "Authorization: Bearer " + GOOD,
        "0123456789abcdef" * 2,
        "A1b2" * 21,
    ],
)
def test_what_looks_like_a_key(text):
    assert keys.looks_like_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "openai/gpt-4.1",
        "holysheep/claude-sonnet-4-20250514",
        "pool/Qwen/Qwen2.5-0.5B-Instruct",
        "OPENAI_API_KEY",
        "--max-tokens",
        "sk-1",
        "ask-the-model-nicely",
        "You are a helpful assistant.",
        "/home/me/data/reviews_2025_final.csv",
        "risk-assessment-of-the-year-2025",
        "bedrock/us.anthropic.claude-opus-4-6-v1",
        "bedrock/arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
        "0123-4567",
        "x" * 40,
        "1" * 40,
        "",
    ],
)
def test_what_does_not(text):
    assert not keys.looks_like_key(text)


def test_names_of_variables():
    names = ("MY_KEY_2", "OPENAI_API_KEY", "SCHOOL_TOKEN", "openai_key", "OpenaiKey", "K8S_TOKEN", "HF_TOKEN_2025", "_KEY", "X", "E2E_KEY")
    assert [name for name in (*names, *(p.key for p in providers.table().values() if p.key)) if not keys.is_variable_name(name)] == []
    assert not any(keys.is_variable_name(t) for t in ("", "2X", "MY-KEY", "MY KEY", "AIza" + "Sy4" * 12, "aB3" * 20))


@pytest.mark.parametrize(
    ("letters", "length"),
    [
        (string.ascii_letters + string.digits + "_-", 43),
        (string.ascii_letters + string.digits + "_-", 32),
        (string.ascii_letters + string.digits, 32),
        (string.ascii_letters + string.digits, 20),
        (string.ascii_lowercase + string.digits, 24),
        (string.ascii_uppercase + string.digits, 24),
        ("0123456789abcdef", 32),
        ("0123456789abcdef", 16),
    ],
)
def test_a_key_of_no_known_kind_is_taken_for_no_name(letters: str, length: int):
    rng = random.Random(length)
    taken = [text for text in ("".join(rng.choices(letters, k=length)) for _ in range(5000)) if keys.is_variable_name(text)]
    assert len(taken) <= 10, taken[:3]


def test_a_pools_tokens_are_known_wherever_they_stand():
    tokens = [port_tokens.new_token() for _ in range(200)]
    assert len(set(tokens)) == 200
    for token in tokens:
        assert keys.looks_like_key(token)
        assert token[4:] not in words.message(f"it is {token}.")


def test_what_may_be_a_key_is_not_repeated_as_a_provider():
    token = "mDc3gWRRx9Zq_7-tY2LpKw4VbNhJ8sQe"
    for wrong in (f"{token}/m", token):
        with pytest.raises(BadRoute) as failure:
            settings.route(wrong)
        assert "mDc3" not in str(failure.value)
    with pytest.raises(BadRoute, match=r"There is no provider 'opnai'\. Did you mean openai"):
        settings.route("opnai/m")
    with pytest.raises(BadRoute, match="'llama3:8b' is neither"):
        settings.route("llama3:8b")


@given(st.text(min_size=0, max_size=40))
def test_any_text_is_a_key_or_is_told_why_not(text):
    secret = Secret(text, "ACME_API_KEY")
    try:
        keys.check(NEEDED, secret)
    except BadKey as exc:
        assert "ACME_API_KEY" in str(exc)
        assert exc.__context__ is None
    else:
        assert len(text) >= 8
        assert text.isascii()
        assert not any(c.isspace() or c in "'\"" for c in text)


@pytest.mark.parametrize("answer", [f"It is {GOOD}.", GOOD[1:], f"{GOOD[:-1]} {GOOD}"])
def test_an_answer_that_tells_the_key_back_is_masked(answer):
    masked = Mask((Secret(GOOD),)).answer(answer)
    assert "***" in masked
    assert not any(GOOD[i : i + 8] in masked for i in range(len(GOOD) - 7))


def test_other_answers_are_the_same_object_and_words_are_left_alone():
    answer = f"keys begin with {GOOD[:9]}, and the key is EMPTY"
    assert Mask((Secret(GOOD),)).answer(answer) is answer
    assert Mask((Secret("EMPTY"),)).answer(answer) is answer


def test_a_secret_stays_one():
    secret = Secret(GOOD, "K")
    assert GOOD not in f"{secret} {secret!r} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert Path.cwd()  # nothing above changed the working directory
