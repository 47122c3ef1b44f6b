"""`%infer key`: a provider's key, typed without echo, and kept in the system's keyring where there is one. The key is never shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.config import keys
from holynb.errors import BadKey, BadOption
from holynb.secret import Secret
from holynb.translation import say
from holynb.ui.commands import models

if TYPE_CHECKING:
    from holynb.types import Endpoint
    from holynb.ui.cell import Host

__all__ = ["run"]


def run(magic: Host, args: Sequence[str]) -> None:
    """`%infer key PROVIDER`. Raises BadOption and BadKey."""
    if len(args) != 1:
        raise BadOption("%infer key takes one provider, for example: %infer key openai. It asks for the key; never write it on the line.")
    endpoint = models.endpoint(args[0])
    if endpoint.key_name is None:
        print(f"{args[0]} needs no key: its routes work as they are.")
        return
    if not magic.can_ask():
        raise BadKey(f"There is no way to ask here. Set {endpoint.key_name} in the environment or a .env file.")
    typed = _ask(endpoint)
    if typed is None:
        print(f"Nothing was typed. {endpoint.route.provider}: {keys.describe_source(endpoint)}.")
        return
    secret = keys.remember(endpoint, Secret(typed, endpoint.key_name))
    storage = (
        "in the system keyring"
        if keys.save_to_keyring(secret)
        else "for this session (there is no system keyring here; a .env file lasts longer)"
    )
    print(say(f"{endpoint.key_name} is kept {storage}."))


def _ask(endpoint: Endpoint) -> str | None:
    """Prompt for a key without echo. None if the input is empty."""
    from getpass import getpass

    key_page = f" ({endpoint.key_page})" if endpoint.key_page else ""
    return getpass(f"{endpoint.key_name}{key_page}: ").strip() or None
