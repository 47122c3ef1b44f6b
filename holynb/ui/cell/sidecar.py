"""Shows a widget beside the notebook, in a tab of JupyterLab (package sidecar); without either, in the cell, with the reason."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from holynb.ui.cell.bridge import Bridge
from holynb.ui.live import pulse

__all__ = ["MISSING_PACKAGE", "NO_SIDE_AREA", "show_beside"]

MISSING_PACKAGE = "--beside needs the package sidecar: pip install sidecar, then reload the page. Shown in the cell meanwhile."
NO_SIDE_AREA = "This page has no place beside the notebook (JupyterLab has). Shown in the cell."


def show_beside(box: Any, what: str, again: str) -> str | None:
    """Show `box` beside the notebook. Returns the reason if it is shown in the cell instead; None if it is not, or not known yet.

    Only the page knows whether it is JupyterLab; its answer arrives after this returns. what, again: as for `pulse.show`.
    """
    from IPython.display import display

    if find_spec("sidecar") is None:
        pulse.show(box, what, again)
        return MISSING_PACKAGE
    import ipywidgets as w

    in_cell = w.VBox()

    def on_page_type(is_notebook: bool) -> None:
        if is_notebook:
            in_cell.children = [w.HTML(f"<div>{NO_SIDE_AREA}</div>"), box]
        elif not in_cell.children:
            from sidecar import Sidecar

            in_cell.children = [w.HTML('<span style="color:var(--jp-ui-font-color2,#808080)">Shown beside the notebook.</span>')]
            with Sidecar(title="holynb", anchor="split-right"):
                display(pulse.watched(box, again))  # type: ignore[no-untyped-call]

    pulse.show(w.VBox([Bridge(on_page_type=on_page_type), in_cell]), what, again)
    return None
