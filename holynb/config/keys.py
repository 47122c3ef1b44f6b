"""API keys: where they are looked up, and what makes one invalid. Prints none, writes none to a file, puts none into an exception.

A key's text is in a `Secret` from the moment it is read: no function here that raises holds the text itself, so that neither a
traceback's locals nor `__context__` can show it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import Any

from holynb.config import aws_chain, dotenv, logins, trust
from holynb.config.providers import CHAINS
from holynb.errors import BadKey, BadSetting
from holynb.secret import NO_KEY_WORDS, Secret
from holynb.types import Endpoint
from holynb.words import KEY_SHAPES, is_plain_name

__all__ = [
    "check",
    "describe_source",
    "forget",
    "is_set",
    "is_variable_name",
    "looks_like_key",
    "notices",
    "refusal",
    "remember",
    "resolve",
    "save_to_keyring",
]

#: The service name of our keys in the system keyring.
SERVICE = "holynb"

#: Longest wait for the keyring: some backends ask a desktop that is not there.
KEYRING_S = 5.0

MIN_KEY_CHARS = 8

#: Placeholders of examples and templates. Only what no key can be: a test server's key may be any word.
PLACEHOLDER = re.compile(
    r"""^your[-_ ]? | [-_ ]your[-_ ] | ^<.*>$ | ^\{.*\}$ | ^\[.*\]$ | ^\$\{?\w+\}?$ | ^%\w+%$ | \.\.\. | … | placeholder |
        change[-_ ]?(me|this)\b | replace[-_ ]?(me|with|this) | (insert|enter|put|paste)[-_ ].*(key|token) | key[-_ ]?(goes[-_ ]?)?here |
        ^(my|the|an?|example)?[-_ ]?api[-_ ]?key$""",
    re.VERBOSE | re.IGNORECASE,
)
#: The variable's own name as its value.
VARIABLE = re.compile(r"[A-Z0-9_]+_(API_?KEY|TOKEN|SECRET)")

#: A bare key of no known kind.
BARE_KEY = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9]{32,}")

#: Typed in this session: variable → (key, the variable's value then). Written by the main thread.
_typed: dict[str, tuple[Secret, str | None]] = {}
_keyring_hangs = threading.Event()


def resolve(endpoint: Endpoint) -> Secret | None:
    """The endpoint's key: typed in this session, the environment, `.env`, the system keyring.

    None where the endpoint needs none, or a login stands in for it. Raises BadKey where it is missing, a placeholder or malformed, and
    BadSetting where a file of the project would have it go to a host that the user has not trusted.
    """
    name = endpoint.key_name
    secret, origin = (None, None) if name is None else _find(name)
    if name is None or secret is not None or not endpoint.key_optional or endpoint.wire in CHAINS:
        _check_address(endpoint, secret)  # of what a chain finds, too
    if name is None:
        return None
    if secret is None and (login := logins.available(endpoint)) is not None:
        if problem := logins.refusal(endpoint, login):
            raise BadSetting(problem)
        return None
    if secret is None:
        if origin is None and endpoint.key_optional:
            return None
        raise BadKey(_missing(endpoint, origin))
    check(endpoint, secret, origin or name)
    return secret


def refusal(endpoint: Endpoint) -> str | None:
    """Why the endpoint's key, where there is one, must not go to its address; None where it may."""
    secret = None if endpoint.key_name is None else _find(endpoint.key_name)[0]
    unkeyed = secret is None and endpoint.key_optional and endpoint.wire not in CHAINS
    return None if unkeyed else trust.refusal(endpoint, _project_file(endpoint, secret))


def notices(endpoint: Endpoint) -> list[str]:
    """What to say of where the endpoint's requests go, and how its key does."""
    if not endpoint.address_file and not trust.plain_http(endpoint.base_url):
        return []  # without a look at the keyring
    secret = None if endpoint.key_name is None else _find(endpoint.key_name)[0]
    keyed = logins.available(endpoint) is not None if secret is None else not _is_no_key(secret)
    return trust.notices(endpoint, _project_file(endpoint, secret), keyed=keyed)


def _check_address(endpoint: Endpoint, secret: Secret | None) -> None:
    if problem := trust.refusal(endpoint, _project_file(endpoint, secret)):
        raise BadSetting(problem)


def _project_file(endpoint: Endpoint, secret: Secret | None) -> str | None:
    """The project's file that names the endpoint's address, where the key stands in it too."""
    file = dotenv.path()
    if secret is None or file is None or endpoint.address_file != str(file):
        return None
    return str(file) if dotenv.values().get(secret.name) == secret.reveal() else None


def check(endpoint: Endpoint, secret: Secret, origin: str | None = None) -> None:
    """Raise BadKey where `secret` cannot be a key. The message names the mistake and never shows the key."""
    if endpoint.key_optional and _is_no_key(secret):
        return
    if problem := _problem(secret, endpoint):
        raise BadKey(f"{origin or secret.name} {problem}. {_cure(endpoint)}")


def remember(endpoint: Endpoint, secret: Secret) -> Secret:
    """Use a typed key for this session; a later change of the environment variable wins over it. Raises BadKey."""
    check(endpoint, secret, "What you typed")
    name = endpoint.key_name or secret.name
    _typed[name] = (secret, os.environ.get(name))
    return secret


def forget(name: str | None = None) -> None:
    """Drop the key typed for this variable, or all of them."""
    if name is None:
        _typed.clear()
    else:
        _typed.pop(name, None)


def is_set(name: str) -> bool:
    """Whether there is a key of this name, good or bad."""
    return _find(name) != (None, None)


def describe_source(endpoint: Endpoint) -> str:
    """Where the key comes from or what is wrong with it, in a few words for lists. Never prompts."""
    chained = CHAINS.get(endpoint.wire) == "AWS"
    if endpoint.key_name is None:
        return aws_chain.describe(_region(endpoint)) if chained else "not needed"
    secret, origin = _find(endpoint.key_name)
    if secret is None and origin is None and chained:
        return aws_chain.describe(_region(endpoint))
    if secret is None and (login := logins.available(endpoint)) is not None:
        problem = trust.refusal(endpoint, None) or logins.refusal(endpoint, login)
        how = f"no key, {login.title} login by {login.package}"
        return f"{how}, held back: {problem.rstrip('.')}" if problem else how
    if secret is None:
        return f"{origin} is empty" if origin else "no key, not needed" if endpoint.key_optional else f"no {endpoint.key_name}"
    if endpoint.key_optional and _is_no_key(secret):
        return f"key in {origin}"
    if problem := _problem(secret, endpoint):
        return f"{origin} {problem}"
    held = trust.refusal(endpoint, _project_file(endpoint, secret))
    return f"key in {origin}, held back: {held.rstrip('.')}" if held else f"key in {origin}"


def _region(endpoint: Endpoint) -> str:
    return aws_chain.region_of_arn(endpoint.route.model) or str(endpoint.options.get("region") or "")


def save_to_keyring(secret: Secret) -> bool:
    """Put a key into the system keyring under its name. False where no keyring works."""

    def put() -> bool:
        backend = _keyring()
        if backend is None:
            return False
        backend.set_password(SERVICE, secret.name, secret.reveal())
        return True

    return bool(_in_time(put))


def is_variable_name(text: str) -> bool:
    """Whether `text` can be the name of an environment variable, and is not a key put in its place."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and is_plain_name(text)


def looks_like_key(text: str) -> bool:
    """Whether a text holds what looks like a key: on a magic's line it would be saved with the notebook."""
    return KEY_SHAPES.search(text) is not None or BARE_KEY.fullmatch(text) is not None


# -- lookup ------------------------------------------------------------------------------------------------------------
def _find(name: str) -> tuple[Secret | None, str | None]:
    """The key and where it was found. (None, place): present there but empty; (None, None): nowhere."""
    typed = _typed.get(name)
    if typed is not None and typed[1] == os.environ.get(name):
        return typed[0], "this session"
    empty: str | None = None
    for place, look in ((name, os.environ.get), (f"{name} in .env", _from_dotenv), (f"{name} in the keyring", _from_keyring)):
        value = look(name)
        if value:
            return Secret(value, name), place
        if value is not None and empty is None:
            empty = place
    return None, empty


def _from_dotenv(name: str) -> str | None:
    return dotenv.values().get(name)


def _from_keyring(name: str) -> str | None:
    def get() -> str | None:
        backend = _keyring()
        return None if backend is None else backend.get_password(SERVICE, name)

    key = _in_time(get)
    return None if key is None else str(key)


def _keyring() -> Any:
    """This machine's keyring; None where there is none."""
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
    """`work()`, or None where the keyring raises or exceeds KEYRING_S; after a timeout it is not tried again."""
    if _keyring_hangs.is_set():
        return None
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception:  # noqa: BLE001 - a locked, refused or broken keyring holds no key; the missing key is reported
            results.append(None)

    thread = threading.Thread(target=run, name="holynb-keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_S)
    if not results:
        _keyring_hangs.set()
        return None
    return results[0]


# -- validation --------------------------------------------------------------------------------------------------------
def _problem(secret: Secret, endpoint: Endpoint) -> str | None:
    """What is wrong with a key, in words that do not show it; None for a plausible one. One's own server may have a key of any length."""
    text = secret.reveal()
    bare = text.strip().strip("'\"")
    if PLACEHOLDER.search(bare) or VARIABLE.fullmatch(bare):
        return "holds a placeholder, not a key"
    if not text:
        return "is empty"
    if any(c.isspace() for c in text):
        return "is malformed: it contains white space"
    if any(c in "'\"`‘’“”" for c in text):
        return "is malformed: it contains quotes"
    if not text.isascii() or not text.isprintable():
        return "is malformed: it contains characters that no key has"
    hosted = endpoint.key_page is not None and not trust.is_loopback(endpoint.base_url)
    return f"is malformed: shorter than {MIN_KEY_CHARS} characters" if hosted and len(text) < MIN_KEY_CHARS else None


def _is_no_key(secret: Secret) -> bool:
    return secret.reveal().upper() in NO_KEY_WORDS


def _missing(endpoint: Endpoint, empty: str | None) -> str:
    problem = f"{empty} is empty" if empty else f"{endpoint.route.provider} needs a key, but {endpoint.key_name} is not set"
    return f"{problem}. {_cure(endpoint)}"


def _cure(endpoint: Endpoint) -> str:
    page = f" Get one: {endpoint.key_page}" if endpoint.key_page else ""
    login = logins.LOGINS.get(endpoint.login or "")
    other = "" if login is None else f" Or log in with {login.title}: pip install {login.package}, then {login.cure}."
    return f"Set {endpoint.key_name} in the environment or a .env file, or run %infer key {endpoint.route.provider}.{page}{other}"
