"""Servers of this machine that the settings name, such as a class's pool: each is asked for its models, which costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holynb.doctor.check import Check
from holynb.types import Endpoint

__all__ = ["own_servers"]

#: How long a server of this machine may take to list its models.
ASK_S = 3.0
#: Of a server's models, how many are named.
SHOWN = 4


def own_servers() -> Iterator[Check]:
    from holynb import loop
    from holynb.engines import own_servers as own
    from holynb.errors import Fault, UserError

    for name, endpoint in own.named().items():
        if not own.is_of_this_machine(endpoint):
            continue
        future = loop.submit(own.ask(endpoint))
        try:
            listed = [model.id for model in future.result(ASK_S)]
        except UserError:  # of its key, which is said with the keys
            continue
        except TimeoutError:
            future.cancel()
            yield _broken(name, f"no answer within {ASK_S:g} s from {endpoint.base_url}", "ask whoever runs it, or read its log")
        except Fault as fault:
            yield _broken(name, *own.trouble(endpoint, fault))
        else:
            yield _answered(name, endpoint, listed)


def _answered(name: str, endpoint: Endpoint, listed: Sequence[str]) -> Check:
    """A server that lists its models; broken where the model that a cell asks by default is none of them."""
    from holynb.config import settings
    from holynb.words import address

    route = settings.route()
    shown = ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
    # Ollama takes a model without its tag, which it lists.
    if route.provider == name and listed and not {route.model, f"{route.model}:latest"} & {*listed}:
        cure = f'default = "{name}/{listed[0]}" in config.toml'
        return _broken(name, f"{address(endpoint.base_url)} has no model {route.model}, which is the default. It has: {shown}", cure)
    return Check(f"{name} asked", "works", f"{address(endpoint.base_url)} answers. It has: {shown or 'no model'}")


def _broken(name: str, says: str, cure: str) -> Check:
    return Check(f"{name} asked", "broken", says, cure)
