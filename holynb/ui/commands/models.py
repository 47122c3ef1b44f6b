"""`%infer models`: the routes known by name, what they cost, and whether their key is there. Asks no server but one's own, when it is named, and
the one at an address that is given.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holynb import loop
from holynb.config import keys, settings
from holynb.engines import servers
from holynb.errors import BadKey, BadOption, BadRoute, Fault, closest
from holynb.pricing import prices
from holynb.types import Route
from holynb.ui.output import grid

if TYPE_CHECKING:
    from decimal import Decimal

    from holynb.types import Endpoint, Secret

__all__ = ["endpoint", "text"]

#: Where a wire without an address of its own goes.
HERE = {
    "pool": "on this machine",
    "sim": "on this machine",
    "azure": "your resource, in AZURE_OPENAI_ENDPOINT",
    "sagemaker": "endpoints of your AWS account",
}

#: Seconds that a server may take to say what it serves.
ASK_S = 5.0


#: Whose wire is taken where an address is given and nothing else.
ANY = "vllm"


def endpoint(provider: str, api_base: str | None = None, api_key_name: str | None = None) -> Endpoint:
    """Where a provider is asked, whatever the model. Raises BadRoute, BadOption."""
    known = settings.providers()
    if provider not in known:
        raise BadRoute(f"There is no provider {provider!r}.{closest(provider, known)} Known: {', '.join(sorted(known))}.")
    return settings.endpoint(Route(provider, "*"), api_base, api_key_name)


def text(provider: str | None = None, api_base: str | None = None, api_key_name: str | None = None) -> str:
    """A table of routes and a table of providers; of one provider where it is named, with what a server of one's own says of itself.

    `api_base` is an OpenAI-compatible server's address, which is asked what it serves; `api_key_name` the variable with its key.
    """
    known = settings.providers()
    told, asked = "", None
    if provider is not None or api_base is not None or api_key_name is not None:
        provider = provider or ANY
        asked = endpoint(provider, api_base, api_key_name)
        known = {provider: known[provider]}
        if api_base is not None and asked.wire != "openai":
            raise BadOption(
                f"{provider} has no list of models to ask for. An OpenAI-compatible server has: %infer models --api-base {api_base}"
            )
        if api_base is not None or servers.is_self_hosted(asked):
            listed, told = _served(asked)
            # At another address than the provider's, its own models are not there to be had.
            known[provider] = replace(known[provider], models=listed if api_base is not None else {**known[provider].models, **listed})
    routes = []
    for name, said in known.items():
        for model, length in said.models.items():
            price = prices.list_price(Route(name, model))
            figures = [_dollars(price.input), _dollars(price.output)] if price else ["?", "?"]
            routes.append([f"{name}/{model}", f"{length:,}" if length else "?", *figures])
    where = [[name, _address(name, asked) or HERE.get(said.wire, "in config.toml"), _key(name, asked)] for name, said in known.items()]
    parts = [
        grid(["route", "context", "$/M in", "$/M out"], routes) if routes else "",
        grid(["provider", "address", "key"], where, {1: 60, 2: 60}),
        told,
        f"To ask one of them: %%infer {routes[0][0]} --api-base {api_base}" if api_base is not None and routes else "",
        f"Aliases: {', '.join(f'{a} = {r}' for a, r in settings.current().alias.items()) or 'none'}. Without a route: {settings.route()}.",
        "Any other model of a provider is PROVIDER/MODEL; %infer key PROVIDER asks for a key.",
    ]
    return "\n\n".join(p for p in parts if p)


def _served(found: Endpoint) -> tuple[dict[str, int], str]:
    """The models that a server lists with their context lengths (0: it does not say), and a line on how it is."""
    try:
        secret = keys.resolve(found)
    except BadKey as exc:
        return {}, str(exc)
    asked = loop.submit(_ask(found, secret))
    try:
        listed, busy = asked.result(ASK_S)
    except Fault as fault:
        return {}, f"Nothing is listed: {fault.message}"
    except TimeoutError:
        asked.cancel()
        return {}, f"Nothing is listed: {found.base_url} did not answer within {ASK_S:g} s."
    return {m.id: m.context or 0 for m in listed}, _now(busy)


async def _ask(found: Endpoint, secret: Secret | None) -> tuple[list[servers.ServedModel], servers.ServerLoad | None]:
    listed = await servers.models(found, secret)
    try:
        return listed, await servers.load(found, secret)
    except Fault:  # it has just listed its models; that it has nothing else to say is no fault
        return listed, None


def _now(busy: servers.ServerLoad | None) -> str:
    if busy is None:
        return ""
    figures = [(busy.running, "running"), (busy.waiting, "waiting")]
    words = [f"{n:,} {word}" for n, word in figures if n is not None]
    words += [f"{busy.kv:.0%} of its KV cache in use"] if busy.kv is not None else []
    words += [f"{busy.memory / 2**30:.1f} GiB of memory"] if busy.memory is not None else []
    return f"Now: {', '.join(words)}."


def _address(provider: str, asked: Endpoint | None) -> str:
    """Where requests go; what is configured where that is not settled yet."""
    try:
        return (asked or endpoint(provider)).base_url
    except BadRoute:
        return settings.providers()[provider].base


def _key(provider: str, asked: Endpoint | None) -> str:
    if settings.providers()[provider].wire == "sagemaker":
        return "AWS credentials"  # found when a request is signed, by the provider's own chain
    try:
        return keys.describe_source(asked or endpoint(provider))
    except BadRoute as exc:  # a provider without an address yet: the reason belongs into its line, not in place of the list
        return str(exc)


def _dollars(value: Decimal | None) -> str:
    return "?" if value is None else f"{value.normalize():f}"
