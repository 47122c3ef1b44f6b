"""A quantized GGUF file on a CPU: llama.cpp and this engine by turns, one row, one thread. Tokens a CPU second, memory, agreement.

    python tests/benchmarks/quantised_cpu.py FILE.gguf [--new 64] [--rounds 7] [--rows 1] [--with-float32]

Each engine is a process of its own that loads the file and waits; then each in turn answers the same prompt of 40 random ids, so that what
else the machine does falls on all of them alike. CPU seconds are of the whole process, prefill included; a rate is the median of the rounds.
Agreement is with the same file dequantized to float32, teacher-forced over the README: the share of tokens where the most likely next one
is the same. llama.cpp comes by `pip install xllamacpp`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

PROMPT, VOCABULARY, PIECE = 40, 48_000, 512


def prompts(rows: int, turn: int) -> list[list[int]]:
    """Others at each turn, so that no cache helps."""
    dice = random.Random(1000 * rows + turn)
    return [[dice.randrange(100, VOCABULARY) for _ in range(PROMPT)] for _ in range(rows)]


def holynb(folder: Path, dtype: str | None) -> Callable[[list[list[int]], int], None]:
    """This engine's answers, without a server."""
    from holynb.pool.engine.runner import Runner
    from holynb.pool.protocol import Job

    runner = Runner(folder, dtype=dtype, memory=0.2, max_len=1024)

    def answer(asked: list[list[int]], new: int) -> None:
        for i, ids in enumerate(asked):
            runner.add(Job(i, tuple(ids), new, ignore_eos=True))
        count = 0
        while not runner.idle:
            count += sum(len(emit.tokens) for emit in runner.step())
        assert count == len(asked) * new, count

    return answer


def llama_cpp(file: Path, rows: int, new: int) -> Callable[[list[list[int]], int], None]:
    """Its server's answers, in this process."""
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path, asked.n_parallel, asked.n_ctx, asked.n_gpu_layers, asked.verbosity = (
        str(file),
        rows,
        rows * (PROMPT + new + 16),
        0,
        -1,
    )
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(asked)

    def one(ids: list[int], new: int) -> None:
        said = server.handle_completions({"prompt": ids, "max_tokens": new, "temperature": 0, "ignore_eos": True, "cache_prompt": False})
        assert said["usage"]["completion_tokens"] == new, said

    def answer(asked: list[list[int]], new: int) -> None:
        with ThreadPoolExecutor(len(asked)) as threads:
            list(threads.map(lambda ids: one(ids, new), asked))

    return answer


def memory() -> dict[str, int]:
    """Resident bytes now: all, and those that are no file's (a mapped file's pages can be dropped)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return {"all": found["VmRSS"], "own": found["RssAnon"]}


def worker(kind: str, path: Path, rows: int, new: int) -> None:
    """One engine: a line in is a turn, a line out its CPU seconds and memory."""
    answer = llama_cpp(path, rows, new) if kind == "llama.cpp" else holynb(path, "float32" if kind == "float32" else None)
    answer(prompts(1, 999), 4)
    print(json.dumps({"ready": memory()}), flush=True)
    for line in sys.stdin:
        asked, begin = prompts(rows, int(line)), time.process_time()
        answer(asked, new)
        print(json.dumps({"seconds": time.process_time() - begin, **memory()}), flush=True)


def next_tokens(folder: Path, pieces: list[list[int]], dtype: str) -> Any:
    """The logits after each token of these pieces."""
    import torch

    from holynb.pool.engine.cache import allocate_kv
    from holynb.pool.engine.eager import forward_batch
    from holynb.pool.engine.load import load, open_safetensors
    from holynb.pool.engine.model import Decoder
    from holynb.pool.engine.sequence import PrefillChunk, Seq
    from holynb.pool.fit import Mesh, plan, read_spec
    from holynb.pool.protocol import Job

    spec = plan.started(read_spec(folder), dtype, cpu=True)
    with open_safetensors(folder) as source, torch.inference_mode():
        model = Decoder(spec, load(spec, Mesh().shard(spec), source, "cpu", torch.float32), PIECE)
        kv = allocate_kv((spec.layers, spec.kv_heads, PIECE, spec.head_dim), torch.float32, "cpu")
        found = []
        for ids in pieces:
            seq = Seq(Job(0, tuple(ids), 1))
            seq.blocks.extend(range(-(-len(ids) // 16)))
            batch = forward_batch([PrefillChunk(seq, 0, len(ids))], 16, spec.heads // spec.kv_heads, torch.float32)
            batch.last = None
            found.append(model.forward(batch, kv)[:-1])
        return torch.cat(found)


def agreement(kept: Path, plain: Path, tokens: int) -> list[str]:
    """Lines of a table: kept as it is, and rounded to int8, beside float32."""
    import torch
    from tokenizers import Tokenizer

    ids = (
        Tokenizer.from_file(str(kept / "tokenizer.json"))
        .encode(Path(__file__).parents[2].joinpath("README.md").read_text("utf-8"))
        .ids[:tokens]
    )
    pieces = [ids[i : i + PIECE] for i in range(0, len(ids), PIECE)]
    truth = torch.tensor([token for piece in pieces for token in piece[1:]])
    exact = next_tokens(plain, pieces, "float32")
    lines = [f"| README, {len(truth):,} tokens | top-1 as float32 | perplexity | relative error of logits |", "|---|---|---|---|"]
    for name, folder, dtype in (("float32", plain, "float32"), ("kept", kept, "auto"), ("--dtype int8", plain, "int8")):
        ours = next_tokens(folder, pieces, dtype)
        same = (ours.argmax(-1) == exact.argmax(-1)).float().mean().item()
        perplexity = torch.nn.functional.cross_entropy(ours, truth).exp().item()
        lines.append(f"| {name} | {same:.4f} | {perplexity:.3f} | {((ours - exact).norm() / exact.norm()).item():.1e} |")
    return lines


class Turns:
    """The processes, each asked in turn."""

    def __init__(self, kinds: dict[str, Path], rows: int, new: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        self.processes = {
            kind: subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, str(path), "--worker", kind, "--rows", str(rows), "--new", str(new)],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            for kind, path in kinds.items()
        }  # fmt: skip
        self.ready = {kind: self._answer(kind)["ready"] for kind in kinds}

    def _answer(self, kind: str) -> dict[str, Any]:
        process = self.processes[kind]
        assert process.stdout is not None
        while line := process.stdout.readline():
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"{kind} ended with {process.wait()}")

    def turn(self, kind: str, number: int) -> dict[str, Any]:
        stdin = self.processes[kind].stdin
        assert stdin is not None
        stdin.write(f"{number}\n")
        stdin.flush()
        return self._answer(kind)

    def close(self) -> None:
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=1536, help="of the README, for the agreement; 0: leave it out")
    parser.add_argument("--with-float32", action="store_true", help="this engine over the dequantized file, too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.file, given.rows, given.new)
        return
    from holynb.pool.models.convert import convert

    with tempfile.TemporaryDirectory() as place:
        folders = {True: Path(place) / "kept", False: Path(place) / "plain"}
        for kept, folder in folders.items():
            if kept or given.with_float32 or given.tokens:
                folder.mkdir()
                convert(given.file, folder, kept=kept)
        kinds = {"llama.cpp": given.file, "holynb": folders[True]} | ({"float32": folders[False]} if given.with_float32 else {})
        turns = Turns(kinds, given.rows, given.new)
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        last: dict[str, dict[str, Any]] = {}
        for number in range(given.rounds):
            for kind in list(kinds)[:: 1 if number % 2 else -1]:
                last[kind] = turns.turn(kind, number)
                seconds[kind].append(last[kind]["seconds"])
        turns.close()
        rates = {kind: [given.rows * given.new / one for one in many] for kind, many in seconds.items()}
        ratios = {kind: statistics.median(a / b for a, b in zip(rates[kind], rates["llama.cpp"], strict=True)) for kind in kinds}
        print(
            f"| {given.rows} × {PROMPT}/{given.new} | tokens a CPU second, median (least to most) | of llama.cpp's, by turns | resident | not of a file |"
        )
        print("|---|---|---|---|---|")
        for kind in kinds:
            many, mb = rates[kind], {name: last[kind][name] / 1e6 for name in ("all", "own")}
            print(
                f"| {kind} | {statistics.median(many):.1f} ({min(many):.1f} to {max(many):.1f}) | {ratios[kind]:.2f} "
                f"| {mb['all']:.0f} MB | {mb['own']:.0f} MB |"
            )
        for line in agreement(folders[True], folders[False], given.tokens) if given.tokens else []:
            print(line)


if __name__ == "__main__":
    main()
