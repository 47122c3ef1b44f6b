"""The panel, the dashboard and what holynb adds to JupyterLab itself."""

from __future__ import annotations

from typing import Any

import pytest
from browser.cells import HELD, WHOLE, allow
from browser.colours import contrast

pytestmark = pytest.mark.browser

FRAME = 'import pandas as pd\nreviews = pd.DataFrame({"text": ["good film", "dull film", "좋은 영화"]})'


def test_from_the_form_to_a_frame_without_a_magic(notebook: Any) -> None:
    page = notebook(FRAME + HELD, "%infer panel --df reviews", "import time; time.sleep(1.5)")
    page.run(1)
    allow(page, 0)
    page.run(2)
    page.start(3)  # ipywidgets hold back what is typed while the kernel is busy
    page.page.get_by_placeholder("provider/model or an alias").fill("sim/stream")
    page.page.get_by_placeholder("What to ask").press_sequentially("Rate this:")
    page.page.get_by_role("button", name="{{ text }}").click()
    page.page.get_by_role("button", name="Dry run").click()
    page.until(lambda: "nothing was sent" in page.text(2), 10, "the dry run")
    page.shows(2, "Rate this: good film")
    page.picture("panel")
    page.page.get_by_role("button", name="Run", exact=True).click()
    page.until(lambda: page.there(".hn .hn-is-running"), 10, "the live view in the panel")
    page.picture("panel-running")
    allow(page, WHOLE)
    page.until(lambda: "answers holds a DataFrame of 3 rows" in page.text(2), 20, "the end")
    page.shows(2, "3 rows")
    assert page.say("print(list(answers.status), len(answers.text[0].split()))") == "['ok', 'ok', 'ok'] 60"


WIDE = 'import pandas as pd\nwide = pd.DataFrame([range(30)], columns=[f"column {i}" for i in range(29)] + ["text"])'


def test_a_column_is_searched_and_written_where_the_cursor_stands(notebook: Any) -> None:
    page = notebook(WIDE, "%infer panel --df wide")
    page.run(1)
    page.run(2)
    prompt = page.page.get_by_placeholder("What to ask")
    prompt.fill("Is this  good?")
    page.ask("() => { document.querySelector('.holynb-prompt textarea').setSelectionRange(8, 8); return null; }")
    search = page.page.get_by_placeholder("Search columns")
    search.fill("nothing")
    page.until(lambda: "No such column" in page.text(2), 5, "an empty search")
    search.fill("tex")
    page.until(lambda: page.there(".holynb-columns button") == 1, 5, "the column")
    search.press("Enter")
    page.until(lambda: prompt.input_value() == "Is this {{ text }} good?", 5, "the column in the prompt")
    prompt.focus()
    page.page.keyboard.type("!")
    page.until(lambda: prompt.input_value() == "Is this {{ text }}! good?", 5, "the cursor behind it")


def test_a_model_is_picked_by_keyboard_with_its_price_and_key(notebook: Any) -> None:
    page = notebook("%infer panel")
    page.run(1)
    route = page.page.get_by_role("combobox", name="Route")
    route.focus()
    page.page.keyboard.press("ArrowDown")
    page.until(lambda: page.there(".holynb-picker [role=option]") > 30, 10, "the models")
    expanded = lambda: route.get_attribute("aria-expanded")  # noqa: E731
    page.until(lambda: expanded() == "true", 5, "the list, said to be open")
    page.until(lambda: page.find(".holynb-picker [role=listbox]").bounding_box()["height"] <= 12 * 25, 5, "a list of twelve lines")
    page.picture("picker")
    page.page.keyboard.type("openai 4o")
    first = page.find(".holynb-picker [role=option]").first
    page.until(lambda: first.inner_text().split()[0] == "openai/gpt-4o", 5, "the model")
    page.page.keyboard.press("ArrowDown")
    page.until(lambda: route.get_attribute("aria-activedescendant"), 5, "the model, chosen")
    chosen = page.find(f"#{route.get_attribute('aria-activedescendant')}")
    page.until(lambda: all(part in chosen.inner_text() for part in ("$2.50 in", "no OPENAI_API_KEY")), 5, "its price and key")
    page.page.keyboard.press("Enter")
    page.until(lambda: (expanded(), route.input_value()) == ("false", "openai/gpt-4o"), 5, "the model in the field")
    facts = "$2.50 in, $10.00 out per million tokens; 128,000 tokens of context; no OPENAI_API_KEY: %infer key openai asks for it."
    page.until(lambda: facts in page.text(1), 5, "what is known of it")
    page.page.keyboard.press("ArrowUp")
    page.page.keyboard.press("Escape")
    page.until(lambda: (expanded(), route.input_value()) == ("false", "openai/gpt-4o"), 5, "the list, closed")
    route.fill("vllm/some-model-of-mine")
    page.page.keyboard.press("Enter")
    page.until(lambda: "price unknown" in page.text(1), 5, "a model that is in no list")
    page.until(lambda: page.ask("() => document.activeElement.getAttribute('role')") == "combobox", 5, "the focus in the field")
    assert page.cells() == 2


HINT = """s => { const e = document.querySelector('.holynb-form ' + s);
  return [getComputedStyle(e, '::placeholder').color, getComputedStyle(e).backgroundColor]; }"""


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_hints_in_empty_fields_are_legible(notebook: Any, theme: str) -> None:
    page = notebook("%infer panel")
    page.theme(theme)
    page.run(1)
    page.until(lambda: page.there(".holynb-form textarea"), 20, "the form")
    for field in ("textarea", "input[type=text]"):
        page.until(
            lambda s=field: page.there(f".holynb-form {s}") and contrast(*page.ask(HINT, s)) >= 4.5, 5, f"legible {field} in {theme}"
        )
    page.theme("JupyterLab Light")


def test_a_mistake_in_the_form_is_one_line(notebook: Any) -> None:
    page = notebook("%infer panel")
    page.run(1)
    page.page.get_by_placeholder("What to ask").fill("{{ nobody }}")
    page.page.get_by_role("button", name="Run", exact=True).click()
    page.until(lambda: "nobody" in page.find(".holynb-form").first.inner_text() and page.there(".holynb-wrong") == 1, 10, "the mistake")


#: Where the buttons that start something end, of the tab that shows.
BUTTONS = """() => [...document.querySelectorAll('.holynb-form > .holynb-actions .mod-primary')].filter(e => e.offsetHeight)
  .map(e => e.getBoundingClientRect().bottom)"""
#: Fields that what holds them cuts at its right edge.
CUT = """() => [...document.querySelectorAll('.holynb-form :is(input, select, textarea)')].filter(e => { const own = e.getBoundingClientRect();
  for (let box = e.parentElement; !box.matches('.holynb-form'); box = box.parentElement)
    if (own.width && getComputedStyle(box).overflowX !== 'visible' && own.right > box.getBoundingClientRect().right) return true; })
  .map(e => e.placeholder)"""


def test_the_pools_tab_says_what_fits_and_keeps_start_in_view(notebook: Any) -> None:
    page = notebook("%infer panel")
    page.run(1)
    page.page.get_by_role("tab", name="Pools").click()
    field = page.page.get_by_role("textbox", name="gpus")
    field.fill("1x24GB")
    page.page.get_by_role("combobox", name="Model").last.fill("70B")
    page.until(lambda: "does not fit" in page.text(1), 20, "the plan")
    field.fill("8x80GB")
    page.until(lambda: "KV tokens a replica" in page.text(1), 20, "the ways that fit")
    page.picture("panel-pools")
    for name, width in (("Pools", 1280), ("Ask", 1280), ("Pools", 600)):
        page.page.set_viewport_size({"width": width, "height": 480})
        page.page.get_by_role("tab", name=name).click()
        page.ask("() => { document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0); return null; }")
        page.until(
            lambda: (places := page.ask(BUTTONS)) and max(places) <= 480 - 24,
            5,
            f"the buttons of {name} in view at the end of a low window",
        )
    page.until(lambda: page.ask(CUT) == [], 5, "fields that stand whole in what holds them")


def test_insert_writes_the_same_job_as_a_cell(notebook: Any) -> None:
    page = notebook("%infer panel")
    page.run(1)
    page.page.get_by_placeholder("provider/model or an alias").fill("sim/echo")
    page.page.get_by_placeholder("What to ask").fill("hello")
    page.page.get_by_role("button", name="Insert as %%infer cell").click()
    page.until(lambda: page.cells() == 3, 10, "the cell")
    page.run(2)
    page.shows(2, "1 row")


#: The tables of the dashboard that are wider than their place, each with its width and that.
SIDEWAYS = """() => [...document.querySelectorAll('.jp-OutputArea table')].map(t => t.closest('.widget-html, .jupyter-widgets'))
  .filter(e => e && e.clientWidth && e.scrollWidth > e.clientWidth).map(e => [e.scrollWidth, e.clientWidth])"""


def test_the_dashboard_shows_runs_pools_and_spending(notebook: Any) -> None:
    page = notebook("%%infer sim/echo --name first --no-cache\nhello", "%infer dash", "%%infer sim/stream --name second --no-cache\nhello")
    page.run(1)
    page.run(2)
    page.until(
        lambda: "first" in page.text(2) and "No pool of yours runs" in page.text(2) and "sim/echo" in page.text(2), 10, "the dashboard"
    )
    page.say(HELD)
    allow(page, 0)
    page.start(3)
    page.until(lambda: "second" in page.text(2) and "running" in page.text(2), 15, "the run that goes on")
    allow(page, WHOLE)
    page.idle()
    page.picture("dashboard")
    size = page.page.viewport_size
    page.page.set_viewport_size({"width": 600, "height": size["height"]})
    page.until(lambda: page.page.evaluate(SIDEWAYS) == [], 10, "tables that nobody has to scroll sideways")
    page.picture("dashboard-narrow")
    page.page.set_viewport_size(size)


def test_beside_says_in_a_line_where_it_is(notebook: Any) -> None:
    page = notebook("%infer dash --beside")
    page.run(1)
    page.until(lambda: "Runs" in page.text(1) or "beside the notebook" in page.text(1), 10, "the dashboard")


def test_prompts_are_shown_as_prose_and_python_as_python(notebook: Any) -> None:
    page = notebook("%%infer sim/echo\nIt's for import class", "x = 1", "%%infer sim/echo\none\n---\ntwo")
    kinds = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.model.mimeType)"
    page.until(lambda: page.ask(kinds)[1:] == ["text/x-ipythongfm", "text/x-ipython", "text/plain"], 10, "prose")
    page.ask(
        '() => { window.jupyterapp.shell.currentWidget.content.widgets[2].model.sharedModel.setSource("%%infer sim/echo\\nIt\'s"); return null; }'
    )
    page.until(lambda: page.ask(kinds)[2] == "text/x-ipythongfm", 5, "prose, once it is one")
    page.ask("() => { window.jupyterapp.shell.currentWidget.content.widgets[2].model.sharedModel.setSource('y = 2'); return null; }")
    page.until(lambda: page.ask(kinds)[2] == "text/x-ipython", 5, "Python again")


def test_the_side_panel_and_the_commands_are_there(notebook: Any) -> None:
    page = notebook("x = 1")
    page.command("holynb:cell")
    source = "() => window.jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel.getSource()"
    page.until(lambda: page.ask(source).startswith("%%infer"), 5, "the cell")
    page.command("holynb:dashboard")
    page.until(lambda: "Spending" in page.find("#holynb-side").inner_text(), 20, "the dashboard in the side panel")
    page.picture("side-panel")
    page.page.set_viewport_size({"width": 1280, "height": 560})
    page.page.get_by_role("tab", name="Panel").click()
    page.until(lambda: page.there("#holynb-side .holynb-form textarea"), 20, "the form in the side panel")
    page.until(lambda: (places := page.ask(BUTTONS)) and max(places) <= 560, 5, "Run in view")
    page.until(lambda: page.ask(CUT) == [], 5, "fields that stand whole in what holds them")
    page.picture("side-panel-ask")


def test_tab_offers_routes_in_the_line_and_nothing_in_the_body(notebook: Any) -> None:
    page = notebook("%%infer sim/st", "%%infer sim/echo\nimport os; os.pa")
    offered = """async i => { const nb = window.jupyterapp.shell.currentWidget; const cell = nb.content.widgets[i]; const code = cell.model.sharedModel.getSource();
        const reply = await nb.sessionContext.session.kernel.requestComplete({code, cursor_pos: code.length}); return reply.content.matches; }"""
    assert page.ask(offered, 1) == ["sim/stream"]
    assert page.ask(offered, 2) == []
