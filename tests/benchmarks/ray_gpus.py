"""A pool on Ray with GPUs against the local pool of the same shape, on one machine of two GPUs: two raylets of one GPU, then one of two.

    python tests/benchmarks/ray_gpus.py [--rows 256] [--new 128] [--rounds 2]
    python tests/benchmarks/ray_gpus.py --cpu FOLDER --rows 8 --new 12     # rehearsal: the same with CPU ranks and this model

For each shape (dp 2, pp 2 across two raylets, tp 2 on one): seconds to ready, tokens a second of rows through `holynb.infer` in turns,
greedy tokens of both pools, a rank killed in the middle of a run, and what is left after `pool stop`. Random weights of the 0.6B shape.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
HOME = tempfile.mkdtemp(prefix="holynb-raygpus-")
PATHS = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ |= {"HOLYNB_HOME": HOME, "PYTHONPATH": PATHS, "RAY_USAGE_STATS_ENABLED": "0"}

import psutil  # noqa: E402 - the paths above come first
from ray_cluster import RayCluster  # noqa: E402

import holynb  # noqa: E402
from holynb import pools  # noqa: E402
from holynb.pools import PoolInfo  # noqa: E402

BEGAN = time.monotonic()
#: name, flags, the GPUs of each raylet
SHAPES: tuple[tuple[str, dict[str, int], list[list[int]]], ...] = (
    ("dp2", {"dp": 2}, [[0], [1]]),
    ("pp2", {"pp": 2}, [[0], [1]]),
    ("tp2", {"tp": 2}, [[0, 1]]),
)


def say(*words: object) -> None:
    print(f"{time.monotonic() - BEGAN:5.0f} s", *words, flush=True)


def made(folder: Path) -> Path:
    """A model of the 0.6B shape with a head of its own, and a tokenizer of a word a token: `w17` is 17."""
    from engine_gpu import COMMON, SIZES
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = COMMON | SIZES["0.6b"] | {"tie_word_embeddings": False, "eos_token_id": 0, "bos_token_id": 0, "model_type": "qwen3"}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    words = {"<end>": 0} | {f"w{i}": i for i in range(1, config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<end>"}))
    writes = (
        f"import sys; sys.path[:0] = {sys.path[:3]!r}; from pathlib import Path; import engine_gpu; engine_gpu.write(Path({str(folder)!r}))"
    )
    subprocess.run([sys.executable, "-c", writes], check=True)  # a process of its own: it leaves no context on the device
    return folder


class Bench:
    """The cluster's and the local pools of one model."""

    def __init__(self, said: argparse.Namespace, model: Path) -> None:
        self.said, self.model = said, model
        dice = random.Random(1)

        def text(i: int) -> str:
            return f"{i}: Tell me about {i}." if said.cpu else " ".join(f"w{dice.randrange(1, 151_000)}" for _ in range(128))

        self.prompts = [text(i) for i in range(said.rows)]

    def start(self, name: str, where: dict[str, Any], share: float, flags: dict[str, int]) -> float:
        began = time.monotonic()
        kind = {} if self.said.cpu else {"dtype": "bfloat16"}
        pools.start(str(self.model), name=name, memory=share, max_len=512, **flags, **where, **kind)
        return time.monotonic() - began

    def greedy(self, name: str) -> list[str]:
        """Answers of one prompt at a time, so that each step is the same in both pools."""
        from servers.unix import connect

        info, out = pools.status(name), []
        for i in range(4):
            connection = connect(str(info.socket), 120)
            prompt = [(7919 * (i + 1) * (j + 1)) % (49_000 if self.said.cpu else 151_000) + 1 for j in range(40)]
            body = {"prompt": prompt, "max_tokens": self.said.new // 2, "temperature": 0, "ignore_eos": True}
            connection.request("POST", "/v1/completions", json.dumps(body))
            answer = json.loads(connection.getresponse().read())
            connection.close()
            out.append(answer["choices"][0]["text"] if "choices" in answer else f"{name}: {answer}")
        return out

    def run(self, name: str) -> Any:
        return holynb.infer(
            self.prompts, f"pool/{name}", max_tokens=self.said.new, temperature=0, cache=False, concurrency=self.said.rows, show="none"
        )

    def rate(self, name: str) -> tuple[float, list[str]]:
        began = time.monotonic()
        run = self.run(name)
        assert run.wait(300)
        took, frame = time.monotonic() - began, run.frame()
        assert (frame["status"] == "ok").all(), frame[frame["status"] != "ok"][["status", "error"]].head(3).to_string()
        return int(frame["tokens_out"].sum()) / took, list(frame["text"])

    def kill(self, name: str, expected: list[str], after: float) -> str:
        """A run whose first rank is killed in the middle."""
        run, began = self.run(name), time.monotonic()
        time.sleep(after)
        victim = next(p for p in processes(f"holynb-pool:{name}") if "holynb.pool.worker" in " ".join(p.cmdline()))
        victim.send_signal(signal.SIGKILL)
        try:
            run.wait(200)
        except holynb.InferError as exc:
            return f"rank killed: {exc}"
        frame, took = run.frame(), time.monotonic() - began
        lost = int((frame["status"] != "ok").sum())
        why = "" if not lost else f" ({frame[frame['status'] != 'ok']['error'].iloc[0]})"
        same = sum(a == b for a, b in zip(frame["text"], expected, strict=True))
        moves = [f"{m['what']} {m['rows']}" for m in pools.status(name).moves]
        return (
            f"rank killed after {after:.1f} s: rows lost {lost}{why}, the run {took:.1f} s, "
            f"{same} of {len(expected)} texts as without a kill; moves: {', '.join(moves)}"
        )


def processes(word: str) -> list[psutil.Process]:
    out = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if word in " ".join(process.cmdline()) and process.pid != os.getpid():
                out.append(process)
    return out


def on_devices() -> str:
    """Memory in use of each GPU, and processes on them."""
    if not Path("/dev/nvidiactl").exists():
        return "no GPU"
    ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"]
    used = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split("\n")
    ask = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    apps = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
    return f"{', '.join(filter(None, used))}; {len(apps)} processes on them"


def left() -> str:
    """What is there of pools, once the system has had five seconds to end them."""
    until = time.monotonic() + 5
    while (there := [*processes("holynb-pool:"), *processes("ray::Seat"), *processes("ray::PoolServer")]) and time.monotonic() < until:
        time.sleep(0.1)
    return f"{len(there)} processes of pools, {on_devices()}"


def devices(info: PoolInfo) -> str:
    return ", ".join(f"{g.device} {g.used / 1e9:.1f} of {g.total / 1e9:.0f} GB" for g in info.memory)


def measure(bench: Bench, shape: tuple[str, dict[str, int], list[list[int]]], cluster: RayCluster) -> None:
    name, flags, _ = shape
    here, there = ({"devices": "cpu"}, {"devices": "cpu"}) if bench.said.cpu else ({"devices": "0,1"}, {"devices": "gpu"})
    bench.start("cold", here, 0.2, flags)  # kernels are compiled once, whoever is first
    pools.stop("cold")
    local_s = bench.start("local", here, 0.2, flags)
    ray_s = bench.start("onray", {**there, "on": cluster.on, "spread": name == "pp2"}, 0.4, flags)
    info = pools.status("onray")
    say(f"{name}: ready in {local_s:.1f} s local, {ray_s:.1f} s on Ray;", "; ".join(f"{n['address']} {n['ranks']}" for n in info.nodes))
    say(f"{name}: memory: {devices(info)}")
    ours, theirs = bench.greedy("local"), bench.greedy("onray")
    words = len({w for t in ours for w in t.split()})
    say(
        f"{name}: greedy: {sum(a == b for a, b in zip(ours, theirs, strict=True))} of {len(ours)} answers equal, of {words} different words"
    )
    if ours != theirs:
        say(repr(ours[0][:80]), repr(theirs[0][:80]))
    rates: dict[str, list[float]] = {"local": [], "onray": []}
    texts: dict[str, list[str]] = {}
    for turn in range(bench.said.rounds + 1):
        for pool in (("local", "onray"), ("onray", "local"))[turn % 2]:
            rate, texts[pool] = bench.rate(pool)
            if turn:
                rates[pool].append(rate)
    a, b = (statistics.median(rates[p]) for p in ("local", "onray"))
    shown = {pool: " ".join(f"{r:.0f}" for r in found) for pool, found in rates.items()}
    equal = sum(x == y for x, y in zip(texts["local"], texts["onray"], strict=True))
    say(f"{name}: tok/s local {shown['local']}, on Ray {shown['onray']}: {b / a:.2f}; {equal} of {bench.said.rows} texts equal")
    alone = bench.said.rows * bench.said.new / b
    say(f"{name}:", bench.kill("onray", texts["onray"], min(alone / 2, 3.0)))
    if name == "dp2":
        state = pools.status("onray")
        say(f"{name}: status --json: memory {[g['device'] for g in state.as_dict()['memory']]}, nodes {[dict(n) for n in state.nodes]}")
    began = time.monotonic()
    pools.stop("onray")
    stop_s = time.monotonic() - began
    pools.stop("local")
    say(f"{name}: stopped in {stop_s:.1f} s; left: {left()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 256), ("new", 128), ("rounds", 2), ("seconds", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cpu", type=Path, help="a model's folder: rehearse with CPU ranks")
    parser.add_argument("--shapes", default="dp2,pp2,tp2")
    said = parser.parse_args()
    model = said.cpu or made(Path(HOME) / "models" / "random-0.6b")
    say(f"model ready; before: {on_devices()}")
    bench, cluster, now = Bench(said, model), None, None
    try:
        for shape in (s for s in SHAPES if s[0] in said.shapes.split(",")):
            if time.monotonic() - BEGAN > said.seconds * 0.75:
                say(f"{shape[0]}: left out, no time")
                continue
            if cluster is None or now != shape[2]:
                if cluster is not None:
                    cluster.end()
                gpus, now = [] if said.cpu else shape[2], shape[2]
                # A machine whose memory grows as it is used seems full to Ray, which would end what runs there.
                more = {"PYTHONPATH": PATHS, "RAY_memory_monitor_refresh_ms": "0"}
                cluster = RayCluster(len(shape[2]), 2 if said.cpu else 8, Path(HOME), gpus, **more)
                say(f"cluster of {len(shape[2])} raylets, GPUs {gpus}")
            try:
                measure(bench, shape, cluster)
            except (AssertionError, OSError, ValueError, holynb.HolynbError) as exc:
                say(f"{shape[0]}: FAILED: {type(exc).__name__}: {str(exc)[:600]}")
                for pool in ("local", "onray"):
                    with contextlib.suppress(holynb.HolynbError):
                        print(pool, *pools.logs(pool, 12), sep="\n  ", flush=True)
                pools.stop("all")
    finally:
        pools.stop("all")
        if cluster is not None:
            cluster.end()
        say(f"at the end: {left()}, {len(processes('raylet'))} raylets")


if __name__ == "__main__":
    main()
