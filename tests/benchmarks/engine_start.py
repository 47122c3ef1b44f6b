"""Process start to first token of one rank, phase by phase, old tree and new tree in turns; weights lie on the disk.

    python tests/benchmarks/engine_start.py --old PATH [--new .] [--folder MODEL] [--device cuda:0] [--rounds 3] [--first 1] [--tokens 300] [--strace]

Without --folder: random weights of Qwen3-0.6B's shapes, written once. `first`: with an empty TRITON_CACHE_DIR, as where no kernel was ever
compiled; then `rounds` starts with what those compiled. Also counted: modules, CPU seconds, whether torch's Python is compiled there
(without .pyc files each import compiles it), and looks at files by `strace` where it is installed (--strace).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: argv: folder, time of the start, device. Prints one line of JSON: seconds since the start at which each part was done, and those inside.
START = """
import json, os, sys, time
folder, begin, device, count = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
parts = {}

def done(part):
    parts[part] = round(time.time() - begin, 2)

def timed(owner, name, part):
    whole = getattr(owner, name)

    def wrapped(*args, **options):
        at = time.time()
        try:
            return whole(*args, **options)
        finally:
            parts[part] = round(parts.get(part, 0) + time.time() - at, 2)

    setattr(owner, name, wrapped)

done("python")
from pathlib import Path
from holynb.pool.engine import runner
done("runner's module")
if hasattr(runner.Runner, "prepare"):
    runner.Runner.prepare(device)
import torch
done("torch")
from holynb.pool.engine import load, model, pipeline
if device == "cpu":
    from holynb.pool.engine import eager
else:
    from holynb.pool.engine import capture, graphs, precompile
    timed(precompile.Precompiler, "wait", "of it waiting for kernels")
    timed(capture.Capture, "__call__", "of it graphs")
done("engine")
if device != "cpu":
    torch.zeros(1, device=device)
done("context")
timed(load, "load", "of it weights")
ready = runner.Runner(Path(folder), device=device, max_len=2112)
done("loaded")
from holynb.pool.protocol import Job
ready.add(Job(0, tuple(range(5, 133)), count, 0.6, seed=1, ignore_eos=True))
said, times = [], []
while not ready.idle and len(said) < count:
    for emit in ready.step():
        said += emit.tokens
        times += [time.time() - begin] * len(emit.tokens)
        if said and "first token" not in parts:
            done("first token")
            parts["modules"], parts["whole torch"] = len(sys.modules), "torch.export" in sys.modules
            parts["CPU s"] = round(time.process_time(), 2)
            parts["by"] = type(ready.executor).__name__
if count > 64:
    parts["token 64"], parts["last token"] = round(times[63], 2), round(times[-1], 2)
    parts["last tokens, ms each"] = round(1e3 * (times[-1] - times[-51]) / 50, 2)
print(json.dumps(parts))
os._exit(0)
"""


def start(tree: Path, folder: Path, given: argparse.Namespace, cache: str) -> dict[str, Any]:
    env = os.environ | {"TRITON_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("ENGINE_START_PATH", "")])}
    env["OMP_WAIT_POLICY"] = "PASSIVE"
    # As the server starts a rank, with the cache of kernels for a home.
    code = "import json, sys; from pathlib import Path; from holynb.pool.server import config; home = Path(sys.argv[1])"
    code += "; print(json.dumps(config.bytecode_cache(home) if hasattr(config, 'bytecode_cache') else {}))"
    env |= json.loads(subprocess.run([sys.executable, "-c", code, cache], env=env, capture_output=True, text=True, check=True).stdout)
    argv = [sys.executable, "-c", START, str(folder), str(time.time()), given.device, str(given.tokens)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, cwd=tree)
    if done.returncode:
        return {"failed": done.stderr[-1500:]}
    noise = [line for line in done.stderr.splitlines() if line.strip()]
    return dict(json.loads(done.stdout.splitlines()[-1])) | ({"stderr": noise[-3:]} if noise else {})


def median(found: list[dict[str, Any]]) -> dict[str, Any]:
    good = [f for f in found if "failed" not in f]
    keys = [k for k in good[0] if isinstance(good[0][k], float | int) and not isinstance(good[0][k], bool)] if good else []
    return {k: round(statistics.median([f[k] for f in good if k in f]), 2) for k in keys}


def looks(tree: Path) -> str:
    """System calls of importing what a rank imports, where strace is."""
    if shutil.which("strace") is None:
        return "no strace here"
    code = "from holynb.pool.engine import runner\nif hasattr(runner.Runner, 'prepare'): runner.Runner.prepare('cuda:0')\nimport torch"
    with tempfile.NamedTemporaryFile("r") as out:
        argv = ["strace", "-f", "-c", "-o", out.name, sys.executable, "-c", code]
        subprocess.run(argv, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, check=False)
        return "; ".join(" ".join(line.split()[3:]) for line in out.read().splitlines()[2:9])


def compiled() -> str:
    import importlib.util

    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    there = Path(importlib.util.cache_from_source(spec.origin)).exists()
    return (
        f"torch's Python is {'compiled' if there else 'NOT compiled'} there ({spec.origin}), {os.uname().release}, {os.cpu_count()} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path)
    parser.add_argument("--new", type=Path, default=Path())
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--strace", action="store_true")
    given = parser.parse_args()
    trees = {name: path.resolve() for name, path in (("old", given.old), ("new", given.new)) if path is not None}
    print(compiled(), flush=True)
    with tempfile.TemporaryDirectory() as root:
        folder = given.folder
        if folder is None:
            import engine_gpu

            folder = engine_gpu.folder("0.6b", Path(root))
            writing = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import engine_gpu; from pathlib import Path"
            subprocess.run([sys.executable, "-c", f"{writing}; engine_gpu.write(Path({str(folder)!r}), {given.device!r})"], check=True)
        caches = {}
        for _ in range(given.first if given.device != "cpu" else 0):
            for name, tree in trees.items():
                caches[name] = tempfile.mkdtemp(dir=root)
                print(name, "first ever:", start(tree, folder, given, caches[name]), flush=True)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
        for _ in range(given.rounds):
            for name, tree in trees.items():
                found[name].append(start(tree, folder, given, caches.get(name, root)))
                print(name, "later:", found[name][-1], flush=True)
        for name, starts in found.items():
            print(name, "later, medians:", median(starts))
        if given.strace:
            for name, tree in trees.items():
                print(name, looks(tree))


if __name__ == "__main__":
    main()
