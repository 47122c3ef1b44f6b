"""Help in lines of at most 80 columns: prose, and lists of what is typed beside what it does. Pure; knows no command."""

from __future__ import annotations

from holynb.ui.output.text import columns

__all__ = ["HELP_WIDTH", "entry", "wrapped"]

#: Columns that help is written for.
HELP_WIDTH = 80


def wrapped(text: str, indent: str = "", hanging: str | None = None) -> str:
    """`text` in lines of at most HELP_WIDTH columns, the first after `indent`, the others after `hanging`. Its own lines stay lines.

    A word that is longer than a line is not divided: it may have to be copied.
    """
    lines = []
    for paragraph in text.split("\n"):
        lines.append(indent)
        for n, word in enumerate(paragraph.split()):
            joined = f"{lines[-1]} {word}" if n else f"{lines[-1]}{word}"
            if n and columns(joined) > HELP_WIDTH:
                lines.append(f"{indent if hanging is None else hanging}{word}")
            else:
                lines[-1] = joined
    return "\n".join(lines)


def entry(term: str, text: str, column: int) -> str:
    """A line of a list: `term`, and what it does from `column` on; below it where the term is longer."""
    body = wrapped(text, " " * column)
    if columns(term) + 4 > column:
        return f"{wrapped(term, '  ', '      ')}\n{body}"
    return f"  {term}{' ' * (column - 2 - columns(term))}{body[column:]}"
