"""A view whose kernel is gone, or says nothing, and what a notebook that was saved meanwhile shows to who opens it again."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
from browser.cells import ASK, ROWS, STREAM, live
from nbconvert import HTMLExporter

pytestmark = pytest.mark.browser

#: Of a kernel that is gone JupyterLab reports this and that, at whatever time.
ANY = ""
SAID = "() => [...document.querySelectorAll('.hn-kernel:not([hidden])')].map(e => e.innerText)"
SEEN = """() => [...window.jupyterapp.shell.currentWidget.node.querySelectorAll('.jp-OutputArea-child')].filter(e => e.offsetHeight > 0)
    .map(e => e.innerText)"""
#: Notes when the front end says that the kernel restarts or is cut off, and when the view says so.
NOTE = """() => { const context = window.jupyterapp.shell.currentWidget.sessionContext; window.noted = {};
    context.statusChanged.connect((_, s) => { if (/restarting/.test(s)) window.noted.front ??= performance.now(); });
    context.connectionStatusChanged.connect((_, s) => { if (s !== 'connected') window.noted.front ??= performance.now(); });
    new MutationObserver(() => { if (document.querySelector('.hn-kernel:not([hidden])')) window.noted.view ??= performance.now(); })
        .observe(document.body, {subtree: true, attributes: true, childList: true}); return null; }"""


def hidden(page: Any) -> Callable[[], bool]:
    return lambda: not any("opens it again" in text or "infer show" in text for text in page.ask(SEEN))


def test_a_saved_notebook_says_what_was_there_and_a_restart_is_told(notebook: Any, lab: Any) -> None:
    page = notebook(ROWS % (90, 90), "%infer dash", STREAM + " -c 4 --max-tokens 60 --bg" + ASK, "%infer panel", size=(1280, 2000))
    for cell in (1, 2, 3, 4):
        page.run(cell)
    live(page)
    page.until(lambda: page.there(".hn-watched") == 3, 20, "all views")
    page.until(lambda: page.there(".holynb-standin") == 3, 20, "the sentences")
    page.until(hidden(page), 20, "sentences that are hidden while there is a kernel")
    saved = page.save()
    for cell, said in ((2, "%infer dash opens it again."), (3, "goes on with it."), (4, "%infer panel opens it again.")):
        outputs = saved["cells"][cell]["outputs"]
        assert ["".join(o["data"]["text/plain"]).endswith(said) for o in outputs] == [True, True], outputs
    run = page.find(".hn-run").inner_text().split(" ")[0]

    page.ask(NOTE)
    page.ask("() => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); return null; }")
    goes_on = f"The kernel was restarted. %infer resume {run} goes on with the run."
    page.until(lambda: len(told := page.ask(SAID)) == 3 and goes_on in " ".join(told[1].split()), 20, "what the views say")
    noted = page.ask("() => window.noted")
    assert noted["view"] - noted["front"] < 2000
    page.until(page.find(".hn-stop").is_disabled, 5, "a Stop that cannot be pressed")
    inert = "() => document.querySelectorAll('.widget-tab[inert], .jupyter-widget-tab[inert]').length"
    page.until(lambda: page.ask(inert) == 1, 5, "a panel out of reach")
    page.picture("restarted")
    page.find(".hn .hn-kernel button").click()
    source = "() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource()"
    page.until(lambda: page.ask(source) == f"%infer resume {run}", 5, "the cell that goes on")
    page.idle()
    page.expect(ANY)

    again = lab.root / "again.ipynb"
    again.write_text(json.dumps(saved), encoding="utf-8")
    page.show(again)
    page.expect("widget model not found", "ernel", "WebSocket", "ancel")
    goes_on = f"%infer resume {run} goes on with it."

    def whole() -> bool:
        seen = page.ask(SEEN)
        counts = [sum(part in text for text in seen) for part in ("opens it again.", goes_on, "Loading", "Error displaying")]
        return counts == [2, 1, 0, 0]

    page.until(whole, 40, "each sentence once, and no widget that is loaded or missed")
    page.picture("reopened-unfinished")

    html, _ = HTMLExporter().from_filename(str(again))
    assert "object at 0x" not in html
    assert "children=(" not in html
    assert re.sub(r"<[^>]*>", "", html[html.index("<main") :]).count("opens it again.") == 2, "each sentence once"


def test_a_cut_a_crash_and_a_shutdown_are_told_and_a_reload_finds_the_run(notebook: Any, lab: Any) -> None:
    page = notebook(ROWS % (900, 900), STREAM + " -c 4 --max-tokens 60 --bg" + ASK, "%infer dash", "import os; os.getpid()", fresh=True)
    for cell in (1, 2, 3):
        page.run(cell)
    pid = int(page.run(4))
    live(page)
    page.save()
    cut, sockets = False, []

    def connect(socket: Any) -> None:
        if cut:
            socket.close(code=1011)
        else:
            socket.connect_to_server()
            sockets.append(socket)

    page.page.route_web_socket("**/channels*", connect)
    page.reload()
    live(page)
    page.until(lambda: re.match(r"[1-9]\d* of 900", page.find(".hn-done").inner_text()), 20, "the run that goes on")
    page.until(lambda: page.ask(SAID) == [], 20, "views that say nothing of the kernel")
    page.until(hidden(page), 20, "sentences that are hidden while there is a kernel")

    page.ask(NOTE)
    cut = True
    for socket in sockets:
        socket.close(code=1011)
    page.until(lambda: ["No connection" in said for said in page.ask(SAID)] == [True, True], 20, "the loss")
    noted = page.ask("() => window.noted")
    assert noted["view"] - noted["front"] < 2000
    page.until(page.find(".hn-stop").is_disabled, 5, "a Stop that cannot be pressed")
    done, cut = page.find(".hn-done").inner_text(), False
    page.until(lambda: not page.ask(SAID), 20, "the connection")
    page.until(lambda: page.find(".hn-done").inner_text() != done, 20, "rows that ended since")
    page.until(page.find(".hn-stop").is_enabled, 5, "a Stop that can be pressed")

    page.ask(NOTE)
    os.kill(pid, signal.SIGKILL)
    page.until(lambda: ["was restarted" in said for said in page.ask(SAID)] == [True, True], 20, "the kernel's end")
    noted = page.ask("() => window.noted")
    assert noted["view"] - noted["front"] < 2000
    page.idle()
    page.run(0)
    page.run(3)
    page.until(lambda: len(page.ask(SAID)) == 1, 10, "the new dashboard")
    page.ask("() => { window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); return null; }")
    page.until(
        lambda: any("was shut down. %infer dash opens it again." in " ".join(said.split()) for said in page.ask(SAID)), 20, "its end"
    )
    page.expect(ANY)


def test_a_kernel_that_says_nothing_is_doubted_until_it_speaks(notebook: Any) -> None:
    """Without holynb's extension of JupyterLab; its seconds are a fifth here."""
    silent = "import time; from pathlib import Path\nwhile not Path('speak').exists(): time.sleep(0.05)"
    page = notebook(ROWS % (900, 900), STREAM + " -c 4 --max-tokens 60 --bg" + ASK, silent, fresh=True)
    page.ask("""() => { window.holynbTells = undefined; const real = window.setInterval;
        window.setInterval = (call, pause, ...more) => real(call, pause === 1000 ? 200 : pause, ...more); return null; }""")
    page.run(1)
    page.run(2)
    live(page)
    page.start(3)
    page.until(lambda: any("No word from the kernel for 15 s" in said for said in page.ask(SAID)), 10, "the doubt")
    page.until(page.find(".hn-stop").is_disabled, 5, "a Stop that cannot be pressed")
    page.until(lambda: not page.find(".hn-figure-eta").is_visible(), 5, "nothing that looks alive")
    (page.path.parent / "speak").touch()
    page.idle()
    page.until(lambda: not page.ask(SAID), 10, "its end")
    page.until(page.find(".hn-stop").is_enabled, 5, "a Stop that can be pressed")


def test_a_prompt_is_marked_as_a_template_and_the_palette_finds_everything(notebook: Any) -> None:
    page = notebook("%%infer sim/echo\nDon't {{ x }} {# why #} {% if y %}z", "d = {'a': {'b': 1}}  # {{ x }}")
    marks = """() => [...window.jupyterapp.shell.currentWidget.content.widgets].map(cell =>
        [...cell.node.querySelectorAll('.holynb-variable, .holynb-keyword, .holynb-comment')].map(e => [e.className, e.textContent]))"""
    body = [["holynb-variable", "{{ x }}"], ["holynb-comment", "{# why #}"], ["holynb-keyword", "{% if y %}"]]
    page.until(lambda: page.ask(marks)[1:3] == [body, []], 10, "a marked prompt, and Python as it is")
    page.command("apputils:activate-command-palette")
    page.until(
        lambda: page.ask("() => document.activeElement.closest('.lm-CommandPalette-wrapper, .lm-CommandPalette-header') !== null"), 10
    )
    page.page.keyboard.type("infer")
    names, found = {"Play a recorded run", "Insert a %%infer cell", "Open the dashboard in the side panel"}, ".lm-CommandPalette-itemLabel"
    page.until(lambda: names <= (all_found := set(page.find(found).all_inner_texts())) and len(all_found) < 40, 5, "the palette")
    page.page.keyboard.press("Escape")
    cells = page.cells()
    page.ask("() => { window.jupyterapp.commands.execute('holynb:replay'); return null; }")
    page.until(lambda: page.there(".jp-Dialog select"), 10, "the dialog")
    page.until(lambda: page.find(".jp-Dialog option").all_inner_texts()[-1:] == ["a file …"], 10, "its choices")
    page.find(".jp-Dialog select").select_option("flaky")
    page.picture("choose-recording")
    page.find(".jp-Dialog .jp-mod-accept").click()
    page.until(lambda: page.there("#holynb-side .hn-badge"), 20, "the recording")
    assert page.cells() == cells, "nothing is written into the notebook"
