"""Every check of the doctor, in order, and how they are said."""

from __future__ import annotations

from collections.abc import Callable

from holynb.doctor import accounts, gpu, machine, network, notebook, pool, servers
from holynb.doctor.check import Check, checked
from holynb.words import clean

__all__ = ["checks", "text"]

MARKS = {"works": "ok", "absent": "–", "broken": "NO"}

#: In the order in which a cell depends on them.
_PROBES = (
    *(machine.python, machine.home, machine.settings, machine.run_log),
    *(notebook.jupyter, notebook.front_end, notebook.place, network.proxy, network.certificates),
    *(pool.local_pool, pool.embedded, gpu.gpu, pool.pools),
    *(accounts.model, accounts.keys, servers.own_servers, accounts.aws),
)


def checks(*, ask: bool = False) -> list[Check]:
    """Every check. `ask`: also ask each OpenAI-compatible provider whose key is there, which shows a wrong key or a blocked network."""
    return [check for probe in (*_PROBES, *([accounts.answers] if ask else [])) for check in checked(probe)]


def text(results: list[Check], say: Callable[[str], str] = str) -> str:
    """One line for each check, its cure below it, and a summary. `say`: in the user's language."""
    lines = []
    for check in results:
        lines.append(f"{MARKS[check.state]:>2}  {check.name:<12} {say(check.says)}")
        if check.cure:
            lines.append(f"{'':17}→ {say(check.cure)}")
    broken = sum(c.state == "broken" for c in results)
    lines.append("\n" + say(f"{broken} of {len(results)} failed." if broken else f"Nothing is broken. Try: {_next(results)}"))
    return clean("\n".join(lines))


def _next(results: list[Check]) -> str:
    """What to try: what the settings ask by default, the demo, or a provider."""
    from holynb.config import settings

    if settings.current().default is not None:
        return f"%%infer {settings.route()} in a notebook"
    local = all(c.state == "works" for c in results if c.name == "local pool")
    return "holynb demo" if local else "%%infer openai/gpt-6-luna in a notebook, with that provider's key"
