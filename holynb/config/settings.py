"""The merged settings, and the endpoint of a route. Knows files and names of environment variables; reads no key, sends nothing.

Later layers win, field by field: HOLYNB_HOME/config.toml, `[tool.holynb]` of the nearest pyproject.toml, `override()` (the magic's
`%config`). A cell's own options are passed in by the caller.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from holynb.config import dotenv, keys, layers, models, suggest, trust
from holynb.config.home import config_file, home, is_own_config, own_home
from holynb.config.providers import CHAINS, RESPONSES, Provider, merged, table, variable_prefix
from holynb.errors import BadOption, BadRoute, BadSetting
from holynb.types import Endpoint, Route
from holynb.words import address, is_plain_name

__all__ = [
    "EMBEDDED",
    "Settings",
    "config_paths",
    "current",
    "endpoint",
    "home",
    "is_of_project",
    "is_own_address",
    "override",
    "own_home",
    "providers",
    "reset",
    "route",
    "shutdowns",
    "steered",
]

#: The default: a model that needs no key, no GPU, and no network after its first use.
EMBEDDED = "pool/smollm2-135m"

#: Address variables that do not follow <PROVIDER>_BASE_URL.
ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "azure": ("AZURE_OPENAI_ENDPOINT",),
    "bedrock": ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
    "sagemaker": ("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_ENDPOINT_URL"),
}

#: Where the version of Azure's older form is looked up, where no option sets it: as many projects name it, then as OpenAI's SDK does.
API_VERSIONS = ("AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION")

#: Path, mtime in ns and size of a file: what tells a changed one.
FileStamp = tuple[str, int, int]

_overrides: dict[str, Any] = {}
_version = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """All layers merged. `origins`: dotted key → the file that set it last."""

    default: str | None = None
    alias: Mapping[str, str] = field(default_factory=dict)
    provider: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    price: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    router: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pool: Mapping[str, Any] = field(default_factory=dict)
    trust: Mapping[str, Any] = field(default_factory=dict)
    update: Mapping[str, str] = field(default_factory=dict)
    ui: Mapping[str, str] = field(default_factory=dict)
    attach: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


# -- the merged settings -----------------------------------------------------------------------------------------------
def current() -> Settings:
    """The settings now: the same object until a file, the working directory or an override changes. Raises BadSetting."""
    return _merged(_file_stamps(), _version)


@lru_cache(maxsize=4)
def _merged(files: tuple[FileStamp, ...], version: int) -> Settings:  # noqa: ARG001 - key of the cache: it stands for the overrides
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer, origin in [*((layers.load(Path(path)), path) for path, _, _ in files), (_overrides, "%config")]:
        layers.check(layer, origin, owner=_owner(origin))
        layers.merge(merged, layer, origin, origins)
    return Settings(**merged, origins=origins)


def override(**values: Any) -> None:
    """Set values above both files: `default`, `alias`, `provider`, `price`, `router`; None removes one. Raises BadSetting."""
    global _version  # noqa: PLW0603 - counts the changes, so that settings merged before are not used again
    layers.check({k: v for k, v in values.items() if v is not None}, "%config")
    for name, value in values.items():
        _overrides[name] = value
        if value is None:
            del _overrides[name]
    _version += 1


def reset() -> None:
    """Forget every `override`. Where there is none, what was merged before is used again."""
    if _overrides:
        override(**dict.fromkeys(_overrides))


def config_paths() -> list[Path]:
    """The configuration files that exist, in the order they are merged: the last wins."""
    return [Path(path) for path, _, _ in _file_stamps()]


def _file_stamps() -> tuple[FileStamp, ...]:
    """Stamps of config.toml and of the nearest pyproject.toml from the working directory up, where they exist."""
    paths = [f for f in (_file(config_file()),) if f]
    try:
        folder = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # the working directory was removed
        return tuple(paths)
    while not (project := _file(os.path.join(folder, "pyproject.toml"))):  # noqa: PTH118
        if (parent := os.path.dirname(folder)) == folder:  # noqa: PTH120
            break
        folder = parent
    return (*paths, project) if project else tuple(paths)


def _file(path: str) -> FileStamp | None:
    try:
        info = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return (path, info.st_mtime_ns, info.st_size) if stat.S_ISREG(info.st_mode) else None


# -- routes ------------- ----------------------------------------------------------------------------------------------
def providers() -> dict[str, Provider]:
    """Every provider by name: those that ship with holynb, with the configured ones merged over them. Raises BadSetting."""
    settings = current()
    return merged(settings.provider, named=[settings.default or "", *settings.alias.values(), *settings.price])


def route(text: str | None = None) -> Route:
    """The route that a cell names: `provider/model`, an alias, or nothing (the default). Raises BadRoute."""
    settings = current()
    name = (text or "").strip() or settings.default or EMBEDDED
    visited: list[str] = []
    while name in settings.alias:
        if name in visited:
            raise BadRoute(f"The alias {visited[0]!r} leads back to itself: {' → '.join([*visited, name])}.")
        visited.append(name)
        name = str(settings.alias[name]).strip()
    available = providers()
    if keys.looks_like_key(name) or (re.fullmatch("[A-Za-z0-9_-]{16,}", name) and not is_plain_name(name)):
        raise BadRoute("The route looks like an API key. A route is provider/model, for example openai/gpt-6-luna.")
    if "/" not in name:
        if name in available:
            raise BadRoute(f"{name!r} is a provider, not a route; add a model: {name}/MODEL.")
        raise BadRoute(f"{name!r} is neither an alias nor a route (provider/model).{suggest.bare(name, available, settings.alias)}")
    parsed = Route.parse(name)
    if parsed.provider not in available:
        raise BadRoute(
            f"{suggest.no_provider(parsed.provider, available)} Known: {', '.join(sorted(available))}; "
            f"to add your own: {suggest.entry(parsed.provider)} in {home() / 'config.toml'}."
        )
    return parsed


def endpoint(route: Route, api_base: str | None = None, api_key_name: str | None = None) -> Endpoint:
    """The endpoint of `route`. `api_base` and `api_key_name` are the cell's. Raises BadRoute, BadOption, BadSetting."""
    available = providers()
    if (provider := available.get(route.provider)) is None:
        raise BadRoute(suggest.no_provider(route.provider, available))
    if api_key_name is not None and not keys.is_variable_name(api_key_name):
        raise BadOption("--api-key-name takes the name of the environment variable that holds the key, never the key itself.")
    base, file = _base(route, provider, api_base)
    return Endpoint(
        route,
        _wire(route, provider, base),
        base.rstrip("/"),
        api_key_name or provider.key or None,
        provider.page or None,
        provider.key_optional and api_key_name is None,
        {"max_tokens": provider.max_tokens, **_api_version(provider), **provider.options},
        file,
        _untrusted(provider, base, file, named_key=api_key_name is not None),
        provider.login or None if api_key_name is None else None,
    )


def _wire(route: Route, provider: Provider, base: str) -> str:
    """The wire of a route: its provider's, but Responses for a model that has no chat completions where the vendor itself is asked."""
    shipped = table().get(route.provider)
    if shipped is not None and provider.wire == "responses":
        return RESPONSES.get(shipped.wire, provider.wire)  # `wire = "responses"` of azure keeps its addresses and headers
    if provider.wire not in RESPONSES or (provider.wire == "openai" and (shipped is None or base.rstrip("/") != shipped.base)):
        return provider.wire
    # A deployment of Azure mostly has its model's name; a server that knows better says so, and is asked again.
    known = models.find("openai", route.model) if route.provider in ("openai", "azure") else None
    return RESPONSES[provider.wire] if known is not None and known.wire == "responses" else provider.wire


def _api_version(provider: Provider) -> dict[str, str]:
    """The version that the environment asks Azure for."""
    if provider.wire not in ("azure", "azure-responses"):
        return {}
    return next(({"api_version": value} for name in API_VERSIONS if (value := dotenv.read_variable(name)[0])), {})


def shutdowns(endpoint: Endpoint) -> list[str]:
    """When this endpoint's model ends, in a sentence; nothing where that is not known, or where the address is not its provider's own."""
    line = models.notice(endpoint.route)
    return [line] if line and is_own_address(endpoint) else []


def is_own_address(endpoint: Endpoint) -> bool:
    """Whether this is the address that holynb knows of a provider, and no gateway's in its place."""
    provider = table().get(endpoint.route.provider)
    return provider is not None and endpoint.base_url == provider.base


def steered(api_base: str | None = None) -> list[trust.Grant]:
    """What files of the project would do with the keys of providers, and are not trusted with. `api_base`: as if a cell named it."""
    grants = []
    for name in providers():
        try:
            at = endpoint(Route(name, "*"), api_base)
        except (BadRoute, BadOption):  # it has no address yet, or never one
            continue
        if at.untrusted_file is not None:
            grants.append(trust.Grant(name, trust.host(at.base_url), at.untrusted_file))
    return grants


def _untrusted(provider: Provider, base: str, file: str | None, *, named_key: bool) -> str | None:
    """The first file of the project that steers this provider's key and is not trusted with it. `file`: that of the address.

    What steers it: the address, the variable or the login that is read, and the wire that says how the key is sent.
    """
    steering = [] if provider.name in trust.ONLY_SAID else [file]
    # Another variable of the same provider, for the provider's own address, is no other key's way out.
    if not named_key and (file is not None or not provider.key.startswith(f"{variable_prefix(provider.name)}_")):
        steering.append(_project_origin(provider.name, "key"))
    steering += [_project_origin(provider.name, "wire"), _project_origin(provider.name, "login")]
    hosts, folder = current().trust.get("hosts", ()), own_home()
    grants = (trust.Grant(provider.name, trust.host(base), f) for f in dict.fromkeys(steering) if f is not None)
    return next((g.file for g in grants if not trust.is_granted(folder, g, hosts)), None)


def is_of_project(name: str) -> bool:
    """Whether a file of the project set this last: `price.openai/gpt-6-luna`."""
    origin = current().origins.get(name)
    return origin is not None and _owner(origin) == "project"


def _project_origin(provider: str, field: str) -> str | None:
    """The project's file that sets this field of a provider; None where the user or holynb does."""
    name = f"provider.{provider}.{field}"
    return current().origins[name] if is_of_project(name) else None


def _owner(origin: str) -> layers.Owner:
    return "session" if origin == "%config" else "user" if is_own_config(origin) else "project"


def _base(route: Route, provider: Provider, api_base: str | None) -> tuple[str, str | None]:
    """The address, and the file of the project that names it."""
    name = route.provider
    if provider.wire in ("pool", "sim"):
        if api_base is not None:
            raise BadOption(
                f"{name} has no address. To reach a server of your own: vllm/{route.model} --api-base {address(api_base) or 'URL'}"
            )
        return "", None
    if api_base is not None:
        if problem := layers.address_problem(api_base):
            raise BadOption(f"--api-base {problem}.")
        return api_base.strip(), None
    variables = (f"{variable_prefix(name)}_BASE_URL", *ADDRESSES.get(name, ()))
    overridden = _overrides.get("provider", {}).get(name, {}).get("base")
    if overridden is None:
        unheeded = os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
        for variable in (v for v in variables if not (unheeded and v.startswith("AWS_"))):
            value, file = dotenv.read_variable(variable)
            if value is not None:
                if problem := layers.address_problem(value):
                    raise BadSetting(f"{variable} {problem}.")
                return value, file
    base = overridden or provider.base
    if not base and provider.wire not in CHAINS:  # their addresses follow from a region
        raise BadRoute(
            f"{name} has no address. Set {variables[-1]}, [provider.{name}] base in {home() / 'config.toml'}, or --api-base URL."
        )
    return str(base).strip(), _project_origin(name, "base")
