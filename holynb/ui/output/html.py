"""Pieces of HTML tables. Every string of a model, a server or a row is data: cleaned and escaped. Pure."""

from __future__ import annotations

import html

from holynb.ui.output.text import clean

__all__ = ["CELL_STYLE", "CORNER", "OPEN_TAG", "PROSE_STYLE", "SIDEWAYS", "number_cell", "safe"]

#: Around all HTML of holynb. Two dollar signs are prices, not a formula: the classes keep MathJax 2, 3 and 4 away.
OPEN_TAG = '<div class="holynb tex2jax_ignore mathjax_ignore">'

#: On each cell, because a notebook that JupyterLab does not trust keeps no style sheet, and JupyterLab sets cells flush right and
#: in the middle, which is far below the beginning of a row that is opened. It drops `start`.
CELL_STYLE = ' style="vertical-align:top"'
PROSE_STYLE = ' style="vertical-align:top;text-align:left;white-space:pre-wrap"'

#: The head of the rows' labels: read aloud, not seen.
CORNER = '<th class="n"><span style="position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)">row</span></th>'

#: Declarations of what scrolls sideways: a shadow where more of it lies, since a system may hide the bar; its own
#: ground covers the shadow at either end.
SIDEWAYS = (
    "overflow-x:auto;background:"
    "linear-gradient(90deg,var(--jp-layout-color0,Canvas) 40%,transparent) 0 0/40px 100% no-repeat local,"
    "linear-gradient(270deg,var(--jp-layout-color0,Canvas) 40%,transparent) 100% 0/40px 100% no-repeat local,"
    "linear-gradient(90deg,#808080a0,transparent) 0 0/14px 100% no-repeat scroll,"
    "linear-gradient(270deg,#808080a0,transparent) 100% 0/14px 100% no-repeat scroll"
)


def safe(text: str | None) -> str:
    """`text`, cleaned and escaped."""
    return html.escape(clean(text), quote=True)


def number_cell(text: str) -> str:
    """A cell with a number and its unit, on one line."""
    return f'<td class="n"{CELL_STYLE}>{safe(text).replace(" ", "&nbsp;")}</td>'
