"""Saved prompts: files under HOLYNB_HOME/prompts that outlive the kernel. Knows files and options; sends nothing.

One TOML file per prompt: `body`, `route`, `saved`, and the options that belong to a prompt (`[options]`). It can be written by hand,
copied to another machine and kept in git. Saving under a used name replaces the prompt; its last version is kept in `before/`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
import tempfile
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holynb.config import Options, settings
from holynb.errors import BadOption, BadPrompt, BadSetting, closest
from holynb.words import an

__all__ = ["SAVED_OPTIONS", "SavedPrompt", "apply", "folder", "listing", "load", "remove", "save", "save_from_options"]

#: The options that belong to a prompt. Its rows, where the result goes and what it may cost belong to a cell.
SAVED_OPTIONS = (
    "system",
    "lines",
    "raw",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "think",
    "p",
    "params_from",
    "attach",
    "attach_max",
    "attach_urls",
    "schema",
    "embed",
    "dimensions",
    "chunk",
    "router",
    "format",
)

_NAME = re.compile(r"[^\W_][\w.-]{0,63}")
#: Names that Windows reserves for devices, with any suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SavedPrompt:
    """One saved prompt. `options`: those that were set, by name; `at`: when it was saved, None in a hand-written file without it."""

    name: str
    body: str
    route: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    at: dt.datetime | None = None
    path: Path | None = None
    replaced: bool = False


def folder() -> Path:
    """The folder of the files."""
    return settings.home() / "prompts"


def save(name: str, body: str, route: str | None, options: Options) -> SavedPrompt:
    """Save a prompt. One of the same name is replaced and kept in `before/` until the next save; saving the same prompt changes nothing.

    Raises BadOption (an invalid file name, a schema that is not a name), BadPrompt (nothing to save), BadSetting (a folder that cannot be
    written).
    """
    path = _path(name)
    if not body.strip():
        raise BadPrompt(f"There is no prompt to save as {name!r}. Write one below the %%infer line.")
    default = Options()
    options_set = {k: v for k in SAVED_OPTIONS if (v := getattr(options, k)) != getattr(default, k)}
    if not isinstance(options_set.get("schema", ""), str):
        raise BadOption(
            "A saved prompt keeps the name of a schema or its file, and this schema is an object. Give its name: --schema NAME."
        )
    options_set = {k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for k, v in options_set.items()}
    prompt = SavedPrompt(name, body, route, options_set, dt.datetime.now(dt.UTC).replace(microsecond=0), path)
    stored = _stored(path, prompt)
    if stored is not None and _same(stored, prompt):
        return stored
    try:
        if path.exists():
            backup = path.parent / "before" / path.name
            backup.parent.mkdir(mode=0o700, exist_ok=True)
            path.replace(backup)
            prompt = replace(prompt, replaced=True)
        _write(path, _toml(prompt))
    except OSError as exc:
        raise BadSetting(f"{path} cannot be written: {exc.strerror}. Set HOLYNB_HOME to a folder of your own.") from exc
    return prompt


def save_from_options(prompts: Any, route: str | None, options: Options) -> SavedPrompt:
    """Save under the name of `--save`. Raises as `save`, and BadOption where the prompts are not a single text."""
    if not isinstance(prompts, str):
        raise BadOption(f"--save keeps one text (a prompt or a template), and these prompts are {an(type(prompts).__name__)}.")
    return save(str(options.save), prompts, route, options)


def load(name: str) -> SavedPrompt:
    """The prompt of this name. Raises BadOption with the closest one, BadSetting where its file does not parse."""
    path = _path(name)
    if not path.is_file():
        names = _names()
        available = f" Saved: {', '.join(names[:8])}." if names else " Nothing is saved yet: --save NAME saves a cell's prompt."
        raise BadOption(f"There is no saved prompt {name!r}.{closest(name, names)}{available}")
    return _read(path)


def listing() -> list[SavedPrompt]:
    """Every saved prompt that can be read, by name. Raises BadSetting at one that cannot."""
    return [_read(folder() / f"{name}.toml") for name in _names()]


def remove(name: str) -> Path:
    """Move a prompt to `before/`. Returns its path there. Raises BadOption."""
    path = load(name).path or _path(name)
    backup = path.parent / "before" / path.name
    backup.parent.mkdir(mode=0o700, exist_ok=True)
    return path.replace(backup)


def apply(prompts: Any, route: str | None, options: Options) -> tuple[Any, str | None, Options]:
    """Prompt, route and options with the saved prompt of `--use` filled in; unchanged without it. The cell's options win over saved ones.

    Raises BadOption (no such prompt, or the cell has a prompt too), BadSetting.
    """
    if options.use is None:
        return prompts, route, options
    if prompts is not None and (not isinstance(prompts, str) or prompts.strip()):
        raise BadOption(f"--use {options.use} brings its own prompt, but the cell has one too. Leave one of them out.")
    prompt = load(options.use)
    default = Options()
    try:
        stored = Options.parse(prompt.options)
    except BadOption as exc:
        raise BadSetting(f"{prompt.path}: {exc}") from None
    unset = [k for k in prompt.options if getattr(options, k) == getattr(default, k)]
    if options.system_from is not None:
        unset = [k for k in unset if k != "system"]
    return prompt.body, route or prompt.route, replace(options, use=None, **{k: getattr(stored, k) for k in unset})


# -- names and files ---------------------------------------------------------------------------------------------------
def _path(name: str) -> Path:
    name = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(name) or name.endswith(".") or _DEVICES.fullmatch(name):
        raise BadOption(f"{name!r} cannot be a saved prompt's name: letters, digits, - _ and . (64 at most), a letter or a digit first.")
    return folder() / f"{name}.toml"


def _names() -> list[str]:
    directory = folder()
    return sorted(p.stem for p in directory.glob("*.toml") if _NAME.fullmatch(p.stem)) if directory.is_dir() else []


def _stored(path: Path, prompt: SavedPrompt) -> SavedPrompt | None:
    """The prompt stored under this name now. On a case-insensitive file system, another name may be the same file."""
    if not path.is_file():
        return None
    stem = next((p.stem for p in path.parent.glob("*.toml") if p.samefile(path)), prompt.name)
    if stem != prompt.name:
        raise BadOption(
            f"There is a saved prompt {stem!r}, and this file system keeps {prompt.name!r} in the same file. Choose another name."
        )
    try:
        return _read(path)
    except BadSetting:
        return None  # it is moved to before/, where the user can repair it


def _same(a: SavedPrompt, b: SavedPrompt) -> bool:
    return (a.body, a.route, dict(a.options)) == (b.body, b.route, dict(b.options))


def _write(path: Path, text: str) -> None:
    """Write atomically, readable by the owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# -- the file ----------------------------------------------------------------------------------------------------------
def _read(path: Path) -> SavedPrompt:
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as exc:
        raise BadSetting(f"{path} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise BadSetting(f"{path} is not a saved prompt: {'it is not UTF-8 text' if isinstance(exc, UnicodeError) else exc}.") from exc
    fields = ("body", "route", "saved", "options")
    for key in document:
        if key not in fields:
            raise BadSetting(f"{path} has no {key!r}.{closest(key, fields)} It takes {', '.join(fields)}.")
    body, route, options, at = (document.get(k) for k in ("body", "route", "options", "saved"))
    if not isinstance(body, str) or not body.strip():
        raise BadSetting(f"{path} needs the prompt: body = '''…'''")
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
    """A TOML string; multi-line as typed where TOML can express it."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if "\n" in text and not plain and "'''" not in text and not text.endswith("'") and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        return f"'''\n{text}'''"
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
