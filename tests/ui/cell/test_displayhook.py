"""A value that is on the page already is kept and not shown again: this value, in this cell, by the display hook alone."""

from __future__ import annotations

import re

from ui.shells import run, shell

from holynb.ui.cell import displayhook


def test_it_is_kept_and_not_shown_again() -> None:
    with shell() as ip:
        ip.user_ns["show"] = lambda value, text=None: displayhook.replace_display(ip, value, text) or value
        ip.user_ns["x"] = ["a", "b"]
        result = run(ip, "show(x)")
        assert result.value == ["a", "b"]
        assert ip.user_ns["_"] is ip.user_ns["x"]
        assert "'a'" not in result.out
        assert "Out[" not in result.out, "nothing stands beside it"
        assert "'a'" in run(ip, "x").out
        assert re.search(r"Out\[\d+\]:\s+our text", run(ip, "show(x, 'our text')").out)


def test_another_value_and_another_cell_are_shown_as_ever() -> None:
    with shell() as ip:
        ip.user_ns["show"] = lambda value: displayhook.replace_display(ip, value)
        ip.user_ns["x"] = ["a", "b"]
        assert re.search(r"Out\[\d+\]: \['c'\]", run(ip, "show(x)\n['c']").out)
        run(ip, "y = show(x)")
        assert "'a'" in run(ip, "x").out, "a later cell shows it"
        run(ip, "y = show(x)")
        assert "compute_format_data" in vars(ip.displayhook)
        displayhook.restore(ip)
        assert "compute_format_data" not in vars(ip.displayhook)
