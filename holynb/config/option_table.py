"""The table of a cell's options: flags, what each takes, its help. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holynb.config.converters import (
    chunk_size,
    dollars,
    duration,
    integer,
    key_value,
    names,
    number,
    one_of,
    several_of,
    texts,
    think,
)
from holynb.types import SERVICE_TIERS
from holynb.words import composed

__all__ = ["BY_NAME", "PLANNED", "TABLE", "Option"]


@dataclass(frozen=True, slots=True)
class Option:
    """One row of TABLE. `metavar` is None for a switch; a `repeatable` one may be given several times."""

    name: str
    flags: tuple[str, ...]
    metavar: str | None
    help: str
    convert: Callable[[Any], Any] | None = None
    repeatable: bool = False
    group: str = "rows"
    #: What stands in an empty field of a form: what is counted there, or an example.
    unit: str = ""

    @property
    def on_by_default(self) -> bool:
        """Whether it is a switch that turns something off: `--no-cache` is `cache=False`."""
        return self.flags[-1] == f"--no-{self.name.replace('_', '-')}"


def _switch(name: str, *flags: str, help: str, group: str = "run") -> Option:  # noqa: A002
    return Option(name, flags, None, help, group=group)


TABLE: tuple[Option, ...] = (
    Option("df", ("--df",), "NAME", "run once per row of this DataFrame or other table; the body is a template"),
    Option(
        "file",
        ("--file",),
        "PATH",
        "rows from a .csv, .tsv, .json, .jsonl, .txt, .xlsx, .parquet or .feather file; in a CSV only an empty cell is missing",
    ),
    Option("where", ("--where",), "EXPR", "only the rows that match this pandas query", unit="e.g. stars > 3"),
    Option("limit", ("-n", "--limit"), "N", "only the first N rows", integer(1), unit="rows; all"),
    _switch("lines", "-l", "--lines", help="each non-blank line of the body is a prompt", group="rows"),
    _switch("raw", "--raw", help="send the body as it is, without templating", group="rows"),
    Option(
        "attach",
        ("--attach",),
        "COL,…",
        "pictures, PDFs or sounds of these columns go along; {{ attach(COL) }} says where in the prompt",
        names,
        unit="columns",
    ),
    _switch("attach_urls", "--attach-urls", help="send an attachment's address where the provider fetches it itself", group="rows"),
    Option("attach_max", ("--attach-max",), "PX", "scale pictures down to this longest side (needs pillow)", integer(16), unit="pixels"),
    Option("system", ("--system",), "TEXT", "system prompt", group="prompt"),
    Option("system_from", ("--system-from",), "VAR", "system prompt from a notebook variable", group="prompt"),
    Option(
        "max_tokens",
        ("--max-tokens",),
        "N",
        "longest answer, in tokens (hosted 2048, models that think 8192, pool 512)",
        integer(1),
        group="sampling",
        unit="tokens",
    ),
    Option("temperature", ("--temperature",), "X", "sampling temperature", number(0, 5), group="sampling", unit="0 to 5"),
    Option("top_p", ("--top-p",), "X", "nucleus sampling", number(0, 1, open_low=True), group="sampling", unit="above 0, to 1"),
    Option("stop", ("--stop",), "TEXT", "stop string; may be repeated", texts, repeatable=True, group="sampling", unit="text"),
    Option(
        "seed", ("--seed",), "N", "sampling seed; each of --samples has the next one", integer(0), group="sampling", unit="a whole number"
    ),
    Option(
        "think", ("--think",), "LEVEL|N", "how much the model thinks first: off, low, medium, high, max, or tokens", think, group="sampling"
    ),
    Option("p", ("-p",), "KEY=VALUE", "any other field of the request; may be repeated", key_value, repeatable=True, group="sampling"),
    Option("params_from", ("--params-from",), "COL,…", "sampling values per row, from columns of these names", names, group="sampling"),
    Option(
        "concurrency",
        ("-c", "--concurrency"),
        "N",
        "most requests in flight; adapts by itself below that",
        integer(1),
        group="run",
        unit="requests",
    ),
    Option(
        "timeout",
        ("--timeout",),
        "S",
        "longest wait for new content, in seconds (60; 900 at --tier flex)",
        number(0, open_low=True),
        group="run",
        unit="seconds",
    ),
    Option(
        "connect_timeout", ("--connect-timeout",), "S", "longest wait to connect, in seconds (10)", number(0, open_low=True), group="run"
    ),
    Option("deadline", ("--deadline",), "DURATION", "time limit of the whole run: 90, 15m, 1h30m", duration, group="run", unit="e.g. 15m"),
    Option(
        "retries",
        ("--retries",),
        "N",
        "retries after a failed attempt (3); waiting for a 429 or a restarting server does not count",
        integer(0),
        group="run",
        unit="retries; 3",
    ),
    _switch("stream", "--stream", help="stream the answers"),
    Option("cache", ("--no-cache",), None, "do not reuse answers of the run log, nor offer these for reuse", group="run log"),
    _switch("refresh", "--refresh", help="ask again, and keep the new answers", group="run log"),
    Option("resume", ("--resume",), "RUN", "continue this run: send only the rows it lacks", composed, group="run log"),
    Option("name", ("--name",), "RUN", "name the run; the same name again continues it", composed, group="run log"),
    Option("only", ("--only",), "failed", "send only the failed rows of the last run, or the one named", one_of("failed"), group="run log"),
    Option("into", ("--into",), "COLUMN", "the value is a copy of the input plus this column", group="result"),
    Option(
        "out",
        ("--out",),
        "PATH",
        "write the rows, with the input's columns, to this .parquet, .jsonl or .csv file as answers come; whole after a kill, completed "
        "when the cell runs again",
        group="result",
        unit="e.g. rows.parquet",
    ),
    _switch("bg", "--bg", help="return at once with the run; results keep arriving"),
    Option("api_base", ("--api-base",), "URL", "another address for all routes of this provider", group="route"),
    Option("api_key_name", ("--api-key-name",), "ENV", "the environment variable that holds its key", group="route"),
    Option("show", ("--show",), "WHAT", "all, table, charts or none", one_of("all", "table", "charts", "none"), group="result"),
    Option(
        "format",
        ("--format",),
        "HOW",
        "how one answer, or a row in full, is shown: text, markdown, code or json",
        one_of("text", "markdown", "code", "json"),
        group="result",
    ),
    _switch("quiet", "-q", "--quiet", help="no progress, no output", group="result"),
    _switch("debug", "--debug", help="show the traceback of an error", group="result"),
    _switch("show_code", "--show-code", help="print the equivalent Python and send nothing", group="result"),
    Option(
        "rpm",
        ("--rpm",),
        "N",
        "most requests a minute, on top of the server's own limit",
        integer(1),
        group="limits",
        unit="requests a minute",
    ),
    Option(
        "tpm", ("--tpm",), "N", "most tokens a minute, on top of the server's own limit", integer(1), group="limits", unit="tokens a minute"
    ),
    Option(
        "fallback",
        ("--fallback",),
        "R1,R2",
        "routes to try next, in order, when one fails or refuses a row for 30 s",
        names,
        group="route",
        unit="routes, with commas",
    ),
    Option("spread", ("--spread",), "R1,R2", "equal routes to spread the rows over", names, group="route", unit="routes, with commas"),
    _switch("dry_run", "--dry-run", help="show a sample, tokens and cost; send nothing"),
    Option(
        "tier",
        ("--tier",),
        "T,…",
        "service tier: flex (cheaper, slower), standard or priority; flex,standard: the next if one is full",
        several_of(*SERVICE_TIERS),
        group="route",
    ),
    _switch("batch", "--batch", help="by the provider's batch API: half the price, within a day; outlives the kernel", group="route"),
    Option("router", ("--router",), "NAME", "route by task type: a named set of rules or a column", group="route", unit="a router's name"),
    Option(
        "schema",
        ("--schema",),
        "NAME|FILE",
        "JSON Schema or pydantic model: typed columns",
        group="result",
        unit="a variable or a .json file",
    ),
    _switch("embed", "--embed", help="vectors instead of answers: a column `embedding`, and run.vectors()", group="result"),
    Option(
        "dimensions",
        ("--dimensions",),
        "N",
        "with --embed: how many numbers each vector has, where the model can be asked",
        integer(1),
        group="result",
        unit="numbers",
    ),
    Option(
        "compare",
        ("--compare",),
        "R1,R2",
        "send every prompt to each of these routes too",
        names,
        group="route",
        unit="routes, with commas",
    ),
    Option("samples", ("--samples",), "K", "K answers to each prompt", integer(1), group="sampling", unit="answers; 1"),
    Option(
        "label",
        ("--label",),
        "COL[=FIELD]",
        "compare answers, or their FIELD of --schema, with this column: accuracy, F1, kappa, who is taken for what",
        group="quality",
        unit="a column",
    ),
    _switch("exact", "--exact", help="with --label: case, space and punctuation at the end count, too", group="quality"),
    Option(
        "judge",
        ("--judge",),
        "ROUTE",
        "a second model grades each answer from 1 to 5: column score; its calls cost, too",
        group="quality",
        unit="a route",
    ),
    Option(
        "rubric",
        ("--rubric",),
        "TEXT",
        "what --judge looks at; 'pass/fail: …' asks for that instead of 1 to 5",
        group="quality",
        unit="what a good answer is",
    ),
    Option(
        "budget",
        ("--budget",),
        "USD",
        "hard cap on what the run may spend in all, in dollars; what it spent before it goes on counts",
        dollars,
        group="money",
        unit="dollars",
    ),
    Option("confirm", ("--confirm",), "USD", "ask before a run that is estimated above this", dollars, group="money"),
    Option("price_as", ("--price-as",), "ROUTE", "also show what the run would have cost on this route", group="money", unit="a route"),
    Option(
        "chunk",
        ("--chunk",),
        "auto|N",
        "split prompts that are too long and join the answers",
        chunk_size,
        group="prompt",
        unit="auto, or tokens",
    ),
    Option("prompt_cache", ("--no-prompt-cache",), None, "leave the provider's prompt cache to itself", group="money"),
    Option("save", ("-S", "--save"), "NAME", "save this prompt", group="prompt"),
    Option("use", ("--use",), "NAME", "use a saved prompt as the body", group="prompt"),
    _switch("no_execute", "-N", "--no-execute", help="with --save: save without running", group="prompt"),
)

#: Planned options, each rejected with a message of its own.
PLANNED: Mapping[str, str] = {
    "--audit": "second opinions are not supported yet; --compare shows two routes side by side",
}

BY_NAME: Mapping[str, Option] = {o.name: o for o in TABLE}
