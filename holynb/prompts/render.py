"""Prompts from a cell's text and its rows. Pure; knows templates and options, but no DataFrame, no route, no request.

A body is one prompt, unless a line is exactly `---` or each line is one (`lines`); it is never split on blank lines, which would cost
money by accident. With rows it is one template, rendered once per row: columns hide notebook variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holynb.config import Options
from holynb.errors import BadOption, BadPrompt, closest
from holynb.prompts import attaching
from holynb.prompts.row_fields import SAMPLING_FIELDS, missing, sampling, task_type
from holynb.types import Message, Prompt, Sampling
from holynb.words import an, lines

if TYPE_CHECKING:
    from holynb.prompts.blanks import Blanks
    from holynb.prompts.templates import Compiled

__all__ = ["each", "from_values", "render"]

ROLES = ("system", "developer", "user", "assistant")
#: How much of a template is read for a hint about its names.
MAX_HINT_CHARS = 10_000
DICT_KEYS = ("prompt", "system", "messages", "attach", *SAMPLING_FIELDS, "task_type")


def render(
    body: str,
    *,
    rows: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any],
    options: Options,
    first: int = 0,
    blanks: Blanks | None = None,
) -> list[Prompt]:
    """The prompts of a cell. `rows`: the columns of each row, None without a frame; a missing value is None or NaN.

    `first`: the place of the first of `rows`, where they are a part of a frame's. `blanks`: counts what the rows leave out.

    Raises BadPrompt and BadOption before anything is sent: an undefined name (with the closest one), a template that does not parse,
    an empty body, a missing column.
    """
    if not body.strip():
        raise BadPrompt("The cell has no prompt. Write one below the %%infer line.")
    if rows is None:
        if options.params_from:
            raise BadOption("--params-from takes its values from the columns of a frame: add --df NAME or --file PATH.")
        system = _system(options, variables)
        parts = _split(body, options)
        prompts = [_prompt(_render_text(part, variables, options.raw), system) for part in parts]
        names = [_attached(part, options) for part in parts]
        if not options.attach and not any(names):
            return prompts
        return [attaching.attached([p], (), variables, of, options)[0] for p, of in zip(prompts, names, strict=True)]
    if options.lines:
        raise BadOption("-l makes each line a prompt, but with --df or --file the body is one template for all rows. Leave -l out.")
    prompts = _per_row(body, rows, variables, options, first)
    if blanks is not None:
        blanks.see(body, options.system or "", rows, prompts, options)
    return prompts


def from_values(prompts: Any, *, options: Options | None = None) -> list[Prompt]:
    """The prompts of `holynb.infer`: a string, or strings and dicts (`prompt` or `messages`, `system`, sampling, `task_type`).

    Strings are sent as they are: in Python an f-string replaces a template. A missing value is an empty prompt.
    Raises BadPrompt and BadOption.
    """
    return list(each(prompts, options=options))


def each(prompts: Any, *, options: Options | None = None) -> Iterator[Prompt]:
    """The same one by one, so that many need not be there at once."""
    options = options or Options()
    if isinstance(prompts, str):
        prompts = _split(prompts, options) if options.lines else [prompts]
    elif isinstance(prompts, Mapping):
        prompts = [prompts]
    elif isinstance(prompts, bytes) or not isinstance(prompts, Iterable) or _is_frame(prompts):
        is_frame = _is_frame(prompts)
        frame = " With a frame, prompts is a template: infer('… {{ column }} …', df=frame)." if is_frame else ""
        raise BadPrompt(f"prompts is {an(type(prompts).__name__)}. It should be a string, or a list of strings or dicts.{frame}")
    if options.system_from is not None:
        raise BadOption("system_from names a notebook variable, and only a cell has those. Give the text itself: system=…")
    if options.attach:
        raise BadOption("attach names columns, and there is no frame. Without one: {'prompt': …, 'attach': 'photo.jpg'}.")
    i = -1
    for i, prompt in enumerate(prompts):
        yield _prompt_from_value(prompt, options, i)
    if i < 0:
        raise BadPrompt("There is no prompt to send: the list is empty.")


# -- a cell's body -----------------------------------------------------------------------------------------------------
def _split(body: str, options: Options) -> list[str]:
    """The prompts in a body, not rendered. Blank ones between two `---` are dropped."""
    if options.lines:
        return [line.strip(" \t") for line in lines(body.removeprefix("\ufeff")) if line.strip()]
    if options.raw:
        return [body.removesuffix("\n").removesuffix("\r")]
    parts = [part.strip("\r\n") for part in re.split(r"^---\r?$", body, flags=re.MULTILINE)]
    if not (non_blank := [part for part in parts if part.strip()]):
        raise BadPrompt("The cell has no prompt, only lines of ---. Write one below the %%infer line.")
    return non_blank


def _render_text(text: str, variables: Mapping[str, Any], raw: bool) -> str:
    from holynb.prompts import templates

    return text if raw or templates.plain(text) else templates.compiled(text).render(variables, variables)


def _per_row(body: str, rows: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], options: Options, first: int) -> list[Prompt]:
    columns = list(rows[0]) if rows else []
    _check_columns(columns, options)
    text = body if options.raw else body.strip("\r\n")
    system_template = _system(options, variables, render=False)
    texts = _render_rows(text, rows, variables, options.raw, first)
    # The text of a variable is no template; only a system prompt on the line is.
    systems = _render_rows(system_template or "", rows, variables, options.raw or options.system is None, first)
    column = options.router if options.router in columns else "task_type"
    where = f": {column}" if options.router else ""
    prompts = [
        _prompt(text, system or None, sampling(row, options.params_from, i), task_type(row.get(column), where and f"Row {i}{where}"))
        for i, (row, text, system) in enumerate(zip(rows, texts, systems, strict=True), first)
    ]
    names = _attached(text, options)
    return attaching.attached(prompts, rows, variables, names, options) if names or options.attach else prompts


def _attached(text: str, options: Options) -> tuple[str, ...]:
    """The columns that a template attaches itself."""
    from holynb.prompts import templates

    return () if options.raw or templates.plain(text) or "attach(" not in text else templates.compiled(text).attached


def _render_rows(text: str, rows: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], raw: bool, first: int) -> list[str]:
    """`text` rendered per row. A column hides a variable of its name; `row` is the whole row, unless a column has that name."""
    from holynb.prompts import templates

    if raw or templates.plain(text):
        return [text] * len(rows)
    columns = list(rows[0]) if rows else []
    if word := next((n for n in re.findall(r"\{\{-?\s*(\d+|[Tt]rue|[Ff]alse|[Nn]one)\s*-?\}\}", text) if n in columns), None):
        raise BadPrompt(
            f'{{{{ {word} }}}} is a {"number" if word.isdigit() else "constant"} to a template. The column is {{{{ row["{word}"] }}}}.'
        )
    with _column_hints(text, columns):
        return _render_template(templates.compiled(text), rows, variables, first)


def _render_template(template: Compiled, rows: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], first: int) -> list[str]:
    from holynb.prompts import templates

    columns = rows[0] if rows else {}
    shared = {name: variables[name] for name in template.names if name in variables and name not in columns}
    names = [*columns, *variables]
    uses_row = "row" in template.names
    lists = not any(map(templates.holds_array, shared.values()))
    texts = []
    for i, row in enumerate(rows, first):
        scope = {**shared, **({"row": templates.TemplateRow(row)} if uses_row else {}), **{n: row[n] for n in template.names if n in row}}
        texts.append(template.render(scope, names, f" (row {i})", arrays_are_lists=lists))
    return texts


@contextmanager
def _column_hints(text: str, columns: Sequence[str]) -> Iterator[None]:
    """Extends a template's error by how to name a column that is no identifier, where the template seems to mean one."""
    try:
        yield
    except BadPrompt as exc:
        expressions = " ".join(re.findall(r"\{[{%](.*?)[%}]\}", text[:MAX_HINT_CHARS], re.DOTALL))
        names = [c for c in columns if not c.isidentifier() and c in expressions]
        column = next((c for c in names if f'"{c}"' not in expressions and f"'{c}'" not in expressions), None)
        if column is None:
            raise
        hint = "name it otherwise" if "row" in columns else f'write {{{{ row["{column}"] }}}}'
        from holynb.prompts.templates import UNTOUCHED

        reason = str(exc)
        if reason.startswith("There is no"):  # the column is what was meant
            reason = reason.removesuffix(f" {UNTOUCHED}")
        raise BadPrompt(f"{reason.rstrip('.')}. For the column {column!r} {hint}.") from None


# -- one prompt --------------------------------------------------------------------------------------------------------
def _prompt(text: str, system: str | None, sampling: Sampling | None = None, task: str | None = None) -> Prompt:
    head = (Message("system", system),) if system else ()
    return Prompt((*head, Message("user", text)), sampling or Sampling(), task)


def _is_frame(value: Any) -> bool:
    return any(kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas" for kind in type(value).__mro__)


def _prompt_from_value(value: Any, options: Options, i: int) -> Prompt:
    """The prompt of one element of the list passed to `holynb.infer`."""
    system = options.system
    if isinstance(value, Mapping) and (files := value.get("attach")) is not None:
        rest = {k: v for k, v in value.items() if k != "attach"}
        return attaching.attached_value(_prompt_from_value(rest, options, i), files, options)
    if isinstance(value, str):
        return _prompt(value, system)
    if not isinstance(value, Mapping):
        if missing(value):
            return _prompt("", system)
        raise BadPrompt(f"Prompt {i} is {an(type(value).__name__)}. A prompt is a string or a dict with 'prompt' or 'messages'.")
    for key in value:
        if key not in DICT_KEYS:
            if key == "role":
                raise BadPrompt(
                    f"Prompt {i} is a message. A conversation is one prompt: [{{'messages': [{{'role': 'user', 'content': '…'}}]}}]."
                )
            raise BadPrompt(f"Prompt {i} has an unknown key {key!r}.{closest(str(key), DICT_KEYS)} Known: {', '.join(DICT_KEYS)}.")
    if ("prompt" in value) == ("messages" in value):
        raise BadPrompt(f"Prompt {i} needs either 'prompt' or 'messages', not {'both' if 'prompt' in value else 'neither'}.")
    system_text = _as_text(value.get("system", system), f"Prompt {i}: system") or None
    own = sampling(value, [k for k in SAMPLING_FIELDS if k in value], i)
    task = task_type(value.get("task_type"), f"Prompt {i}: task_type")
    if "prompt" in value:
        return _prompt(_as_text(value["prompt"], f"Prompt {i}: prompt"), system_text, own, task)
    messages = _messages(value["messages"], i)
    head = (Message("system", system_text),) if system_text and messages[0].role not in ("system", "developer") else ()
    return Prompt((*head, *messages), own, task)


def _messages(value: Any, i: int) -> tuple[Message, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise BadPrompt(f"Prompt {i}: messages is {an(type(value).__name__)}, not a list of dicts with 'role' and 'content'.")
    messages = [_message(message, i) for message in value]
    if not messages:
        raise BadPrompt(f"Prompt {i}: messages is empty.")
    return tuple(messages)


def _message(value: Any, i: int) -> Message:
    if isinstance(value, Message):
        role, content = value.role, value.content
    elif isinstance(value, Mapping) and {"role", "content"} <= set(value):
        role, content = str(value["role"]), _as_text(value["content"], f"Prompt {i}: the content of a message")
    else:
        raise BadPrompt(f"Prompt {i}: each message is a dict with 'role' and 'content'.")
    if role not in ROLES:
        raise BadPrompt(f"Prompt {i}: {role!r} is not a role.{closest(role, ROLES)} Known: {', '.join(ROLES)}.")
    return Message(role, content)


def _as_text(value: Any, what: str) -> str:
    if missing(value):
        return ""
    if not isinstance(value, str):
        raise BadPrompt(f"{what} should be text, not {type(value).__name__}.")
    return value


# -- system prompt and columns -----------------------------------------------------------------------------------------
def _system(options: Options, variables: Mapping[str, Any], *, render: bool = True) -> str | None:
    if options.system is not None and _attached(options.system, options):
        raise BadPrompt("A system prompt has no attachments: write {{ attach(…) }} into the body.")
    if options.system_from is None:
        return _render_text(options.system, variables, options.raw) if options.system and render else options.system
    if options.system is not None:
        raise BadOption("--system and --system-from both set the system prompt. Use one of them.")
    if options.system_from not in variables:
        near = closest(options.system_from, [k for k in variables if not k.startswith("_")])
        raise BadOption(f"--system-from {options.system_from}: there is no such variable.{near}")
    value = variables[options.system_from]
    if not isinstance(value, str):
        raise BadOption(f"--system-from {options.system_from} is {an(type(value).__name__)}, not a text.")
    return value


def _check_columns(columns: Sequence[str], options: Options) -> None:
    for name in options.params_from:
        if name not in columns:
            raise BadOption(f"--params-from {name}: there is no such column.{closest(name, columns)}")
