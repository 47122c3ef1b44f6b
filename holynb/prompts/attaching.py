"""Attachments of prompts: which columns go along, and where `{{ attach(column) }}` stands in a template. Reads cells; sends nothing.

A template writes a mark where an attachment stands, with a word of this process, so that no row's own text can be one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holynb import attachments, typed_path
from holynb.attached import Attachment
from holynb.config import Options
from holynb.errors import BadOption, BadPrompt, closest
from holynb.types import Message, Prompt

__all__ = ["attached", "attached_value", "mark"]

_WORD = f"{secrets.randbits(64):020d}"
_MARK = re.compile(f"\ue000{_WORD}:(\\d+)\ue001")


def mark(number: int) -> str:
    """What stands in a rendered text where the attachments of a column go, by the column's number."""
    return f"\ue000{_WORD}:{number}\ue001"


def attached(
    prompts: Sequence[Prompt], rows: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], names: Sequence[str], options: Options
) -> list[Prompt]:
    """The prompts of a template with the attachments of their rows. `names`: the columns that the template attaches itself.

    A column hides a variable of its name. Raises BadOption and BadPrompt for a name that is neither.
    """
    columns = list(rows[0]) if rows else []
    for name, error in (*((n, BadPrompt) for n in names), *((n, BadOption) for n in options.attach)):
        if name not in columns and name not in variables:
            near = closest(name, [*columns, *(v for v in variables if not v.startswith("_"))])
            kind = "column or variable" if columns else "variable"
            raise error(f"{'--attach ' + name if error is BadOption else '{{ attach(' + name + ') }}'}: there is no such {kind}.{near}")
    folder = str(typed_path.typed(options.file).parent) if options.file else None
    beside = [n for n in options.attach if n not in names]
    shared = {n: _cell(variables[n], n, options, folder) for n in (*names, *beside) if n not in columns}
    result = []
    for prompt, row in zip(prompts, rows or [{}] * len(prompts), strict=True):
        cells = {n: shared[n] if n in shared else _cell(row[n], n, options, folder) for n in (*names, *beside)}
        result.append(_placed(prompt, names, cells, beside))
    return result


def attached_value(prompt: Prompt, value: Any, options: Options) -> Prompt:
    """A prompt of `holynb.infer` with what its dict has under `attach`: one value, or a list."""
    return _with_last_turn(prompt, lambda m: replace(m, attachments=(*m.attachments, *_cell(value, "attach", options, None))))


def _cell(value: Any, name: str, options: Options, folder: str | None) -> list[Attachment]:
    return attachments.attachments_of(value, name, longest=options.attach_max, folder=folder)


def _placed(prompt: Prompt, names: Sequence[str], cells: Mapping[str, Sequence[Attachment]], beside: Sequence[str]) -> Prompt:
    def place(message: Message) -> Message:
        pieces, placed, length, end = [], list[Attachment](), 0, 0
        for mark in _MARK.finditer(message.content) if names else ():
            pieces.append(message.content[end : mark.start()])
            length, end = length + mark.start() - end, mark.end()
            placed += [replace(a, at=length) for a in cells[names[int(mark[1])]]]
        content = "".join((*pieces, message.content[end:])) if end else message.content
        return Message(message.role, content, (*placed, *(a for name in beside for a in cells[name])))

    return _with_last_turn(prompt, place)


def _with_last_turn(prompt: Prompt, change: Any) -> Prompt:
    """The prompt with its last user turn changed."""
    last = max((i for i, m in enumerate(prompt.messages) if m.role == "user"), default=None)
    if last is None:
        raise BadPrompt("An attachment goes along with what the user says, and these messages have no user turn.")
    messages = (*prompt.messages[:last], change(prompt.messages[last]), *prompt.messages[last + 1 :])
    return replace(prompt, messages=messages)
