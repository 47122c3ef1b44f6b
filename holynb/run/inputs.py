"""The rows that a run is asked over: a frame, another library's table, a file; and the prompts that they make. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from holynb import files
from holynb.config import Options, settings
from holynb.errors import BadOption
from holynb.prompts import render
from holynb.prompts.blanks import Blanks
from holynb.results import frame
from holynb.run.prompt_spool import PromptSpool, gathered
from holynb.spool import MANY
from holynb.types import Prompt

__all__ = ["prompts", "source"]

#: Rows of a large table that are made values, and prompts, at a time.
WINDOW = 2_048


def source(options: Options, variables: Mapping[str, Any] | None) -> tuple[Any, files.Given | None]:
    """The frame the rows come from, None where there is none; and the table of another library that it is made of."""
    table = None
    if options.df is not None and options.file is not None:
        raise BadOption("--df and --file both give the rows. Use one of them.")
    if options.df is not None:
        df = frame.find_frame(variables or {}, options.df) if isinstance(options.df, str) else options.df
        if (table := files.given(df, settings.home())) is not None:
            df = table.source()
        frame.check_rows(df, options.df if isinstance(options.df, str) else "df")
    elif options.file is not None:
        df = files.stream(options.file, settings.home())
        frame.check_rows(df, options.file, "--file")
    elif options.where is not None:
        raise BadOption("--where chooses rows of a frame: add --df NAME or --file PATH.")
    else:
        return None, None
    if options.where is not None:  # which rows those are may follow from all of them, such as `x > x.mean()`
        df = files.whole(df)
    chosen = frame.select(df, options.where, options.limit, variables)
    if not len(chosen):
        hint = frame.text_hint(df, options.where or "").removeprefix(".")
        raise BadOption(f"--where {options.where!r} matches no row, so there is nothing to send.{hint}")
    if table is not None:
        table = table.chosen(range(len(chosen)) if options.where is None else chosen.index)
    return chosen, table


def prompts(
    what: Any, options: Options, source: Any, variables: Mapping[str, Any] | None, times: int, *, blanks: Blanks
) -> list[Prompt] | PromptSpool:
    """The prompts of a cell's body or of `infer`; many of them in a spool. `times`: rows of each. `blanks`: counts what rows leave
    out. Raises BadPrompt, BadOption.
    """
    return gathered(_each(what, options, source, variables, blanks), settings.home(), times)


def _each(what: Any, options: Options, source: Any, variables: Mapping[str, Any] | None, blanks: Blanks) -> Iterable[Prompt]:
    if source is not None:
        if not isinstance(what, str):
            raise BadOption("With df, prompts is one template string, rendered once per row.")
        named = settings.current().router.get(options.router or "", {}).get("column")
        routed = replace(options, router=named) if isinstance(named, str) else options
        if len(source) < MANY and not isinstance(source, files.StoredTable):
            return render.render(what, rows=frame.records(source), variables=variables or {}, options=routed, blanks=blanks)
        return _in_windows(what, source, variables or {}, routed, blanks)
    if variables is not None and isinstance(what, str):
        each_prompt: Iterable[Prompt] = render.render(what, rows=None, variables=variables, options=options)
    else:
        each_prompt = render.each(what, options=options)
    return each_prompt if options.limit is None else islice(each_prompt, options.limit)


def _in_windows(what: str, source: Any, variables: Mapping[str, Any], options: Options, blanks: Blanks) -> Iterator[Prompt]:
    """The prompts of a large frame: its values are made a window at a time."""
    for first in range(0, len(source), WINDOW):
        rows = frame.records(files.window(source, first, min(len(source), first + WINDOW)))
        yield from render.render(what, rows=rows, variables=variables, options=options, first=first, blanks=blanks)
