"""Providers: their keys, the AWS chain, and whether the model that a cell asks by default is still there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from holynb.doctor.check import Check, installed

__all__ = ["answers", "aws", "keys", "model"]

#: How long a provider may take to list its models.
_ASK_S = 10.0


def model() -> Iterator[Check]:
    """The route of a cell that names none: a model that has ended answers nobody."""
    from holynb.config import models, settings

    route = settings.route()
    known = models.find(route.provider, route.model)
    if known is None or (end := known.end) is None:
        return
    over = end.on <= dt.date.today() and not end.rerouted  # noqa: DTZ011 - as the calendar here says
    cure = f'default = "{route.provider}/{end.successor}" in config.toml' if end.successor else "name another in config.toml: default = …"
    yield Check("model", "broken" if over else "works", f"{route} {models.lifecycle(route)}", cure if over else "")


def keys() -> Iterator[Check]:
    from holynb.config import keys, settings, trust
    from holynb.errors import BadRoute
    from holynb.types import Route

    for name, provider in settings.providers().items():
        if not provider.key or provider.key_optional:
            continue
        address, held = "", None
        try:
            endpoint = settings.endpoint(Route(name, "*"))
            held = keys.refusal(endpoint)
        except BadRoute as exc:  # no address yet
            endpoint, address = settings.endpoint(Route(name, "*"), api_base="https://localhost"), str(exc)
        source = keys.describe_source(endpoint)
        there = source.startswith(("key in ", "no key, "))  # a key, or a login in its place
        if address and there:
            yield Check(name, "absent", f"{source}, but no address", address)
        elif there and (held or ", held back: " in source):
            yield Check(name, "broken", source, f"{trust.command(endpoint)} in a notebook" if endpoint.untrusted_file else "")
        elif there:
            yield Check(name, "works", source)
        elif source == f"no {provider.key}":
            yield Check(name, "absent", source, f"%infer key {name} in a notebook, or {provider.key}=… in a .env file")
        else:
            yield Check(name, "broken", source, f"%infer key {name} in a notebook, or set {provider.key} anew")


def answers() -> Iterator[Check]:
    """What each provider with a key says when it is asked for its models: it costs nothing, and a wrong key is refused there."""
    from holynb import loop
    from holynb.config import keys, settings
    from holynb.config.providers import OPENAI_WIRES
    from holynb.engines import own_servers, servers
    from holynb.errors import Fault, UserError
    from holynb.types import Route

    has_key, own = False, own_servers.named()
    for name, provider in settings.providers().items():
        if provider.wire not in OPENAI_WIRES or not provider.key:
            continue
        if name in own and own_servers.is_of_this_machine(own[name]):
            has_key = True  # asked without --ask, too
            continue
        try:
            endpoint = settings.endpoint(Route(name, "*"))
            secret = keys.resolve(endpoint)
        except UserError:
            continue  # said above
        if secret is None:
            continue
        has_key = True
        future = loop.submit(servers.models(endpoint, secret))
        try:
            listed = future.result(_ASK_S)
        except TimeoutError:
            future.cancel()
            yield Check(
                f"{name} asked", "broken", f"no answer within {_ASK_S:g} s", "a proxy or firewall? export HTTPS_PROXY=http://HOST:PORT"
            )
        except Fault as fault:
            cure = (
                f"%infer key {name} in a notebook, or set {provider.key} anew"
                if fault.kind == "auth"
                else "try again, or see its status page"
            )
            yield Check(f"{name} asked", "broken", fault.message, cure)
        else:
            yield Check(f"{name} asked", "works", f"it takes the key, and lists {len(listed):,} models")
    if not has_key:
        yield Check("asked", "absent", "nothing was asked: no OpenAI-compatible provider has a key", "%infer key openai in a notebook")


def aws() -> Iterator[Check]:
    """The region and the credentials of the AWS chain. A role of this machine is fetched over the network, so it is not looked up here."""
    from holynb.config import aws_chain, keys, settings
    from holynb.types import Route

    for name in ("sagemaker", "bedrock"):
        provider = settings.providers()[name]
        region = str(provider.options.get("region") or "")
        token = keys.describe_source(settings.endpoint(Route(name, "*"))) if provider.key else ""
        if token.startswith("key in ") or (provider.key and provider.key in token):  # a token of its own comes before the chain
            yield _token(name, token, aws_chain.region(region))
        elif installed("botocore") is None:
            yield Check(name, "absent", "no botocore, which signs the requests", aws_chain.EXTRA)
        else:
            yield _chain(name, aws_chain.look(region))


def _token(name: str, source: str, region: str | None) -> Check:
    says = f"{_region_words(region)}, {source}"
    if not source.startswith("key in "):
        return Check(name, "broken", says, f"%infer key {name} in a notebook, or set its variable anew")
    return Check(name, "works", says) if region else Check(name, "absent", says, _no_region(name))


def _chain(name: str, chain: Any) -> Check:
    if chain.problem:
        return Check(name, "broken", chain.problem, "export AWS_PROFILE=… (a profile of ~/.aws/config), or unset AWS_PROFILE")
    says = f"{_region_words(chain.region)}, {chain.where}"
    if not chain.region:
        return Check(name, "absent", says, _no_region(name))
    if chain.keys is None:
        return Check(name, "absent", says, "export AWS_PROFILE=…, or AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…")
    return Check(name, "works", says)


def _region_words(region: str | None) -> str:
    return f"region {region}" if region else "no region"


def _no_region(name: str) -> str:
    return f"export AWS_DEFAULT_REGION=…, or [provider.{name}.options] region in config.toml"
