"""Ranks of one replica as processes, for tests: `python ranks.py FOLDER TENSOR PIPE MICRO RANK ADDRESS ENGINE` runs jobs from stdin (JSON), rank 0 prints them.

Of a job with log probabilities these are printed, those of its prompt first, in place of its tokens.

ENGINE `plain` is the CPU's; `kernels` runs the GPU's, by Triton's interpreter where there is no GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def answers(
    folder: Path, jobs: list[dict[str, Any]], *, tensor: int = 1, pipe: int = 1, micro: int = 0, limit: float = 120, engine: str = "plain"
) -> dict[int, list[int]]:
    """The tokens of each job, by so many processes."""
    address = f"file://{folder}/meet-{tensor}-{pipe}-{micro}-{os.getpid()}-{id(jobs)}"
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), str(tensor), str(pipe), str(micro), str(rank), address, engine],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(tensor * pipe)
    ]
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


#: Where each part that was added up lay in the ranks' memory; None: elsewhere, and the library added it.
SUMMED: list[int | None] = []


def mapped(folder: Path) -> Any:
    """`SymmetricMemory` over files in `folder`, one for each rank of a tensor group, instead of devices' memory."""
    import torch
    from torch import distributed

    from holynb.pool.engine.symmetric import SymmetricMemory

    class Mapped(SymmetricMemory):
        def _map(self, group: Any, size: int, device: str) -> tuple[Any, list[int]]:
            every = distributed.get_process_group_ranks(group)
            self.maps = [
                torch.from_file(str(folder / f"memory-{os.getppid()}-{rank}"), shared=True, size=size, dtype=torch.uint8) for rank in every
            ]
            return self.maps[distributed.get_rank(group)], [m.data_ptr() for m in self.maps]

        def offset(self, part: Any) -> int | None:
            found = super().offset(part)
            SUMMED.append(found)
            return found

    return Mapped


def interpreted(folder: Path, mesh: Any) -> Any:
    """A runner on the CPU with the GPU's engine; the interpreter takes about a millisecond a program, so little of it."""
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton loads
    from holynb.pool.engine import graphs, group, model
    from holynb.pool.engine.cache import BlockAllocator
    from holynb.pool.engine.runner import Runner
    from holynb.pool.engine.scheduler import BatchScheduler
    from holynb.pool.fit.limits import BatchLimits

    # A packed product has no `out`, and the ranks' memory is a file that all of them map.
    model.pack = lambda weights: weights
    group.can_read_peers, group.SymmetricMemory = (lambda group, device: True), mapped(Path(mesh.address.removeprefix("file://")).parent)
    graphs.splits = lambda batch, heads: 2 if batch < 4 else 1
    runner: Any = Runner(folder, mesh=mesh)
    was, runner.limits, runner.blocks = runner.executor, BatchLimits(batch=4, chunk=128, max_len=256), BlockAllocator(64, 16)
    runner.scheduler = BatchScheduler(runner.blocks, runner.limits, mesh.lanes)
    runner.executor = graphs.GraphExecutor(was.model, was.kv, 16, runner.limits, stage=runner.stage)
    return runner


def main() -> None:
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.mesh import Mesh
    from holynb.pool.protocol import job_from

    folder, tensor, pipe, micro, rank, address, engine = sys.argv[1:]
    mesh = Mesh(int(tensor), int(pipe), int(rank), int(micro), address)
    if engine == "kernels":
        import torch

        many = torch.cuda.device_count() >= mesh.size
        runner = (
            Runner(Path(folder), mesh=mesh, dtype="float32", memory=0.1, device=f"cuda:{rank}") if many else interpreted(Path(folder), mesh)
        )
    else:
        runner = Runner(Path(folder), mesh=mesh)
    if rank != "0":
        runner.follow()
        assert not SUMMED or sum(offset is not None for offset in SUMMED) > len(SUMMED) / 2, "few rows are summed out of the peers' memory"
        return
    said: dict[int, list[Any]] = {}
    left = json.load(sys.stdin)
    while left or not runner.idle:
        for job in left[:2]:  # they come two at a time, so that rows join and leave
            cancelled = job.pop("cancel", False)
            runner.add(job_from(job))
            said[job["id"]] = []
            if cancelled:
                for emit in runner.step():
                    said[emit.id] += emit.tokens
                runner.cancel(job["id"])
        left = left[2:]
        for emit in runner.step():
            said[emit.id] += [s[1] for s in (*emit.prompt_scores, *emit.scores)] if emit.scores else emit.tokens
    runner.close()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
