"""A recorded run: written while the run goes on, read back as events in their time. JSON lines, gzipped where the name ends in .gz.

The first line says what was asked; each other line has a time `t` in seconds and either an event (`e`) or pieces of answers (`say`).
Holds prompts and answers like the run log does, and no key.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.errors import BadOption, closest
from holynb.types import Ended, Event, Failed, Gauge, Load, Message, Noted, Outcome, Paused, Started, Usage

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["RecordedStep", "Recording", "read", "record", "shipped"]

VERSION = 1
KINDS: Mapping[str, type] = {
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
    """What happened at `t` seconds: an event (its `at` counts from 0), or pieces of answers by row."""

    t: float
    event: Event | None = None
    said: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """A run that can be played: `messages[i]` is what row i asked, `steps` are in order of time."""

    title: str
    made: str
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
    """Write a run that goes on to `path` until it is done. Blocks; call it right after `holynb.infer`."""
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
    cursor, heard = 0, dict[int, int]()
    over = False
    while not over:
        over = run.done  # looked at first, so that the last round misses nothing
        at = round(time.time() - run.started, 3)
        events, cursor = run.journal.events_since(cursor)
        live = run.journal.partial_texts()
        said = [(row, text[heard.get(row, 0) :]) for row, text in live.items() if len(text) > heard.get(row, 0)]
        if said:
            yield {"t": at, "say": said}
        heard = {row: len(text) for row, text in live.items()}
        yield from (_packed(e, e.at - run.started) for e in events)
        if not over:
            time.sleep(pause)


def _packed(event: Event, t: float) -> dict[str, Any]:
    name = next(n for n, kind in KINDS.items() if isinstance(event, kind))
    said = json.loads(json.dumps(asdict(event), default=str))
    del said["at"]
    return {"t": round(max(0.0, t), 3), "e": name, **_known(said)}


def _known(said: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, False or empty: that is what a reader assumes."""
    kept = {k: _known(v) if isinstance(v, dict) else v for k, v in said.items()}
    return {k: v for k, v in kept.items() if v is not None and v is not False and v not in ({}, "")}


# -- reading -----------------------------------------------------------------------------------------------------------
def read(where: str) -> Recording:
    """The recording in a file, or the shipped one of this name. Raises BadOption: no such file, not a recording, too new."""
    path = Path(where).expanduser()
    if not path.is_file():
        if where not in shipped():
            raise BadOption(f"There is no recording {where!r}.{closest(where, shipped())} Shipped with holynb: {', '.join(shipped())}.")
        with resources.as_file(resources.files("holynb.ui") / "assets" / "recordings" / f"{where}.jsonl.gz") as inside:
            return _read(inside, where)
    return _read(path, where)


def _read(path: Path, where: str) -> Recording:
    try:
        with _open(path, "rt") as lines:
            head = json.loads(lines.readline())
            _check(head, where)
            steps = sorted((s for line in lines if (s := _step(json.loads(line)))), key=lambda s: s.t)
            asked = [[Message(*m) for m in messages] for messages in head["asked"]]
        _check_rows(steps, len(asked))
        return Recording(
            str(head.get("title", "a run")),
            str(head.get("made", "?")),
            asked,
            head.get("labels"),
            steps,
            max((s.t for s in steps), default=0.0),
        )
    except (ValueError, KeyError, TypeError, OSError, EOFError, AttributeError) as exc:
        raise BadOption(f"{where!r} is not a recording of holynb, or is damaged: {exc}") from exc


def _check(head: Any, where: str) -> None:
    if not isinstance(head, dict) or head.get("holynb") != "recording":
        raise ValueError("its first line does not say so")
    if head.get("version", 0) > VERSION:
        raise BadOption(f"{where!r} was recorded by a newer holynb (format {head['version']}). Update with: pip install -U holynb")


def _check_rows(steps: Sequence[RecordedStep], n: int) -> None:
    rows = {getattr(s.event, "row", 0) for s in steps} | {row for s in steps for row, _ in s.said}
    ended = [s.event.row for s in steps if isinstance(s.event, Ended)]
    if rows and not 0 <= min(rows) <= max(rows) < max(n, 1):
        raise ValueError(f"it speaks of row {max(rows)}, and has {n}")
    if len(ended) != len(set(ended)):
        raise ValueError("a row ends twice")


def _step(line: Mapping[str, Any]) -> RecordedStep | None:
    """A line's step; None for a kind of event that this version does not know."""
    t = float(line["t"])
    if "say" in line:
        return RecordedStep(t, said=[(int(row), str(text)) for row, text in line["say"]])
    kind = KINDS.get(line.get("e", ""))
    if kind is None:
        return None
    empty = {"text": "", "message": ""}  # an empty string is not written
    said = {f.name: v for f in fields(kind) if f.name != "at" and (v := line.get(f.name, empty.get(f.name))) is not None}
    if kind is Ended:
        said["outcome"] = _outcome(said["outcome"])
    if said.get("usage"):
        said["usage"] = Usage(**said["usage"])
    return RecordedStep(t, kind(**said, at=t))


def _outcome(said: Mapping[str, Any]) -> Outcome:
    names = {f.name for f in fields(Outcome)}
    known = {k: v for k, v in said.items() if k in names}
    known["usage"] = Usage(**known.get("usage", {}))
    if known.get("cost") is not None:
        known["cost"] = Decimal(known["cost"])
    return Outcome(**{"text": "" if known.get("status") == "ok" else None, **known})


def _open(path: Path, mode: str) -> Any:
    if path.name.endswith(".gz"):
        return gzip.open(path, mode, encoding="utf-8")
    return path.open(mode.removesuffix("t"), encoding="utf-8")
