"""What a table of many rows costs: a run of `sim/echo` with `--out` beside the loop that one writes by hand, a process for each.

    .venv/bin/python tests/benchmarks/tables.py [--rows 10000,100000] [--rounds 1] [--from frame|csv|jsonl|parquet]

By hand means: a task for each row, all gathered, 512 at once; the answers of the same engine as a list, a DataFrame of them, and that as a
Parquet file. It keeps no log, no attempts, no tokens, no dollars, and has nothing on the disk until its end. holynb does the whole run.

Memory is resident memory above what the process held with the input in it (a file: before it was read), at its peak until the run's end.
Rows a second of the clock say little on a machine that others use; a second of the processor is the figure that is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
AT_ONCE = 512
MB = 1e6


class Peak:
    """The most resident memory since `base`, looked at every 20 ms by a thread of its own."""

    def __init__(self) -> None:
        self.base = self.most = resident()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, resident())
            time.sleep(0.02)

    def above(self) -> float:
        """MB above the base, until now."""
        return (max(self.most, resident()) - self.base) / MB


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def table(rows: int) -> Any:
    import pandas as pd

    return pd.DataFrame({"what": [f"row {i} of a table" for i in range(rows)], "n": range(rows)})


# -- one process each ---------------------------------------------------------------------------------------------------------
def by_holynb(rows: int, source: str, folder: Path) -> dict[str, float]:
    import pyarrow.parquet  # noqa: F401 - loaded before memory is looked at

    import holynb

    holynb.infer(["warm"], "sim/echo").wait()
    given: dict[str, Any] = {"file": str(folder / f"rows.{source}")} if source != "frame" else {"df": table(rows)}
    peak, start, worked = Peak(), time.perf_counter(), time.process_time()
    run = holynb.infer("{{ what }}!", "sim/echo", out=str(folder / "out.parquet"), **given).wait()
    facts = {"peak": peak.above(), "seconds": time.perf_counter() - start, "work": time.process_time() - worked}
    framed, start = Peak(), time.perf_counter()
    frame = run.frame()
    seconds, own = time.perf_counter() - start, float(frame.memory_usage(deep=True).sum()) / MB
    if frame["text"].iloc[-1] != f"row {rows - 1} of a table!":
        raise AssertionError(frame.tail(1))
    return {**facts, "frame_s": seconds, "frame_ratio": framed.above() / own}


def by_hand(rows: int, source: str, folder: Path) -> dict[str, float]:
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    from holynb.config import settings
    from holynb.engines import sim
    from holynb.types import Message, Request, Sampling, Timeouts

    route = settings.route("sim/echo")
    engine, timeouts = sim.Sim(settings.endpoint(route), lambda: None), Timeouts()
    df = table(rows)

    async def ask(row: int, text: str, lanes: asyncio.Semaphore) -> str:
        async with lanes:
            request = Request(row, (Message("user", text),), route, Sampling(max_tokens=2_048))
            async for event in engine.send(request, timeouts):
                done = event
            return str(done.completion.text)

    async def main() -> list[str]:
        lanes = asyncio.Semaphore(AT_ONCE)
        return await asyncio.gather(*(ask(i, f"{what}!", lanes) for i, what in enumerate(df["what"])))

    peak, start, worked = Peak(), time.perf_counter(), time.process_time()
    answers = asyncio.run(main())
    pd.DataFrame({"what": df["what"], "n": df["n"], "text": answers}).to_parquet(folder / "out.parquet")
    return {"peak": peak.above(), "seconds": time.perf_counter() - start, "work": time.process_time() - worked}


# -- all of them ----------------------------------------------------------------------------------------------------------------
def measured(who: str, rows: int, source: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        if source != "frame" and who == "holynb":
            written = table(rows)
            path = Path(folder) / f"rows.{source}"
            {"csv": lambda to: written.to_csv(to, index=False), "parquet": written.to_parquet}.get(source, _json_lines(written))(path)
            del written
        env = {**os.environ, "HOLYNB_HOME": folder, "PYTHONPATH": str(ROOT)}
        order = [sys.executable, __file__, "--who", who, "--rows", str(rows), "--from", source, "--folder", folder]
        answer: dict[str, float] = json.loads(subprocess.run(order, env=env, check=True, capture_output=True, text=True).stdout)
        return answer


def _json_lines(frame: Any) -> Any:
    return lambda path: frame.to_json(path, orient="records", lines=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--from", dest="source", default="frame", choices=("frame", "csv", "jsonl", "parquet"))
    parser.add_argument("--who")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.who:
        one = {"holynb": by_holynb, "hand": by_hand}[args.who]
        print(json.dumps(one(int(args.rows), args.source, args.folder)))
        return
    print(
        "| rows | peak, MB | by hand | rows/s | by hand | rows per s of processor | by hand | frame(), s | its peak beside its own size |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for rows in map(int, args.rows.split(",")):
        rounds = [{who: measured(who, rows, args.source) for who in ("holynb", "hand")} for _ in range(args.rounds)]
        ours, hand = ({k: statistics.median(r[who][k] for r in rounds) for k in rounds[0][who]} for who in ("holynb", "hand"))
        rates = [f"{rows / of[what]:,.0f}" for what in ("seconds", "work") for of in (ours, hand)]
        rest = f"{ours['frame_s']:.1f} | {ours['frame_ratio']:.2f}"
        print(f"| {rows:,} | {ours['peak']:.0f} | {hand['peak']:.0f} | {' | '.join(rates)} | {rest} |", flush=True)


if __name__ == "__main__":
    main()
