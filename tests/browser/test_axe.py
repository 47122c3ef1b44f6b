"""What axe-core finds in everything that holynb draws, in light and dark. https://github.com/dequelabs/axe-core"""

from __future__ import annotations

from typing import Any

import pytest
from browser.cells import endless

pytestmark = pytest.mark.browser

ROWS = (
    'import pandas as pd\ndf = pd.DataFrame({"x": [f"review {i}" for i in range(4)] + ["word " * 1200], "fault": ""})\n'
    'df.loc[1, "fault"] = "content_filter"; df.loc[2, "fault"] = "context_length"'
)
ENDED = "%%infer sim/echo --df df --params-from fault --no-cache -p latency=0.4\n{{ x }}"
ONE = "%%infer sim/echo --no-cache\nOne prompt"
COMPARED = "%%infer --df df --compare sim/echo,sim/stream --limit 2 --max-tokens 12 --no-cache\n{{ x }}"
#: The numbers of the cells of the dashboard and of the live view.
DASH, LIVE = 6, 7

#: plotly's own charts are not ours; and of rows that look the same two are enough, since each text takes axe its time.
LEFT_OUT = [[".js-plotly-plot"], [".hn-is-ok ~ .hn-is-ok ~ .hn-is-ok"], [".hn-is-waiting ~ .hn-is-waiting"]]
#: axe takes what hangs over a body without a height for cut off, as JupyterLab's is, and would look at no colour.
TALL = "() => { document.body.style.minHeight = '100vh'; return null; }"
#: Height of body, what lies over the page, and of each cell its height and words.
DRAWN = """() => [document.body.offsetHeight, innerHeight, document.elementFromPoint(640, 450)?.className,
  window.jupyterapp.shell.currentWidget.content.widgets.map(w => [w.node.offsetHeight, w.node.innerText.length])]"""


def findings(page: Any, where: str, *rules: str) -> tuple[list[str], int]:
    """What axe finds there that is serious or critical, one line each; and how many texts' colours it has compared. `rules`: these alone."""
    from axe_playwright_python.sync_playwright import Axe

    options: dict[str, Any] = {"resultTypes": ["violations", "passes"], "preload": False}
    if rules:
        options["runOnly"] = list(rules)
    found = Axe().run(page.page, {"include": [[where]], "exclude": LEFT_OUT}, options).response
    lines = [
        f"{v['id']} ({v['impact']}): {node['html'][:160]}: {' '.join(c['message'] for c in node['any'] + node['all'] + node['none'])}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]
    return list(dict.fromkeys(lines)), sum(len(v["nodes"]) for v in found["passes"] if v["id"] == "color-contrast")


def compared(page: Any, where: str, *rules: str) -> list[str]:
    """What axe finds, once it has looked at the colours of what every cell shows: it leaves out what is not drawn yet, and most of it where the body has no height."""
    found: list[str] = []

    def looked() -> bool:
        page.ask(TALL)
        found[:], colours = findings(page, where, *rules)
        return colours > 100

    try:
        page.until(looked, 20, "more than 100 texts whose colours axe has compared")
    except AssertionError as exc:
        raise AssertionError(f"{exc}; the page: {page.ask(DRAWN)}") from exc
    return found


def opened(notebook: Any, recording: str) -> Any:
    """A notebook with everything that holynb draws: what stays, the panel, the dashboard, and a live view with a row opened; all in sight."""
    page = notebook(
        ROWS, ENDED, ONE, COMPARED, "%infer panel --df df", "%infer dash", f"%infer show --replay {recording}", size=(1280, 4400)
    )
    for cell in range(1, LIVE):
        page.run(cell)
    page.start(LIVE)
    page.until(
        lambda: page.there(".hn .hn-is-ok") and page.there(".hn .hn-is-running") and page.there(".hn-chart canvas") >= 3,
        30,
        "the live view",
    )
    page.until(lambda: page.there(".holynb-form") and "Spending" in page.text(DASH), 20, "the panel and the dashboard")
    page.until(lambda: page.there(".js-plotly-plot .main-svg"), 20, "the charts that stay")
    page.find(".hn .hn-sizer .hn-is-ok").first.click()
    page.until(lambda: "attempt 1" in page.find(".hn-detail").inner_text(), 10, "the row in full")
    return page


def test_axe_finds_nothing_serious_in_light_and_dark(notebook: Any, lab: Any) -> None:
    page = opened(notebook, endless(lab.root))
    everything, pools = ".jp-Notebook .jp-OutputArea", ".jp-Notebook .jp-OutputArea .widget-tab"
    found = {}
    try:
        for theme, rules in (("JupyterLab Light", ()), ("JupyterLab Dark", ("color-contrast",))):
            page.theme(theme)
            found[theme] = compared(page, everything, *rules)
            page.page.get_by_role("tab", name="Pools").click()
            page.until(lambda: page.page.get_by_role("button", name="Start", exact=True).is_visible(), 10, "the form of pools")
            found[f"{theme}, pools"], _ = findings(page, pools, *rules)
            page.page.get_by_role("tab", name="Ask").click()
    finally:
        page.theme("JupyterLab Light")
        page.page.evaluate("() => { document.body.style.minHeight = ''; return null; }")
    assert not any(found.values()), "\n".join(f"{where}: {line}" for where, lines in found.items() for line in lines)
