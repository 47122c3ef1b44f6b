"""Recordings of runs: written during the run, read back as timed events. JSON lines, gzipped where the name ends in .gz.

The first line holds the prompts; each other line has a time `t` in seconds and either an event (`e`), or pieces of answers (`say`), or of
what is thought (`think`).
Holds prompts and answers as the run log does, and no key.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb import typed_path
from holynb.errors import BadOption, closest
from holynb.events import Ended, Event, Failed, Gauge, Load, Noted, Paused, Started
from holynb.types import Message, Outcome, Usage

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["RecordedStep", "Recording", "read", "record", "shipped"]

VERSION = 1
EVENT_TYPES: Mapping[str, type] = {
    "started": Started,
    "failed": Failed,
    "paused": Paused,
    "ended": Ended,
    "noted": Noted,
    "gauge": Gauge,
    "load": Load,
}


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """At `t` seconds: an event (its `at` counts from 0), or pieces of answers by row, or of thoughts, with the tokens so far."""

    t: float
    event: Event | None = None
    pieces: Sequence[tuple[int, str]] = ()
    thoughts: Sequence[tuple[int, str, int | None]] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """A run that can be played: `messages[i]` are row i's, `steps` are in order of time, `recorded_on` is a date."""

    title: str
    recorded_on: str
    messages: Sequence[Sequence[Message]]
    labels: Sequence[object] | None
    steps: Sequence[RecordedStep]
    seconds: float


def shipped() -> list[str]:
    """The names of the recordings that come with holynb."""
    folder = resources.files("holynb.ui") / "assets" / "recordings"
    return sorted(f.name.removesuffix(".jsonl.gz") for f in folder.iterdir() if f.name.endswith(".jsonl.gz"))


# -- writing -----------------------------------------------------------------------------------------------------------
def record(run: Run, path: Path, pause: float = 0.1) -> None:
    """Write a running run to `path` until it is done. Blocks; call it right after `holynb.infer`."""
    labels = None if run.plan.rows.index is None else [str(v) for v in run.plan.rows.index]
    head = {
        "holynb": "recording",
        "version": VERSION,
        "title": f"{run.name or run.id} · {run.route}",
        "made": time.strftime("%Y-%m-%d"),
        "asked": [[[m.role, m.content] for m in p.messages] for p in run.prompts],
        "labels": labels,
    }
    with _open(path, "wt") as out:
        for line in (head, *_lines(run, pause)):
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode() + "\n")


def _lines(run: Run, pause: float) -> Iterator[dict[str, Any]]:
    cursor, written = 0, dict[int, int]()  # characters by row
    thought = dict[int, tuple[int, int | None]]()  # characters and tokens by row
    over = False
    while not over:
        over = run.done  # read first, so that the last round misses nothing
        at = round(time.time() - run.started, 3)
        events, cursor = run.journal.events_since(cursor)
        live = run.journal.partial_texts()
        pieces = [(row, text[written.get(row, 0) :]) for row, text in live.items() if len(text) > written.get(row, 0)]
        if pieces:
            yield {"t": at, "say": pieces}
        written = {row: len(text) for row, text in live.items()}
        thinking = run.journal.thinking()
        thoughts = [
            (row, (run.journal.partial_thoughts(row) or "")[thought.get(row, (0, None))[0] : counts[0]], counts[1])
            for row, counts in thinking.items()
            if counts != thought.get(row)
        ]
        if thoughts:
            yield {"t": at, "think": thoughts}
        thought = thinking
        yield from (_encode(e, e.at - run.started) for e in events)
        if not over:
            time.sleep(pause)


def _encode(event: Event, t: float) -> dict[str, Any]:
    name = next(n for n, event_type in EVENT_TYPES.items() if isinstance(event, event_type))
    if isinstance(event, Ended) and event.outcome.vector is not None:  # a player shows what it is (`text`), and needs no numbers
        event = replace(event, outcome=replace(event.outcome, vector=None))
    record = json.loads(json.dumps(asdict(event), default=str))
    del record["at"]
    return {"t": round(max(0.0, t), 3), "e": name, **_without_defaults(record)}


def _without_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, False or empty: the reader's defaults."""
    nested = {k: _without_defaults(v) if isinstance(v, dict) else v for k, v in record.items()}
    return {k: v for k, v in nested.items() if v is not None and v is not False and v not in ({}, "")}


# -- reading -----------------------------------------------------------------------------------------------------------
def read(name: str) -> Recording:
    """The recording in a file, or the shipped one of this name. Raises BadOption: no such file, not a recording, too new."""
    path = typed_path.typed(name)
    if not typed_path.is_file(path):
        if name not in shipped():
            raise BadOption(f"There is no recording {name!r}.{closest(name, shipped())} Shipped with holynb: {', '.join(shipped())}.")
        with resources.as_file(resources.files("holynb.ui") / "assets" / "recordings" / f"{name}.jsonl.gz") as inside:
            return _read(inside, name)
    return _read(path, name)


def _read(path: Path, name: str) -> Recording:
    try:
        with _open(path, "rt") as lines:
            head = json.loads(lines.readline())
            _check_head(head, name)
            steps = sorted((s for line in lines if (s := _step(json.loads(line)))), key=lambda s: s.t)
            messages = [[Message(*m) for m in row] for row in head["asked"]]
        _check_rows(steps, len(messages))
        return Recording(
            str(head.get("title", "a run")),
            str(head.get("made", "?")),
            messages,
            head.get("labels"),
            steps,
            max((s.t for s in steps), default=0.0),
        )
    except (ValueError, KeyError, TypeError, OSError, EOFError, AttributeError) as exc:
        raise BadOption(f"{name!r} is not a recording of holynb, or is damaged: {exc}") from exc


def _check_head(head: Any, name: str) -> None:
    if not isinstance(head, dict) or head.get("holynb") != "recording":
        raise ValueError("its first line does not say so")
    if head.get("version", 0) > VERSION:
        raise BadOption(f"{name!r} was recorded by a newer holynb (format {head['version']}). Update with: pip install -U holynb")


def _check_rows(steps: Sequence[RecordedStep], n: int) -> None:
    rows = {getattr(s.event, "row", 0) for s in steps} | {row for s in steps for row, _ in s.pieces}
    rows |= {row for s in steps for row, _, _ in s.thoughts}
    ended = [s.event.row for s in steps if isinstance(s.event, Ended)]
    if rows and not 0 <= min(rows) <= max(rows) < max(n, 1):
        raise ValueError(f"it speaks of row {max(rows)}, and has {n}")
    if len(ended) != len(set(ended)):
        raise ValueError("a row ends twice")


def _step(line: Mapping[str, Any]) -> RecordedStep | None:
    """A line's step; None for an event of an unknown type."""
    t = float(line["t"])
    if "say" in line:
        return RecordedStep(t, pieces=[(int(row), str(text)) for row, text in line["say"]])
    if "think" in line:
        return RecordedStep(t, thoughts=[(int(row), str(text), None if n is None else int(n)) for row, text, n in line["think"]])
    event_type = EVENT_TYPES.get(line.get("e", ""))
    if event_type is None:
        return None
    empty = {"text": "", "message": ""}  # an empty string is not written
    values = {f.name: v for f in fields(event_type) if f.name != "at" and (v := line.get(f.name, empty.get(f.name))) is not None}
    if event_type is Ended:
        values["outcome"] = _outcome(values["outcome"])
    if values.get("usage"):
        values["usage"] = Usage(**values["usage"])
    return RecordedStep(t, event_type(**values, at=t))


def _outcome(record: Mapping[str, Any]) -> Outcome:
    names = {f.name for f in fields(Outcome)}
    values = {k: v for k, v in record.items() if k in names}
    values["usage"] = Usage(**values.get("usage", {}))
    if values.get("cost") is not None:
        values["cost"] = Decimal(values["cost"])
    return Outcome(**{"text": "" if values.get("status") == "ok" else None, **values})


def _open(path: Path, mode: str) -> Any:
    if path.name.endswith(".gz"):
        return gzip.open(path, mode, encoding="utf-8")
    return path.open(mode.removesuffix("t"), encoding="utf-8")
