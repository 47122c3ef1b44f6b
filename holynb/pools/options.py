"""The options of `pool start`, checked before anything is started. Knows flags and the numbers of GPUs; no processes."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from holynb import typed_path
from holynb.config import duration_text
from holynb.errors import BadOption, closest
from holynb.words import composed

__all__ = ["EMBEDDED", "PoolOptions"]

#: The model whose pool is started on first use.
EMBEDDED = "smollm2-135m"

#: `pp`: the engine's host buffers on a GPU hold eleven batches at a time.
_MAX = {"dp": 64, "tp": 64, "pp": 11, "restart": 1000}

#: Options that are durations, in seconds, and those that are paths where there is such a file or folder.
_DURATIONS = ("idle", "lease", "wait_nodes")
_PATHS = ("model", "python", "runtime_env")


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The options of `pool start`. `devices`: `cpu` or GPU numbers; `idle`: seconds until an unused pool ends; `port`: 0 is any free."""

    model: str = EMBEDDED
    name: str | None = None
    dp: int = 1
    tp: int = 1
    pp: int = 1
    micro_batches: int | None = None
    restart: int = 0
    devices: str | None = None
    dtype: str | None = None
    kv: str | None = None
    max_len: int | None = None
    memory: float = 0.9
    port: int | None = None
    idle: float = 1800.0
    engine: str = "native"
    python: str | None = None
    on: str | None = None
    dp_most: int | None = None
    cpus: int | None = None
    spread: bool = False
    lease: float | None = None
    wait_nodes: float | None = None
    runtime_env: str | None = None

    @classmethod
    def parse(cls, model: str, values: dict[str, Any]) -> PoolOptions:
        """The options of these values, None being the default. Raises BadOption."""
        names = [f.name for f in fields(cls)]
        for name in values:
            if name not in names:
                raise BadOption(f"pool start has no option {name!r}.{closest(name, names)}")
        if isinstance(dp := values.get("dp"), str):
            low, _, high = dp.partition("..")
            if not (low.isdigit() and high.isdigit() and int(low) <= int(high) <= _MAX["dp"]):
                raise BadOption(f"--dp takes a number of replicas, or with --on ray bounds such as 2..8, not {dp}.")
            values = {**values, "dp": int(low), "dp_most": int(high)}
        options = cls(model, **{k: v for k, v in values.items() if v is not None})
        options._check()
        return options

    def _check(self) -> None:
        self._check_parallelism()
        self._check_engine()
        if not 0 < self.memory <= 1:
            raise BadOption(f"--memory takes a share above 0 up to 1, not {self.memory:g}.")
        if self.dtype not in (None, "float32", "float16", "bfloat16", "fp8", "int8"):
            raise BadOption(f"--dtype takes float32, float16, bfloat16, fp8 or int8, not {self.dtype}.{_four_bits(self.dtype)}")
        if self.kv not in (None, "fp8"):
            raise BadOption(f"--kv takes fp8, not {self.kv}; without it keys and values are kept as they are computed.")
        if self.max_len is not None and self.max_len < 1:
            raise BadOption(f"--max-len takes a number of tokens, prompt and answer together, not {self.max_len}.")
        if self.port is not None and not 0 <= self.port <= 65535:
            raise BadOption(f"--port takes a number from 1 to 65535, or 0 for a free one, not {self.port}.")
        if self.name is not None and not re.fullmatch(r"[\w][\w.:-]{0,63}", self.pool_name):
            raise BadOption(f"--name takes up to 64 letters, digits, dots and dashes, not {self.name!r}.")
        if self.pool_name == "all":
            raise BadOption("A pool cannot be called all: that is every pool. Choose another --name.")
        for name in _DURATIONS:
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise BadOption(f"--{name.replace('_', '-')} takes a duration above zero, such as 30m or 30d, not {value}.")

    def _check_engine(self) -> None:
        """The engine, and the options that belong to one engine only."""
        if self.engine not in ("native", "vllm"):
            raise BadOption(f"--engine takes native or vllm, not {self.engine!r}.")
        if self.on is None:
            self._refuse_ray_only()
        else:
            self._check_on()
        if self.engine == "native" and self.python is not None:
            raise BadOption("--python belongs to --engine vllm: it names the Python of the environment that has vLLM.")
        for flag, value in (("--restart", self.restart), ("--micro-batches", self.micro_batches)):
            if self.engine == "vllm" and value:
                raise BadOption(f"{flag} belongs to the native engine; leave it out with --engine vllm.")

    def _refuse_ray_only(self) -> None:
        """Raises BadOption where an option is for pools on Ray alone."""
        for flag, value in (
            ("--dp A..B", self.dp_most),
            ("--cpus", self.cpus),
            ("--spread", self.spread),
            ("--lease", self.lease),
            ("--wait-nodes", self.wait_nodes),
            ("--runtime-env", self.runtime_env),
        ):
            if value:
                raise BadOption(f"{flag} belongs to --on ray: a pool of this machine does without.")

    def _check_on(self) -> None:
        """Where a pool on Ray is to run, and the options that it does not have."""
        if self.on != "ray" and not re.fullmatch(r"(ray://)?[\w.\[\]:-]+:\d{1,5}", str(self.on)):
            near = (
                f" Devices that are not here are planned with --gpus {self.on}." if re.match(r"\d+\s*([xX×*]|Gi?B)", str(self.on)) else ""
            )
            raise BadOption(f"--on takes ray (the cluster of this machine), ray://HOST:PORT or HOST:PORT, not {self.on}.{near}")
        if self.devices not in (None, "cpu", "gpu"):
            raise BadOption(f"--devices takes cpu or gpu with --on: Ray chooses which, so leave out {self.devices}.")
        for flag, value in (("--port", self.port is not None), ("--engine vllm", self.engine == "vllm"), ("--restart", self.restart)):
            if value:
                raise BadOption(f"{flag} is of a pool of this machine; leave it out with --on.")
        if self.cpus is not None and self.cpus < 1:
            raise BadOption(f"--cpus takes how many CPUs a rank gets, 1 or more, not {self.cpus}.")
        self.runtime_env_json  # noqa: B018 - raises where it cannot be read

    @property
    def runtime_env_json(self) -> str:
        """`--runtime-env` as JSON: it is that, or a file of JSON or YAML. Raises BadOption."""
        text = self.runtime_env or "{}"
        try:
            if not text.lstrip().startswith("{"):
                text = typed_path.typed(text).read_text(encoding="utf-8")
            value = json.loads(text) if text.lstrip().startswith("{") else _yaml(text)
        except (OSError, ValueError) as exc:
            raise BadOption(f"--runtime-env takes JSON or the path of a .json or .yaml file: {exc}") from exc
        if not isinstance(value, dict):
            raise BadOption('--runtime-env takes an object, such as \'{"pip": ["holynb[local,ray]"]}\'.')
        return json.dumps(value)

    def _check_parallelism(self) -> None:
        """Numbers of replicas, slices and stages. Whether the model can be divided so is checked by the pool, which reads the model."""
        for flag, number, what in (("dp", self.dp, "replicas"), ("tp", self.tp, "slices of a layer"), ("pp", self.pp, "stages")):
            if not 1 <= number <= _MAX[flag]:
                raise BadOption(f"--{flag} takes a number of {what} from 1 to {_MAX[flag]}, not {number}.")
        if self.ranks > _MAX["dp"]:
            raise BadOption(
                f"--dp {self.dp} × --tp {self.tp} × --pp {self.pp} are {self.ranks} processes; a pool has {_MAX['dp']} at most."
            )
        if self.micro_batches is not None and self.pp == 1:
            raise BadOption("--micro-batches belongs to --pp: a model in one stage has one batch in flight.")
        if self.micro_batches is not None and not self.pp <= self.micro_batches <= _MAX["pp"]:
            raise BadOption(
                f"--micro-batches takes {self.pp} (as many as stages, so that each has work) to {_MAX['pp']}, not {self.micro_batches}."
            )
        if not 0 <= self.restart <= _MAX["restart"]:
            raise BadOption(f"--restart takes how often a dead replica is started again, 0 to {_MAX['restart']}, not {self.restart}.")

    @property
    def ranks(self) -> int:
        """Number of ranks; each has one device."""
        return self.dp * self.tp * self.pp

    @property
    def pool_name(self) -> str:
        """The pool's name: `name`, or the last part of the model's. Composed (NFC): a Mac's folders write Hangul and accents in parts."""
        last = composed(Path(self.model).name.removesuffix(".gguf"))
        return composed(self.name or "") or re.sub(r"[^\w.:-]", "_", last)[:64] or "pool"

    @property
    def start_command(self) -> str:
        """The line that starts it, from any folder: the model, and the options that differ from the defaults."""
        words = [self._word("model")]
        for field in fields(self):
            if field.name == "dp" and self.dp_most is not None:
                words += ["--dp", f"{self.dp}..{self.dp_most}"]
            elif field.name not in {"model", "dp_most"} and (value := getattr(self, field.name)) != field.default:
                flag = f"--{field.name.replace('_', '-')}"
                words += [flag] if value is True else [flag, self._word(field.name)]
        return f"%infer pool start {' '.join(map(_quoted, words))}"

    def _word(self, name: str) -> str:
        """The value of an option as it is typed: what is read back is the same value."""
        value = getattr(self, name)
        if name in _DURATIONS:
            return duration_text(value)
        if name in _PATHS and value != EMBEDDED and typed_path.is_there(path := typed_path.typed(value)):
            return str(path.absolute())
        return str(value)

    @property
    def device_list(self) -> str:
        """One device per rank, with commas: `cpu`, or `cuda:N`; by default the first GPUs that torch can use. Raises BadOption."""
        gpus, ranks = _gpus() if self.engine == "native" else _gpus(usable_by_torch=False), self.ranks
        if str(self.devices) == "cpu" or (self.devices is None and not gpus):
            return ",".join(["cpu"] * ranks)
        numbers = (
            [str(n) for n in range(ranks)]
            if self.devices is None
            else [w.strip().removeprefix("cuda:") for w in str(self.devices).split(",")]
        )
        if not all(w.isdigit() for w in numbers):
            raise BadOption(f"--devices takes cpu or numbers of GPUs such as 0 or 0,1, not {self.devices!r}.")
        wants = " × ".join(f"--{flag} {n}" for flag, n in (("dp", self.dp), ("tp", self.tp), ("pp", self.pp)) if n > 1) or "one replica"
        if len(numbers) != ranks:
            n = len(numbers)
            ways = f"--dp {n} for replicas, --tp {n} or --pp {n} for a model that is larger than one device" if n > 1 else "--dp 1"
            only = f" Try {ways}." if self.tp * self.pp == 1 else ""
            raise BadOption(
                f"--devices names {len(numbers)}, but {wants} needs {ranks}: each replica has a device for each slice of each stage.{only}"
            )
        if self.engine == "native" and _torch_is_cpu_only():
            raise BadOption(f"--devices {self.devices}: the installed torch supports only the CPU. Use --devices cpu.")
        if self.devices is None and ranks > gpus:
            raise BadOption(
                f"{wants} needs {ranks} GPUs, but there {'is' if gpus == 1 else 'are'} {gpus} here. Set --devices, or use fewer."
            )
        return ",".join(f"cuda:{w}" for w in numbers)


def _quoted(word: str) -> str:
    """The word as both a shell and a cell's line read it: in a cell a quote inside single quotes does not end them."""
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)


def _yaml(text: str) -> Any:
    """YAML's value. Raises ValueError."""
    import yaml  # Ray's own dependency

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(str(exc).splitlines()[0]) from exc


def _torch_is_cpu_only() -> bool:
    """Whether the installed torch was built for CPUs alone, without loading it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return "+cpu" in version("torch") or sys.platform == "darwin"
    except PackageNotFoundError:
        return True


def _gpus(*, usable_by_torch: bool = True) -> int:
    """Number of GPUs of this machine; with `usable_by_torch`, 0 where the installed torch can use none."""
    if (usable_by_torch and _torch_is_cpu_only()) or shutil.which("nvidia-smi") is None:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return present if visible is None else min(present, len([w for w in visible.split(",") if w.strip() and w.strip() != "-1"]))


def _four_bits(dtype: str | None) -> str:
    """What to do instead where four bits are asked for."""
    if not re.fullmatch(r"(u?int|fp|nf|mxfp|q)4\w*|4-?bits?|awq|gptq|gguf", dtype or "", re.IGNORECASE):
        return ""
    return (
        " Files of four bits are taken as they are, without --dtype: those of a model named …-AWQ, …-GPTQ or gpt-oss-… (MXFP4), "
        "or a GGUF file such as …-Q4_K_M.gguf."
    )
