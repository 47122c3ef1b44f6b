"""The README's moving picture: a real cell in JupyterLab in Chromium, as it runs: python tests/browser/animation.py [FILE]

Frames are taken as fast as the page gives them and shown for as long as they stood, so a second of the picture is a second of the run.
The embedded model answers; HOLYNB_TEST_MODELS names a folder that holds it, or it is fetched. Takes a minute.
"""

from __future__ import annotations

import base64
import io
import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.lab import CHROMIUM, FLAGS, Lab, Page, write_notebook
from PIL import Image

FILE = Path(__file__).parents[2] / "notebooks" / "pictures" / "first-cell.gif"
SIZE, COLOURS, MOST_BYTES = (1120, 720), 64, 1_500_000
#: Milliseconds between two frames at least, and how long the last one stays.
PAUSE_MS, LAST_MS = 160, 4000

ITEMS = ("Lamp", "Kettle", "Novel", "Chair", "Coat", "Clock", "Bag", "Radio")
SAID = (
    "great product, fast delivery!",
    "broken after a week. Terrible.",
    "I love it, so comfortable.",
    "boring. A waste of money.",
    "wonderful, I enjoyed every day.",
    "bad quality. I hate it.",
)
LOADS = '%load_ext holynb\nimport pandas as pd\n\nreviews = pd.read_csv("reviews.csv")'
ASKS = (
    "%%infer moods= << pool/smollm2-135m --df reviews --temperature 0 --stop . --stop , -c 6\n"
    "Review: {{ review }}\nIs this review positive or negative?"
)


def prepared(lab: Lab) -> Path:
    """The notebook and its rows, in the lab's folder; the model, where it is known to lie."""
    if models := os.environ.get("HOLYNB_TEST_MODELS"):
        (lab.home / "holynb").mkdir(mode=0o700, exist_ok=True)
        (lab.home / "holynb" / "models").symlink_to(models, target_is_directory=True)
    rows = [f"{item}: {said}" for item in ITEMS for said in SAID]
    (lab.root / "reviews.csv").write_text("review\n" + "".join(f'"{row}"\n' for row in rows), encoding="utf-8")
    return write_notebook(lab.root / "reviews.ipynb", [LOADS, ASKS, "", "%infer pool start smollm2-135m", "%infer pool stop smollm2-135m"])


def frames(page: Page, cell: int) -> list[tuple[Image.Image, int]]:
    """The notebook while a cell runs, and a moment after: pictures, and for how many milliseconds each stood."""
    taken, times, ends = [], [], None
    camera, clip = page.page.context.new_cdp_session(page.page), area(page) | {"scale": 1}
    page.start(cell)
    while ends is None or time.monotonic() < ends:
        begin = time.monotonic()
        seen = camera.send("Page.captureScreenshot", {"clip": clip, "optimizeForSpeed": True})  # half the time of a screenshot
        taken.append(base64.b64decode(seen["data"]))
        times.append(begin)
        if ends is None and page.state()[2] == 0 and len(taken) > 3:
            ends = time.monotonic() + 1.5
        page.page.wait_for_timeout(max(0.0, PAUSE_MS - 1000 * (time.monotonic() - begin)))
    stood = [round(1000 * (b - a)) for a, b in itertools.pairwise(times)] + [LAST_MS]
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in taken]
    return merged(list(zip(images, stood, strict=True)))


def area(page: Page) -> Any:
    """The notebook's own part of the window."""
    return page.find(".jp-NotebookPanel-notebook").first.bounding_box()


def merged(shown: list[tuple[Image.Image, int]]) -> list[tuple[Image.Image, int]]:
    """Equal neighbours as one."""
    kept: list[tuple[Image.Image, int]] = []
    for image, stood in shown:
        if kept and kept[-1][0].tobytes() == image.tobytes():
            kept[-1] = (image, kept[-1][1] + stood)
        else:
            kept.append((image, stood))
    return kept


def written(shown: list[tuple[Image.Image, int]], path: Path) -> None:
    """As a GIF of one palette, the last frame's and the middle one's: what changes is all that a frame holds."""
    last = shown[-1][0]
    sample = Image.new("RGB", (last.width, last.height * 2))
    sample.paste(shown[len(shown) // 2][0], (0, 0))
    sample.paste(last, (0, last.height))
    palette = sample.quantize(COLOURS, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in shown]
    images[0].save(path, save_all=True, append_images=images[1:], duration=[stood for _, stood in shown], loop=0, optimize=True)


def main() -> None:
    from playwright.sync_api import sync_playwright

    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    lab = Lab()
    try:
        book = prepared(lab)
        with sync_playwright() as started:
            window = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = Page(lab, window.new_context(), book, SIZE)
            page.theme("JupyterLab Light")
            page.run(0)
            page.run(3)  # out of sight: the pool is there before the picture begins
            page.ask("() => { window.jupyterapp.shell.currentWidget.content.scrollToItem(0); return null; }")
            page.page.wait_for_timeout(500)
            shown = frames(page, 1)
            page.run(4)
            window.close()
    finally:
        lab.close()
    written(shown, path)
    size, seconds = path.stat().st_size, sum(stood for _, stood in shown) / 1000
    print(f"{path}: {len(shown)} frames, {seconds:.1f} s, {size / 1e6:.2f} MB")
    assert size <= MOST_BYTES, "too large for a page that is read over a telephone: fewer colours, or a smaller window"


if __name__ == "__main__":
    main()
