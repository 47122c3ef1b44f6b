"""What crosses the socket between a pool's server and its ranks, and what a rank asks of its runner. Knows no torch, no sockets, no HTTP.

Each frame is a dataclass; `encode` and `decode` are its only way to and from the JSON objects that `wire` carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar, get_args

from holynb.pool.fit import Mesh
from holynb.pool.job import Job, JobThinking, LogitRules, TokenScore
from holynb.pool.rankstats import RankStats
from kernels_support.jupyter import wire

__all__ = [
    "AddJob",
    "CancelJob",
    "Emit",
    "Frame",
    "Job",
    "JobRefused",
    "JobRunner",
    "LoadModel",
    "LogitRules",
    "Ping",
    "Pong",
    "ProtocolError",
    "RankFailed",
    "RankReady",
    "RankStats",
    "StatsUpdate",
    "StepOutput",
    "StopRank",
    "TokenScore",
    "decode",
    "encode",
    "job_from",
    "job_values",
]


class ProtocolError(wire.WireError):
    """The peer sent a frame of an unknown kind, or one whose fields do not fit its kind."""


@dataclass(slots=True)  # not frozen: one is built for each row of each step, and frozen ones take 2.5 times as long
class Emit:
    """A step's output for one job: new tokens (without the end token), the finish reason, and a note (`admitted`, `oom`,
    `not_finite`, or why its grammar cannot go on).

    `cached`: with `admitted`, the number of prompt tokens that were in the KV cache. `scores`: where asked for, those of `tokens`, and
    of the end token after them; `prompt_scores`: those of the prompt's tokens but the first, with the first of `scores`. `vector`: of a
    text that is embedded, in base64 of float32.
    """

    id: int
    tokens: tuple[int, ...] = ()
    finish: str | None = None
    note: str | None = None
    cached: int = 0
    scores: tuple[TokenScore, ...] = ()
    prompt_scores: tuple[TokenScore, ...] = ()
    vector: str = ""


class JobRunner(Protocol):
    """What a rank calls on the class that `--runner module:Class` names. All calls come from one thread.

    The class is called with the fields of LoadModel: `folder` (a Path), and by keyword `device`, `dtype`, `max_len`, `memory`,
    `mesh`, and where one is asked for `kv`. Where it has a static method `prepare(device)`, that is called before, as early as can be.
    """

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError, with the sizes, where it can never fit."""

    def cancel(self, id: int) -> None:  # noqa: A002 - the job's field
        """Drop a job; nothing more is emitted for it."""

    @property
    def idle(self) -> bool:
        """Whether there is neither work nor output left."""

    def step(self) -> list[Emit]:
        """Advance all jobs by one decode step."""

    def stats(self) -> RankStats: ...

    def follow(self, after: Callable[[], None]) -> None:
        """Every rank of a replica but the leader: repeat the leader's steps until it closes; `after` is called after each."""

    def close(self) -> None:
        """The leader: release the other ranks."""


# -- server to rank ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadModel:
    """The first frame to a rank. `mesh` is None where the replica has one rank."""

    kind: ClassVar[str] = "load"
    folder: str
    device: str
    dtype: str | None
    max_len: int | None
    memory: float
    mesh: Mesh | None = None
    kv: str | None = None


@dataclass(frozen=True, slots=True)
class AddJob:
    kind: ClassVar[str] = "add"
    job: Job


@dataclass(frozen=True, slots=True)
class CancelJob:
    kind: ClassVar[str] = "cancel"
    id: int


@dataclass(frozen=True, slots=True)
class StopRank:
    """To the leader: release the other ranks and end."""

    kind: ClassVar[str] = "stop"


@dataclass(frozen=True, slots=True)
class Ping:
    kind: ClassVar[str] = "ping"


# -- rank to server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RankReady:
    """The weights are loaded."""

    kind: ClassVar[str] = "ready"
    stats: RankStats


@dataclass(frozen=True, slots=True)
class RankFailed:
    """The rank ends because of this error; `oom`: memory ran out."""

    kind: ClassVar[str] = "failed"
    message: str
    oom: bool = False


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The output of one decode step, all rows of it in one frame."""

    kind: ClassVar[str] = "step"
    emits: tuple[Emit, ...]


@dataclass(frozen=True, slots=True)
class JobRefused:
    """The job can never fit; `message` has the sizes."""

    kind: ClassVar[str] = "refused"
    id: int
    message: str


@dataclass(frozen=True, slots=True)
class StatsUpdate:
    kind: ClassVar[str] = "stats"
    stats: RankStats


@dataclass(frozen=True, slots=True)
class Pong:
    kind: ClassVar[str] = "pong"


Frame = LoadModel | AddJob | CancelJob | StopRank | Ping | RankReady | RankFailed | StepOutput | JobRefused | StatsUpdate | Pong

_FRAMES: dict[object, type[Frame]] = {frame_type.kind: frame_type for frame_type in get_args(Frame)}

T = TypeVar("T")


def encode(frame: Frame) -> wire.Frame:
    """`frame` as a JSON-able object."""
    if isinstance(frame, StepOutput):
        return {"t": "step", "e": [_row(emit) for emit in frame.emits]}
    values = _values(frame)
    if isinstance(frame, AddJob):
        values["job"] = job_values(frame.job)
    elif isinstance(frame, LoadModel):
        del values["mesh"]
        if frame.kv is None:
            del values["kv"]
        if frame.mesh is not None:
            values["mesh"] = _values(frame.mesh)
    return {"t": frame.kind, **values}


def decode(message: wire.Frame) -> Frame:
    """The frame that `message` is. Raises ProtocolError."""
    kind = message.get("t")
    frame_type = _FRAMES.get(kind) if isinstance(kind, str) else None
    if frame_type is None:
        raise ProtocolError(f"a frame of unknown kind {kind!r}")
    try:
        if frame_type is StepOutput:
            # By index: unpacking with a starred rest takes twice as long, in each step for each row.
            rows = message["e"]
            return StepOutput(tuple([Emit(r[0], tuple(r[1]), r[2], r[3]) if len(r) < 5 else _emit(r) for r in rows]))
        values = {name: value for name, value in message.items() if name != "t"}
        if "job" in values:
            values["job"] = job_from(values["job"])
        if "mesh" in values:
            values["mesh"] = _build(Mesh, values["mesh"], "mesh")
        new: Callable[..., Frame] = frame_type
        return _build(new, values, f"{kind!r} frame")
    except KeyError as exc:
        raise ProtocolError(f"a {kind!r} frame without {exc.args[0]}") from exc
    except (TypeError, ValueError, IndexError) as exc:
        raise ProtocolError(f"a malformed {kind!r} frame: {exc}") from exc


def job_values(job: Job) -> dict[str, Any]:
    """A job as a JSON-able object. What few jobs have is there only where one has it."""
    values = _values(job) | {n: None if (more := getattr(job, n)) is None else _values(more) for n in ("rules", "thinking")}
    return {name: value for name, value in values.items() if name not in _RARE or value != _RARE[name]}


def job_from(values: Mapping[str, Any]) -> Job:
    """The job of `job_values`. Raises ProtocolError, TypeError."""
    if not isinstance(values, dict):
        raise TypeError(f"a job that is a {type(values).__name__}")
    if (rules := values.get("rules")) is not None:
        rules = _build(LogitRules, {**rules, **_tuples(rules, "allowed"), "bias": tuple(map(tuple, rules["bias"]))}, "job's rules")
    if (thinking := values.get("thinking")) is not None:
        thinking = _build(JobThinking, thinking | _tuples(thinking, "ends", "closing", "blanks"), "job's thinking")
    return _build(Job, {**values, **_tuples(values, "ids", "eos", "stop_ids"), "rules": rules, "thinking": thinking}, "job")


#: Fields that few jobs have, with what all others have.
_RARE: dict[str, Any] = {
    "stop_ids": (),
    "rules": None,
    "logprobs": None,
    "prompt_logprobs": False,
    "thinking": None,
    "pooling": None,
    "client": "",
}


def _row(emit: Emit) -> list[Any]:
    row = [emit.id, emit.tokens, emit.finish, emit.note]
    if emit.vector:
        return [*row, emit.cached, emit.vector]
    if emit.scores or emit.prompt_scores:
        return [*row, emit.cached, emit.scores, emit.prompt_scores]
    return [*row, emit.cached] if emit.cached else row


def _emit(row: list[Any]) -> Emit:
    """A row of more than four: with `cached`, and perhaps scores, or a vector."""
    if len(row) == 6:
        return Emit(row[0], tuple(row[1]), row[2], row[3], row[4], vector=row[5])
    return Emit(row[0], tuple(row[1]), *row[2:5], *map(_scores, row[5:]))


def _tuples(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: tuple(values[name]) for name in names if name in values}


def _scores(rows: Any) -> tuple[TokenScore, ...]:
    return tuple((token, own, tuple((other, value) for other, value in top)) for token, own, top in rows)


def _values(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def _build(cls: Callable[..., T], values: Mapping[str, Any], name: str) -> T:
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]  # type: ignore[arg-type]
    if missing:
        raise ProtocolError(f"a {name} without {', '.join(missing)}")
    return cls(**values)
