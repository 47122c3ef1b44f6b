"""What a pool is wished to be: the options of `pool start`, checked before anything is started. Knows flags and GPUs' numbers; no processes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from holynb.errors import BadOption, closest

__all__ = ["EMBEDDED", "PoolOptions"]

#: The model that starts itself on first use.
EMBEDDED = "smollm2-135m"

#: The largest numbers. Eleven batches are as many as the GPU's host buffers hold at a time.
_MOST = {"dp": 64, "tp": 64, "pp": 11, "restart": 1000}


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The options of `pool start`. `devices` is `cpu` or numbers of GPUs; `idle` seconds until it ends by itself; `port` 0 takes a free one."""

    model: str = EMBEDDED
    name: str | None = None
    dp: int = 1
    tp: int = 1
    pp: int = 1
    micro_batches: int | None = None
    restart: int = 0
    devices: str | None = None
    dtype: str | None = None
    max_len: int | None = None
    memory: float = 0.9
    port: int | None = None
    idle: float = 1800.0
    engine: str = "native"
    python: str | None = None
    on: str | None = None

    @classmethod
    def of(cls, model: str, said: dict[str, Any]) -> PoolOptions:
        """Check names and values. Raises BadOption."""
        known = [f.name for f in fields(cls)]
        for word in said:
            if word not in known:
                raise BadOption(f"pool start has no option {word!r}.{closest(word, known)}")
        wish = cls(model, **{k: v for k, v in said.items() if v is not None})
        wish.check()
        return wish

    def check(self) -> None:
        self._divided()
        self._engine()
        if not 0 < self.memory <= 1:
            raise BadOption(f"--memory takes a share above 0 up to 1, not {self.memory:g}.")
        if self.dtype not in (None, "float32", "float16", "bfloat16"):
            raise BadOption(f"--dtype takes float32, float16 or bfloat16, not {self.dtype}.")
        if self.max_len is not None and self.max_len < 1:
            raise BadOption(f"--max-len takes a number of tokens, prompt and answer together, not {self.max_len}.")
        if self.port is not None and not 0 <= self.port <= 65535:
            raise BadOption(f"--port takes a number from 1 to 65535, or 0 for a free one, not {self.port}.")
        if self.name is not None and not re.fullmatch(r"[\w][\w.:-]{0,63}", self.name):
            raise BadOption(f"--name takes up to 64 letters, digits, dots and dashes, not {self.name!r}.")
        if self.called == "all":
            raise BadOption("A pool cannot be called all: that is every pool. Choose another --name.")

    def _engine(self) -> None:
        """What decodes, and what belongs to one of both alone."""
        if self.engine not in ("native", "vllm"):
            raise BadOption(f"--engine takes native or vllm, not {self.engine!r}.")
        if self.on is not None:
            raise BadOption(f"--on {self.on} is not available: a pool runs on this machine's devices. Leave it out.")
        if self.engine == "native" and self.python is not None:
            raise BadOption("--python belongs to --engine vllm: it names the Python of the environment that has vLLM.")
        for flag, said in (("--restart", self.restart), ("--micro-batches", self.micro_batches)):
            if self.engine == "vllm" and said:
                raise BadOption(f"{flag} belongs to the native engine; leave it out with --engine vllm.")

    def _divided(self) -> None:
        """Numbers of replicas, slices and stages. Whether the model divides so, the pool says: it alone reads the model."""
        for flag, number, what in (("dp", self.dp, "replicas"), ("tp", self.tp, "slices of a layer"), ("pp", self.pp, "stages")):
            if not 1 <= number <= _MOST[flag]:
                raise BadOption(f"--{flag} takes a number of {what} from 1 to {_MOST[flag]}, not {number}.")
        if self.ranks > _MOST["dp"]:
            raise BadOption(
                f"--dp {self.dp} × --tp {self.tp} × --pp {self.pp} are {self.ranks} processes; a pool has {_MOST['dp']} at most."
            )
        if self.micro_batches is not None and self.pp == 1:
            raise BadOption("--micro-batches belongs to --pp: a model in one stage has one batch under way.")
        if self.micro_batches is not None and not self.pp <= self.micro_batches <= _MOST["pp"]:
            raise BadOption(
                f"--micro-batches takes {self.pp} (as many as stages, so that each has work) to {_MOST['pp']}, not {self.micro_batches}."
            )
        if not 0 <= self.restart <= _MOST["restart"]:
            raise BadOption(f"--restart takes how often a dead replica is started again, 0 to {_MOST['restart']}, not {self.restart}.")

    @property
    def ranks(self) -> int:
        """Processes that compute; each has one device."""
        return self.dp * self.tp * self.pp

    @property
    def called(self) -> str:
        """The pool's name: as wished, or the model's last word."""
        return self.name or re.sub(r"[^\w.:-]", "_", Path(self.model).name.removesuffix(".gguf"))[:64] or "pool"

    @property
    def command(self) -> str:
        """The line that starts it, from any folder: the model, and what differs from the defaults."""
        path = Path(self.model).expanduser()
        said = [str(path.absolute()) if path.exists() and self.model != EMBEDDED else self.model]
        for field in fields(self):
            if field.name != "model" and (value := getattr(self, field.name)) != field.default:
                said += [f"--{field.name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
        return f"%infer pool start {shlex.join(said)}"

    @property
    def places(self) -> str:
        """One device a rank, with commas: `cpu`, or `cuda:N`; by default the first GPUs that torch could use. Raises BadOption."""
        gpus, ranks = _gpus() if self.engine == "native" else _gpus(of_torch=False), self.ranks
        if str(self.devices) == "cpu" or (self.devices is None and not gpus):
            return ",".join(["cpu"] * ranks)
        words = (
            [str(n) for n in range(ranks)]
            if self.devices is None
            else [w.strip().removeprefix("cuda:") for w in str(self.devices).split(",")]
        )
        if not all(w.isdigit() for w in words):
            raise BadOption(f"--devices takes cpu or numbers of GPUs such as 0 or 0,1, not {self.devices!r}.")
        wants = " × ".join(f"--{flag} {n}" for flag, n in (("dp", self.dp), ("tp", self.tp), ("pp", self.pp)) if n > 1) or "one replica"
        if len(words) != ranks:
            only = f" Try --dp {len(words)}." if self.tp * self.pp == 1 else ""
            raise BadOption(
                f"--devices names {len(words)} and {wants} wants {ranks}: each replica has a device for each slice of each stage.{only}"
            )
        if self.engine == "native" and _torch_knows_no_gpu():
            raise BadOption(f"--devices {self.devices}: the torch that is installed here has only the CPU. Take --devices cpu.")
        if self.devices is None and ranks > gpus:
            raise BadOption(
                f"{wants} wants {ranks} GPUs, and there {'is' if gpus == 1 else 'are'} {gpus} here. Name --devices, or take fewer."
            )
        return ",".join(f"cuda:{w}" for w in words)


def _torch_knows_no_gpu() -> bool:
    """Whether the installed torch was built for CPUs alone, told without loading it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return "+cpu" in version("torch") or sys.platform == "darwin"
    except PackageNotFoundError:
        return True


def _gpus(*, of_torch: bool = True) -> int:
    """GPUs of this machine; with `of_torch` those that the installed torch could use."""
    if (of_torch and _torch_knows_no_gpu()) or shutil.which("nvidia-smi") is None:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return there if visible is None else min(there, len([w for w in visible.split(",") if w.strip() and w.strip() != "-1"]))
