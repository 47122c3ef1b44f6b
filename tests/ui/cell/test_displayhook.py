"""A value that is on the page already is kept and not shown again: this value, in this cell, by the display hook alone."""

from __future__ import annotations

import re

from ui.shells import run, shell

from holynb.ui.cell import displayhook


def test_it_is_kept_and_not_shown_again() -> None:
    with shell() as made:
        made.user_ns["show"] = lambda value, text=None: displayhook.replace_display(made, value, text) or value
        made.user_ns["x"] = ["a", "b"]
        done = run(made, "show(x)")
        assert done.value == ["a", "b"]
        assert made.user_ns["_"] is made.user_ns["x"]
        assert "'a'" not in done.out
        assert "Out[" not in done.out, "nothing stands beside it"
        assert "'a'" in run(made, "x").out
        assert re.search(r"Out\[\d+\]:\s+our text", run(made, "show(x, 'our text')").out)


def test_another_value_and_another_cell_are_shown_as_ever() -> None:
    with shell() as made:
        made.user_ns["show"] = lambda value: displayhook.replace_display(made, value)
        made.user_ns["x"] = ["a", "b"]
        assert re.search(r"Out\[\d+\]: \['c'\]", run(made, "show(x)\n['c']").out)
        run(made, "y = show(x)")
        assert "'a'" in run(made, "x").out, "a later cell shows it"
        run(made, "y = show(x)")
        assert "compute_format_data" in vars(made.displayhook)
        displayhook.restore(made)
        assert "compute_format_data" not in vars(made.displayhook)
