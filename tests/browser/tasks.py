"""Ten things that people do, counted in keys and clicks, in JupyterLab in Chromium: python tests/browser/tasks.py [--against TREE]

Each begins in a notebook whose cells have run, with the cursor in an empty cell below them, and ends when the page shows what was wanted. A
chord (Shift+Enter) is one key; looking and scrolling cost nothing. Of the ways to do it the shortest counts.
`--against`: another tree of holynb, measured with the same hands; a way that it does not have is "not possible".
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.hands import Hands, NotPossibleError
from browser.lab import CHROMIUM, FLAGS, ROOT, Lab, Page, write_notebook

#: The sentence a long answer ends with, and what the page shows of a row that failed.
LAST_WORDS, REASON = "and here it ends.", "content filter"

FRAME = 'import pandas as pd\ndf = pd.DataFrame({"text": ["Arrived broken.", "Exactly what I wanted.", "배송이 빨라요."]})'
#: Ten rows; the third fails for good, the fifth has an answer of 1,500 characters.
MIXED = (
    'import pandas as pd\ndf = pd.DataFrame({"text": [f"review {i}" for i in range(10)], "fault": ""})\n'
    f'df.loc[2, "fault"] = "content_filter"; df.loc[4, "text"] = "word " * 300 + "{LAST_WORDS}"'
)
ASKED = "%%infer answers= << sim/echo --df df --params-from fault --no-cache\n{{ text }}"
#: Two models that give back what they are asked, one of them of a provider that the settings name; the second row is longer than a table shows.
TWIN = '[provider.twin]\nwire = "sim"\nbase = "http://127.0.0.1:9"\n'
TWO = f'import pandas as pd\ndf = pd.DataFrame({{"text": ["one", "word " * 300 + "{LAST_WORDS}", "three"]}})'
COMPARED = "%%infer answers= << --df df --compare sim/echo,twin/echo --no-cache\n{{ text }}"
SLOW = "%%infer sim/stream --df df -c 1 --max-tokens 24 --no-cache\nRate it: {{ text }}"


# -- ways ----------------------------------------------------------------------------------------------------------------
def ask_in_a_cell(hands: Hands) -> None:
    hands.run("%%infer sim/echo --df df\nGood? {{ text }}")
    hands.wait(lambda: hands.drawn("Exactly what I wanted."), "the answers")
    hands.wait(lambda: "3 rows" in hands.page.text(2), "the end")


def ask_in_the_panel(hands: Hands) -> None:
    hands.run("%infer panel --df df")
    route = hands.page.page.get_by_label("Route").or_(hands.page.page.get_by_placeholder("provider/model or an alias"))
    hands.click(route)
    hands.type("sim/echo")
    hands.click(hands.page.page.get_by_label("Prompt").or_(hands.page.page.get_by_placeholder("What to ask")))
    hands.type("Good? ")
    hands.click(hands.button("text", exact=False))
    hands.click(hands.button("Run"))
    hands.wait(lambda: "3 rows" in hands.page.text(2), "the end")


def look(hands: Hands) -> None:
    """It is there already."""


def why_it_failed(hands: Hands) -> bool:
    return hands.drawn(REASON) > 0


def open_the_row(hands: Hands) -> None:
    """In what stays: a row that opens."""
    hands.click(hands.page.find(".holynb-rows details > summary").filter(has_text="word word"), 2)


def open_the_row_in_the_live_table(hands: Hands) -> None:
    hands.run("%infer show")
    hands.click(hands.page.find(".hn .hn-sizer .hn-row").nth(4), 10)


def print_the_row(hands: Hands) -> None:
    hands.run("print(answers.text[4])")


def the_end_of_the_answer(hands: Hands) -> bool:
    return bool(hands.drawn(LAST_WORDS))


def resume(hands: Hands) -> None:
    hands.run("%infer resume")


def resume_by_its_id(hands: Hands) -> None:
    shown = hands.page.text(2)
    hands.run("%infer resume " + shown.partition("%infer resume ")[2].split()[0].strip(".`"))


def resumed(hands: Hands) -> bool:
    return hands.page.state()[2] == 0 and "3 rows" in hands.page.text(hands.page.cells() - 2)


def compare_in_place(hands: Hands) -> None:
    hands.click(hands.page.find(".holynb-rows details > summary").filter(has_text="word word"), 2)


def compare_in_the_live_table(hands: Hands) -> None:
    hands.run("%infer show")
    rows = hands.page.find(".hn .hn-sizer .hn-row:not([hidden])")
    hands.wait(lambda: rows.count() >= 6, "the rows", 10)
    hands.click(rows.nth(2))
    hands.click(hands.button("Compare", exact=False), 2)
    hands.click(rows.nth(3))


def print_both(hands: Hands) -> None:
    hands.run("for t in answers.text[2:4]: print(t)")


def both_answers(hands: Hands) -> bool:
    return hands.drawn(LAST_WORDS) >= 2


def export_in_python(hands: Hands) -> None:
    hands.run('answers.to_csv("a.csv")')


def export_in_the_live_table(hands: Hands) -> None:
    hands.run("%infer show")
    hands.click(hands.button("CSV", exact=False), 10)


def exported(hands: Hands) -> bool:
    folder = hands.page.lab.root
    return any("review 3" in f.read_text(encoding="utf-8") for f in folder.glob("*.csv")) or any(
        "review 3" in Path(d.path()).read_text(encoding="utf-8") for d in hands.page.downloads
    )


def ask_a_pool(hands: Hands) -> None:
    hands.run("%%infer pool/smollm2-135m --max-tokens 9\nhi")


def start_and_ask_a_pool(hands: Hands) -> None:
    hands.run("%infer pool start")
    hands.wait(lambda: "ready" in hands.page.text(1), "a pool", 120)
    hands.run("%%infer pool/smollm2-135m --max-tokens 9\nhi")


def asked_a_pool(hands: Hands) -> bool:
    return any("9 tokens" in hands.page.text(i) or "1 row" in hands.page.text(i) for i in range(1, hands.page.cells()))


def cost_command(hands: Hands) -> None:
    hands.run("%infer cost")


def cost_in_the_side_panel(hands: Hands) -> None:
    hands.click(hands.page.find(".jp-SideBar [data-id=holynb-side]"), 2)
    if not hands.page.find("#holynb-side").get_by_text("Spending").count():
        hands.click(hands.page.find("#holynb-side button").filter(has_text="Dashboard"), 2)


def the_cost_of_all(hands: Hands) -> bool:
    side = hands.page.find("#holynb-side")
    texts = [hands.page.text(hands.page.cells() - 2), side.inner_text() if side.count() else ""]
    return any("sim/" in text and "$0.0" in text for text in texts)


def stop(hands: Hands) -> None:
    hands.click(hands.button("Stop").and_(hands.page.find(".hn-stop")))


def interrupt(hands: Hands) -> None:
    hands.press("Escape", "i", "i")


def stopped(hands: Hands) -> bool:
    return hands.page.state()[2] == 0 and any(word in hands.page.text(2) for word in ("stopped", "Interrupted"))


MODEL = "gpt-6-luna"


def find_in_the_panel(hands: Hands) -> None:
    """Type a part of its name, and choose what is offered with its price."""
    hands.run("%infer panel")
    hands.click(hands.page.page.get_by_label("Route").or_(hands.page.page.get_by_placeholder("provider/model or an alias")))
    hands.type("luna")
    hands.click(
        hands.page.page.get_by_role("option").filter(has_text=MODEL).or_(hands.page.find(".holynb-models button").filter(has_text=MODEL)), 4
    )


def read_and_type(hands: Hands) -> None:
    """Its price in one place, its name in another."""
    hands.run("%infer models openai")
    hands.wait(lambda: hands.drawn(f"openai/{MODEL}"), "the models")
    hands.run("%infer panel")
    hands.click(hands.page.page.get_by_label("Route").or_(hands.page.page.get_by_placeholder("provider/model or an alias")))
    hands.type(f"openai/{MODEL}")


def chosen_with_its_price(hands: Hands) -> bool:
    value = hands.page.ask("() => [...document.querySelectorAll('.holynb-form input')].map(e => e.value)")
    return f"openai/{MODEL}" in value and bool(
        hands.page.ask("() => /0\\.10?\\b[^]*0\\.50?\\b/.test(document.querySelector('.jp-Notebook').innerText)")
    )


@dataclass(frozen=True)
class Task:
    """`cells` have run when the hands begin, `started` has been started; a way has done it when `done` holds. `after` takes away what it leaves."""

    name: str
    ways: tuple[Callable[[Hands], None], ...]
    done: Callable[[Hands], bool] = field(default=lambda _: True)
    cells: tuple[str, ...] = ()
    started: str = ""
    interrupted: bool = False
    after: str = ""


TASKS = (
    Task("ask a frame a question", (ask_in_a_cell, ask_in_the_panel), cells=(FRAME,)),
    Task("see why a row failed", (look, open_the_row_in_the_live_table), why_it_failed, (MIXED, ASKED)),
    Task(
        "read one long answer whole", (open_the_row, open_the_row_in_the_live_table, print_the_row), the_end_of_the_answer, (MIXED, ASKED)
    ),
    Task("resume what was interrupted", (resume, resume_by_its_id), resumed, (FRAME,), SLOW, interrupted=True),
    Task("compare two models' answers of a row", (compare_in_place, compare_in_the_live_table, print_both), both_answers, (TWO, COMPARED)),
    Task("export the answers as CSV", (export_in_the_live_table, export_in_python), exported, (MIXED, ASKED)),
    Task("start a pool and ask it", (ask_a_pool, start_and_ask_a_pool), asked_a_pool, after="%infer pool stop"),
    Task("find out what all runs have cost", (cost_command, cost_in_the_side_panel), the_cost_of_all, (MIXED, ASKED)),
    Task("stop a run", (stop, interrupt), stopped, (FRAME,), SLOW),
    Task("find a model with its price and use it", (find_in_the_panel, read_and_type), chosen_with_its_price),
)


@dataclass(frozen=True)
class Count:
    """What one way took; None where it is not possible, with the reason."""

    way: str
    keys: int | None = None
    clicks: int | None = None
    reason: str = ""

    @property
    def total(self) -> float:
        return float("inf") if self.keys is None or self.clicks is None else self.keys + self.clicks

    def __str__(self) -> str:
        return "not possible" if self.keys is None else f"{self.keys} + {self.clicks}"


def in_the_last_cell(page: Page) -> None:
    """The cursor stands there, ready to type."""
    page.ask(
        "() => { const nb = window.jupyterapp.shell.currentWidget.content; nb.deselectAll(); nb.activeCellIndex = nb.widgets.length - 1; "
        "nb.mode = 'edit'; return null; }"
    )


def begin(page: Page, task: Task) -> None:
    """Everything up to the first key: the last of the notebook's cells is empty and has the cursor."""
    for cell in range(1, 1 + len(task.cells)):
        page.run(cell)
    if task.started:
        page.start(page.cells() - 2)
        page.until(lambda: page.there(".hn .hn-is-running"), 30, "the live view")
    if task.interrupted:
        page.interrupt()
        page.idle()
    in_the_last_cell(page)


def notebook_of(task: Task) -> list[str]:
    return ["%load_ext holynb", *task.cells, *([task.started] if task.started else []), ""]


def counted(page: Page, task: Task, way: Callable[[Hands], None]) -> Count:
    """Do a task in one way."""
    hands, name = Hands(page), way.__name__.replace("_", " ")
    try:
        way(hands)
        hands.wait(lambda: task.done(hands))
    except NotPossibleError as exc:
        return Count(name, reason=str(exc))
    return Count(name, hands.keys, hands.clicks)


def measured(lab: Lab, context: Any, only: str = "") -> dict[str, list[Count]]:
    """Task → what its ways took, the shortest first."""
    found = {}
    for task in TASKS:
        if only not in task.name:
            continue
        counts = []
        for i, way in enumerate(task.ways):
            page = Page(lab, context, write_notebook(lab.root / f"{TASKS.index(task)}-{i}.ipynb", notebook_of(task)))
            try:
                page.run(0)
                begin(page, task)
                counts.append(counted(page, task, way))
                page.picture(f"task-{task.name.replace(' ', '-')}-{i}")
            finally:
                if task.after:
                    page.idle(120)
                    page.say(task.after)
                page.close()
                lab.end_kernels()
                for left in lab.root.glob("*.csv"):
                    left.unlink()
            print(f"  {task.name}: {counts[-1].way}: {counts[-1]} {counts[-1].reason}", file=sys.stderr, flush=True)
        found[task.name] = sorted(counts, key=lambda c: c.total)
    return found


def in_tree(tree: Path, window: Any, only: str = "") -> dict[str, list[Count]]:
    lab = Lab(tree)
    (lab.home / "holynb").mkdir(exist_ok=True)
    (lab.home / "holynb" / "config.toml").write_text(TWIN, encoding="utf-8")
    models = Path(os.environ.get("HOLYNB_MODELS") or Path.home() / ".local/share/holynb/models")
    if models.exists():  # else the first pool fetches its weights
        (lab.home / "holynb" / "models").symlink_to(models)
    context = window.new_context()
    try:
        return measured(lab, context, only)
    finally:
        context.close()
        lab.close()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, metavar="TREE")
    parser.add_argument("--only", default="", metavar="WORD")
    args = parser.parse_args()
    trees = [*([args.against.resolve()] if args.against else []), ROOT]
    with sync_playwright() as started:
        window = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        results = [in_tree(tree, window, args.only) for tree in trees]
        window.close()
    print("| task | " + " | ".join(f"{tree.name}: keys + clicks | by" for tree in trees) + " |")
    print("|---|" + "--:|---|" * len(trees))
    for name in results[-1]:
        cells = [f"{result[name][0]} | {result[name][0].way if result[name][0].keys is not None else ''}" for result in results]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
