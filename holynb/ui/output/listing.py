"""A table that a command prints: aligned text, or HTML whose rows become cards where the page is narrow. Pure; displays nothing."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from holynb import translation
from holynb.ui.output.text import clean, clip_columns, columns, grid, one_line

__all__ = ["Listing", "Markup", "Part", "Remark", "Verbatim", "as_html", "as_text"]

#: Of a cell in text: columns of a terminal.
MAX_CELL_COLUMNS = 60
#: What a character and the padding of a cell take at most, in pixels: a table is as wide as its longest cells, or its rows are stacked.
CHARACTER_PX, PADDING_PX = 6.9, 12
#: A cell of prose is wrapped before its table is stacked, but not below so many characters.
MIN_PROSE_CHARS = 24
#: Widths at which rows are stacked are rounded up to these steps, so that tables of a page share their styles.
STEP_PX = 40

STYLE = """.holynb-list{container-type:inline-size;color:var(--jp-ui-font-color1,inherit)}
.holynb-list table{border-collapse:collapse;margin:2px 0;font-size:13px;background:none;color:inherit}
.holynb-list table :is(th,td){padding:3px 10px 3px 0!important;line-height:1.45;text-align:start!important;vertical-align:top!important;border:0;background:none;
font-weight:400;white-space:normal;overflow-wrap:anywhere;max-width:44em}
.holynb-list thead :is(th,td){font-weight:600;overflow-wrap:normal}
.holynb-list .n{text-align:end!important;white-space:nowrap;font-variant-numeric:tabular-nums}
.holynb-list .k{white-space:nowrap}
.holynb-list table .n+:not(.n){padding-left:8px!important}
.holynb-list tbody tr{border-top:1px solid var(--jp-border-color2,#9e9e9e60)}"""
#: On each cell of text: a notebook that JupyterLab does not trust keeps no style sheet, and JupyterLab sets tables flush right
#: and in the middle of their rows.
LEFT, TOP = ' style="vertical-align:top;text-align:left"', ' style="vertical-align:top"'
#: Below the width of the table: a card a row, its name above, each figure behind its label.
STACKED = """@container (max-width:{px}px){{.holynb-list .hs{px},.hs{px} tbody{{display:block}}
.holynb-list .hs{px} thead{{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
.holynb-list .hs{px} tbody tr{{display:flex;flex-wrap:wrap;gap:1px 14px;padding:6px 4px}}
.holynb-list .hs{px} tr :is(th,td,.n+:not(.n)){{display:block;padding:0!important;text-align:start!important;white-space:normal!important;max-width:none}}
.holynb-list .hs{px} tbody th{{flex:1 1 100%;font-weight:600}}
.holynb-list .hs{px} td.e{{display:none}}
.holynb-list .hs{px} td.w{{flex:1 1 100%}}
.hs{px} td[data-label]::before{{content:attr(data-label) " ";content:attr(data-label) " "/"";color:var(--jp-ui-font-color2,#6b6b6b)}}}}"""


class Markup(str):
    """A cell or a part that is HTML already. Told by its type: a model may call itself `<b …`."""

    __slots__ = ()


class Remark(str):
    """A part about the others. A console writes it beside them, to stderr: what is sent into a file is the others alone."""

    __slots__ = ()


class Verbatim(str):
    """A part whose lines and columns stay as they are: a log, help, facts under each other. It is broken between words, too."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows under their heads. The first column names the row.

    numbers: columns of figures, aligned at their ends. prose: columns whose text may be wrapped. A head that is empty labels nothing.
    wide: columns that take a line of their own where rows are stacked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Collection[int] = field(default_factory=frozenset)
    prose: Collection[int] = field(default_factory=frozenset)
    wide: Collection[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", [*map(translation.head, self.head)])


#: What a command says, from above: lines of text and tables.
Part = str | Listing


def as_text(parts: Sequence[Part], width: int | None = None, gap: str = "\n") -> str:
    """The parts as text, with `gap` between them. `width`: columns of the terminal; a table that is wider is written row by row."""
    return gap.join(clean(p).rstrip(" ") if isinstance(p, str) else _table(p, width) for p in parts if p and not isinstance(p, Markup))


def _table(table: Listing, width: int | None) -> str:
    caps = dict.fromkeys(range(len(table.head)), MAX_CELL_COLUMNS) | dict.fromkeys(table.prose, 110)
    text = grid(table.head, table.rows, caps, table.numbers)
    if width is None or max(map(columns, text.split("\n"))) <= width:
        return text
    return "\n".join(line for row in table.rows for line in _card(table, row, width))


def _card(table: Listing, row: Sequence[str], width: int) -> list[str]:
    """One row: its name, then `label value · label value` in lines of at most `width` columns."""
    name, *cells = [clip_columns(one_line(c), 500) for c in row]
    lines = [name]
    for label, cell in zip(table.head[1:], cells, strict=True):
        if not cell:
            continue
        piece = f"{label} {cell}".strip()
        joined = f"{lines[-1]} · {piece}"
        if len(lines) > 1 and columns(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(f"  {piece}")
    return lines


def as_html(parts: Sequence[Part], *, styled: bool = True) -> str:
    """The parts as an HTML fragment."""
    tables = [p for p in parts if isinstance(p, Listing)]
    body = "".join(
        p if isinstance(p, Markup) else _paragraph(p) if isinstance(p, str) else table(p) for p in parts if not isinstance(p, str) or p
    )
    head = style(tables) if styled and tables else ""
    return f'<div class="holynb tex2jax_ignore mathjax_ignore">{head}{body}</div>'


def _paragraph(text: str) -> str:
    if not text.strip():
        return ""
    # JupyterLab breaks a line of plain text anywhere, within a word too; a style of our own does not.
    wrapping = "white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal"
    if isinstance(text, Verbatim):
        return f'<pre dir="auto" style="margin:6px 0;{wrapping}">{html.escape(clean(text))}</pre>'
    return f'<div dir="auto" style="margin:6px 0;line-height:1.45;{wrapping}">{html.escape(clean(text).strip())}</div>'


def style(tables: Sequence[Listing]) -> str:
    """The style sheet of these tables."""
    return f"<style>{STYLE}\n" + "\n".join(STACKED.format(px=px) for px in sorted({breadth(t) for t in tables})) + "</style>"


def breadth(table: Listing) -> int:
    """About how many pixels the table needs to be one."""
    px = 0.0
    for i, head in enumerate(table.head):
        cells = [MIN_PROSE_CHARS if isinstance(row[i], Markup) else columns(one_line(row[i])) for row in table.rows]
        longest = max([*cells, 0])
        longest = min(longest, MIN_PROSE_CHARS) if i in table.prose else longest
        px += max(longest, max(map(len, head.split()), default=0)) * CHARACTER_PX + PADDING_PX
    return -(-int(px) // STEP_PX) * STEP_PX


def table(of: Listing) -> str:
    """The table alone. Roles are written out, since one laid out otherwise loses its own; what scrolls can be reached by keys."""
    head = "".join(
        f'<th role="columnheader" scope="col"{_class(of, i)}>{html.escape(h)}</th>' if h else f'<td role="cell"{_class(of, i)}></td>'
        for i, h in enumerate(of.head)
    )
    body = "".join(f'<tr role="row">{"".join(_cell(of, i, c) for i, c in enumerate(row))}</tr>' for row in of.rows)
    return (
        f'<div class="holynb-list" style="overflow-x:auto" tabindex="0"><table role="table" class="hs{breadth(of)}"><thead role="rowgroup"><tr role="row">{head}</tr>'
        f'</thead><tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _class(of: Listing, i: int, *more: str) -> str:
    words = [*(["n"] if i in of.numbers else ["k"] if i not in of.prose else []), *(["w"] if i in of.wide else []), *more]
    return (f' class="{" ".join(words)}"' if words else "") + (TOP if i in of.numbers else LEFT)


def _cell(of: Listing, i: int, text: str) -> str:
    shown = text if isinstance(text, Markup) else html.escape(clean(text))
    if i == 0:
        return f'<th role="rowheader" scope="row"{_class(of, i)} dir="auto">{shown}</th>'
    label = f' data-label="{html.escape(of.head[i], quote=True)}"' if of.head[i] else ""
    return f'<td role="cell"{_class(of, i, *(() if text else ("e",)))}{label}>{shown}</td>'
