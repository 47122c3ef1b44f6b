"""Logins that stand in for a key: the package that each needs, where its tokens may go, and its words. Fetches no token."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from holynb.types import Endpoint

__all__ = ["LOGINS", "Login", "available", "refusal"]


@dataclass(frozen=True, slots=True)
class Login:
    """One way in. `package` is pip's name, `cure` what logs a person in; `hosts`: the vendor's own, which a project's file may name."""

    title: str
    package: str
    module: str
    cure: str
    hosts: tuple[str, ...]

    @property
    def installed(self) -> bool:
        try:
            return find_spec(self.module) is not None
        except (ImportError, ValueError):  # there is no package above it
            return False


#: By the name that a provider's `login` has. Azure's hosts: those of Azure OpenAI and of Foundry, and of Azure Government
#: (learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure).
LOGINS = {
    "entra": Login(
        "Entra ID",
        "azure-identity",
        "azure.identity",
        "az login",
        (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".openai.azure.us", ".cognitiveservices.azure.us"),
    ),
    "google": Login("Google Cloud", "google-auth", "google.auth", "gcloud auth application-default login", (".googleapis.com",)),
}


def available(endpoint: Endpoint) -> Login | None:
    """The login that is used at this endpoint where no key is set; None where it has none, or its package is not installed."""
    login = LOGINS.get(endpoint.login or "")
    return login if login is not None and login.installed else None


def refusal(endpoint: Endpoint, login: Login) -> str | None:
    """Why a token must not go to this address; None where it may. It opens more than one resource, so a project names no host for it."""
    host, provider = (urlsplit(endpoint.base_url).hostname or ""), endpoint.route.provider
    if endpoint.address_file is None or (host.endswith(login.hosts) and endpoint.base_url.startswith("https://")):
        return None
    return (
        f"{endpoint.address_file}, a project file, points {provider} at {host}, and a token of your {login.title} login would go "
        "there; nothing was sent. To allow it, give the address yourself: --api-base URL, or in the environment."
    )
