"""One layer of the settings: reading it from a file, checking it, merging it over those below. Knows no providers' table and no route."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from holynb.config import keys
from holynb.config.logins import LOGINS
from holynb.config.providers import PROVIDER_NAME, table, variable_prefix
from holynb.errors import BadSetting, closest
from holynb.words import kind_of

__all__ = ["address_problem", "check", "load", "merge"]

#: Whose a layer is: the user's config.toml, a file of the project, or what was set in this session.
Owner = Literal["user", "project", "session"]

#: A name or an IPv4 address; an IPv6 address in brackets.
_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])"

NAMES = ("default", "alias", "provider", "price", "router")
#: What only the user's own config.toml may say, table → its fields: a project's file that said it would give itself rights.
OWN_FIELDS: Mapping[str, tuple[str, ...]] = {
    "pool": ("env",),
    "trust": ("hosts",),
    "attach": ("hosts",),
    "update": ("prices", "models"),
    "ui": ("language",),
}

#: What `[ui] language` may be.
LANGUAGES = ("en", "ko")

#: Fields of a `[provider.NAME]` table: their type and its name in messages. What only one engine understands stands under `options`.
PROVIDER_FIELDS: Mapping[str, tuple[type, str]] = {
    "base": (str, "text"),
    "key": (str, "text"),
    "wire": (str, "text"),
    "page": (str, "text"),
    "max_tokens": (str, "the name of a field"),
    "key_optional": (bool, "true or false"),
    "login": (str, "the name of a login"),
    "models": (Mapping, "a table"),
    "options": (Mapping, "a table"),
}


def load(path: Path) -> Mapping[str, Any]:
    """The layer that a file holds, not checked. Raises BadSetting where it cannot be read."""
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise BadSetting(f"{path} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise BadSetting(f"{path} is not valid TOML: {'it is not UTF-8 text' if isinstance(exc, UnicodeError) else exc}.") from exc
    layer = document if path.name == "config.toml" else _subtable(document, "tool", path).get("holynb", {})
    if not isinstance(layer, Mapping):
        raise BadSetting(f"{path}: tool.holynb should be a table.")
    return layer


def _subtable(document: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, Mapping):
        raise BadSetting(f"{path}: {name} should be a table.")
    return value


def merge(merged: dict[str, Any], layer: Mapping[str, Any], origin: str, origins: dict[str, str]) -> None:
    """Merge `layer` into `merged`, field by field, and set `origins` (dotted key → origin) for what it sets."""
    for name, value in layer.items():
        if not isinstance(value, Mapping):
            merged[name] = value
            origins[name] = origin
            continue
        entries = merged.setdefault(name, {})
        for key, inner in value.items():
            # A router's rules are ordered, so half of one and half of another would be neither.
            entries[key] = {**entries.get(key, {}), **inner} if name in ("provider", "price") else inner
            origins[f"{name}.{key}"] = origin
            if name == "provider":
                origins.update({f"provider.{key}.{field}": origin for field in inner})


def check(layer: Mapping[str, Any], origin: str, *, owner: Owner = "session") -> None:
    """Raises BadSetting for an unknown name, a value of another type, a malformed address, a key, or what is not this owner's to say."""
    for name, value in layer.items():
        if name in OWN_FIELDS:
            if owner != "user":
                raise BadSetting(f"{origin}: [{name}] is read only from your own config.toml, in HOLYNB_HOME. Move it there.")
            _check_own(name, value, origin)
            continue
        if name not in NAMES:
            known = (*NAMES, *OWN_FIELDS) if owner == "user" else NAMES
            raise BadSetting(f"{origin}: there is no setting {name!r}.{closest(name, known)} Known: {', '.join(known)}.")
        if name == "default":
            _require(value, str, origin, name, 'a route such as "openai/gpt-6-luna"')
            continue
        _require(value, Mapping, origin, name, f"a table: [{name}]" if name == "alias" else f"a table of tables: [{name}.NAME]")
        for key, inner in value.items():
            if name == "alias":
                _require(inner, str, origin, f"alias.{key}", 'a route such as "openai/gpt-6-luna"')
            else:
                _require(inner, Mapping, origin, f"{name}.{key}", f'a table: [{name}."{key}"]')
            if name == "provider":
                _check_provider(key, inner, origin)
    if owner == "project":
        _check_project(layer, origin)


def _check_own(name: str, fields: Any, origin: str) -> None:
    """A table of OWN_FIELDS."""
    _require(fields, Mapping, origin, name, f"a table: [{name}]")
    for field, value in fields.items():
        if field not in OWN_FIELDS[name]:
            raise BadSetting(f"{origin}: [{name}] has no {field!r}. It takes {', '.join(OWN_FIELDS[name])}.")
        if name == "ui":
            if value not in LANGUAGES:
                raise BadSetting(f'{origin}: {name}.{field} should be "en" or "ko", not {kind_of(value)}.')
            continue
        if name == "update":
            _require(value, str, origin, f"{name}.{field}", "the address or the file of a table")
            if "://" in value and (problem := address_problem(value)):
                raise BadSetting(f"{origin}: {name}.{field} {problem}.")
            continue
        words = value if isinstance(value, list) and all(isinstance(word, str) for word in value) else [""]
        if field == "env" and not all(keys.is_variable_name(word) for word in words):
            expected = 'names of environment variables, such as ["MY_SETTING"], never their values'
            raise BadSetting(f"{origin}: {name}.{field} should be a list of {expected}.")
        if field == "hosts" and not all(re.fullmatch(rf"{_HOST}(:\d{{1,5}})?", word) for word in words):
            raise BadSetting(f'{origin}: {name}.{field} should be a list of hosts, such as ["llm.example.com", "gpu.example.com:8443"].')


def _check_project(layer: Mapping[str, Any], origin: str) -> None:
    """What a project's file may not say: where a route that holynb knows leads instead, and where a person gets a key for it."""
    for name in layer.get("alias", {}):
        if name.partition("/")[0] in table() and "/" in name:
            raise BadSetting(
                f"{origin}: alias.{name} would send a route of {name.partition('/')[0]} elsewhere. Give the alias another name."
            )
    for name, entry in layer.get("provider", {}).items():
        if "page" in entry and name in table():
            raise BadSetting(
                f"{origin}: the page where you get a key of {name} cannot be set by a project. Leave out provider.{name}.page."
            )


def _require(value: Any, kind: type, origin: str, key: str, expected: str) -> None:
    if not isinstance(value, kind) or not str(value).strip():
        raise BadSetting(f"{origin}: {key} should be {expected}, not {kind_of(value)}.")


def _check_provider(name: str, entry: Mapping[str, Any], origin: str) -> None:
    if not PROVIDER_NAME.fullmatch(name):
        raise BadSetting(f"{origin}: {name[:80]!r} cannot be a provider's name, which is letters, digits, dots and dashes.")
    at = f"{origin}: provider.{name}"
    for key, value in entry.items():
        if key not in PROVIDER_FIELDS:
            raise BadSetting(f"{at} has no {key!r}.{closest(key, PROVIDER_FIELDS)} It takes {', '.join(PROVIDER_FIELDS)}.")
        _require(value, PROVIDER_FIELDS[key][0], origin, f"provider.{name}.{key}", PROVIDER_FIELDS[key][1])
    for model, length in entry.get("models", {}).items():
        _require(length, int, origin, f"provider.{name}.models.{model}", "a context length in tokens, or 0 where it is not known")
    if "base" in entry and (problem := address_problem(entry["base"])):
        raise BadSetting(f"{at}.base {problem}.")
    if not re.fullmatch(r"[a-z0-9-]*", str(entry.get("options", {}).get("region", ""))):
        raise BadSetting(f"{at}.options.region should be the name of a region such as eu-west-1: it becomes part of an address.")
    if (login := entry.get("login", "")) and login not in LOGINS:
        raise BadSetting(f"{at}.login: there is no {login!r}. It is one of {', '.join(LOGINS)}, or left out.")
    if (scope := entry.get("options", {}).get("scope")) is not None and not _is_scope(scope):
        raise BadSetting(f"{at}.options.scope should be one of Azure's, such as https://cognitiveservices.azure.us/.default")
    if "key" in entry and not keys.is_variable_name(entry["key"]):
        raise BadSetting(f"{at}.key should be the name of an environment variable such as {variable_prefix(name)}_API_KEY, never a key.")


def _is_scope(scope: Any) -> bool:
    """Whether a token of this scope opens AI services alone."""
    return isinstance(scope, str) and re.fullmatch(r"https://(ai|cognitiveservices)\.azure\.(com|us|cn)/\.default", scope) is not None


def address_problem(text: str) -> str | None:
    """What is wrong with a base URL; None for a valid one. Nothing of it is repeated: it may hold a key, or be one."""
    example = "should be an address such as https://api.example.com/v1"
    try:
        parts = urlsplit(text.strip())
        if parts.username or parts.password:
            return "holds a user or a password, which belong in the key's variable"
        if parts.scheme not in ("http", "https"):
            return f"{example}, starting with http:// or https://"
        if parts.query or parts.fragment:
            return f"{example}, without {'?' if parts.query else '#'} and what follows: a key belongs in the key's variable"
        # An allow-list: what one parser takes for a path may be another one's host.
        whole = re.fullmatch(rf"https?://{_HOST}(:\d{{1,5}})?(/[^\s\\?#@<>\"]*)?", text.strip(), re.IGNORECASE)
        valid = whole and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    return None if valid else example
