"""`%infer trust`: let a key go to an address that a file of the project names, and list or take back what was let. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.config import settings, trust
from holynb.config.trust import Grant
from holynb.errors import BadOption, closest
from holynb.ui.cell import said
from holynb.ui.output import clean
from holynb.ui.output.listing import Listing, Part

if TYPE_CHECKING:
    from holynb.ui.cell import Host

__all__ = ["run"]


def run(magic: Host, args: Sequence[str]) -> None:
    """`%infer trust [HOST] [--remove]`. Raises BadOption."""
    hosts = [word for word in args if word != "--remove"]
    if len(hosts) > 1 or any(word.startswith("-") for word in hosts) or (not hosts and args):
        raise BadOption(f"%infer trust takes one host and --remove, not {' '.join(args)!r}.")
    if not hosts:
        said.show(magic.shell, *_listing())
    elif "--remove" in args:
        _remove(_host(hosts[0]))
    else:
        _add(_host(hosts[0]))


def _add(host: str) -> None:
    waiting = settings.steered()
    # A cell may name this address itself, and a file of the project the variable of the key.
    wanted = [g for g in waiting if g.host == host] or settings.steered(f"https://{host}")
    if not wanted:
        if known := [g for g in trust.grants(settings.own_home()) if g.host == host]:
            print("\n".join(f"Trusted already: {_line(g)}." for g in known))
            return
        raise BadOption(f"No file of this project sends a key to {host.removesuffix(':443')}.{closest(host, [_shown(g) for g in waiting])}")
    while wanted:  # one file may name the address, and another the variable of the key
        trust.keep(settings.own_home(), add=wanted)
        print("\n".join(f"From now on {_line(g)}." for g in wanted))
        wanted = [g for g in settings.steered() if g.host == host]


def _remove(host: str) -> None:
    known = [g for g in trust.grants(settings.own_home()) if g.host == host]
    if not known:
        names = [_shown(g) for g in trust.grants(settings.own_home())]
        raise BadOption(f"{host.removesuffix(':443')} is not trusted.{closest(host, names)} %infer trust lists what is.")
    trust.keep(settings.own_home(), remove=known)
    print("\n".join(f"No longer: {_line(g)}." for g in known))


def _listing() -> list[Part]:
    rows = [[_shown(g), g.provider, state, clean(g.file)] for state, grants in _states() for g in grants]
    own = settings.current().trust.get("hosts", ())
    return [
        Listing(["host", "key of", "", "named by"], rows, prose={3}) if rows else "No file of a project sends a key anywhere.",
        f"Trusted by your config.toml, whoever names them: {', '.join(own)}." if own else "",
    ]


def _states() -> list[tuple[str, Sequence[Grant]]]:
    return [("waits for %infer trust HOST", settings.steered()), ("trusted", trust.grants(settings.own_home()))]


def _host(word: str) -> str:
    """The host that a person names: alone, with a port, or within an address."""
    try:
        host = trust.host(word)
    except ValueError:
        host = ":"
    if not host.partition(":")[0]:
        raise BadOption(f"{word!r} is not a host. %infer trust takes one such as llm.example.com or llm.example.com:8443.")
    return host


def _line(grant: Grant) -> str:
    return f"the key of {grant.provider} may go to {_shown(grant)} where {clean(grant.file)} says so"


def _shown(grant: Grant) -> str:
    return grant.host.removesuffix(":443")
