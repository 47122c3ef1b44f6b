"""Microsoft Entra ID: a token by azure-identity, in the place of Azure's api-key."""

from __future__ import annotations

import logging
import os
from typing import Any

from holynb.config.logins import LOGINS
from holynb.engines.tokens import Token
from holynb.errors import Fault
from holynb.types import Endpoint, Secret

__all__ = ["NAME", "SCOPE", "SCOPE_OF_DEPLOYMENTS", "fetch"]

#: The name of such a Secret, which tells it from a key.
NAME = "the Entra ID token"
#: What a token is for: at `/openai/v1` (learn.microsoft.com/azure/foundry/openai/how-to/reasoning), and at the older form's deployments.
SCOPE = "https://ai.azure.com/.default"
SCOPE_OF_DEPLOYMENTS = "https://cognitiveservices.azure.com/.default"
#: Without a handler of its own, azure-identity's warning goes to stderr: the message below, in ten lines.
QUIET = logging.NullHandler()


def fetch(endpoint: Endpoint, scope: str) -> Token:
    """A token of whoever is logged in here: the environment's service principal, a managed identity, or a developer's tools. Blocks.

    Raises Fault.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - of the packages that it imports, too
        raise _fault(endpoint, f"azure-identity cannot be loaded: {_reason(exc)}") from None
    logging.getLogger("azure.identity").addHandler(QUIET)
    try:
        with DefaultAzureCredential() as credential:
            token = credential.get_token(scope)
        return Token.read(token.token, NAME, float(token.expires_on))
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - each credential raises its own, and its transport's besides
        raise _fault(endpoint, _reason(exc), away=_is_away(exc)) from None


def _reason(exc: BaseException) -> str:
    """What went wrong: of all the ways that were tried the first that failed, where others were only not there."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    reason = next((line for line in lines[1:] if ": Authentication failed" in line), lines[0] if lines else type(exc).__name__)
    client_secret = os.environ.get("AZURE_CLIENT_SECRET")
    return Secret(client_secret).mask(reason)[:300] if client_secret else reason[:300]


def _is_away(exc: BaseException) -> bool:
    """Whether the login's own server was not reached."""
    return any(base.__name__ in ("ServiceRequestError", "ServiceResponseError") for base in type(exc).__mro__)


def _fault(endpoint: Endpoint, reason: str, *, away: bool = False) -> Fault:
    login: Any = LOGINS["entra"]
    problem = (
        f"{endpoint.route.provider} has no key in {endpoint.key_name}, and the {login.title} login gave no token ({reason.rstrip('.')})."
    )
    return Fault("connection" if away else "auth", f"{problem} Run {login.cure} in a terminal, or set {endpoint.key_name}.", stops=not away)
