"""The options of a cell, checked: one set, read by `%%infer`, `holynb.infer`, the panel and the help. Standard library only.

An option's Python name is its flag with underscores (`--max-tokens` is `max_tokens=`); `--no-cache` is `cache=False`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from holynb.config.option_table import BY_NAME, PLANNED, TABLE, Option
from holynb.config.option_words import nearest
from holynb.errors import BadOption
from holynb.words import is_writable

__all__ = ["BY_NAME", "PLANNED", "TABLE", "Option", "Options"]

#: Options whose text is sent as it is, whatever it holds; that of others names something.
SENT = ("system", "stop")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a cell or a call, checked. None where one is not set and the contract fixes no default."""

    df: Any = None
    file: str | None = None
    where: str | None = None
    limit: int | None = None
    lines: bool = False
    raw: bool = False
    attach: tuple[str, ...] = ()
    attach_urls: bool = False
    attach_max: int | None = None
    system: str | None = None
    system_from: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    think: str | int | None = None
    p: Mapping[str, Any] = field(default_factory=dict)
    params_from: tuple[str, ...] = ()
    concurrency: int | None = None
    timeout: float | None = None
    connect_timeout: float = 10.0
    deadline: float | None = None
    retries: int = 3
    stream: bool | None = None
    cache: bool = True
    refresh: bool = False
    resume: str | None = None
    name: str | None = None
    only: str | None = None
    into: str | None = None
    out: str | None = None
    bg: bool = False
    api_base: str | None = None
    api_key_name: str | None = None
    show: str = "all"
    format: str = "text"
    quiet: bool = False
    debug: bool = False
    show_code: bool = False
    rpm: int | None = None
    tpm: int | None = None
    fallback: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    dry_run: bool = False
    tier: tuple[str, ...] = ()
    batch: bool = False
    router: str | None = None
    schema: Any = None
    embed: bool = False
    dimensions: int | None = None
    compare: tuple[str, ...] = ()
    samples: int | None = None
    label: str | None = None
    exact: bool = False
    judge: str | None = None
    rubric: str | None = None
    budget: float | None = None
    confirm: float | None = None
    price_as: str | None = None
    chunk: str | None = None
    prompt_cache: bool = True
    save: str | None = None
    use: str | None = None
    no_execute: bool = False

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Options:
        """Options from names and values, checked. Raises BadOption with the nearest valid name, or what the value should be."""
        names = {f.name for f in fields(cls)}
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if name not in names:
                raise BadOption(f"There is no option {name!r}.{nearest(name, names)} %infer help lists them.")
            checked[name] = _checked(BY_NAME[name], value)
        return cls(**{k: v for k, v in checked.items() if v is not None})


def _checked(option: Option, value: Any) -> Any:
    """`value` converted, or BadOption that names the flag."""
    flag = option.flags[-1]
    if value is None or (option.metavar is None and value is option.on_by_default):
        return None
    if option.metavar is None and not isinstance(value, bool):
        raise BadOption(f"{flag} is a switch: True or False, not {value!r}.")
    if isinstance(value, str) and option.name not in SENT and not is_writable(value):
        raise BadOption(f"{flag} contains half of a surrogate pair ({value[:80]!r}), which no file can hold. Type it anew.")
    if option.convert is None:
        return value
    try:
        return option.convert(value)
    except (TypeError, ValueError) as exc:
        expected = str(exc) if not str(exc).startswith(("invalid literal", "could not convert", "int()")) else option.convert.__name__
        raise BadOption(f"{flag} takes {expected}, not {value!r}.") from exc
