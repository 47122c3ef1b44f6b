"""Pieces of tables in HTML: every string of a model, a server or a row is data, cleaned and escaped. Pure."""

from __future__ import annotations

import html

from holynb.ui.output.text import clean

__all__ = ["PROSE", "figure", "safe"]

#: On a cell itself, because a notebook that JupyterLab does not trust keeps no style sheet, and JupyterLab sets tables flush right;
#: `start` it does not keep.
PROSE = ' style="text-align:left;white-space:pre-wrap"'


def safe(text: str | None) -> str:
    """`text` as it may stand in a page."""
    return html.escape(clean(text), quote=True)


def figure(text: str) -> str:
    """A cell with a figure and its unit, which stay on one line."""
    return f'<td class="n">{safe(text).replace(" ", "&nbsp;")}</td>'
