"""What a person can do about a fault of an endpoint, said with its name. Pure but for the settings; knows no HTTP."""

from __future__ import annotations

from urllib.parse import urlsplit

from holynb.config import settings, suggest
from holynb.config.providers import OPENAI_WIRES
from holynb.errors import BadSetting, Fault
from holynb.types import Endpoint

__all__ = ["ELSEWHERE", "with_advice"]

#: What may be right where an address is not there, by wire.
ELSEWHERE = {
    "responses": 'A server without /responses is asked for chat completions by [provider.{provider}] wire = "openai".',
    "azure": 'A gateway that knows the older form alone is asked by [provider.{provider}.options] api_version = "2024-10-21".',
    "azure-responses": 'Responses of the older form are asked by [provider.{provider}.options] api_version = "2025-04-01-preview".',
}


def with_advice(fault: Fault, endpoint: Endpoint, *, keyed: bool) -> str:
    """The fault's message with the endpoint, and what to do next."""
    provider, words = endpoint.route.provider, fault.message
    if fault.kind == "connection" or (fault.status is None and fault.kind == "timeout"):
        return words
    if fault.status is None:
        return f"{provider}: {words}"
    page = f" Get one at {endpoint.key_page}" if endpoint.key_page else " Get one"
    if fault.kind == "auth" and keyed:
        return (
            f"{provider} refused the key in {endpoint.key_name} ({words.removesuffix('.')}).{page}, then set it with %infer key {provider}."
        )
    if fault.kind == "auth":
        name = endpoint.key_name or "an environment variable (--api-key-name)"
        return f"{provider} needs a key, but none is set ({words}).{page} and put it in {name}, or run %infer key {provider}."
    if fault.kind == "quota":
        return f"{provider} refused it for its credit or quota ({words.removesuffix('.')}). Asking again at once does not help."
    if fault.kind == "not_found":
        # Another status than 404 comes from a server that knows its models.
        doubt = ", or is not the right address" if fault.status == 404 else ""
        names_it = any(word in words.lower() for word in ("model", "deployment"))
        hint = _suggestion(endpoint, address_fits=fault.status != 404 or names_it)
        return f"{endpoint.base_url} has no model {endpoint.route.model}{doubt} ({words}).{hint}"
    return f"{provider} answered {words}"


def _suggestion(endpoint: Endpoint, *, address_fits: bool) -> str:
    """What may be meant instead: the address with its version, or another model."""
    if not address_fits and endpoint.wire in OPENAI_WIRES and urlsplit(endpoint.base_url).path in ("", "/"):
        return f" Should it be {endpoint.base_url}/v1?"
    if not address_fits and not endpoint.options.get("api_version") and (elsewhere := ELSEWHERE.get(endpoint.wire)):
        return f" {elsewhere.format(provider=endpoint.route.provider)}"
    try:
        return suggest.model(endpoint.route, settings.providers(), refused=True)
    except BadSetting:  # the file was changed during the run
        return ""
