"""`%infer models`: the routes listed by name, their prices, when they end, and whether their keys are set.

Sends requests only to a provider that is named and whose key is there, or to the address given with `--api-base`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holynb import loop, units
from holynb.config import keys, models, settings, suggest
from holynb.config.providers import CHAINS, OPENAI_WIRES
from holynb.engines import servers
from holynb.errors import BadKey, BadOption, BadRoute, BadSetting, Fault, closest
from holynb.types import Route
from holynb.ui.cell import grammar
from holynb.ui.commands import model_lines, updates
from holynb.ui.output import listing
from holynb.ui.output.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holynb.types import Endpoint, Secret
    from holynb.ui.output.listing import Part

__all__ = ["GAP", "command", "endpoint", "parts", "text"]

#: Wire → the address shown where the provider has none of its own.
WIRE_ADDRESSES = {
    "pool": "on this machine",
    "sim": "on this machine",
    "azure": "your resource, in AZURE_OPENAI_ENDPOINT",
    "vertex": "your project of Google Cloud",
    "sagemaker": "endpoints of your AWS account",
    "bedrock": "your region of AWS",
}

#: Timeout of the requests for a server's models and load.
QUERY_TIMEOUT_S = 5.0

#: Between the tables and the lines.
GAP = "\n\n"

#: The provider taken where only an address or a key's variable is given.
DEFAULT_PROVIDER = "vllm"

#: So many of a server's models are listed: a gateway has hundreds.
MAX_LISTED = 150


def command(word: str, args: Sequence[str]) -> list[Part]:
    """What `%infer models …` and `%infer prices …` say. Raises UserError."""
    if word == "prices":
        return updates.answer("prices", args)
    if args[:1] == ["update"]:
        return updates.answer("models", args)
    values, positional = grammar.parse_options(args)
    for name in values.keys() - {"api_base", "api_key_name"}:
        raise BadOption(f"%infer models does not take {grammar.flag(name)}. It takes --api-base, --api-key-name, and update.")
    if len(positional) > 1:
        raise BadOption(f"%infer models takes one provider; unexpected argument {positional[1]!r}.")
    if positional and positional[0] not in settings.providers() and (hint := closest(positional[0], ["update"])):
        raise BadOption(f"%infer models takes a provider or update, not {positional[0]!r}.{hint}")
    return parts(positional[0] if positional else None, **values)


def endpoint(provider: str, api_base: str | None = None, api_key_name: str | None = None) -> Endpoint:
    """The endpoint of a provider, whatever the model. Raises BadRoute, BadOption."""
    providers = settings.providers()
    if provider not in providers:
        raise BadRoute(f"{suggest.no_provider(provider, providers)} Known: {', '.join(sorted(providers))}.")
    return settings.endpoint(Route(provider, "*"), api_base, api_key_name)


def text(provider: str | None = None, api_base: str | None = None, api_key_name: str | None = None) -> str:
    """The same as text. Raises UserError."""
    return listing.as_text(parts(provider, api_base, api_key_name), gap=GAP)


def parts(provider: str | None = None, api_base: str | None = None, api_key_name: str | None = None) -> list[Part]:
    """A table of routes and a table of providers; of one provider if it is named, with all that is known of its models.

    A named provider is asked what it serves, where its key is there; a self-hosted one for its load too. `api_base`: address of an
    OpenAI-compatible server, whose models are listed. `api_key_name`: the variable of its key. Raises UserError.
    """
    providers = settings.providers()
    lines, named = list[str](), None
    if provider is not None or api_base is not None or api_key_name is not None:
        provider = provider or DEFAULT_PROVIDER
        named = endpoint(provider, api_base, api_key_name)
        providers = {provider: providers[provider]}
        if api_base is not None and named.wire not in OPENAI_WIRES:
            raise BadOption(f"{provider} has no list of models. To ask an OpenAI-compatible server: %infer models --api-base {api_base}")
        if named.wire in OPENAI_WIRES:
            listed, lines = _query_server(named, needed=api_base is not None or servers.is_self_hosted(named))
            # Another address than the provider's does not serve the models configured for it.
            served = listed if api_base is not None else {**providers[provider].models, **listed}
            providers[provider] = replace(providers[provider], models=served)
        if api_base is None:
            known = dict.fromkeys(models.names(provider))
            providers[provider] = replace(providers[provider], models={**providers[provider].models, **known, **providers[provider].models})
    routes = [(Route(name, model), context) for name, entry in providers.items() for model, context in entry.models.items()]
    addresses = [
        [name, _address(name, named) or WIRE_ADDRESSES.get(entry.wire, "in config.toml"), _key(name, named)]
        for name, entry in providers.items()
    ]
    return [
        *(model_lines.parts(routes, whole=named is not None) if routes else ()),
        Listing(["provider", "address", "key"], addresses, prose={2}),
        *lines,
        *(keys.notices(named) if named is not None else ()),
        f"To ask one of them: %%infer {routes[0][0]} --api-base {api_base}" if api_base is not None and routes else "",
        f"Aliases: {', '.join(f'{a} = {r}' for a, r in settings.current().alias.items()) or 'none'}. Without a route: {settings.route()}.",
        "Any other model of a provider is PROVIDER/MODEL; %infer key PROVIDER asks for a key; %infer models PROVIDER says all that is known.",
    ]


def _query_server(server: Endpoint, *, needed: bool) -> tuple[dict[str, int | None], list[str]]:
    """The models that a server lists → context length in tokens, and lines on its load or why nothing is listed.

    `needed`: a person asked for this server's list; else nothing is said of a key that is missing.
    """
    try:
        secret = keys.resolve(server)
    except (BadKey, BadSetting) as exc:
        return {}, [f"Models cannot be listed: {exc}"] if needed else []
    future = loop.submit(_models_and_load(server, secret))
    try:
        listed, load = future.result(QUERY_TIMEOUT_S)
    except Fault as fault:
        return {}, [f"Models cannot be listed: {fault.message}"]
    except TimeoutError:
        future.cancel()
        return {}, [f"Models cannot be listed: {server.base_url} did not answer within {QUERY_TIMEOUT_S:g} s."]
    if settings.is_own_address(server):
        models.announce(server.route.provider, {m.id: m.end for m in listed if m.says_end}, f"{server.base_url}/models")
    shown = {m.id: m.context for m in listed[:MAX_LISTED]}
    more = [f"… and {len(listed) - MAX_LISTED:,} more that it serves."] if len(listed) > MAX_LISTED else []
    return shown, [*more, *_aliases(server.route.provider, listed), _load_line(load)]


def _aliases(provider: str, listed: Sequence[servers.ServedModel]) -> list[str]:
    """A line for each model that the server has under several names: to compare them is to compare it with itself."""
    by_root: dict[str, list[str]] = {}
    for model in listed:
        if model.root is not None:
            by_root.setdefault(model.root, []).append(f"{provider}/{model.id}")
    return [f"{' and '.join(names)} are one model under several names." for names in by_root.values() if len(names) > 1]


async def _models_and_load(server: Endpoint, secret: Secret | None) -> tuple[list[servers.ServedModel], servers.ServerLoad | None]:
    listed = await servers.models(server, secret)
    if not servers.is_self_hosted(server):
        return listed, None
    try:
        return listed, await servers.load(server, secret)
    except Fault:  # it has just listed its models: a server without metrics is not at fault
        return listed, None


def _load_line(load: servers.ServerLoad | None) -> str:
    if load is None:
        return ""
    figures = [(load.running, "running"), (load.waiting, "waiting")]
    words = [f"{n:,} {word}" for n, word in figures if n is not None]
    words += [f"{load.kv:.0%} of its KV cache in use"] if load.kv is not None else []
    words += [f"{units.memory(load.memory)} of memory"] if load.memory is not None else []
    return f"Now: {', '.join(words)}."


def _address(provider: str, named: Endpoint | None) -> str:
    """Where requests go; the configured base if the address is not complete yet."""
    try:
        return (named or endpoint(provider)).base_url
    except BadRoute:
        return settings.providers()[provider].base


def _key(provider: str, named: Endpoint | None) -> str:
    entry = settings.providers()[provider]
    if entry.wire in CHAINS and not (entry.key and keys.is_set(entry.key)):
        return f"{CHAINS[entry.wire]} credentials"  # found when a request is signed
    try:
        return keys.describe_source(named or endpoint(provider))
    except BadRoute:  # that is said in the provider's line, not in place of the list; its address' column says where one is set
        return "no address yet"
