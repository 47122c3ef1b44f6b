"""A real JupyterLab in a real Chromium: a server in a throw-away home, and a page that a test drives as a person would.

Nothing leaves the machine: a request to anywhere but the server is refused and counted.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
#: No news and no banner over what a test looks at.
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}}
STATE = """() => { const panel = window.jupyterapp.shell.currentWidget; const kernel = panel?.sessionContext?.session?.kernel;
  const asked = [...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')].filter(e => e.textContent.includes('*')).length;
  return [kernel?.status ?? null, kernel?.connectionStatus ?? null, Math.max(asked, panel?.begun ?? 0)]; }"""

#: The notebook in front is this one, and drawn.
OPENED = """name => { const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.context?.path === name && !!panel.node.querySelector('.jp-Notebook .jp-Cell')?.checkVisibility(); }"""

#: A deadline is of a quiet machine: one that is slower, or has other work, gets so many times as long. It costs only what fails.
PATIENCE = 5

#: Closing by command would ask whether to save. The side panel of holynb stays where it is, without what it showed.
AWAY = """() => { const shell = window.jupyterapp.shell; for (const area of ['main', 'down']) [...shell.widgets(area)].forEach(w => w.dispose());
  const side = [...shell.widgets('right')].find(w => w.id === 'holynb-side'); side?.widgets.filter(w => w.id.endsWith('-content')).forEach(w => w.dispose());
  shell.collapseLeft(); shell.collapseRight(); return null; }"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def write_notebook(path: Path, cells: Sequence[str]) -> Path:
    """A notebook of code cells."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nodes = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": c, "outputs": [], "execution_count": None}
        for i, c in enumerate(cells)
    ]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": nodes}), encoding="utf-8")
    return path


class Lab:
    """A JupyterLab server of its own, with holynb from a tree, this one by default. Ends with everything it started."""

    def __init__(self, tree: Path = ROOT) -> None:
        self.tree = tree
        self.home = Path(tempfile.mkdtemp(prefix="holynb-lab-"))
        self.root = self.home / "notebooks"
        self.port, self.token = free_port(), secrets.token_hex(16)
        self._prepare()
        jupyter = str(Path(sys.executable).with_name("jupyter"))
        command = [
            jupyter,
            "lab",
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={self.root}",
            "--LabApp.expose_app_in_browser=True",
            f"--LabApp.extra_labextensions_path={self.home / 'labextensions'}",
        ]
        with (self.home / "server.log").open("w") as log:
            self._server = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log, start_new_session=True, cwd=self.root)
        self._await()

    def _prepare(self) -> None:
        self.root.mkdir()
        for plugin, value in SETTINGS.items():
            package, name = plugin.split(":")
            folder = self.home / "settings" / package
            folder.mkdir(parents=True)
            (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(value), encoding="utf-8")
        shutil.copytree(self.tree / "holynb" / "labextension", self.home / "labextensions" / "holynb")

    def _environment(self) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if not k.endswith(("_KEY", "_TOKEN", "_BASE_URL")) and k != "VSCODE_PID"}
        names = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_DATA_DIR": "data",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "HOLYNB_HOME": "holynb",
        }
        return {
            **environment,
            **{k: str(self.home / v) for k, v in names.items()},
            "JUPYTER_PLATFORM_DIRS": "1",
            "PYTHONPATH": os.pathsep.join([str(self.tree), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }

    def _await(self) -> None:
        end = time.monotonic() + 60
        while True:
            if self._server.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.home / "server.log").read_text()[-3000:])
            try:
                self.api("status")
            except OSError:
                time.sleep(0.1)
            else:
                return

    def api(self, path: str, method: str = "GET") -> Any:
        """The server's REST API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            body = reply.read()
        return json.loads(body) if body else None

    def end_kernels(self) -> None:
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")

    def close(self) -> None:
        with suppress(OSError):
            self.end_kernels()
        for sign, wait in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, sign)
            try:
                self._server.wait(wait)
                break
            except subprocess.TimeoutExpired:
                continue
        shutil.rmtree(self.home, ignore_errors=True)


class Page:
    """One notebook in one tab. `errors` are the page's own, `outside` what tried to leave the machine, `downloads` the files that it handed
    out, `received` bytes over the socket.

    `opened` is `received` after the first message of a view: None until then.
    """

    def __init__(self, lab: Lab, context: Any, path: Path, size: tuple[int, int] = (1280, 900)) -> None:
        self.lab, self.path = lab, path
        self.errors: list[str] = []
        self._expected: tuple[str, ...] = ()
        self.outside: list[str] = []
        self.downloads: list[Any] = []
        self.received = 0
        self.opened: int | None = None
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 30_000)
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.route(lambda url: not url.startswith((f"http://127.0.0.1:{lab.port}", "data:", "blob:")), self._refuse)
        self.page.on("console", lambda m: self._note(m.text[:300]) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self._note(f"pageerror: {str(e)[:300]}"))
        self.page.on("download", lambda file: self.downloads.append(file))  # a method of a list has no room for what playwright notes on it
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._count))
        self.page.goto(f"http://127.0.0.1:{self.lab.port}/lab/tree/{self.path.name}?token={self.lab.token}&reset")
        self._await_notebook()

    def show(self, path: Path, size: tuple[int, int] = (1280, 900)) -> None:
        """Another notebook in this tab, whose application is loaded already, as if it were a new one."""
        self.path = path
        self.page.bring_to_front()  # what is behind another is not drawn
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.errors.clear()
        self._expected = ()
        self.outside.clear()
        self.downloads.clear()
        self.received = 0
        self.page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', {path}); return null; }", path.name)
        self._await_notebook()

    def put_away(self) -> None:
        """Nothing is open any more, and nothing is emulated."""
        self.page.evaluate(AWAY)
        self.until(lambda: not self.there(".jp-Notebook"), 20, "an empty tab")
        self.page.emulate_media(reduced_motion="null", color_scheme="null")

    def expect(self, *parts: str) -> None:
        """Errors with one of these parts are no fault: those there are, and those that a slow machine reports later."""
        self._expected += parts
        self.errors = [error for error in self.errors if not any(part in error for part in parts)]

    def _note(self, error: str) -> None:
        if not any(part in error for part in self._expected):
            self.errors.append(error)

    def _refuse(self, route: Any) -> None:
        self.outside.append(route.request.url)
        route.abort()

    def _count(self, payload: Any) -> None:
        self.received += len(payload)
        if self.opened is None and (b'"custom"' if isinstance(payload, bytes) else '"custom"') in payload:
            self.opened = self.received

    def _await_notebook(self) -> None:
        self.until(lambda: self.ask(OPENED, self.path.name), 60, "the notebook")
        self.until(lambda: self.state()[:2] in (["idle", "connected"], ["busy", "connected"]), 60, "a kernel")
        self.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")

    # -- doing -----------------------------------------------------------------------------------------------------
    def until(self, holds: Callable[[], Any], seconds: float = 20, what: str = "") -> Any:
        """Wait until `holds()` is true, and return it. seconds: on a quiet machine. A time that is a promise is measured in the page or the kernel."""
        end = time.monotonic() + PATIENCE * seconds
        while not (value := holds()):
            assert time.monotonic() < end, (
                f"{what or 'what was awaited'} did not come in {PATIENCE} times {seconds} s; errors: {self.errors}; state: {self.state()}"
            )
            self.page.wait_for_timeout(40)
        return value

    def shows(self, cell: int, *texts: str, seconds: float = 20) -> str:
        """Wait until a cell's output shows all of these; what it shows then. What a kernel has sent is drawn later."""
        return str(
            self.until(lambda: all(text in (shown := self.text(cell)) for text in texts) and shown, seconds, f"{texts} in cell {cell}")
        )

    def state(self) -> list[Any]:
        return list(self.page.evaluate(STATE))

    def command(self, name: str, **args: Any) -> None:
        """A command of the application, waited for."""
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => null)", [name, args])

    def start(self, cell: int) -> None:
        """Run a cell without waiting."""
        self.page.evaluate(
            """i => { const nb = window.jupyterapp.shell.currentWidget.content; nb.deselectAll(); nb.activeCellIndex = i;
            const panel = window.jupyterapp.shell.currentWidget; panel.begun = (panel.begun ?? 0) + 1;  // its star comes later: a look may be quicker
            window.jupyterapp.commands.execute('notebook:run-cell').finally(() => { panel.begun -= 1; }); return null; }""",
            cell,
        )

    def idle(self, seconds: float = 60) -> None:
        """Wait until no cell runs or waits."""
        self.until(lambda: self.state() == ["idle", "connected", 0], seconds, "the end of the cell")
        self.page.wait_for_timeout(150)
        self.until(lambda: self.state() == ["idle", "connected", 0], seconds, "the end of the cell")

    def run(self, cell: int, seconds: float = 60) -> str:
        """Run a cell to its end; what it shows as text."""
        self.start(cell)
        self.idle(seconds)
        return self.text(cell)

    def say(self, code: str) -> str:
        """Run code in a cell of its own at the end, and take the cell away again."""
        self.page.evaluate(
            "code => { const m = window.jupyterapp.shell.currentWidget.content.model.sharedModel; m.insertCell(m.cells.length, "
            "{cell_type: 'code', source: code}); return null; }",
            code,
        )
        last = self.cells() - 1
        out = self.run(last).strip()
        self.page.evaluate("i => { window.jupyterapp.shell.currentWidget.content.model.sharedModel.deleteCell(i); return null; }", last)
        return out

    def interrupt(self) -> None:
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:interrupt-kernel'); return null; }")

    def reload(self) -> None:
        self.page.reload()
        self.until(lambda: self.ask(OPENED, self.path.name), 60, "the notebook, loaded again")

    def save(self) -> dict[str, Any]:
        """Save; what is in the file then."""
        self.command("docmanager:save")
        return dict(json.loads(self.path.read_text(encoding="utf-8")))

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", theme=name)
        self.until(lambda: self.ask("() => document.body.dataset.jpThemeName") == name, 20, name)
        self.page.wait_for_timeout(200)  # colours that change in time
        self.until(lambda: not self.there("#jupyterlab-splash"), 20, "the page without the splash that covers it meanwhile")

    def close(self) -> None:
        self.page.close()

    # -- looking ---------------------------------------------------------------------------------------------------
    def cells(self) -> int:
        return int(self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length"))

    def text(self, cell: int) -> str:
        """What a cell's output shows."""
        return str(
            self.page.evaluate(
                """i => [...window.jupyterapp.shell.currentWidget.content.widgets[i].node
            .querySelectorAll('.jp-OutputArea-output')].map(e => e.innerText).join('\\n')""",
                cell,
            )
        )

    def find(self, selector: str) -> Any:
        return self.page.locator(selector)

    def there(self, selector: str) -> int:
        return int(self.page.locator(selector).count())

    def ask(self, script: str, value: Any = None) -> Any:
        """The value of a script in the page."""
        return self.page.evaluate(script, value)

    def picture(self, name: str) -> None:
        """A picture for people, where HOLYNB_PICTURES names a folder."""
        if folder := os.environ.get("HOLYNB_PICTURES"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))
