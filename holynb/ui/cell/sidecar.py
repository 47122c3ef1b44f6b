"""A place beside the notebook for a widget: a tab of JupyterLab through the package sidecar, where both are there; else the cell, and why."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from holynb.ui.cell.bridge import Bridge

__all__ = ["MISSING", "NOTEBOOK", "place"]

MISSING = "--beside needs the package sidecar: pip install sidecar, then reload the page. Shown in the cell meanwhile."
NOTEBOOK = "This page has no place beside the notebook (JupyterLab has). Shown in the cell."


def place(box: Any, title: str) -> str | None:
    """Show `box` beside the notebook. Returns a line that says why it is in the cell instead, None where that is not known yet or not so.

    Whether the page is JupyterLab only the page knows: it is asked, and answers a moment later.
    """
    from IPython.display import display

    if find_spec("sidecar") is None:
        display(box)  # type: ignore[no-untyped-call]
        return MISSING
    import ipywidgets as w

    here = w.VBox()

    def told(notebook: bool) -> None:
        if notebook:
            here.children = [w.HTML(f"<div>{NOTEBOOK}</div>"), box]
        elif not here.children:
            from sidecar import Sidecar

            here.children = [w.HTML('<span style="color:var(--jp-ui-font-color2,#808080)">Shown beside the notebook.</span>')]
            with Sidecar(title=title, anchor="split-right"):
                display(box)  # type: ignore[no-untyped-call]

    display(w.VBox([Bridge(where=told), here]))  # type: ignore[no-untyped-call]
    return None
