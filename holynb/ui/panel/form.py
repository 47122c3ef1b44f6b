"""`%infer panel`: the same job without typing a magic. ipywidgets controls over the same plan, run and live view; knows no engine."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from holynb.config import Options
from holynb.errors import HolynbError
from holynb.ui.cell import Host, candidates
from holynb.ui.cell.bridge import Bridge
from holynb.ui.panel.draft import Draft
from holynb.ui.panel.outlet import RunOutlet
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.ui.cell import Host

__all__ = ["Form"]

#: What "More" offers, of what this version takes, in the order of the options' table.
MORE = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "concurrency",
        "limit",
        "where",
        "retries",
        "timeout",
        "deadline",
        "rpm",
        "tpm",
        "budget",
        "price_as",
        "fallback",
        "spread",
        "compare",
        "samples",
        "router",
        "schema",
        "chunk",
        "stream",
        "cache",
        "refresh",
    }
)
LABEL = {"description_width": "120px"}
#: The browser's own colour for a hint in an empty field is too dark for a dark page.
HINTS = "<style>.holynb-form ::placeholder{color:var(--jp-ui-font-color2,#808080);opacity:1}</style>"


def wide() -> w.Layout:
    """As wide as the panel. Made when asked for: a layout is a widget too, and importing this must open nothing."""
    return w.Layout(width="100%")


class Form:
    """The "Ask" half of the panel. `box` is shown; `run` is the run that was started last."""

    def __init__(self, magic: Host, df: str | None = None) -> None:
        self.magic = magic
        self.run: Run | None = None
        routes = candidates.routes()
        frames = candidates.frames(magic.shell.user_ns)
        self.route = w.Combobox(
            options=tuple(routes),
            placeholder="provider/model or an alias; empty: the default",
            description="Route",
            style=LABEL,
            layout=wide(),
        )
        self.frame = w.Dropdown(
            options=[("none: one prompt", ""), *((f"{n} ({counted(len(f), 'row')})", n) for n, f in frames.items())],
            value=df or "",
            description="Rows from",
            style=LABEL,
            layout=wide(),
        )
        self.prompt = w.Textarea(
            placeholder="What to ask. With rows: a template, {{ column }} is filled in for each.",
            description="Prompt",
            rows=5,
            style=LABEL,
            layout=wide(),
        )
        self.columns = w.HBox(layout=w.Layout(flex_flow="row wrap", margin="0 0 4px 128px"))
        self.system = w.Textarea(placeholder="How to answer (optional)", description="System", rows=2, style=LABEL, layout=wide())
        self.name = w.Text(
            value="answers", placeholder="a variable's name", description="Result in", style=LABEL, layout=w.Layout(width="320px")
        )
        self.more = {o.name: _field(o) for o in candidates.options() if o.name in MORE}
        self.says = w.HTML(layout=wide())
        self.cell = w.Textarea(rows=5, layout=wide(), description="Cell", style=LABEL)
        self.bridge = Bridge(on_inserted=self._inserted)
        self.stage = RunOutlet()
        self.buttons = {
            word: w.Button(description=word, tooltip=tip, button_style=style, layout=w.Layout(width="auto"))
            for word, tip, style in (
                ("Run", "Send the prompts", "primary"),
                ("Dry run", "Show a sample, tokens and cost; send nothing", ""),
                ("Stop", "No new requests; what is in flight has 3 seconds", "danger"),
                ("Insert as %%infer cell", "The same job as a cell below", ""),
            )
        }
        self.box = self._laid_out()
        self._wire()

    def job(self) -> Draft:
        """What the fields say now."""
        said: dict[str, Any] = {}
        if self.frame.value:
            said["df"] = self.frame.value
        if self.system.value.strip():
            said["system"] = self.system.value.strip()
        for name, control in self.more.items():
            if isinstance(control, w.Checkbox):
                if control.value:
                    said[name] = name != "cache"
            elif control.value.strip():
                said[name] = control.value.strip()
        return Draft(self.prompt.value, self.route.value.strip() or None, said, self.name.value.strip() or None)

    # -- doing -----------------------------------------------------------------------------------------------------
    def send(self, *, dry: bool = False) -> None:
        """Run, or say what a run would send. A mistake is one line under the buttons."""
        from holynb.ui.commands import preview

        self._say("")
        try:
            job = self.job()
            made = self._plan(job, dry)
            if dry:
                self._say(preview.text(made), whole=True)
                return
            self.run = self.magic.start(made).run
        except HolynbError as exc:
            self._say(str(exc), bad=True)
            return
        self._busy(True)
        self.stage.show(self.run, lambda: self._ended(job))

    def _plan(self, job: Draft, dry: bool) -> Any:
        from holynb.errors import BadPrompt
        from holynb.run import plan, resume

        if not job.body.strip():
            raise BadPrompt("There is no prompt yet. Write one, then press Run.")
        if job.name is not None and not job.name.isidentifier():
            raise BadPrompt(f"{job.name!r} cannot be a variable's name. Call the result something like answers.")
        made = plan.make(
            job.body, job.route, Options.parse({**job.said, "dry_run": True} if dry else job.said), variables=self.magic.shell.user_ns
        )
        return resume.continued(made)

    def _ended(self, job: Draft) -> None:
        run = self.run
        self._busy(False)
        if run is None:
            return
        frame = run.frame()
        if job.name:
            self.magic.shell.push({job.name: frame})
        name = f"{job.name} holds" if job.name else "holynb.last.frame() is"
        failure = _failure(run)
        self._say(f"{failure} " * bool(failure) + f"{name} a DataFrame of {counted(len(frame), 'row')}.", bad=bool(failure))

    def _insert(self) -> None:
        job = self.job()
        if "\n" in str(job.said.get("system", "")):
            # A line holds no line break: the text goes into a variable, which the cell names.
            self.magic.shell.push({"system_prompt": job.said["system"]})
            rest = {k: v for k, v in job.said.items() if k != "system"}
            job = replace(job, said={**rest, "system_from": "system_prompt"})
        self.cell.value = job.cell()
        self.bridge.insert(job.cell())

    def _inserted(self, done: bool) -> None:
        self.cell.layout.display = "none" if done else "flex"
        self._say("Inserted below." if done else "This page cannot insert cells by itself; copy the text into one.")

    # -- showing ---------------------------------------------------------------------------------------------------
    def _laid_out(self) -> w.VBox:
        grid = w.GridBox(
            list(self.more.values()), layout=w.Layout(grid_template_columns="repeat(auto-fill, minmax(290px, 1fr))", grid_gap="2px 12px")
        )
        more = w.Accordion([grid], titles=("More: sampling, limits, money",), selected_index=None)
        self.cell.layout.display = "none"
        row = w.HBox([*self.buttons.values()], layout=w.Layout(flex_flow="row wrap", margin="4px 0"))
        box = w.VBox(
            [
                self.route,
                self.frame,
                self.columns,
                self.prompt,
                self.system,
                self.name,
                more,
                row,
                self.says,
                self.cell,
                self.bridge,
                self.stage.box,
                w.HTML(HINTS, layout=w.Layout(display="none")),
            ],
            layout=w.Layout(width="100%", padding="4px 8px 4px 0"),
        )
        return box.add_class("holynb-form")

    def _wire(self) -> None:
        does: dict[str, Callable[[], None]] = {
            "Run": self.send,
            "Dry run": lambda: self.send(dry=True),
            "Stop": self._stop,
            "Insert as %%infer cell": self._insert,
        }
        for word, button in self.buttons.items():
            button.on_click(lambda _, do=does[word]: do())
        self.frame.observe(lambda _: self._show_columns(), "value")
        self._show_columns()
        self._busy(False)

    def _stop(self) -> None:
        if self.run is not None:
            self.run.cancel()

    def _busy(self, busy: bool) -> None:
        for word, button in self.buttons.items():
            button.disabled = busy != (word == "Stop") and word != "Insert as %%infer cell"

    def _show_columns(self) -> None:
        """The columns of the frame; a press writes one into the prompt."""
        names = candidates.columns(self.magic.shell.user_ns, self.frame.value)[:24]
        made = []
        for name in names:
            button = w.Button(
                description=f"{{{{ {name} }}}}", tooltip=f"Add the column {name} to the prompt", layout=w.Layout(width="auto")
            )
            button.on_click(lambda _, text=button.description: self._add(text))
            made.append(button)
        self.columns.children = made
        self.columns.layout.display = "flex" if made else "none"

    def _add(self, text: str) -> None:
        before = self.prompt.value
        self.prompt.value = f"{before}{'' if not before or before[-1:].isspace() else ' '}{text}"

    def _say(self, text: str, *, bad: bool = False, whole: bool = False) -> None:
        colour = "var(--jp-error-color1,#d32f2f)" if bad else "var(--jp-ui-font-color1,inherit)"
        space = "pre-wrap;max-height:360px;overflow:auto" if whole else "normal"
        self.says.value = (
            f'<div role="status" style="color:{colour};white-space:{space};line-height:1.5">{html.escape(text)}</div>' if text else ""
        )


def _field(option: Any) -> Any:
    """The control of one option."""
    word = option.flags[-1].removeprefix("--")
    if option.metavar is None:
        return w.Checkbox(
            value=option.name == "stream", description=word, tooltip=option.help, indent=True, style=LABEL, layout=w.Layout(width="auto")
        )
    return w.Text(
        description=word,
        placeholder=option.metavar,
        tooltip=option.help,
        style=LABEL,
        layout=w.Layout(width="auto"),
        continuous_update=False,
    )


def _failure(run: Run) -> str:
    try:
        run.check()
    except Exception as exc:  # noqa: BLE001 - a callback has nobody to raise to: it is shown
        return str(exc)
    return ""
