"""What is configured, and where a route leads. Knows files and names of environment variables; reads no key, sends nothing.

Later layers win, field by field: HOLYNB_HOME/config.toml, `[tool.holynb]` of the nearest pyproject.toml, `override()` (the magic's
`%config`). What a cell says is passed in by the caller.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from holynb.config import keys, suggest
from holynb.errors import BadOption, BadRoute, BadSetting, closest
from holynb.types import Endpoint, Route

if TYPE_CHECKING:
    from holynb.config.providers import Provider

__all__ = ["EMBEDDED", "Settings", "config_paths", "current", "endpoint", "home", "override", "providers", "reset", "route"]

#: The model that needs no key, no GPU and no network after its first use.
EMBEDDED = "pool/smollm2-135m"

NAMES = ("default", "alias", "provider", "price", "router")

#: Address variables that do not follow <PROVIDER>_BASE_URL.
ADDRESSES: Mapping[str, tuple[str, ...]] = {"azure": ("AZURE_OPENAI_ENDPOINT",)}

_overrides: dict[str, Any] = {}
_turn = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """All layers merged. `origins` maps a dotted key to the file that said it last (for messages)."""

    default: str | None = None
    alias: Mapping[str, str] = field(default_factory=dict)
    provider: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    price: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    router: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


# -- layers ------------------------------------------------------------------------------------------------------------
def home() -> Path:
    """The folder of everything holynb keeps: HOLYNB_HOME, else the platform's user data directory. Made 0700. Raises BadSetting."""
    folder = Path(_home())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise BadSetting(f"{folder} cannot be used to keep runs and settings: {exc.strerror}. Set HOLYNB_HOME to another folder.") from exc
    return folder


def _home() -> str:
    if named := os.environ.get("HOLYNB_HOME"):
        return os.path.expanduser(named)  # noqa: PTH111 - asked for with every price: ten times as quick as a Path
    import platformdirs

    return platformdirs.user_data_dir("holynb", appauthor=False)


def current() -> Settings:
    """The settings as they stand now: the same object until a file, the working directory or an override changes. Raises BadSetting."""
    return _merged(_found(), _turn)


@lru_cache(maxsize=4)
def _merged(files: tuple[tuple[str, int, int], ...], turn: int) -> Settings:  # noqa: ARG001 - it makes changed overrides other ones
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer, origin in [*((_layer(Path(path)), path) for path, _, _ in files), (_overrides, "%config")]:
        _check(layer, origin)
        _merge(merged, layer, origin, origins)
    return Settings(**merged, origins=origins)


def override(**values: Any) -> None:
    """Set values above both files: `default`, `alias`, `provider`, `price`, `router`. None takes one away again. Raises BadSetting."""
    global _turn  # noqa: PLW0603 - counts the changes, so that what was merged before is not used again
    _check({k: v for k, v in values.items() if v is not None}, "%config")
    for name, value in values.items():
        _overrides[name] = value
        if value is None:
            del _overrides[name]
    _turn += 1


def reset() -> None:
    """Forget every `override`."""
    override(**dict.fromkeys(_overrides))


def config_paths() -> list[Path]:
    """The files that are read, those that exist, weakest first."""
    return [Path(path) for path, _, _ in _found()]


def _found() -> tuple[tuple[str, int, int], ...]:
    """config.toml and the nearest pyproject.toml from the working directory up, where they exist, with what tells a changed one."""
    found = [f for f in (_file(os.path.join(_home(), "config.toml")),) if f]  # noqa: PTH118
    try:
        folder = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # the working directory was removed
        return tuple(found)
    project = None
    while not (project := _file(os.path.join(folder, "pyproject.toml"))) and (above := os.path.dirname(folder)) != folder:  # noqa: PTH118, PTH120
        folder = above
    return (*found, project) if project else tuple(found)


def _file(path: str) -> tuple[str, int, int] | None:
    try:
        said = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return (path, said.st_mtime_ns, said.st_size) if stat.S_ISREG(said.st_mode) else None


def _layer(path: Path) -> Mapping[str, Any]:
    """What one file says of us."""
    try:
        whole = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise BadSetting(f"{path} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise BadSetting(f"{path} is not valid TOML: {'it is not UTF-8 text' if isinstance(exc, UnicodeError) else exc}.") from exc
    layer = whole if path.name == "config.toml" else _table(whole, "tool", path).get("holynb", {})
    if not isinstance(layer, Mapping):
        raise BadSetting(f"{path}: tool.holynb should be a table.")
    return layer


def _table(whole: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    value = whole.get(name, {})
    if not isinstance(value, Mapping):
        raise BadSetting(f"{path}: {name} should be a table.")
    return value


def _merge(merged: dict[str, Any], layer: Mapping[str, Any], origin: str, origins: dict[str, str]) -> None:
    for name, value in layer.items():
        if not isinstance(value, Mapping):
            merged[name] = value
            origins[name] = origin
            continue
        table = merged.setdefault(name, {})
        for key, inner in value.items():
            # A router's rules are ordered, so half of one and half of another would be neither.
            table[key] = {**table.get(key, {}), **inner} if name in ("provider", "price") else inner
            origins[f"{name}.{key}"] = origin


# -- checking ----------------------------------------------------------------------------------------------------------
def _check(layer: Mapping[str, Any], origin: str) -> None:
    for name, value in layer.items():
        if name not in NAMES:
            raise BadSetting(f"{origin}: there is no setting {name!r}.{closest(name, NAMES)} Known: {', '.join(NAMES)}.")
        if name == "default":
            _want(value, str, origin, name, 'a route such as "openai/gpt-4.1"')
            continue
        _want(value, Mapping, origin, name, f"a table: [{name}]" if name == "alias" else f"a table of tables: [{name}.NAME]")
        for key, inner in value.items():
            if name == "alias":
                _want(inner, str, origin, f"alias.{key}", 'a route such as "openai/gpt-4.1"')
            else:
                _want(inner, Mapping, origin, f"{name}.{key}", f'a table: [{name}."{key}"]')
            if name == "provider":
                _check_provider(key, inner, origin)


def _want(value: Any, kind: type, origin: str, key: str, what: str) -> None:
    if not isinstance(value, kind) or not str(value).strip():
        raise BadSetting(f"{origin}: {key} should be {what}, not {value!r}.")


#: What a provider's table says; an engine may know more, under `options`.
FIELDS: Mapping[str, tuple[type, str]] = {
    "base": (str, "text"),
    "key": (str, "text"),
    "wire": (str, "text"),
    "page": (str, "text"),
    "max_tokens": (str, "the name of a field"),
    "key_optional": (bool, "true or false"),
    "models": (Mapping, "a table"),
    "options": (Mapping, "a table"),
}


def _check_provider(name: str, said: Mapping[str, Any], origin: str) -> None:
    at = f"{origin}: provider.{name}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise BadSetting(f"{at}: a provider's name is letters, digits, dots and dashes.")
    for key, value in said.items():
        if key not in FIELDS:
            raise BadSetting(f"{at} has no {key!r}.{closest(key, FIELDS)} It takes {', '.join(FIELDS)}.")
        _want(value, FIELDS[key][0], origin, f"provider.{name}.{key}", FIELDS[key][1])
    for model, length in said.get("models", {}).items():
        _want(length, int, origin, f"provider.{name}.models.{model}", "a context length in tokens, or 0 where it is not known")
    if "base" in said and (wrong := _wrong_address(said["base"])):
        raise BadSetting(f"{at}.base {wrong}.")
    if "key" in said and not keys.is_variable_name(said["key"]):
        raise BadSetting(f"{at}.key should be the name of an environment variable such as {_variable(name)}_API_KEY, never a key.")


def _wrong_address(text: str) -> str | None:
    """What is wrong with a base URL, None where nothing is. A password in it is not repeated."""
    try:
        parts = urlsplit(text.strip())
        if parts.username or parts.password:
            return "holds a user or a password, which belong into the key's variable"
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0 and " " not in text.strip()
    except ValueError:
        good = False
    return None if good else f"should be an address such as https://api.example.com/v1, not {text!r}"


# -- where a route leads -----------------------------------------------------------------------------------------------
def providers() -> dict[str, Provider]:
    """Every provider by name: those that ship with holynb with the configured ones laid over them. Raises BadSetting."""
    from holynb.config.providers import merged, table

    own = {}
    for name, said in current().provider.items():
        # Who names a variable for the key of a server of their own means that it is needed.
        needed = {"key_optional": False} if "key" in said and name not in table() else {}
        own[name] = {**needed, **said}
    return merged(own)


def route(text: str | None = None) -> Route:
    """The route that a cell's words mean: `provider/model`, an alias, or nothing (the default). Raises BadRoute."""
    now = current()
    said = (text or "").strip() or now.default or EMBEDDED
    seen: list[str] = []
    while said in now.alias:
        if said in seen:
            raise BadRoute(f"The alias {seen[0]!r} leads back to itself: {' → '.join([*seen, said])}.")
        seen.append(said)
        said = str(now.alias[said]).strip()
    known = providers()
    if "/" not in said:
        if said in known:
            raise BadRoute(f"{said!r} is a provider; a route names its model too: {said}/MODEL.")
        raise BadRoute(f"{said!r} is neither an alias nor a route (provider/model).{suggest.bare(said, known, now.alias)}")
    found = Route.parse(said)
    if found.provider not in known:
        raise BadRoute(
            f"There is no provider {found.provider!r}.{closest(found.provider, known)} Known: {', '.join(sorted(known))}; "
            f'your own: [provider.{found.provider}] base = "https://…/v1" in {home() / "config.toml"}.'
        )
    return found


def endpoint(route: Route, api_base: str | None = None, api_key_name: str | None = None) -> Endpoint:
    """Where the requests of `route` go. `api_base` and `api_key_name` are the cell's. Raises BadRoute, BadOption, BadSetting."""
    known = providers()
    if (said := known.get(route.provider)) is None:
        raise BadRoute(f"There is no provider {route.provider!r}.{closest(route.provider, known)}")
    if api_key_name is not None and not keys.is_variable_name(api_key_name):
        raise BadOption("--api-key-name takes the name of the environment variable that holds the key, never the key itself.")
    base = _base(route, said, api_base)
    return Endpoint(
        route,
        said.wire,
        base.rstrip("/"),
        api_key_name or said.key or None,
        said.page or None,
        said.key_optional and api_key_name is None,
        {"max_tokens": said.max_tokens, **said.options},
    )


def _base(route: Route, said: Provider, api_base: str | None) -> str:
    name = route.provider
    if said.wire in ("pool", "sim"):
        if api_base is not None:
            raise BadOption(f"{name} has no address. To reach a server of your own: vllm/{route.model} --api-base {api_base}")
        return ""
    if api_base is not None:
        if wrong := _wrong_address(api_base):
            raise BadOption(f"--api-base {wrong}.")
        return api_base.strip()
    variables = (f"{_variable(name)}_BASE_URL", *ADDRESSES.get(name, ()))
    typed = _overrides.get("provider", {}).get(name, {}).get("base")
    if typed is None:
        for variable in variables:
            if value := keys.read_variable(variable):
                if wrong := _wrong_address(value):
                    raise BadSetting(f"{variable} {wrong}.")
                return value
    base = typed or said.base
    if not base and said.wire != "sagemaker":
        raise BadRoute(
            f"{name} has no address. Set {variables[-1]}, [provider.{name}] base in {home() / 'config.toml'}, or --api-base URL."
        )
    return str(base).strip()


def _variable(name: str) -> str:
    """A provider's name as environment variables spell it."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())
