"""Saved prompts: files under HOLYNB_HOME/prompts that outlive the kernel. Knows files and options; sends nothing.

One TOML file a prompt: `body`, `route`, `saved`, and the options that belong to a prompt (`[options]`). It can be written by hand, copied to
another machine and kept in git. Saving under a name again replaces the prompt; the text that stood there before is kept once, in `before/`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holynb.config import Options, settings
from holynb.errors import BadOption, BadPrompt, BadSetting, closest

__all__ = ["SAVED_OPTIONS", "SavedPrompt", "apply", "folder", "listing", "load", "remove", "save", "save_from_options"]

#: The options that say what a prompt is. What it runs over, where its result goes and what it may cost belongs to a cell.
SAVED_OPTIONS = (
    "system",
    "lines",
    "raw",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "p",
    "params_from",
    "schema",
    "chunk",
    "router",
)

_NAME = re.compile(r"[^\W_][\w.-]{0,63}")
#: Names that Windows keeps for devices, whatever the suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SavedPrompt:
    """One saved prompt. `options` are those that were said, by name; `at` is None where a hand-written file does not say."""

    name: str
    body: str
    route: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    at: dt.datetime | None = None
    path: Path | None = None
    replaced: bool = False


def folder() -> Path:
    """Where the files lie."""
    return settings.home() / "prompts"


def save(name: str, body: str, route: str | None, options: Options) -> SavedPrompt:
    """Keep a prompt. One of the same name is replaced, and stays in `before/` until the next time; the same prompt again changes nothing.

    Raises BadOption (a name that cannot be a file's, a schema that is no text), BadPrompt (nothing to save), BadSetting (a folder that
    cannot be written).
    """
    path = _path(name)
    if not body.strip():
        raise BadPrompt(f"There is no prompt to save as {name!r}. Write one below the %%infer line.")
    default = Options()
    said = {k: v for k in SAVED_OPTIONS if (v := getattr(options, k)) != getattr(default, k)}
    if not isinstance(said.get("schema", ""), str):
        raise BadOption(
            "A saved prompt keeps the name of a schema or its file, and this schema is an object. Give its name: --schema NAME."
        )
    said = {k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for k, v in said.items()}
    made = SavedPrompt(name, body, route, said, dt.datetime.now(dt.UTC).replace(microsecond=0), path)
    before = _before(path, made)
    if before is not None and _same(before, made):
        return before
    try:
        if path.exists():
            keep = path.parent / "before" / path.name
            keep.parent.mkdir(mode=0o700, exist_ok=True)
            path.replace(keep)
            made = replace(made, replaced=True)
        _write(path, _toml(made))
    except OSError as exc:
        raise BadSetting(f"{path} cannot be written: {exc.strerror}. Set HOLYNB_HOME to a folder of your own.") from exc
    return made


def save_from_options(what: Any, route: str | None, options: Options) -> SavedPrompt:
    """Save what `--save` names. Raises as `save`, and BadOption where the prompts are no single text."""
    if not isinstance(what, str):
        raise BadOption(f"--save keeps one text (a prompt or a template), and these prompts are a {type(what).__name__}.")
    return save(str(options.save), what, route, options)


def load(name: str) -> SavedPrompt:
    """The prompt of this name. Raises BadOption with the closest one, BadSetting where its file does not parse."""
    path = _path(name)
    if not path.is_file():
        known = _names()
        some = f" Saved: {', '.join(known[:8])}." if known else " Nothing is saved yet: --save NAME saves a cell's prompt."
        raise BadOption(f"There is no saved prompt {name!r}.{closest(name, known)}{some}")
    return _read(path)


def listing() -> list[SavedPrompt]:
    """Every saved prompt that can be read, by name. Raises BadSetting at one that cannot."""
    return [_read(folder() / f"{name}.toml") for name in _names()]


def remove(name: str) -> Path:
    """Take a prompt away; it stays in `before/`. Returns where. Raises BadOption."""
    path = load(name).path or _path(name)
    keep = path.parent / "before" / path.name
    keep.parent.mkdir(mode=0o700, exist_ok=True)
    return path.replace(keep)


def apply(what: Any, route: str | None, options: Options) -> tuple[Any, str | None, Options]:
    """Prompt, route and options with `--use` filled in: what the line says itself goes above what was saved. As they are without it.

    Raises BadOption (no such prompt; a prompt of the cell's own beside it), BadSetting.
    """
    if options.use is None:
        return what, route, options
    if what is not None and (not isinstance(what, str) or what.strip()):
        raise BadOption(f"--use {options.use} brings its own prompt, and one is given too. Leave one of them out.")
    found = load(options.use)
    default = Options()
    try:
        kept = Options.parse(found.options)
    except BadOption as exc:
        raise BadSetting(f"{found.path}: {exc}") from None
    open_ = [k for k in found.options if getattr(options, k) == getattr(default, k)]
    if options.system_from is not None:
        open_ = [k for k in open_ if k != "system"]
    return found.body, route or found.route, replace(options, use=None, **{k: getattr(kept, k) for k in open_})


# -- names and files -------------------------------------------------------------------------------------------------------
def _path(name: str) -> Path:
    if not _NAME.fullmatch(name) or name.endswith(".") or _DEVICES.fullmatch(name):
        raise BadOption(f"{name!r} cannot be a saved prompt's name: letters, digits, - _ and . (64 at most), a letter or a digit first.")
    return folder() / f"{name}.toml"


def _names() -> list[str]:
    place = folder()
    return sorted(p.stem for p in place.glob("*.toml") if _NAME.fullmatch(p.stem)) if place.is_dir() else []


def _before(path: Path, made: SavedPrompt) -> SavedPrompt | None:
    """What stands under this name now. On file systems that do not tell capitals apart, another name may be the same file."""
    if not path.is_file():
        return None
    real = next((p.stem for p in path.parent.glob("*.toml") if p.samefile(path)), made.name)
    if real != made.name:
        raise BadOption(
            f"There is a saved prompt {real!r}, and this file system keeps {made.name!r} in the same file. Choose another name."
        )
    try:
        return _read(path)
    except BadSetting:
        return None  # it is moved to before/, where it can be mended


def _same(a: SavedPrompt, b: SavedPrompt) -> bool:
    return (a.body, a.route, dict(a.options)) == (b.body, b.route, dict(b.options))


def _write(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# -- the file --------------------------------------------------------------------------------------------------------------
def _read(path: Path) -> SavedPrompt:
    try:
        said = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise BadSetting(f"{path} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise BadSetting(f"{path} is not a saved prompt: {'it is not UTF-8 text' if isinstance(exc, UnicodeError) else exc}.") from exc
    known = ("body", "route", "saved", "options")
    for key in said:
        if key not in known:
            raise BadSetting(f"{path} has no {key!r}.{closest(key, known)} It takes {', '.join(known)}.")
    body, route, options, at = (said.get(k) for k in ("body", "route", "options", "saved"))
    if not isinstance(body, str) or not body.strip():
        raise BadSetting(f"{path} should hold the prompt: body = '''…'''")
    if not isinstance(route, str | None) or not isinstance(options, Mapping | None):
        raise BadSetting(f'{path}: route should be text ("provider/model"), and [options] a table.')
    for key in options or {}:
        if key not in SAVED_OPTIONS:
            raise BadSetting(
                f"{path}: a saved prompt keeps no option {key!r}.{closest(key, SAVED_OPTIONS)} It keeps {', '.join(SAVED_OPTIONS)}."
            )
    return SavedPrompt(path.stem, body, route, options or {}, at if isinstance(at, dt.datetime) else None, path)


def _toml(prompt: SavedPrompt) -> str:
    lines = ["# A prompt of holynb: %%infer --use NAME, or %infer run --use NAME", f"body = {_text(prompt.body)}"]
    if prompt.route:
        lines.append(f"route = {_text(prompt.route)}")
    if prompt.at:
        lines.append(f"saved = {prompt.at.isoformat()}")
    if prompt.options:
        lines += ["", "[options]", *(f"{_key(k)} = {_value(v)}" for k, v in prompt.options.items())]
    return "\n".join([*lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(k))} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise BadOption("A saved prompt cannot keep null or NaN in -p: leave the key out.")
    return json.dumps(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name, plain=True)


def _text(text: str, *, plain: bool = False) -> str:
    """A TOML string; over several lines as it was typed wherever TOML can hold it so."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if "\n" in text and not plain and "'''" not in text and not text.endswith("'") and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        return f"'''\n{text}'''"
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
