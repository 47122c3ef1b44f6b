"""The README's pictures, taken in JupyterLab in Chromium: python tests/browser/pictures.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.lab import CHROMIUM, FLAGS, Lab, Page, write_notebook

FOLDER = Path(__file__).parents[2] / "notebooks" / "pictures"
SIZE = (1180, 800)
REVIEWS = 'import pandas as pd\nreviews = pd.DataFrame({"text": ["Arrived broken.", "Exactly what I wanted.", "배송이 빨라요."]})'


def taken(lab: Lab, context: Any, path: Path, cells: list[str], theme: str = "JupyterLab Light") -> Page:
    """A notebook in front, its first cells run, the last one started."""
    page = Page(lab, context, write_notebook(lab.root / f"{path.stem}.ipynb", ["%load_ext holynb", *cells]), SIZE)
    page.theme(theme)
    for cell in range(len(cells)):
        page.run(cell)
    page.start(len(cells))
    return page


def live(lab: Lab, context: Any, path: Path, theme: str) -> None:
    page = taken(lab, context, path, ["%infer show --replay flaky --speed 4"], theme)
    page.until(lambda: page.there(".hn-chart canvas") >= 4 and page.there(".hn .hn-is-ok"), 30, "the view")
    page.until(lambda: int(page.find(".hn-done").inner_text().split()[0]) >= 70, 60, "seventy rows")
    page.page.screenshot(path=str(path), clip=page.find(".hn").bounding_box())  # the view itself never stands still
    page.close()
    lab.end_kernels()


def panel(lab: Lab, context: Any, path: Path) -> None:
    page = taken(lab, context, path, [REVIEWS, "%infer panel --df reviews"])
    page.idle()
    page.page.set_viewport_size({"width": SIZE[0], "height": 1000})
    page.page.get_by_placeholder("provider/model or an alias").fill("holysheep/gpt-4.1")
    page.page.get_by_placeholder("What to ask").fill("Is this review positive or negative? Answer with one word.")
    page.page.get_by_role("button", name="{{ text }}").click()
    page.idle()  # a press may overtake what was typed just before it: ipywidgets holds that back while the kernel is busy
    page.page.get_by_role("button", name="Dry run").click()
    page.until(lambda: "nothing was sent" in page.text(2), 10, "the dry run")
    page.find(".jp-Notebook .jp-Cell").nth(2).locator(".jp-OutputArea").first.screenshot(path=str(path))
    page.close()
    lab.end_kernels()


def main() -> None:
    from playwright.sync_api import sync_playwright

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab()
    try:
        with sync_playwright() as started:
            window = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            context = window.new_context()
            live(lab, context, folder / "live-dark.png", "JupyterLab Dark")
            live(lab, context, folder / "live.png", "JupyterLab Light")
            panel(lab, context, folder / "panel.png")
            window.close()
    finally:
        lab.close()


if __name__ == "__main__":
    main()
