"""Task type → route: which model a prompt goes to, and why. Pure; the rules are data (routing.toml, `[router.NAME]`). Sends nothing.

[router.support]
column = "kind"                             # the column that names the task; without one the rules, then routing.toml, decide
other = "openai/gpt-6-luna"                 # where no task is known, or none of `routes`; else the cell's own route
escalate = "strong"                         # where a row goes whose answer is invalid
rules = [ { task = "refund", any = ["refund", "환불"], shorter = 2000 }, { task = "legal", pattern = "(?i)clause" } ]
[router.support.routes]
refund = "cheap"                            # a route, an alias, or cheap and strong
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any

from holynb.config import settings
from holynb.errors import BadOption, BadSetting, closest
from holynb.pricing import prices
from holynb.prompts import tokens
from holynb.types import Prompt, Route, Usage
from holynb.words import kind_of

__all__ = ["Decision", "Router", "Rule", "classify", "decide", "load", "saving", "unused"]

#: What `--router task_type` does unconfigured.
BUILT_IN: Mapping[str, str] = {"classification": "cheap", "analysis": "strong"}
FIELDS = ("column", "rules", "routes", "other", "escalate")
RULE_FIELDS = ("task", "any", "all", "pattern", "longer", "shorter")

#: Longest part of a prompt that is taken for its instruction, in characters.
INSTRUCTION_CHARS = 400
#: How much a cue outside the instruction counts, and the least sum of weights that names a task.
CONTEXT_WEIGHT = 0.2
MIN_TASK_WEIGHT = 2.0

#: How a last paragraph begins that is a prompt's subject, not its instruction: `Review: …`, a quotation.
PAYLOAD = re.compile(r"(?!(question|task|instructions?|q|질문|문제|지시)\b)[\w ]{1,24}:|[\"'“‘「>]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """Holds for a prompt in which any of `any`, all of `all` and `pattern` are found (case ignored), and whose length fits. First wins."""

    task: str
    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    longer: int = 0
    shorter: int | None = None

    def holds(self, text: str) -> bool:
        low = text.casefold()
        return (
            (not self.any or any(word in low for word in self.any))
            and all(word in low for word in self.all)
            and (self.pattern is None or self.pattern.search(text) is not None)
            and len(text) >= self.longer
            and (self.shorter is None or len(text) < self.shorter)
        )


@dataclass(frozen=True, slots=True)
class Router:
    """Rules, and a route for each task. `routes`, `other` and `escalate` are words for `settings.route`, or cheap and strong."""

    name: str
    routes: Mapping[str, str]
    rules: tuple[Rule, ...] = ()
    column: str | None = None
    other: str | None = None
    escalate: str | None = None

    def escalated(self, given: Route) -> Route | None:
        """Where a row goes whose answer stays invalid; None where it stays."""
        return None if self.escalate is None else _route(self.escalate, given)


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one prompt goes. `task` is None where nothing spoke for one; `why` says what did. `rule` is the number of the rule."""

    task: str | None
    route: Route
    why: str
    rule: int | None = None


# -- one prompt ----------------------------------------------------------------------------------------------------------
def decide(router: Router, prompt: Prompt, given: Route) -> Decision:
    """The route of one prompt: its own task type, else the first rule that holds, else the task that routing.toml finds in its words."""
    text = prompt.text
    if prompt.task_type:
        return _decision(router, _task(prompt.task_type, router), given, "its column says so")
    for number, rule in enumerate(router.rules, 1):
        if rule.holds(text):
            return _decision(router, rule.task, given, f"rule {number}", number)
    if router.rules:
        return _decision(router, None, given, "no rule holds")
    task, cues = classify(text)
    return _decision(router, task, given, ", ".join(cues) if task else "nothing in it names a task")


def _decision(router: Router, task: str | None, given: Route, why: str, rule: int | None = None) -> Decision:
    word = router.routes.get(task or "") or router.other
    return Decision(task, given if word is None else _route(word, given), why, rule)


def classify(text: str) -> tuple[str | None, list[str]]:
    """The task that a prompt's words point to (classification, analysis, None for any other), and the words that did."""
    weights: dict[str, float] = {}
    words: dict[str, list[str]] = {}
    first: dict[str, tuple[int, int]] = {}
    has_instruction = False
    for number, (part, is_context) in enumerate(_parts(text)):
        matches = [(task, weight, m) for task, weight, pattern in _cues() if (m := pattern.search(part))]
        for task, weight, match in matches:
            weights[task] = weights.get(task, 0.0) + weight * (CONTEXT_WEIGHT if has_instruction or is_context else 1.0)
            words.setdefault(task, []).append(repr(" ".join(match[0].split())))
            first[task] = min(first.get(task, (number, match.start())), (number, match.start()))
        has_instruction = has_instruction or bool(matches)
    # Of two that weigh the same, the earlier one is the instruction: "write … analysis" asks for writing.
    best = max(weights, key=lambda task: (weights[task], [-n for n in first[task]]), default=None)
    if best is None or best == "other" or weights[best] < MIN_TASK_WEIGHT:
        return None, []
    return best, words[best]


def _parts(text: str) -> list[tuple[str, bool]]:
    """A prompt's parts, the likeliest to hold the instruction first; True for one that only holds the text it is about."""
    blocks = [block for block in re.split(r"\n\s*\n", text.strip()[: 50 * INSTRUCTION_CHARS]) if block.strip()]
    first, last = (blocks[0], blocks[-1] if len(blocks) > 1 else "") if blocks else ("", "")
    before, colon, after = first[:INSTRUCTION_CHARS].partition(":")
    if "\n" in before:  # a colon further down is part of the text
        before, _, after = first[:INSTRUCTION_CHARS].partition("\n")
    return [
        (before + colon, False),
        (after, False),
        (last[-INSTRUCTION_CHARS:], bool(PAYLOAD.match(last))),
        ("\n".join(blocks[1:-1])[: 10 * INSTRUCTION_CHARS], True),
    ]


def _task(word: str, router: Router) -> str:
    """The task that a column's word means: one of the router's, or another word for one of the two that are built in."""
    word = word.strip()
    low = word.casefold()
    own = {task.casefold(): task for task in router.routes}
    return own.get(low) or next((task for task, words in _data()["names"].items() if low == task or low in words), word)


def _route(word: str, given: Route) -> Route:
    """`cheap` and `strong` are the user's aliases, else the models of the given route's provider, else the given route."""
    if word in BUILT_IN.values() and word not in settings.current().alias:
        model = _data()["models"].get(given.provider, {}).get(word)
        return given if model is None else Route(given.provider, model)
    return settings.route(word)


# -- what a dry run shows ------------------------------------------------------------------------------------------------
def saving(prompt: Prompt, decision: Decision, given: Route, tokens_out: int) -> Decimal | None:
    """US dollars saved against the given route, for an answer of `tokens_out` tokens; None where a price is unknown."""
    usage = Usage(sum(tokens.count_typical(m.content) for m in prompt.messages), tokens_out)
    there, here = prices.price(given, None, usage), prices.price(decision.route, None, usage)
    return None if there is None or here is None else there - here


def unused(router: Router, decisions: Sequence[Decision]) -> list[Rule]:
    """The rules that decided nothing: likely mistakes, so a run names them."""
    hit = {d.rule for d in decisions}
    return [rule for number, rule in enumerate(router.rules, 1) if number not in hit]


# -- where rules come from -----------------------------------------------------------------------------------------------
def load(name: str, columns: Sequence[str] = ()) -> Router:
    """What `--router NAME` means: `[router.NAME]`, a column that names the task, or `task_type`. Raises BadOption, BadSetting."""
    own = settings.current().router
    if name in own:
        router = _parsed(name, own[name])
        if router.column is not None and columns and router.column not in columns:
            raise BadOption(f"--router {name} reads the column {router.column!r}, which is not there.{closest(router.column, columns)}")
        return router
    if name in columns or name == "task_type":
        return Router(name, BUILT_IN, column=name, escalate="strong")
    raise BadOption(
        f"--router {name} is neither a [router.{name}] in config.toml nor a column.{closest(name, [*own, *columns, 'task_type'])}"
    )


def _parsed(name: str, table: Mapping[str, Any]) -> Router:
    where = f"[router.{name}]"
    for key in table:
        if key not in FIELDS:
            raise BadSetting(f"{where} has no {key!r}.{closest(key, FIELDS)} It takes {', '.join(FIELDS)}.")
    for key in ("column", "other", "escalate"):
        if key in table and (not isinstance(table[key], str) or not table[key].strip()):
            raise BadSetting(f"{where} {key} should be text, not {kind_of(table[key])}.")
    routes, rules = table.get("routes", {}), table.get("rules", [])
    if not isinstance(routes, Mapping) or not all(isinstance(r, str) for r in routes.values()):
        raise BadSetting(f'{where} routes should be a table of task = "provider/model".')
    if not isinstance(rules, Sequence) or isinstance(rules, str) or not all(isinstance(r, Mapping) for r in rules):
        raise BadSetting(f'{where} rules should be a list of tables such as {{ task = "refund", any = ["refund"] }}.')
    for word in (*routes.values(), *(table[k] for k in ("other", "escalate") if k in table)):
        if word not in BUILT_IN.values():
            settings.route(word)  # a route that leads nowhere is found before the first row
    parsed = tuple(_rule(rule, f"{where} rule {i}") for i, rule in enumerate(rules, 1))
    if lost := {r.task for r in parsed} - set(routes) - set(BUILT_IN if not routes else ()):
        raise BadSetting(f"{where} has rules for {', '.join(sorted(lost))} but no route for it in [router.{name}.routes].")
    return Router(name, dict(routes) or BUILT_IN, parsed, table.get("column"), table.get("other"), table.get("escalate"))


def _rule(table: Mapping[str, Any], where: str) -> Rule:
    for key in table:
        if key not in RULE_FIELDS:
            raise BadSetting(f"{where} has no {key!r}.{closest(key, RULE_FIELDS)} It takes {', '.join(RULE_FIELDS)}.")
    if not isinstance(table.get("task"), str) or not table["task"]:
        raise BadSetting(f"{where} needs a task.")
    if len(table) == 1:
        raise BadSetting(f"{where} holds for every prompt. Say what it asks for: {', '.join(RULE_FIELDS[1:])}; or use other.")
    return Rule(
        table["task"],
        _words(table, "any", where),
        _words(table, "all", where),
        _pattern(table, where),
        _length(table, "longer", where) or 0,
        _length(table, "shorter", where),
    )


def _words(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    words = table.get(key, [])
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(w, str) and w for w in words):
        raise BadSetting(f'{where}: {key} should be a list of words, such as ["refund", "money back"].')
    return tuple(w.casefold() for w in words)


def _pattern(table: Mapping[str, Any], where: str) -> re.Pattern[str] | None:
    if "pattern" not in table:
        return None
    try:
        return re.compile(table["pattern"], re.IGNORECASE)
    except re.error as exc:  # says what is wrong and where, and does not repeat the pattern
        raise BadSetting(f"{where}: pattern is not a regular expression: {exc}.") from None
    except TypeError:
        raise BadSetting(f"{where}: pattern should be text, not {kind_of(table['pattern'])}.") from None


def _length(table: Mapping[str, Any], key: str, where: str) -> int | None:
    value = table.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise BadSetting(
            f"{where}: {key} should be a number of characters from 0{'' if type(value) is int else f', not {kind_of(value)}'}."
        )
    return value


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    return tomllib.loads((files("holynb.run") / "routing.toml").read_text("utf-8"))


@lru_cache(maxsize=1)
def _cues() -> tuple[tuple[str, float, re.Pattern[str]], ...]:
    return tuple((c["task"], float(c["weight"]), re.compile(c["pattern"], re.IGNORECASE)) for c in _data()["cue"])
