"""Ranks of one replica as processes, for tests: rank 0 runs the jobs and gives back their tokens.

Of a job with log probabilities these are given, those of its prompt first, in place of its tokens.

ENGINE `plain` is the CPU's; `kernels` runs the GPU's, by Triton's interpreter where there is no GPU.

Loading torch takes a process seconds: `python ranks.py` does it once and is forked for each rank. It reads a line of JSON for a replica, and
answers with one.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any


def answers(
    folder: Path, jobs: list[dict[str, Any]], *, tensor: int = 1, pipe: int = 1, micro: int = 0, limit: int = 120, engine: str = "plain"
) -> dict[int, list[int]]:
    """The tokens of each job, by so many processes."""
    address = f"file://{folder}/meet-{tensor}-{pipe}-{micro}-{os.getpid()}-{id(jobs)}"
    asked = {"folder": str(folder), "mesh": [tensor, pipe, micro, address], "engine": engine, "jobs": jobs, "limit": limit}
    template = loaded()
    assert template.stdin is not None
    assert template.stdout is not None
    template.stdin.write(json.dumps(asked) + "\n")
    template.stdin.flush()
    answer = json.loads(template.stdout.readline())
    assert answer["codes"] == [0] * (tensor * pipe), answer["errors"]
    return {int(k): v for k, v in answer["said"].items()}


@cache
def loaded() -> subprocess.Popen[str]:
    """The process that is forked, one for all tests of this one. It ends with us."""
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    template = subprocess.Popen([sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(end, template)
    return template


def end(template: subprocess.Popen[str]) -> None:
    template.communicate()


#: Of each part that was added up: whether its rows fit a buffer of the ranks' memory, and whether it lay there. Else the library added it.
SUMMED: list[tuple[bool, bool]] = []


def check_sums(jobs: int, *, expected: bool) -> None:
    """What fits is summed out of the peers' memory, and nothing else; `expected`: there were such sums.

    Only the last rows of prompts, picked out for the last norm, lie elsewhere: the norm asks where, and then the sum.
    """
    assert all(fits for fits, lay_there in SUMMED if lay_there), SUMMED
    assert sum(fits and not lay_there for fits, lay_there in SUMMED) <= 2 * jobs, SUMMED
    assert any(lay_there for _, lay_there in SUMMED) == expected, f"{len(SUMMED)} sums, none out of the peers' memory"


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
            SUMMED.append((part.shape[0] <= self.rows, found is not None))
            return found

    return Mapped


def interpreted(folder: Path, mesh: Any) -> Any:
    """A runner on the CPU with the GPU's engine; the interpreter takes about a millisecond a program, so little of it."""
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton loads
    from triton_interpreter import hasten

    from holynb.pool.engine import graphs, group, model
    from holynb.pool.engine.cache import BlockAllocator
    from holynb.pool.engine.runner import Runner
    from holynb.pool.engine.scheduler import BatchScheduler
    from holynb.pool.fit.limits import BatchLimits

    hasten()
    # A packed product has no `out`, and the ranks' memory is a file that all of them map.
    model.pack = lambda weights: weights
    group.can_read_peers, group.SymmetricMemory = (lambda group, device: True), mapped(Path(mesh.address.removeprefix("file://")).parent)
    graphs.splits = lambda batch, heads: 2 if batch < 4 else 1
    runner: Any = Runner(folder, mesh=mesh)
    was, runner.limits, runner.blocks = runner.executor, BatchLimits(batch=4, chunk=128, max_len=256), BlockAllocator(64, 16)
    runner.scheduler = BatchScheduler(runner.blocks, runner.limits, mesh.lanes)
    runner.executor = graphs.GraphExecutor(was.model, was.kv, 16, runner.limits, stage=runner.stage)
    return runner


def rank(asked: dict[str, Any], number: int) -> dict[int, list[Any]] | None:
    """What one rank does; what rank 0 has to say."""
    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.mesh import Mesh
    from holynb.pool.protocol import job_from

    folder, (tensor, pipe, micro, address) = Path(asked["folder"]), asked["mesh"]
    mesh = Mesh(tensor, pipe, number, micro, address)
    if asked["engine"] == "kernels":
        import torch

        many = torch.cuda.device_count() >= mesh.size
        runner = Runner(folder, mesh=mesh, dtype="float32", memory=0.1, device=f"cuda:{number}") if many else interpreted(folder, mesh)
    else:
        runner = Runner(folder, mesh=mesh)
    assert not runner.scheduler.speculation.most, "ranks that go by their own clocks would not choose alike"
    # Another test may have set the variable for this process; the engine in torch sums by the library all the same.
    sums = tensor > 1 and asked["engine"] == "kernels" and os.environ.get("TRITON_INTERPRET") == "1"
    count = len(asked["jobs"])
    if number:
        runner.follow()
        check_sums(count, expected=sums)
        return None
    said: dict[int, list[Any]] = {}
    left = asked["jobs"]
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
    check_sums(count, expected=sums)
    return said


def forked(asked: dict[str, Any], number: int, out: Path) -> int:
    """The process of a rank. What it says, or how it failed, is in files of `out`; it is ended where it takes too long."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(asked["limit"])
        said = rank(asked, number)
        (out / f"{number}.said").write_text(json.dumps(said))
        code = 0
    except BaseException:  # noqa: BLE001 - of a fork nothing may go on where its parent was
        (out / f"{number}.error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def main() -> None:
    import torch

    import holynb.pool.engine.runner  # noqa: F401 - loaded for the forks

    torch.set_num_threads(1)  # a thread of the pool here would be missing in a fork
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            out, (tensor, pipe, *_) = Path(folder), asked["mesh"]
            pids = [forked(asked, number, out) for number in range(tensor * pipe)]
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
            errors = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(out.glob("*.error")))
            said = json.loads((out / "0.said").read_text()) if codes[0] == 0 else {}
        print(json.dumps({"codes": codes, "errors": errors, "said": said}), flush=True)


if __name__ == "__main__":
    main()
