"""`--out`: a run's rows as a file that is whole at every moment. Owned by the io thread, which waits for another one to write.

The file is written anew beside itself and renamed, at intervals that grow with what that takes: a kill leaves the last whole file, and the
run log has the rest, so that the run that goes on completes it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from holynb import runlog, typed_path
from holynb.config import settings
from holynb.errors import BadOption
from holynb.journal import Journal
from holynb.results import frame
from holynb.results.out_rows import OutRows
from holynb.results.rows_file import RowsFile, arrow_type
from holynb.run import embedding, out_claims, out_input
from holynb.run.out_claims import Claim
from holynb.run.out_path import located
from holynb.run.plan import Plan
from holynb.words import counted

__all__ = ["OutFile", "checked", "tried"]

#: Seconds to the first writing, and at least between two; a writing takes at most one part in so many of the time.
FIRST_S, SHARE = 1.0, 20


def checked(plan: Plan, journal: Journal, run: str) -> OutFile | None:
    """The file of a run that starts; None where it has none. Raises BadOption before anything is sent."""
    if plan.options.out is None:
        return None
    file = OutFile(plan, journal, run)
    file.check()
    if plan.options.batch and plan.options.file is None and plan.rows.origin is None:
        out_input.keep(plan.rows.source, run)
    return file


def tried(plan: Plan, journal: Journal, run: str) -> OutFile | None:
    """The same, for a run that begins whatever becomes of its file."""
    try:
        return checked(plan, journal, run)
    except BadOption as exc:
        journal.note(str(exc), "warning")
        return None


class OutFile:
    """The file of one run. run: its id. `failed`: why it is not complete, None where it is."""

    def __init__(self, plan: Plan, journal: Journal, run: str) -> None:
        options = plan.options
        self.path = located(options.out or "")
        self.failed: str | None = None
        self._plan, self._journal, self._run = plan, journal, run
        self._given = options.out or ""
        source = plan.rows.source
        self._rows = OutRows(
            source.copy(deep=False) if frame.is_frame(source) else source,  # columns that are added to it later are not in the file
            plan.rows.index,
            options.into,
            plan.schema,
            embedding.of(options),
            plan.judge is not None,
            options.attach,
        )
        self._kinds: dict[str, object] | None = None
        self._mark: out_claims.Mark | None = None
        self._complete = -1
        self._notes: set[str] = set()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def _part(self) -> Path:
        return self._part_of(self._run)

    def _part_of(self, run: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{run}.part")

    # -- before anything is sent -------------------------------------------------------------------------------------
    def check(self) -> None:
        """Raise BadOption where the file cannot be written, or is another's. What a killed run left beside it is removed."""
        out, folder = f"--out {self._given}", self.path.parent
        if not typed_path.is_folder(folder):
            raise BadOption(f"{out}: there is no folder {folder}. Make it, or write elsewhere.")
        if typed_path.is_folder(self.path):
            raise BadOption(f"{out}: that is a folder. Name a file in it.")
        try:
            self._check_file(out)
        except OSError as exc:
            raise BadOption(f"{out} cannot be written: {exc.strerror or exc}. Write it elsewhere.") from exc

    def _check_file(self, out: str) -> None:
        """As `check`, of the file itself. Raises OSError."""
        self._mark = out_claims.mark(self.path)
        if self._mark is not None and (why := self._not_ours(out_claims.read(self.path))):
            raise BadOption(f"{out}: {why}. Delete it, or give another name.")
        for left in self.path.parent.glob(f".{_literal(self.path.name)}.*.part"):
            run = left.name.removeprefix(f".{self.path.name}.").removesuffix(".part")
            if run == self._run or not runlog.Lease.is_held(settings.home(), run):
                left.unlink(missing_ok=True)
        with self._part.open("xb"):
            pass
        self._part.unlink()

    def _not_ours(self, claim: Claim | None) -> str:
        """Why a file that is there is left alone; empty where this run, or the same cell before, wrote it."""
        if claim is None:
            return "this file is there already, and no run wrote it"
        named = claim.name or claim.run
        if self._mark not in claim.marks:
            return f"this file was changed since run {named} wrote it"
        if claim.run != self._run and claim.question != self._question():
            return f"this file holds the rows of run {named}, which asked something else"
        if claim.rows > self._journal_rows:
            return f"this file is about {counted(claim.rows, 'row')} of run {named}, and this run has {self._journal_rows:,}"
        if claim.run != self._run and runlog.Lease.is_held(settings.home(), claim.run):
            return f"run {named} is writing this file now"
        return ""

    @property
    def _journal_rows(self) -> int:
        return len(self._journal.rows)

    def _question(self) -> str | None:
        """What tells this run's question from another's: the key of the first row that asks something."""
        keys = (self._plan.keys.of(row) for row in range(self._journal_rows))
        return next((key for key in keys if key is not None), None)

    # -- while it runs -----------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Write from now on, as rows end."""
        if renamed := self._rows.renamed():
            pairs = ", ".join(f"{old} as {new}" for old, new in renamed.items() if new != self._plan.options.into)
            if pairs:
                self._tell(
                    f"{self.path.name} has the input's columns too, and what the run says under names of their own: {pairs}.", "info"
                )
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def end(self) -> None:
        """Write what has ended, all of it; nothing where the run could not begin. Never raises."""
        self._closing.set()
        if self._journal.ended == self._journal_rows:
            out_input.forget(self._run)
        if self._task is None:
            return
        await self._task
        if self._complete != self._journal.ended or self.failed:
            await self._write(last=True)

    async def _follow(self) -> None:
        pause = FIRST_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
            if self._closing.is_set():
                return
            if self._complete != self._journal.ended:
                pause = max(FIRST_S, SHARE * await self._write())

    async def _write(self, *, last: bool = False) -> float:
        """Write the file, and say once what is in the way. Returns the seconds that it took."""
        start, ended = time.monotonic(), self._journal.ended
        try:
            await _on_a_thread(self._replace)
        except Exception as exc:  # noqa: BLE001 - the rows are in the run log, and the run goes on
            self.failed = f"{self.path} could not be written ({_reason(exc)}). "
            again = (
                "The rows are in the run log: run the cell again when that is mended." if last else "It is tried again until the run ends."
            )
            self.failed += again
            self._tell(self.failed, "warning", key=f"{last} {_reason(exc)}")
        else:
            self.failed, self._complete = None, ended
        return time.monotonic() - start

    def _tell(self, text: str, level: str, key: str | None = None) -> None:
        if (key or text) not in self._notes:
            self._notes.add(key or text)
            self._journal.note(text, level)

    # -- on another thread -------------------------------------------------------------------------------------------
    def _replace(self) -> None:
        """Write the rows that have ended beside the file, and put that in its place. Raises what goes wrong."""
        if self._kinds is None:
            parquet = self.path.suffix.lower() == ".parquet"
            columns = self._rows.objects().items()
            self._kinds = {name: arrow_type(pieces) if parquet and pieces is not None else None for name, pieces in columns}
        try:
            with RowsFile(self._part, self.path.suffix.lower(), self._kinds) as file:
                for window in self._rows.windows(self._journal.rows):
                    file.write(window)
            self._put_in_place()
        finally:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)

    def _put_in_place(self) -> None:
        new = out_claims.mark(self._part)
        if out_claims.mark(self.path) not in (self._mark, None):
            raise OSError("it was changed by something else while the run went on, and is left alone; give another --out")
        if self._mark is not None:
            with suppress(OSError):
                shutil.copymode(self.path, self._part)
        marks = tuple(m for m in (self._mark, new) if m is not None)
        out_claims.write(self.path, Claim(self._run, self._plan.options.name, self._question(), self._journal_rows, marks))
        self._part.replace(self.path)
        self._mark = new


async def _on_a_thread(work: Callable[[], None]) -> None:
    """Do it on a thread; here, where the program is ending and Python begins no more of them."""
    try:
        await asyncio.to_thread(work)
    except RuntimeError as exc:
        if "shutdown" not in str(exc):
            raise
        work()


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError):
        return exc.strerror or str(exc)
    return f"{type(exc).__name__}: {str(exc)[:200]}"


def _literal(name: str) -> str:
    """A file's name as a pattern that matches it alone."""
    return "".join(f"[{c}]" if c in "[]*?" else c for c in name)
