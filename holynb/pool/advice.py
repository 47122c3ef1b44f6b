"""How a model could be started here, in words and as data: which dp, tp, pp and dtype fit, and which is best. No torch, loads nothing.

`python -m holynb.pool.advice MODEL [--gpus 4x24GB] [--json]`. MODEL is a word of `pool start`, or a size such as 70B or 1.76T.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from holynb.errors import UserError
from holynb.pool.fit import (
    BatchLimits,
    Device,
    Fit,
    Spec,
    best_dtype,
    check_divisible,
    describe_fit,
    flags,
    free_gpu_memory,
    gpu_memory,
    memory,
    parse_spec,
    plan,
    read_spec,
)
from holynb.pool.models import embedded
from holynb.pool.models.weights import WeightsError, local_folder

__all__ = ["Advice", "advice", "main", "spec_of"]

#: Lines of a table of ways.
_MOST = 8

#: Sizes of dense models that people run, in billions of weights.
_KNOWN = ("0.6B", "1.7B", "4B", "8B", "14B", "32B", "70B", "123B", "405B")


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the user wants to hold: sizes that must be so (0: any), the dtype (None: any), the longest sequence, the share of memory."""

    dp: int = 0
    tp: int = 0
    pp: int = 0
    dtype: str | None = None
    max_len: int | None = None
    share: float = 0.9

    def allows(self, fit: Fit) -> bool:
        return all(wanted in (0, has) for wanted, has in ((self.dp, fit.dp), (self.tp, fit.tp), (self.pp, fit.pp)))


@dataclass(frozen=True, slots=True)
class Advice:
    """`says` is one line; `ways` are those that fit, the best first."""

    model: str
    devices: str
    describe_fit: str
    ways: tuple[Fit, ...]

    def as_dict(self) -> dict[str, Any]:
        ways = [asdict(w) | {"flags": flags(w).strip()} for w in self.all_fits]
        return {"model": self.model, "devices": self.devices, "says": self.says, "best": ways[0] if ways else None, "ways": ways}


def advice(model: str, spec: Spec, device: Device, asked: PlanRequest) -> Advice:
    """Every way that fits. Raises UserError where the model cannot be divided as asked."""
    check_divisible(spec, asked.tp or 1, asked.pp or 1)
    limits = plan.limits_of(spec, cpu=device.cpu, max_len=asked.max_len)
    own = asked.dtype or best_dtype(spec, cpu=device.cpu)
    found = _ways(spec, device, own, limits, asked)
    for other in () if asked.dtype or device.cpu else plan.ITEMSIZE:
        if plan.ITEMSIZE[other] != plan.ITEMSIZE[own] and other != "float16":
            found += _ways(spec, device, other, limits, asked)[:1]
    if found:
        return Advice(model, str(device), f"{model} {describe_fit(spec, device, found[0], found[0].dtype, limits)}.", tuple(found[:_MOST]))
    line = f"{model} {describe_fit(spec, device, None, own, limits)}."
    if plan.best_fit(spec, device, own, limits, asked.share) is None:
        line += _largest(device, own, asked)
    return Advice(model, str(device), line, ())


def _ways(spec: Spec, device: Device, dtype: str, limits: BatchLimits, asked: PlanRequest) -> list[Fit]:
    """Those that fit, best first: as many devices used as can be, then as many replicas."""
    found = plan.all_fits(spec, device, dtype, limits, asked.share)
    if asked.dp:
        # Fewer replicas than there is room for are fine, where that is what is asked for.
        found = [replace(f, dp=asked.dp) for f in found if f.dp >= asked.dp]
    return sorted((f for f in found if asked.allows(f)), key=plan.rank, reverse=True)


def _largest(device: Device, dtype: str, asked: PlanRequest) -> str:
    """What these devices could run instead."""
    for size in reversed(_KNOWN):
        spec = plan.spec_of_size(size)
        if plan.best_fit(spec, device, dtype, plan.limits_of(spec, cpu=device.cpu, max_len=asked.max_len), asked.share):
            return f" About {size} is the most that fits on {device} in {dtype}."
    return ""


def spec_of(word: str, home: Path) -> tuple[Spec, str]:
    """The sizes of MODEL, read where they can be without fetching, and a remark where they are a guess. Raises UserError."""
    try:
        found = local_folder(word, home)
    except WeightsError:
        found = Path(word).expanduser()  # a folder without weights is enough for a plan
    made = home / "models" / word.replace("/", "--")
    if found is None and (made / "config.json").is_file():
        found = made
    if found is not None:
        return read_spec(found), ""
    path = Path(word).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _of_gguf(path), ""
    if word == embedded.NAME:
        return plan.spec_of_size("135M"), ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", word) and (size := re.findall(r"(?<![\w.])(\d+(?:\.\d+)?[MBT])(?![a-z])", word, re.IGNORECASE)):
        return plan.spec_of_size(size[-1]), f" Judged by the {size[-1]} in its name; once its files are here, by them."
    return plan.spec_of_size(word), ""


def _of_gguf(path: Path) -> Spec:
    from holynb.pool.models.convert import ConvertError, config_of

    try:
        return replace(parse_spec(config_of(path)), dtype="float32")  # as it is converted
    except ConvertError as exc:
        raise UserError(str(exc)) from exc


def _devices(said: argparse.Namespace) -> Device:
    """The devices that are asked about: named by their memory, or those of this machine."""
    if said.gpus:
        return Device.parse(said.gpus)
    free = free_gpu_memory() if said.devices is None else []
    if said.devices and said.devices != "cpu":
        words = [w.strip().removeprefix("cuda:") for w in said.devices.split(",")]
        if not all(w.isdigit() for w in words):
            raise UserError(f"--devices takes cpu or numbers of GPUs such as 0 or 0,1, not {said.devices!r}.")
        for word in words:
            held = gpu_memory(f"cuda:{word}")
            if held is None:
                raise UserError(f"The memory of GPU {word} cannot be asked for; name it with --gpus, such as --gpus 1x24GB.")
            free.append(held)
    if free:
        return Device(len(free), min(free))
    ranks = (said.dp or 1) * (said.tp or 1) * (said.pp or 1)
    return Device(ranks, memory.device_memory("cpu").free // ranks, cpu=True)


def main(argv: list[str] | None = None) -> int:
    """The command line: prints lines, or one JSON object. 0 fits, 1 does not, 2 is a mistake in what was asked."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.advice", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--gpus", help="devices and their memory, such as 4x24GB (default: this machine's)")
    parser.add_argument("--devices", help="cpu, or numbers of this machine's GPUs")
    parser.add_argument("--dtype", choices=plan.ITEMSIZE)
    parser.add_argument("--max-len", type=int)
    parser.add_argument("--memory", type=float, default=0.9)
    for name in ("dp", "tp", "pp"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    said = parser.parse_args(argv)
    try:
        spec, remark = spec_of(said.model, said.home)
        asked = PlanRequest(said.dp, said.tp, said.pp, said.dtype, said.max_len, said.memory)
        found = advice(said.model, spec, _devices(said), asked)
    except (UserError, FileNotFoundError) as exc:
        print(json.dumps({"error": str(exc)}) if said.json else exc, file=sys.stdout if said.json else sys.stderr)
        return 2
    found = replace(found, describe_fit=found.says + remark)
    print(json.dumps(found.as_dict()) if said.json else found.says)
    return 0 if found.all_fits else 1


if __name__ == "__main__":
    sys.exit(main())
