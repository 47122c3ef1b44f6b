"""The fields of the "Pools" tab: model, engine, division, memory, address; each with a sentence that becomes the mistake made there."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import ipywidgets as w

from holynb.translation import say
from holynb.ui.commands import pool
from holynb.ui.panel.note import Note, sentence

__all__ = ["MODEL", "PoolFields", "known_models"]

MODEL = "smollm2-135m"
LABEL_STYLE = {"description_width": "120px"}
#: Of a folder: opening the panel must not wait.
MAX_FILES = 500
#: What these offer, each as it is shown and as it is typed. Others are text.
CHOICES: dict[str, tuple[tuple[str, str], ...]] = {
    "engine": (("native: holynb's own", ""), ("vllm: in an environment that has it", "vllm")),
    "dtype": (
        ("the model's own", ""),
        ("bfloat16: 2 bytes a weight", "bfloat16"),
        ("float16: 2 bytes a weight", "float16"),
        ("float32: 4 bytes a weight", "float32"),
        ("fp8: 1 byte a weight, GPU", "fp8"),
        ("int8: 1 byte a weight", "int8"),
    ),
    "kv": (("as computed", ""), ("fp8: 1 byte a number", "fp8")),
}
#: What stands in an empty field: its default.
EXAMPLES = {
    "name": "the model's last word",
    "devices": "the first GPU, else cpu",
    "dp": "1",
    "tp": "1",
    "pp": "1",
    "micro_batches": "as many as stages",
    "max_len": "what the model can",
    "memory": "0.9",
    "port": "this machine only",
    "idle": "30m",
    "restart": "0",
    "python": "/opt/vllm/bin/python",
    "gpus": "this machine's; or 4x24GB",
}
NATIVE_ONLY, VLLM_ONLY = ("micro_batches", "restart"), ("python",)


class PoolFields:
    """Display `box`. `on_change` is called after each change, those while typing too. `fields` and `notes` are by the option's name."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.model = w.Combobox(
            value=MODEL,
            options=tuple(known_models()),
            placeholder="a folder, a GGUF file, a hub id",
            description="Model",
            style=LABEL_STYLE,
            layout=w.Layout(width="auto"),
        )
        self.fields: dict[str, Any] = {}
        self.notes = {
            "model": Note(say("smollm2-135m ships with holynb; or a folder of safetensors, a GGUF file, a hub id such as org/name."))
        }
        cells: dict[str, Any] = {}
        for option in dict.fromkeys((*pool.START_OPTIONS, *pool.PLAN_OPTIONS)):
            if option.name in ("on", "bg"):
                continue
            looks = {"description": option.name.replace("_", "-"), "style": LABEL_STYLE, "layout": w.Layout(width="auto")}
            field: Any = (
                w.Dropdown(options=[(say(shown), typed) for shown, typed in CHOICES[option.name]], value="", **looks)
                if option.name in CHOICES
                else w.Combobox(options=("cpu",), placeholder=EXAMPLES["devices"], **looks)
                if option.name == "devices"
                else w.Text(placeholder=EXAMPLES.get(option.name, ""), **looks)
            )
            self.fields[option.name] = field
            self.notes[option.name] = Note(sentence(option.help))
            cells[option.name] = w.VBox([field, self.notes[option.name].box])
        self._cells = cells
        grid = w.GridBox(
            [*cells.values()],
            layout=w.Layout(grid_template_columns="repeat(auto-fill, minmax(min(290px, 100%), 1fr))", grid_gap="2px 12px"),
        )
        self.box = w.VBox([self.model, self.notes["model"].box, grid], layout=w.Layout(width="100%"))
        for field in (self.model, *self.fields.values()):
            field.observe(lambda _: on_change(), "value")
        self.fields["engine"].observe(lambda _: self._follow_engine(), "value")
        self._follow_engine()

    def args(self, verb: str, leave_out: tuple[str, ...] = ()) -> list[str]:
        """The arguments of `%infer pool` for the values of the fields."""
        options = {o.name for o in (pool.PLAN_OPTIONS if verb == "plan" else pool.START_OPTIONS)} - {*leave_out}
        filled = {
            name: field.value.strip()
            for name, field in self.fields.items()
            if field.value.strip() and name in options and self._cells[name].layout.display != "none"
        }
        words = [word for name, value in filled.items() for word in (f"--{name.replace('_', '-')}", value)]
        return [verb, self.model.value.strip() or MODEL, *words]

    def clear(self) -> None:
        """Take back the mistakes that are shown."""
        for note in self.notes.values():
            note.clear()

    def show_mistake(self, text: str) -> None:
        """Say it at the field whose flag it names first; else at the model."""
        flags = (flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]*)", text))
        self.notes[next((name for name in flags if name in self.fields), "model")].wrong(text)

    def offer_devices(self, said: str) -> None:
        """Offer the GPUs of this machine, which a plan counts as `2x40GB`."""
        if not self.fields["gpus"].value.strip() and not self.fields["devices"].value.strip():
            count = int(found[1]) if (found := re.match(r"(\d+)x", said)) else 0
            every = (",".join(map(str, range(count))),) if count > 1 else ()
            offered = ("cpu", *map(str, range(count)), *every)
            if offered != tuple(self.fields["devices"].options):
                self.fields["devices"].options = offered

    def _follow_engine(self) -> None:
        vllm = self.fields["engine"].value == "vllm"
        for names, shown in ((VLLM_ONLY, vllm), (NATIVE_ONLY, not vllm)):
            for name in names:
                self._cells[name].layout.display = "flex" if shown else "none"


def known_models() -> list[str]:
    """The embedded model, those that were fetched from the hub before, and folders and GGUF files beside the notebook."""
    from holynb.config import settings

    fetched = [p.parent.name.replace("--", "/", 1) for p in _listed(settings.home() / "models", "*/config.json") if "--" in p.parent.name]
    here = [f"./{p.parent.name}" for p in _listed(Path(), "*/config.json")] + [f"./{p.name}" for p in _listed(Path(), "*.gguf")]
    return list(dict.fromkeys([MODEL, *sorted(fetched), *sorted(here)]))


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(islice(folder.glob(pattern), MAX_FILES))
    except OSError:  # a folder that may not be read offers nothing
        return []
