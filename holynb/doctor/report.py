"""Every check of the doctor, in order, and how they are said."""

from __future__ import annotations

from collections.abc import Callable

from holynb.doctor import accounts, gpu, machine, network, notebook, pool
from holynb.doctor.check import Check, checked
from holynb.words import clean

__all__ = ["checks", "text"]

MARKS = {"works": "ok", "absent": "–", "broken": "NO"}

#: In the order in which a cell depends on them.
_PROBES = (
    *(machine.python, machine.home, machine.settings, machine.run_log),
    *(notebook.jupyter, notebook.front_end, notebook.place, network.proxy, network.certificates),
    *(pool.local_pool, pool.embedded, gpu.gpu, pool.pools),
    *(accounts.model, accounts.keys, accounts.aws),
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
    local = all(c.state == "works" for c in results if c.name == "local pool")
    hint = "holynb demo" if local else "%%infer openai/gpt-6-luna in a notebook, with that provider's key"
    lines.append("\n" + say(f"{broken} of {len(results)} failed." if broken else f"Nothing is broken. Try: {hint}"))
    return clean("\n".join(lines))
