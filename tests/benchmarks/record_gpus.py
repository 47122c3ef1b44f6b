"""Records runs on two GPUs for `%infer show --replay`: dp 2 with memory that runs out and comes back, and tp 2.

    python tests/benchmarks/record_gpus.py --out FOLDER [--cpu] [--rows 480] [--new 72]

A model of the 8B shape with random weights and a vocabulary of a few hundred words, so that what it says is word salad, and all
else is as it would be: real pools, real rows, real memory. In the first run a stranger takes nearly all that is left of GPU 0
in the middle of it; a step needs memory for each of its rows, asks the device for it where it is short, and hears the device's
own "out of memory". `--cpu` rehearses with a tiny shape over gloo, where the stranger is a file. Takes about a minute on two H200s.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from holynb.pool.engine import runner as native  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
}
WORDS = """
the parcel is late and we are sorry for that your order will be on its way today please send us a picture of the box refund reply
delivery address street number name shop customer question answer price bill invoice month page screen button error light cable
battery charger lamp kettle toaster blender radio camera phone watch keyboard printer chair table shelf mirror carpet pillow broken
missing wrong damaged empty heavy small large blue green red white black new old early soon never always maybe yes no thank you hello
dear regards team help call write wait open close turn press hold check find return keep change cancel confirm pay charge offer again
""".split()  # noqa: SIM905 - a list of them is a page long
#: Bytes of work that the pretended layer needs for each row of a step, and what the stranger leaves of the device.
UNIT, LEFT = 256 * 2**20, 1536 * 2**20
STRANGER = """
import sys, torch
torch.cuda.init()
torch.cuda.mem_get_info(0)
print("here", flush=True)
sys.stdin.readline()
free, _ = torch.cuda.mem_get_info(0)
held = torch.empty(max(0, free - int(sys.argv[1])), dtype=torch.uint8, device="cuda:0").fill_(1)
torch.cuda.synchronize()
print("holds", flush=True)
sys.stdin.readline()
"""


class Runner(native.Runner):
    """The pool's own, with weights made in memory, and a step that wants work memory on the first device."""

    def __init__(self, folder: Path, *, device: str, mesh: Any = None, **said: Any) -> None:
        import torch

        from holynb.pool.engine.load import random_weights
        from holynb.pool.fit.spec import read_spec

        kind = torch.float32 if device == "cpu" else torch.bfloat16
        super().__init__(folder, device=device, mesh=mesh, source=random_weights(read_spec(folder), device, kind), **said)
        if mesh is None and os.environ.get("RECORD_STRANGER"):
            self.before_step = self._want

    def _want(self, step: Any) -> None:
        """Raises what the device raises where the rows of this step need more than is left."""
        import torch

        rows = len(step.decode) + len(step.prefill)
        if self.device == "cpu":
            if rows * UNIT > LEFT and Path(os.environ["RECORD_STRANGER"]).exists() and self._first:
                torch.empty(2**60, dtype=torch.uint8)
        elif rows * UNIT > torch.cuda.mem_get_info(self.device)[0]:
            torch.empty(rows * UNIT, dtype=torch.uint8, device=self.device)

    @property
    def _first(self) -> bool:
        """Whether this is the first replica (on CPU, where both have the same device): the one whose log ends in 0."""
        return Path("/proc/self/fd/1").readlink().name.endswith("rank0.log")


def model(folder: Path, shape: str) -> Path:
    """A model folder: shape, a tokenizer of whole words, a plain chat template, and weights that are made in memory."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<end>", *dict.fromkeys(WORDS)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="customer"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<end>"}))
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": len(words),
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        **SHAPES[shape],
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # a file of no tensors: the weights are made up
    return folder


def prompts(rows: int) -> list[str]:
    """Tickets, of the model's own words."""
    dice = random.Random(5)
    things, troubles = WORDS[56:74], ("is broken", "is missing", "is late", "is damaged", "has a wrong price")
    return [f"customer {i} : the {dice.choice(things)} {dice.choice(troubles)} . please write a reply" for i in range(1, rows + 1)]


class Stranger:
    """Somebody else's process on the first device. It is there from the beginning, because torch takes seconds to load."""

    def __init__(self, flag: Path, *, cpu: bool) -> None:
        self._flag = flag
        self._process = (
            None if cpu else subprocess.Popen([sys.executable, "-c", STRANGER, str(LEFT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        self._hear()

    def take(self) -> None:
        """Take the memory; returns when it is taken."""
        self._flag.touch()
        self._say()
        self._hear()

    def go(self) -> None:
        """Give it back and end."""
        self._flag.unlink(missing_ok=True)
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _say(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def _hear(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.readline()


def recorded(name: str, said: argparse.Namespace, stranger: Stranger | None) -> Path:
    """One run over the running pool `name`, written to a file. A stranger takes memory after a fifth of it, and gives it back after a half."""
    import threading

    import holynb
    from holynb.ui.live import memory, recording

    run = holynb.infer(
        prompts(said.rows),
        f"pool/{name}",
        name=said.titles[name],
        max_tokens=said.new,
        temperature=0.8,
        cache=False,
        stream=True,
        concurrency=32,
    )
    memory.watch(run, pause=0.25)
    path = said.out / f"{said.files[name]}.jsonl.gz"
    writing = threading.Thread(target=recording.record, args=(run, path))
    writing.start()

    def ended() -> int:
        return sum(row is not None for row in run.journal.rows)

    if stranger is not None:
        until(lambda: ended() >= said.rows * 0.2 or run.done)
        stranger.take()
        until(lambda: ended() >= said.rows * 0.5 or run.done)
        stranger.go()
    run.wait()
    writing.join(60)
    rows = list(run.journal.rows)
    print(
        f"{name}: {sum(r is not None and r.status == 'ok' for r in rows)} of {said.rows} rows ok, {path.stat().st_size:,} bytes in {path}",
        flush=True,
    )
    return path


def until(what: Any, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("the run does not get on")
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=480)
    parser.add_argument("--new", type=int, default=72)
    parser.add_argument("--cpu", action="store_true")
    said = parser.parse_args()
    said.titles = {"two": "8B shape, dp 2, memory runs out", "cut": "8B shape, tp 2"}
    said.files = {"two": "gpus-dp2", "cut": "gpus-tp2"}
    said.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "HOLYNB_HOME": f"{folder}/home",
            "HOLYNB_POOL_RUNNER": "record_gpus:Runner",
            "RECORD_STRANGER": f"{folder}/stranger",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        from holynb import pools
        from holynb.events import Noted
        from holynb.ui.live import recording

        path = str(model(Path(folder) / "model", "tiny" if said.cpu else "8b"))
        devices = "cpu" if said.cpu else "0,1"
        stranger = Stranger(Path(folder) / "stranger", cpu=said.cpu)
        try:
            for name, spread in (("two", {"dp": 2}), ("cut", {"tp": 2})):
                begin = time.monotonic()
                pools.start(path, name=name, devices=devices, max_len=1024, memory=0.6, notice=print, **spread)
                print(f"{name}: ready after {time.monotonic() - begin:.1f} s", flush=True)
                said.rows = said.rows if name == "two" else said.rows // 4
                played = recording.read(str(recorded(name, said, stranger if name == "two" else None)))
                notes = [s.event.text for s in played.steps if isinstance(s.event, Noted)]
                print(f"{name}: {played.seconds:.1f} s, {len(played.steps)} steps, notes: {notes}", flush=True)
                print("\n".join(pools.logs(name, 5)), flush=True)
                pools.stop(name)
        finally:
            stranger.go()
            pools.stop("all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
