"""A view whose kernel is gone, or says nothing, and what a notebook that was saved meanwhile shows to who opens it again."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest
from browser.cells import ASK, ROWS, STREAM, live
from nbconvert import HTMLExporter

pytestmark = pytest.mark.browser

SAID = "() => [...document.querySelectorAll('.hn-kernel:not([hidden])')].map(e => e.innerText)"
SEEN = """() => [...window.jupyterapp.shell.currentWidget.node.querySelectorAll('.jp-OutputArea-child')].filter(e => e.offsetHeight > 0)
    .map(e => e.innerText)"""
#: Notes when the front end says that the kernel restarts or is cut off, and when the view says so.
NOTE = """() => { const context = window.jupyterapp.shell.currentWidget.sessionContext; window.noted = {};
    context.statusChanged.connect((_, s) => { if (/restarting/.test(s)) window.noted.front ??= performance.now(); });
    context.connectionStatusChanged.connect((_, s) => { if (s !== 'connected') window.noted.front ??= performance.now(); });
    new MutationObserver(() => { if (document.querySelector('.hn-kernel:not([hidden])')) window.noted.view ??= performance.now(); })
        .observe(document.body, {subtree: true, attributes: true, childList: true}); return null; }"""


def test_a_saved_notebook_says_what_was_there_and_a_restart_is_told(notebook: Any, lab: Any) -> None:
    page = notebook(ROWS % (90, 90), "%infer dash", STREAM + " -c 4 --max-tokens 60 --bg" + ASK, "%infer panel", size=(1280, 2000))
    for cell in (1, 2, 3, 4):
        page.run(cell)
    live(page)
    page.until(lambda: page.there(".hn-watched") == 3, 20, "all views")
    page.until(lambda: page.there(".holynb-standin") == 3, 20, "the sentences")
    assert not any("opens it again" in text or "infer show" in text for text in page.ask(SEEN)), "hidden while there is a kernel"
    saved = page.save()
    for cell, said in ((2, "%infer dash opens it again."), (3, "goes on with it."), (4, "%infer panel opens it again.")):
        outputs = saved["cells"][cell]["outputs"]
        assert ["".join(o["data"]["text/plain"]).endswith(said) for o in outputs] == [True, True], outputs
    run = page.find(".hn-run").inner_text().split(" ")[0]

    page.ask(NOTE)
    page.ask("() => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); return null; }")
    page.until(lambda: len(page.ask(SAID)) == 3, 20, "what the views say")
    told = page.ask(SAID)
    assert f"The kernel was restarted. %infer resume {run} goes on with the run." in " ".join(told[1].split())
    noted = page.ask("() => window.noted")
    assert noted["view"] - noted["front"] < 2000
    assert page.find(".hn-stop").is_disabled()
    assert page.ask("() => document.querySelectorAll('.widget-tab[inert], .jupyter-widget-tab[inert]').length") == 1, (
        "the panel is out of reach"
    )
    page.picture("restarted")
    page.find(".hn .hn-kernel button").click()
    assert (
        page.ask("() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource()") == f"%infer resume {run}"
    )
    page.idle()
    page.expect("ernel", "404", "WebSocket", "ancel")
    page.errors.clear()

    again = lab.root / "again.ipynb"
    again.write_text(json.dumps(saved), encoding="utf-8")
    page.show(again)
    page.expect("widget model not found")
    page.until(lambda: sum("opens it again." in text for text in page.ask(SEEN)) == 2, 20, "the sentences")
    goes_on = f"%infer resume {run} goes on with it."
    page.until(lambda: sum(goes_on in text for text in page.ask(SEEN)) == 1, 20, "the run's sentence")
    page.until(lambda: not any("Loading" in text for text in page.ask(SEEN)), 20, "the widgets that are not there")
    seen = page.ask(SEEN)
    assert not any("Error displaying" in text for text in seen), seen
    assert sum(goes_on in text for text in seen) == 1
    assert sum("opens it again." in text for text in seen) == 2
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
    assert page.ask(SAID) == []
    assert not any("infer show" in text or "opens it again" in text for text in page.ask(SEEN)), "hidden while there is a kernel"

    page.ask(NOTE)
    cut = True
    for socket in sockets:
        socket.close(code=1011)
    page.until(lambda: ["No connection" in said for said in page.ask(SAID)] == [True, True], 20, "the loss")
    noted = page.ask("() => window.noted")
    assert noted["view"] - noted["front"] < 2000
    assert page.find(".hn-stop").is_disabled()
    done, cut = page.find(".hn-done").inner_text(), False
    page.until(lambda: not page.ask(SAID), 20, "the connection")
    page.until(lambda: page.find(".hn-done").inner_text() != done, 20, "rows that ended since")
    assert page.find(".hn-stop").is_enabled()

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
    page.until(lambda: any("was shut down. %infer dash opens it again." in " ".join(said.split()) for said in page.ask(SAID)), 5, "its end")
    page.errors.clear()


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
    assert page.find(".hn-stop").is_disabled()
    assert not page.find(".hn-figure-eta").is_visible(), "nothing looks alive"
    (page.path.parent / "speak").touch()
    page.idle()
    page.until(lambda: not page.ask(SAID), 10, "its end")
    assert page.find(".hn-stop").is_enabled()


def test_a_prompt_is_marked_as_a_template_and_the_palette_finds_everything(notebook: Any) -> None:
    page = notebook("%%infer sim/echo\nDon't {{ x }} {# why #} {% if y %}z", "d = {'a': {'b': 1}}  # {{ x }}")
    marks = page.ask("""() => [...window.jupyterapp.shell.currentWidget.content.widgets].map(cell =>
        [...cell.node.querySelectorAll('.holynb-variable, .holynb-keyword, .holynb-comment')].map(e => [e.className, e.textContent]))""")
    assert marks[1] == [["holynb-variable", "{{ x }}"], ["holynb-comment", "{# why #}"], ["holynb-keyword", "{% if y %}"]]
    assert marks[2] == [], "Python stays as it is"
    page.command("apputils:activate-command-palette")
    page.page.keyboard.type("infer")
    found = page.until(lambda: page.find(".lm-CommandPalette-itemLabel").all_inner_texts(), 5, "the palette")
    assert {"Play a recorded run", "Insert a %%infer cell", "Open the dashboard in the side panel"} <= set(found)
    page.page.keyboard.press("Escape")
    cells = page.cells()
    page.ask("() => { window.jupyterapp.commands.execute('holynb:replay'); return null; }")
    page.until(lambda: page.there(".jp-Dialog select"), 10, "the dialog")
    assert page.find(".jp-Dialog option").all_inner_texts()[-1] == "a file …"
    page.find(".jp-Dialog select").select_option("flaky")
    page.picture("choose-recording")
    page.find(".jp-Dialog .jp-mod-accept").click()
    page.until(lambda: page.there("#holynb-side .hn-badge"), 20, "the recording")
    assert page.cells() == cells, "nothing is written into the notebook"
