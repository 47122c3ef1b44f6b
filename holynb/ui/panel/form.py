"""`%infer panel`: a `%%infer` cell as a form. ipywidgets controls over the same plan, run and live view; knows no engine."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from holynb.config import BY_NAME, Options
from holynb.errors import BadKey, BadPrompt, BadRoute, HolynbError
from holynb.translation import say
from holynb.ui.cell import Host, candidates
from holynb.ui.cell.bridge import Bridge
from holynb.ui.live.widget import asset
from holynb.ui.panel.columns import Columns
from holynb.ui.panel.disclosure import unfolding
from holynb.ui.panel.draft import Draft
from holynb.ui.panel.more import More
from holynb.ui.panel.note import Note
from holynb.ui.panel.outlet import RunOutlet
from holynb.ui.panel.picker import Picker
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["Form"]

LABEL_STYLE = {"description_width": "120px"}


def wide() -> w.Layout:
    """A layout as wide as the panel. A function: a layout is a widget too, and importing this module must open none."""
    return w.Layout(width="100%")


class Form:
    """The "Ask" tab of the panel. Display `box`; `run` is the latest run."""

    def __init__(self, magic: Host, df: str | None = None) -> None:
        self.magic = magic
        self.run: Run | None = None
        frames = candidates.frames(magic.shell.user_ns)
        self.route = Picker("Route", "provider/model or an alias; empty: the default")
        self.facts = Note()
        self.frame = w.Dropdown(
            options=[(say("none: one prompt"), ""), *((f"{n}: {say(counted(len(f), 'row'))}", n) for n, f in frames.items())],
            value=df or "",
            description="Rows from",
            style=LABEL_STYLE,
            layout=wide(),
        )
        self.prompt = w.Textarea(
            placeholder="What to ask. With rows: a template, {{ column }} is filled in for each.",
            description="Prompt",
            rows=5,
            style=LABEL_STYLE,
            layout=wide(),
        ).add_class("holynb-prompt")
        self.columns = Columns()
        self.system = w.Textarea(placeholder="How to answer (optional)", description="System", rows=2, style=LABEL_STYLE, layout=wide())
        self.name = w.Text(
            value="answers", placeholder="a variable's name", description="Result in", style=LABEL_STYLE, layout=w.Layout(width="320px")
        )
        self.section = More()
        self.more = self.section.fields
        self.notes = {name: Note() for name in ("route", "prompt", "name")} | self.section.notes
        self.message = w.HTML(layout=wide())
        self.state = w.HTML().add_class("holynb-state")
        self.cell = w.Textarea(rows=5, layout=wide(), description="Cell", style=LABEL_STYLE)
        self.bridge = Bridge(on_inserted=self._on_inserted)
        self.outlet = RunOutlet()
        self.buttons = {
            word: w.Button(description=word, tooltip=tip, button_style=style, layout=w.Layout(width="auto"))
            for word, tip, style in (
                ("Run", "Send the prompts", "primary"),
                ("Dry run", "Show a sample, tokens and cost; send nothing", ""),
                ("Stop", "No new requests; those in flight have 3 seconds", "danger"),
                ("Insert as %%infer cell", "The same job as a cell below", ""),
            )
        }
        self.box = self._layout()
        self._connect()

    def draft(self) -> Draft:
        """The current values of the fields."""
        options: dict[str, Any] = {}
        if self.frame.value:
            options["df"] = self.frame.value
        if self.system.value.strip():
            options["system"] = self.system.value.strip()
        options |= self.section.values()
        return Draft(self.prompt.value, self.route.value.strip() or None, options, self.name.value.strip() or None)

    # -- actions -----------------------------------------------------------------------------------------------------
    def send(self, *, dry: bool = False) -> None:
        """Start a run; with `dry`, show what it would send. An error is one line at its field, or under the buttons."""
        if self.buttons["Run"].disabled:  # a second click, which came before the page knew
            return
        self._show_message("")
        for note in self.notes.values():
            note.clear()
        self._set_state("Preparing …")
        self._show_facts(again=True)
        running = False
        try:
            running = self._send(self.draft(), dry)
        except HolynbError as exc:
            self._show_mistake(exc)
        finally:
            if not running:
                self._set_state("")

    def _send(self, draft: Draft, dry: bool) -> bool:
        """Whether a run goes on now. Raises HolynbError."""
        from holynb.ui.commands import preview

        planned = self._plan(draft, dry)
        if dry:
            self._show_message(preview.text(planned), verbatim=True)
            return False
        self.run = self.magic.start(planned).run
        self._set_state(f"Running {counted(self.run.n, 'prompt')}; Run is off until this ends or is stopped.", stops=True)
        self.outlet.show(self.run, lambda: self._on_end(draft))
        return True

    def _show_mistake(self, exc: HolynbError) -> None:
        """Say it at the field where it was made; what belongs to no field, below the buttons."""
        place = self._place(exc)
        if place is None:
            self._show_message(str(exc), error=True)
            return
        self.notes[place].wrong(str(exc))
        if place in self.more:
            self.unfold.value = True

    def _place(self, exc: HolynbError) -> str | None:
        """The field that a mistake is about."""
        flag = str(exc).split(" ", 1)[0]
        for name in self.more:
            if flag in BY_NAME[name].flags:
                return name
        if isinstance(exc, BadPrompt):
            return "name" if self._has_bad_name() else "prompt"
        return "route" if isinstance(exc, BadKey | BadRoute) else None

    def _has_bad_name(self) -> bool:
        name = self.name.value.strip()
        return bool(self.prompt.value.strip()) and bool(name) and not name.isidentifier()

    def _plan(self, draft: Draft, dry: bool) -> Any:
        from holynb.run import plan, resume

        if not draft.body.strip():
            raise BadPrompt("There is no prompt yet. Write one, then press Run.")
        if draft.name is not None and not draft.name.isidentifier():
            raise BadPrompt(f"{draft.name!r} cannot be a variable's name. Call the result something like answers.")
        options = Options.parse({**draft.options, "dry_run": True} if dry else draft.options)
        return resume.continued(plan.make(draft.body, draft.route, options, variables=self.magic.shell.user_ns))

    def _on_end(self, draft: Draft) -> None:
        run = self.run
        self._set_state("")
        if run is None:
            return
        frame = run.frame()
        if draft.name:
            self.magic.shell.push({draft.name: frame})
        rows = counted(len(frame), "row")
        where = f"{draft.name} holds a DataFrame of {rows}." if draft.name else f"holynb.last.frame() is a DataFrame of {rows}."
        failure = _failure(run)
        self._show_message(f"{failure} {where}" if failure else where, error=bool(failure))

    def _insert(self) -> None:
        draft = self.draft()
        if "\n" in str(draft.options.get("system", "")):
            # The line of a cell cannot contain a line break: the text goes into a variable, which the cell names.
            self.magic.shell.push({"system_prompt": draft.options["system"]})
            others = {k: v for k, v in draft.options.items() if k != "system"}
            draft = replace(draft, options={**others, "system_from": "system_prompt"})
        self.cell.value = draft.cell()
        self.bridge.insert(draft.cell())

    def _on_inserted(self, done: bool) -> None:
        self.cell.layout.display = "none" if done else "flex"
        self._show_message("Inserted below." if done else "This page cannot insert cells by itself; copy the text into one.")

    # -- layout ---------------------------------------------------------------------------------------------------
    def _layout(self) -> w.VBox:
        self.unfold = unfolding(self.section.box, "More: sampling, limits, money, output")
        self.cell.layout.display = "none"
        row = w.HBox([*self.buttons.values(), self.state], layout=w.Layout(flex_flow="row wrap", align_items="center", margin="4px 0"))
        row.add_class("holynb-actions")
        box = w.VBox(
            [
                self.route,
                self.facts.box,
                self.notes["route"].box,
                self.frame,
                self.columns,
                self.prompt,
                self.notes["prompt"].box,
                self.system,
                self.name,
                self.notes["name"].box,
                self.unfold,
                self.section.box,
                row,
                self.message,
                self.cell,
                self.bridge,
                self.outlet.box,
                w.HTML(f"<style>{asset('panel.css')}</style>", layout=w.Layout(display="none")),
            ],
            layout=w.Layout(width="100%", padding="4px 8px 4px 0"),
        )
        return box.add_class("holynb-form")

    def _connect(self) -> None:
        actions: dict[str, Callable[[], None]] = {
            "Run": lambda: self.bridge.after_typing(self.send),
            "Dry run": lambda: self.bridge.after_typing(lambda: self.send(dry=True)),
            "Stop": self._stop,
            "Insert as %%infer cell": lambda: self.bridge.after_typing(self._insert),
        }
        for word, button in self.buttons.items():
            button.on_click(lambda _, action=actions[word]: action())
        self.frame.observe(lambda _: self._show_columns(), "value")
        self.route.observe(lambda _: self._show_facts(), ["value", "offers"])
        self._show_columns()
        self._set_state("")

    def _stop(self) -> None:
        if self.run is not None:
            self.run.cancel()

    def _set_state(self, text: str, *, stops: bool = False) -> None:
        """What the form is doing, beside the buttons, which are off meanwhile; empty: nothing. stops: whether it can be stopped."""
        self.state.value = f'<div role="status">{html.escape(say(text))}</div>' if text else ""
        for word, button in self.buttons.items():
            button.disabled = not stops if word == "Stop" else bool(text) and word != "Insert as %%infer cell"

    def _show_facts(self, *, again: bool = False) -> None:
        """Say below the route what is known of its model."""
        self.facts.sentence = say(self.route.facts(again=again))
        self.facts.clear()

    def _show_columns(self) -> None:
        """Offer the columns of the frame."""
        in_template = candidates.in_template(self.magic.shell.user_ns, self.frame.value or None)
        self.columns.names = [name for name, kind in in_template if kind == "column"]

    def _show_message(self, text: str, *, error: bool = False, verbatim: bool = False) -> None:
        text = text if verbatim else say(text)
        colour = "var(--jp-error-color1,#d32f2f)" if error else "var(--jp-ui-font-color1,inherit)"
        white_space = "pre-wrap;max-height:360px;overflow:auto" if verbatim else "normal"
        self.message.value = (
            f'<div role="status" style="color:{colour};white-space:{white_space};line-height:1.5">{html.escape(text)}</div>' if text else ""
        )


def _failure(run: Run) -> str:
    try:
        run.check()
    except Exception as exc:  # noqa: BLE001 - a callback has no caller to raise to: the error is shown
        return str(exc)
    return ""
