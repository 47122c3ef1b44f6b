"""Pieces of HTML tables. Every string of a model, a server or a row is data: cleaned and escaped. Pure."""

from __future__ import annotations

import html

from holynb.ui.output.text import clean

__all__ = ["CELL_STYLE", "OPEN_TAG", "PROSE_STYLE", "number_cell", "safe"]

#: Around all HTML of holynb. Two dollar signs are prices, not a formula: the classes keep MathJax 2, 3 and 4 away.
OPEN_TAG = '<div class="holynb tex2jax_ignore mathjax_ignore">'

#: On each cell, because a notebook that JupyterLab does not trust keeps no style sheet, and JupyterLab sets cells flush right and
#: in the middle, which is far below the beginning of a row that is opened. It drops `start`.
CELL_STYLE = ' style="vertical-align:top"'
PROSE_STYLE = ' style="vertical-align:top;text-align:left;white-space:pre-wrap"'


def safe(text: str | None) -> str:
    """`text`, cleaned and escaped."""
    return html.escape(clean(text), quote=True)


def number_cell(text: str) -> str:
    """A cell with a number and its unit, on one line."""
    return f'<td class="n"{CELL_STYLE}>{safe(text).replace(" ", "&nbsp;")}</td>'
