"""Ranks of one replica as processes, for tests: `python ranks.py FOLDER TENSOR PIPE RANK ADDRESS` runs jobs from stdin (JSON), rank 0 prints them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def answers(folder: Path, jobs: list[dict[str, Any]], *, tensor: int = 1, pipe: int = 1, micro: int = 0, limit: float = 120) -> dict[int, list[int]]:
    """The tokens of each job, by so many processes."""
    address = f"file://{folder}/meet-{tensor}-{pipe}-{micro}-{os.getpid()}-{id(jobs)}"
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), str(tensor), str(pipe), str(micro), str(rank), address],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(tensor * pipe)
    ]  # fmt: skip
    try:
        for process in running[1:]:
            process.stdin.close()  # type: ignore[union-attr]
            process.stdin = None
        out, err = running[0].communicate(json.dumps(jobs), timeout=limit)
        assert running[0].returncode == 0, err[-2000:]
        for process in running[1:]:
            _, err = process.communicate(timeout=30)
            assert process.returncode == 0, err[-2000:]
    finally:
        for process in running:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    return {int(k): v for k, v in json.loads(out.splitlines()[-1]).items()}


def main() -> None:
    from holynb.pool.mesh import Mesh
    from holynb.pool.runner import Job, Runner

    folder, tensor, pipe, micro, rank, address = sys.argv[1:]
    runner = Runner(Path(folder), mesh=Mesh(int(tensor), int(pipe), int(rank), int(micro), address))
    if rank != "0":
        runner.follow()
        return
    said: dict[int, list[int]] = {}
    left = json.load(sys.stdin)
    while left or not runner.idle:
        for job in left[:2]:  # they come two at a time, so that rows join and leave
            cancelled = job.pop("cancel", False)
            runner.add(Job(**job | {"ids": tuple(job["ids"]), "eos": tuple(job.get("eos", ()))}))
            said[job["id"]] = []
            if cancelled:
                for emit in runner.step():
                    said[emit.id] += emit.tokens
                runner.cancel(job["id"])
        left = left[2:]
        for emit in runner.step():
            said[emit.id] += emit.tokens
    runner.close()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
