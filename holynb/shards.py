"""A run past one process: the rows of a Ray data set in shards by key, each a run of its own with a run log of its own.

A shard is hash(key) mod N, so a row stays in its shard whatever order its rows come in. Ray's task for a shard that dies is started again
anywhere and goes on with the shard's run: what its log has is not asked again. Knows nothing of a cluster; Ray Data is handed in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holynb import files, runlog
from holynb.config import Options, settings
from holynb.errors import BadOption, InferError
from holynb.run import Run
from holynb.run import infer as infer_rows
from holynb.runlog import RunHeld

__all__ = ["Shards", "infer", "shard_of"]

#: The column that says a row's shard, on its way.
MARK = "holynb_shard"
#: What a shard decides itself, or what has no meaning there.
OWN = ("df", "file", "name", "resume", "only", "into", "out", "limit", "where", "use", "save")
#: Longest wait for the task that has the shard: where its machine is only cut off, it goes on and would pay the same rows.
HELD_S = 120.0


@dataclass(frozen=True)
class Shards:
    """How a run is divided: by a column that names a row, into so many shards. Shard k is the run `NAME/shard-k`.

    The same name again goes on with what is answered, after a kill, too; its number of shards stays. Some 100,000 rows to a shard are
    right: one is read into memory. `home`: a folder that every node sees, for the run logs (`HOME/NAME/shard-k`); None: HOLYNB_HOME.
    """

    key: str
    count: int
    name: str
    home: str | Path | None = None

    @property
    def folder(self) -> Path:
        """Where the shards' logs lie."""
        return Path(self.home or settings.home()).absolute() / self.name

    def check(self) -> None:
        """Raises BadOption."""
        if not isinstance(self.count, int) or self.count < 1:
            raise BadOption(f"Shards: count={self.count!r} must be a whole number of at least 1.")
        if not re.fullmatch(r"[\w.-]*\w", self.name):
            raise BadOption(f"Shards: name={self.name!r} becomes a folder: use letters, digits, '-', '_' and '.'.")


def infer(dataset: Any, prompt: str, route: str | None, shards: Shards, **options: Any) -> Any:
    """Ask once for each row of `dataset` (`ray.data.Dataset`); returns it with the answers beside the rows. Lazy, as Ray's data sets are.

    `prompt`, `route` and `options` are those of `holynb.infer` with a table. The answers stand in columns `answer`, `answer_status`,
    `answer_error`, … A row that failed is a row with its status, and the same name asks it again. API keys are read from the environment
    of the tasks (`ray.init(runtime_env={"env_vars": …})`). Raises UserError.
    """
    if taken := [o for o in OWN if o in options]:
        raise BadOption(f"{', '.join(taken)} cannot be given here: each shard is a run of its own, and its rows come from the data set.")
    shards.check()
    Options.parse(options)
    _fix(shards)
    config = settings.home() / "config.toml"
    text = config.read_text("utf-8") if config.exists() else ""
    marked = dataset.map_batches(Marks(shards.key, shards.count), batch_format="pyarrow", zero_copy_batch=True)
    run = ShardRun(shards, shards.folder, prompt, route, options, text)
    return marked.groupby(MARK, num_partitions=shards.count).map_groups(run.answered, batch_format="pyarrow")


def shard_of(key: object, shards: int) -> int:
    """The shard of a key: the same in every process, on every machine and for 1 as for "1"."""
    return int.from_bytes(hashlib.blake2b(str(key).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") % shards


def _fix(shards: Shards) -> None:
    """Keep how a name is divided; refuse to divide it otherwise, since no answer would be found in its shard then."""
    facts, folder = {"count": shards.count, "key": shards.key}, shards.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shards.json"
    with suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        json.dump(facts, file)
    known = json.loads(path.read_text("utf-8"))
    if known != facts:
        raise BadOption(
            f"{shards.name} was divided into {known['count']} shards by {known['key']!r}, and its answers lie there. "
            "Give the same, or another name."
        )


@dataclass(frozen=True)
class Marks:
    """Adds each row's shard to a table."""

    key: str
    shards: int

    def __call__(self, rows: Any) -> Any:
        """The same rows with their shards."""
        import pyarrow as pa

        if self.key not in rows.column_names:
            raise BadOption(f"There is no column {self.key!r} to divide by. The data set has {', '.join(rows.column_names)}.")
        keys = rows[self.key].to_pylist()
        if None in keys:
            raise BadOption(f"Column {self.key!r} is empty in some rows: a row without a key has no shard.")
        return rows.append_column(MARK, pa.array([shard_of(key, self.shards) for key in keys], pa.int64()))


@dataclass(frozen=True)
class ShardRun:
    """Sends the rows of one shard, in a task of Ray's. `config`: the text of the caller's config.toml."""

    shards: Shards
    folder: Path
    prompt: str
    route: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""

    def answered(self, rows: Any) -> Any:
        """The rows of a shard, with their answers. A method, since Ray asks for its name."""
        number = rows[MARK][0].as_py()
        rows = rows.drop_columns([MARK]).sort_by(self.shards.key)  # a task that is started again gets them in another order
        home, before = self.folder / f"shard-{number}", os.environ.get("HOLYNB_HOME")
        home.mkdir(parents=True, exist_ok=True)
        (home / "config.toml").write_text(self.config, "utf-8")
        os.environ["HOLYNB_HOME"] = str(home)
        try:
            answers = files.to_arrow(self._run(rows, f"{self.shards.name}/shard-{number}").result())
        finally:
            runlog.close()
            os.environ.pop("HOLYNB_HOME", None)
            if before is not None:
                os.environ["HOLYNB_HOME"] = before
        for column in answers.column_names:
            named = "answer" if column == "text" else f"answer_{column}"
            values = answers[column]
            rows = rows.append_column(named, values.cast("large_string") if column == "status" else values)
        return rows

    def _run(self, rows: Any, name: str) -> Run:
        """The shard's run, at its end. Waits for a task that still has it."""
        until = time.monotonic() + HELD_S
        while True:
            run = infer_rows(self.prompt, self.route, df=rows, name=name, **self.options)
            try:
                with suppress(InferError):  # no row was answered: each says why
                    run.wait()
            except RunHeld:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)
                continue
            return run
