"""Keys: where one is found, and what is wrong with it. Shows none, keeps none in a file, and never puts one into an exception.

A key's text lives in a `Secret` from the moment it is read: no function here that raises holds the text itself, so that neither a
traceback's locals nor `__context__` can show it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holynb.errors import BadKey, BadSetting
from holynb.secret import Secret
from holynb.types import Endpoint

__all__ = [
    "check",
    "describe_source",
    "forget",
    "is_variable_name",
    "looks_like_key",
    "read_variable",
    "remember",
    "resolve",
    "save_to_keyring",
]

#: Under which name the system keyring holds our keys.
SERVICE = "holynb"

#: Longest wait for the keyring: some backends ask a desktop that is not there.
KEYRING_S = 5.0

SHORTEST = 8

#: What people leave in a variable to say "no key" to a server of their own.
EMPTY_WORDS = ("EMPTY", "NONE", "NOKEY", "NO-KEY", "DUMMY")

#: What examples and templates put where a key should be. Only what no key can be: a test server's key may be any word.
PLACEHOLDER = re.compile(
    r"""^your[-_ ]? | [-_ ]your[-_ ] | ^<.*>$ | ^\{.*\}$ | ^\[.*\]$ | ^\$\{?\w+\}?$ | ^%\w+%$ | \.\.\. | … | placeholder |
        change[-_ ]?(me|this)\b | replace[-_ ]?(me|with|this) | (insert|enter|put|paste)[-_ ].*(key|token) | key[-_ ]?(goes[-_ ]?)?here |
        ^(my|the|an?|example)?[-_ ]?api[-_ ]?key$""",
    re.VERBOSE | re.IGNORECASE,
)
#: The variable's own name as its value.
VARIABLE = re.compile(r"[A-Z0-9_]+_(API_?KEY|TOKEN|SECRET)")

#: How keys of the known providers begin, anywhere in a text; and what a bare key of no known kind looks like.
KEY_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|hs-[A-Za-z0-9_-]{20,}"
    r"|nvapi-[A-Za-z0-9_-]{20,}|pplx-[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})"
)
BARE_KEY = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9]{32,}")

#: Typed in this session: name → (key, what the environment held then). Written by the main thread.
_typed: dict[str, tuple[Secret, str | None]] = {}
_keyring_hangs = threading.Event()


def resolve(endpoint: Endpoint, ask: Callable[[Endpoint], str | None] | None = None) -> Secret | None:
    """The key of an endpoint: typed in this session, the environment, `.env`, the system keyring, then `ask` (a hidden prompt).

    None where the endpoint needs none. Raises BadKey where it is missing, a placeholder or malformed.
    """
    name = endpoint.key_name
    if name is None:
        return None
    secret, origin = _look(name)
    if secret is None and origin is None and not endpoint.key_optional and ask is not None:
        typed = _asked(endpoint, ask)
        if typed is not None:
            return remember(endpoint, typed)
    if secret is None:
        if origin is None and endpoint.key_optional:
            return None
        raise BadKey(_missing(endpoint, origin))
    check(endpoint, secret, origin or name)
    return secret


def check(endpoint: Endpoint, secret: Secret, origin: str | None = None) -> None:
    """Raise BadKey where `secret` cannot be a key. Says what is wrong with it, never what it is."""
    if endpoint.key_optional and _is_no_key(secret):
        return
    if wrong := _wrong(secret):
        raise BadKey(f"{origin or secret.name} {wrong}. {_cure(endpoint)}")


def remember(endpoint: Endpoint, secret: Secret) -> Secret:
    """Hold a typed key for this session; a later change of the environment variable wins over it. Raises BadKey."""
    check(endpoint, secret, "What was typed")
    name = endpoint.key_name or secret.name
    _typed[name] = (secret, os.environ.get(name))
    return secret


def forget(name: str | None = None) -> None:
    """Drop the key typed for this variable, or all of them."""
    if name is None:
        _typed.clear()
    else:
        _typed.pop(name, None)


def describe_source(endpoint: Endpoint) -> str:
    """In a few words, without asking anybody: where the key comes from, or what is wrong. For lists."""
    if endpoint.key_name is None:
        return "needs no key"
    secret, origin = _look(endpoint.key_name)
    if secret is None:
        return f"{origin} is empty" if origin else "no key, needs none" if endpoint.key_optional else f"no {endpoint.key_name}"
    if endpoint.key_optional and _is_no_key(secret):
        return f"key in {origin}"
    wrong = _wrong(secret)
    return f"{origin} {wrong}" if wrong else f"key in {origin}"


def save_to_keyring(secret: Secret) -> bool:
    """Put a key into the system keyring under its name. False where there is none that works."""

    def put() -> bool:
        backend = _keyring()
        if backend is None:
            return False
        backend.set_password(SERVICE, secret.name, secret.reveal())
        return True

    return bool(_in_time(put))


def read_variable(name: str) -> str | None:
    """A setting (an address, not a key) from the environment, else from the nearest `.env`. None where it is missing or empty.

    Both, because who keeps a gateway's key in `.env` keeps its address there too, and one without the other sends a key elsewhere.
    """
    return (os.environ.get(name) or "").strip() or (_dotenv().get(name) or "").strip() or None


def is_variable_name(text: str) -> bool:
    """Whether `text` can be the name of an environment variable, and is not a key that somebody put in its place."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and not looks_like_key(text)


def looks_like_key(text: str) -> bool:
    """Whether a text holds what looks like a key: on a magic's line it would be saved with the notebook."""
    return KEY_SHAPES.search(text) is not None or BARE_KEY.fullmatch(text) is not None


# -- where keys are ----------------------------------------------------------------------------------------------------
def _look(name: str) -> tuple[Secret | None, str | None]:
    """The first place that has this key, and its name. (None, place): it is there, but empty everywhere. (None, None): nowhere."""
    held = _typed.get(name)
    if held is not None and held[1] == os.environ.get(name):
        return held[0], "this session"
    empty: str | None = None
    for said, look in ((name, os.environ.get), (f"{name} in .env", _from_dotenv), (f"{name} in the keyring", _from_keyring)):
        value = look(name)
        if value:
            return Secret(value, name), said
        if value is not None and empty is None:
            empty = said
    return None, empty


def _asked(endpoint: Endpoint, ask: Callable[[Endpoint], str | None]) -> Secret | None:
    typed = ask(endpoint)
    return None if typed is None else Secret(typed, endpoint.key_name or "key")


def _dotenv() -> Mapping[str, str | None]:
    """The nearest `.env`, from the working directory up. The environment is not touched. Raises BadSetting where it is unreadable."""
    from dotenv import dotenv_values

    try:
        here = Path.cwd()
    except FileNotFoundError:  # the working directory was removed
        return {}
    path = next((p for folder in (here, *here.parents) if (p := folder / ".env").is_file()), None)
    if path is None:
        return {}
    try:
        return dotenv_values(path, encoding="utf-8-sig")
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as exc:
        reason = str(exc.strerror)
    # Outside the handler: a UnicodeDecodeError carries the file, keys and all.
    raise BadSetting(f"{path} cannot be read: {reason}.")


def _from_dotenv(name: str) -> str | None:
    return _dotenv().get(name)


def _from_keyring(name: str) -> str | None:
    def get() -> str | None:
        backend = _keyring()
        return None if backend is None else backend.get_password(SERVICE, name)

    found = _in_time(get)
    return None if found is None else str(found)


def _keyring() -> Any:
    """The keyring that this machine has; None where there is none."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return None
    try:
        backend = keyring.get_keyring()
    except KeyringError:
        return None
    return backend if backend.priority > 0 else None


def _in_time(work: Callable[[], Any]) -> Any:
    """`work()`, or None where the keyring refuses or does not answer in time; after that it is not asked again."""
    if _keyring_hangs.is_set():
        return None
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception:  # noqa: BLE001 - a keyring that is locked, refused or broken is a place without a key; the missing key is reported
            found.append(None)

    thread = threading.Thread(target=run, name="holynb-keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_S)
    if not found:
        _keyring_hangs.set()
        return None
    return found[0]


# -- what is wrong with one --------------------------------------------------------------------------------------------
def _wrong(secret: Secret) -> str | None:
    """What is wrong with a key's text, in words that do not show it."""
    text = secret.reveal()
    bare = text.strip().strip("'\"")
    if PLACEHOLDER.search(bare) or VARIABLE.fullmatch(bare):
        return "holds a placeholder, not a key"
    if not text:
        return "is empty"
    if any(c.isspace() for c in text):
        return "is malformed: there is white space in it"
    if any(c in "'\"`‘’“”" for c in text):
        return "is malformed: there are quotes in it"
    if not text.isascii() or not text.isprintable():
        return "is malformed: there are characters in it that no key has"
    return f"is malformed: shorter than {SHORTEST} characters" if len(text) < SHORTEST else None


def _is_no_key(secret: Secret) -> bool:
    return secret.reveal().upper() in EMPTY_WORDS


def _missing(endpoint: Endpoint, empty: str | None) -> str:
    said = f"{empty} is empty" if empty else f"{endpoint.route.provider} needs a key, and {endpoint.key_name} is not set"
    return f"{said}. {_cure(endpoint)}"


def _cure(endpoint: Endpoint) -> str:
    page = f" A key: {endpoint.key_page}" if endpoint.key_page else ""
    return f"Set {endpoint.key_name} in the environment or a .env file, or run %infer key {endpoint.route.provider}.{page}"
