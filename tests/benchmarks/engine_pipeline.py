"""Where a pipeline's step goes, on each stage: what its device did and waited for, and what its host did. 8B by random weights, bfloat16.

    python tests/benchmarks/engine_pipeline.py [--size 8b] [--rows 256] [--steps 20] [--dtype bfloat16] [--cpu]

Twenty decode steps near the end of `rows` answers of 128 tokens to prompts of 128 are marked on the device's stream (CUDA events) and by the
host's clock; the table has each part's mean in milliseconds. `--cpu` rehearses it with a small shape over gloo.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine_gpu import folder, rate, write
from engine_parallel import SIZES, made

#: The parts of a step on a device, in their order; of a host.
DEVICE = ("tokens", "inputs", "hidden", "graph", "send")
HOST = ("commands", "plan", "launch", "read back", "commit")


class Trace:
    """Marks around what a runner calls in each step. Every rank runs the same steps, so that a step's number means the same on all."""

    def __init__(self, runner: Any) -> None:
        self.runner, self.step = runner, 0
        self.marks: list[tuple[str, int, float, Any]] = []
        self.host: dict[tuple[str, int], float] = defaultdict(float)
        self.anchor: tuple[float, Any] | None = None
        self.cuda = runner.device != "cpu"
        self._wrap(runner.executor, "launch", "launch", opens=True)
        self._wrap(runner.executor, "read_back", "read back")
        self._wrap(runner.scheduler, "plan", "plan")
        self._wrap(runner.scheduler, "commit", "commit")
        self._wrap(runner.group, "receive_commands" if runner.mesh.rank else "send_commands", "commands")
        if self.cuda:  # the executor of a CPU has no such steps
            self._wrap(runner.executor, "_receive", mark="tokens")
            self._wrap(runner.executor, "_send_decode", mark="inputs")
        self._wrap(runner.stage, "receive_hidden", mark="hidden")
        self._wrap(runner.stage, "send_hidden", mark="send")
        timed = runner.stage.timed

        @contextmanager
        def marked() -> Iterator[None]:
            with timed():
                yield
            self._mark("graph")

        runner.stage.timed = marked

    def _mark(self, name: str) -> None:
        self.marks.append((name, self.step, time.perf_counter(), self._event()))

    def _event(self) -> Any:
        if not self.cuda:
            return None
        import torch

        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _wrap(self, owner: Any, method: str, host: str = "", mark: str = "", *, opens: bool = False) -> None:
        whole = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if opens:
                self.step += 1
                if self.anchor is None:
                    event = self._event()
                    if event is not None:
                        event.synchronize()
                    self.anchor = time.perf_counter(), event
            begin = time.perf_counter()
            found = whole(*args, **kwargs)
            if host:
                self.host[host, self.step] += time.perf_counter() - begin
            if mark:
                self._mark(mark)
            return found

        setattr(owner, method, wrapped)

    def table(self, before_last: int, steps: int) -> dict[str, Any]:
        """Of `steps` steps that begin `before_last` before the last one, in milliseconds: what the device did, and waited because the host
        had not asked yet; and what the host did."""
        window = range(self.step - before_last, self.step - before_last + steps)
        device: dict[str, float] = defaultdict(float)
        late, begin, before = 0.0, 0.0, None
        for name, step, asked, event in self.marks:
            if step not in window:
                continue
            at = asked
            if event is not None and self.anchor is not None:
                event.synchronize()
                at = self.anchor[0] + self.anchor[1].elapsed_time(event) / 1e3
            if before is None:
                begin = at
            else:
                device[name] += at - before
                late += max(0.0, min(asked, at) - before)
            before = at
        each = 1e3 / steps
        return {
            "stage": self.runner.mesh.stage,
            "wall": ((before or 0.0) - begin) * each,
            "device": {k: device[k] * each for k in DEVICE if k in device},
            "device waits for its host": late * each,
            "host": {k: sum(self.host[k, step] for step in window) * each for k in HOST},
        }


def child(path: str, rank: int, device: str, address: str, said: dict[str, Any]) -> None:
    import faulthandler

    from holynb.pool.engine.runner import Runner
    from holynb.pool.fit.mesh import Mesh

    faulthandler.dump_traceback_later(110)
    mesh = Mesh(1, 2, rank, 0, address)
    runner = Runner(Path(path), device=device, max_len=2112, mesh=mesh, dtype=said["dtype"], source=made(Path(path), device))
    pairs = [(128, 128)] * said["rows"]
    if rank:
        # Beside the marks of the calls: how fast it is without any is what the leader says first.
        trace = Trace(runner)
        runner.follow()
    else:
        rate(runner, pairs, 1)  # captures what it needs
        print(json.dumps({"half marked": rate(runner, pairs, 2), "busy": runner.stats()["busy"]}), flush=True)
        trace = Trace(runner)
        print(json.dumps({"marked": rate(runner, pairs, 3), "busy": runner.stats()["busy"]}), flush=True)
        runner.close()
    print(json.dumps(trace.table(said["before_last"], said["steps"])), flush=True)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        path, rank, device, address, said = sys.argv[2:]
        child(path, int(rank), device, address, json.loads(said))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="8b")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--before-last", type=int, default=100, help="how many steps before the last one the marked ones begin")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--cpu", action="store_true", help="rehearse with a tiny shape over gloo")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    assert said.size in SIZES or said.size == "8b"
    with tempfile.TemporaryDirectory() as root:
        path = folder("tiny" if said.cpu else said.size, Path(root))
        if said.cpu:
            write(path, "cpu")
        address = f"file://{root}/meet"
        words = json.dumps({"rows": said.rows, "steps": said.steps, "before_last": said.before_last, "dtype": said.dtype})
        processes = []
        for rank in range(2):
            args = [str(path), str(rank), "cpu" if said.cpu else f"cuda:{rank}", address, words]
            env = os.environ | {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen([sys.executable, __file__, "--child", *args], stdout=subprocess.PIPE, env=env, text=True))
        timer = threading.Timer(110, lambda: [p.kill() for p in processes])
        timer.start()
        lines = [json.loads(line) for p in processes for line in (p.stdout or ()) if line.startswith("{")]
        for process in processes:
            process.wait(timeout=60)
        timer.cancel()
    for line in lines:
        print(json.dumps(line, indent=None, default=str), flush=True)
    for line in (x for x in lines if "stage" in x):
        print(f"stage {line['stage']}: {line['wall']:.2f} ms a step; waits for its host {line['device waits for its host']:.2f}")
        for side in ("device", "host"):
            print(f"  {side:7}", "  ".join(f"{k} {v:.2f}" for k, v in line[side].items()))
    if said.out:
        said.out.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
