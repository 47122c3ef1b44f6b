"""How a model could be started here, in words and as data: which dp, tp, pp and dtype fit, and which is best. No torch, loads nothing.

`python -m holynb.pool.advice MODEL [--gpus 4x24GB] [--json]`. MODEL is a word of `pool start`, or a size such as 70B or 1.76T.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from holynb import units
from holynb.errors import UserError
from holynb.pool.fit import (
    BatchLimits,
    Device,
    Fit,
    Mesh,
    Spec,
    best_dtype,
    check_divisible,
    describe_fit,
    flags,
    free_gpu_memory,
    gpu_has_fp8,
    gpu_memory,
    memory,
    parse_spec,
    plan,
    read_spec,
    would_fit,
)
from holynb.pool.fit.cards import parse_gpus
from holynb.pool.fit.fp8_units import check_units
from holynb.pool.fit.known import known_config, misspelt, quantized_as, unknown, with_organisation
from holynb.pool.fit.quantization import parse_quantization
from holynb.pool.fit.row_length import own_context
from holynb.pool.models import embedded
from holynb.pool.models.weights import WeightsError, local_folder

__all__ = ["Advice", "advice", "check_dtype", "fetched_first", "main", "spec_of"]

#: Most ways to start a model that are listed.
_MAX_FITS = 8

#: Sizes of dense models that people run, in parameters.
_COMMON_SIZES = ("0.6B", "1.7B", "4B", "8B", "14B", "32B", "70B", "123B", "405B")


#: What people call four bits a weight.
_FOUR_BITS = {"int4", "fp4", "nf4", "mxfp4", "nvfp4", "4bit", "q4"}


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the user asks for: sizes that must be so (0: any), the dtype (None: any), the longest sequence, the share of memory.

    `named`: the devices are of the user's naming, not those that are here.
    """

    dp: int = 0
    tp: int = 0
    pp: int = 0
    dtype: str | None = None
    max_len: int | None = None
    share: float = plan.SHARE
    named: bool = True

    @property
    def sizes(self) -> dict[str, int]:
        """Those that are asked for."""
        return {name: n for name, n in (("dp", self.dp), ("tp", self.tp), ("pp", self.pp)) if n}

    def allows(self, fit: Fit) -> bool:
        return all(getattr(fit, name) == wanted for name, wanted in self.sizes.items())


@dataclass(frozen=True, slots=True)
class Advice:
    """`summary` is one line; `fits` are the ways that fit, the best first. `memory`: bytes of one device; None on a CPU."""

    model: str
    devices: str
    summary: str
    fits: tuple[Fit, ...]
    memory: int | None = None

    def as_dict(self) -> dict[str, Any]:
        ways = [asdict(w) | {"flags": flags(w).strip()} for w in self.fits]
        return {
            "model": self.model,
            "devices": self.devices,
            "memory": self.memory,
            "says": self.summary,
            "best": ways[0] if ways else None,
            "ways": ways,
        }


def advice(model: str, spec: Spec, device: Device, request: PlanRequest) -> Advice:
    """Every way that fits the request. Raises UserError if the model cannot be divided so."""
    check_divisible(spec, request.tp or 1, request.pp or 1)
    limits = plan.limits_of(spec, cpu=device.cpu, max_len=request.max_len)
    own = request.dtype or best_dtype(spec, cpu=device.cpu)
    check_units(spec, device, own)
    if (needed := prod(request.sizes.values())) > device.count and not device.cpu:
        return Advice(
            model, str(device), f"{model} {_too_many(needed, device, request)}.{_instead(spec, device, own, limits, request)}", ()
        )
    fits = _fits(spec, device, own, limits, request)
    for other in () if request.dtype or device.cpu else plan.ITEMSIZE:
        if plan.ITEMSIZE[other] != plan.itemsize_of(own, cpu=device.cpu) and other not in ("float16", "fp8", "int8"):
            fits += _fits(spec, device, other, limits, request)[:1]
    if fits:
        line = f"{model} {describe_fit(spec, device, fits[0], fits[0].dtype, limits)}.{own_context(spec, request.max_len)}"
        memory_each = None if device.cpu else device.memory
        return Advice(model, str(device), line + _faster(spec, device, fits[0], limits, request), tuple(fits[:_MAX_FITS]), memory_each)
    # Those whose cache is too small for the rows that are asked for: what the best of them lacks is said.
    short = [replace(f, fits=False) for f in _fits(spec, device, own, replace(limits, firm=False), request)]
    line = f"{model} {describe_fit(spec, device, short[0] if short else None, own, limits, share=request.share)}."
    line += own_context(spec, request.max_len)
    if plan.best_fit(spec, device, own, limits, request.share) is None:
        line += _largest(device, own, request)
    return Advice(model, str(device), line, ())


def _too_many(needed: int, device: Device, request: PlanRequest) -> str:
    """Why no way is looked for where more devices are asked for than there are."""
    words = " ".join(f"--{name} {n}" for name, n in request.sizes.items() if n > 1)
    there = "is" if device.count == 1 else "are"
    return f"does not fit on {device}: {words} needs {needed} devices, and {device.count} {there} {'named' if request.named else 'here'}"


def _instead(spec: Spec, device: Device, dtype: str, limits: BatchLimits, request: PlanRequest) -> str:
    would = would_fit(spec, device, dtype, limits, request.share)
    return f" It would fit {would}." if would else ""


def _fits(spec: Spec, device: Device, dtype: str, limits: BatchLimits, request: PlanRequest) -> list[Fit]:
    """Those that fit, best first: as many devices used as can be, then as many replicas."""
    fits = plan.all_fits(spec, device, dtype, limits, request.share)
    if request.dp:
        # Fewer replicas than there is room for are fine if the user wants so.
        fits = [replace(f, dp=request.dp) for f in fits if f.dp >= request.dp]
    return sorted((f for f in fits if request.allows(f)), key=plan.preference, reverse=True)


def _faster(spec: Spec, device: Device, fit: Fit, limits: BatchLimits, request: PlanRequest) -> str:
    """Where a pipeline was asked for and its devices could share each layer instead: that, as a sentence."""
    if device.cpu or fit.pp == 1:
        return ""
    others = plan.all_fits(spec, device, fit.dtype, limits, request.share)
    if not any(f.pp == 1 and f.tp == fit.tp * fit.pp for f in others):
        return ""
    return f" --tp {fit.tp * fit.pp} answers faster where the devices are linked (NVLink): a pipeline reads its weights once for each batch in flight."


def _largest(device: Device, dtype: str, request: PlanRequest) -> str:
    """What these devices could run instead."""
    for size in reversed(_COMMON_SIZES):
        spec = plan.spec_of_size(size)
        if plan.best_fit(spec, device, dtype, plan.limits_of(spec, cpu=device.cpu, max_len=request.max_len), request.share):
            return f" About {size} is the most that fits on {device} in {dtype}."
    return ""


def fetched_first(spec: Spec) -> str:
    """What the time to be ready leaves out of a model whose files are not here."""
    item = plan.itemsize_of(best_dtype(spec, cpu=False), cpu=False)
    return (
        f" The time is for files on this disk: first about {units.memory(plan.weights_bytes(spec, Mesh().shard(spec), item))} are fetched."
    )


def spec_of(word: str, home: Path) -> tuple[Spec, str]:
    """The sizes of MODEL, read where they can be without fetching, and a remark where they are a guess. Raises UserError."""
    try:
        folder = local_folder(word, home)
    except WeightsError:
        folder = Path(word).expanduser()  # a folder without weights is enough for a plan
    downloaded = home / "models" / word.replace("/", "--")
    if folder is None and (downloaded / "config.json").is_file():
        folder = downloaded
    if folder is not None:
        return read_spec(folder), ""
    path = Path(word).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _of_gguf(path), ""
    if word == embedded.NAME:
        return replace(plan.spec_of_size("135M"), max_len=8192), ""
    return _by_name(word)


def _by_name(word: str) -> tuple[Spec, str]:
    """A size, or a hub id whose files are not here: by its shape where that is known, else by the size in its name. Raises UserError."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", word):
        if not re.fullmatch(r"[\d.]+\s*[MBT]", word.strip(), re.IGNORECASE):
            raise UserError(unknown(word, embedded.NAME))
        return plan.spec_of_size(word), ""
    if (known := known_config(word)) is not None:
        return parse_spec(known[1]), f" Judged by the known shape of {known[0]}; once its files are here, by them."
    size = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?[MBT])(?![a-z])", word, re.IGNORECASE)
    if not size:
        raise UserError(unknown(word, embedded.NAME))
    files = quantized_as(word)
    spec = replace(plan.spec_of_size(size[-1]), quantization=parse_quantization({"quantization_config": files}))
    real = "a dense model of that size is assumed; a folder with its config.json alone gives the real figures"
    return spec, f"{misspelt(word)} Judged by the {size[-1]} in its name: {real}."


def check_dtype(dtype: str | None) -> None:
    """Raises UserError for one that is not known."""
    if dtype not in (None, *plan.ITEMSIZE):
        four = " Four bits come with a model's files: take its AWQ, GPTQ or GGUF ones." if dtype in _FOUR_BITS else ""
        raise UserError(f"--dtype takes {', '.join(plan.ITEMSIZE)}, not {dtype}.{four}")


def _of_gguf(path: Path) -> Spec:
    from holynb.pool.models.convert import ConvertError, config_of

    try:
        return parse_spec(config_of(path))
    except ConvertError as exc:
        raise UserError(str(exc)) from exc


def _devices(args: argparse.Namespace) -> Device:
    """The devices of the plan: named by their memory, or those of this machine."""
    if args.gpus:
        return parse_gpus(args.gpus)
    free = free_gpu_memory() if args.devices is None else []
    names = [f"cuda:{n}" for n in range(len(free))]
    if args.devices and args.devices != "cpu":
        words = [w.strip().removeprefix("cuda:") for w in args.devices.split(",")]
        if not all(w.isdigit() for w in words):
            raise UserError(f"--devices takes cpu or numbers of GPUs such as 0 or 0,1, not {args.devices!r}.")
        names = [f"cuda:{word}" for word in words]
        for word in words:
            size = gpu_memory(f"cuda:{word}")
            if size is None:
                raise UserError(f"The memory of GPU {word} cannot be asked for; name it with --gpus, such as --gpus 1x24GB.")
            free.append(size)
    if free:
        return Device(len(free), min(free), fp8=all(map(gpu_has_fp8, names)))
    ranks = (args.dp or 1) * (args.tp or 1) * (args.pp or 1)
    return Device(ranks, memory.device_memory("cpu").free // ranks, cpu=True)


def main(argv: list[str] | None = None) -> int:
    """The command line: prints lines, or one JSON object. 0 fits, 1 does not, 2 is a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.advice", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--gpus", help="devices and their memory, such as 4x24GB (default: this machine's)")
    parser.add_argument("--devices", help="cpu, or numbers of this machine's GPUs")
    parser.add_argument("--dtype", help=", ".join(plan.ITEMSIZE))
    parser.add_argument("--kv")
    parser.add_argument("--max-len", type=int)
    parser.add_argument("--memory", type=float, default=plan.SHARE)
    for name in ("dp", "tp", "pp"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        check_dtype(args.dtype)
        model = with_organisation(args.model)
        spec, remark = spec_of(model, args.home)
        spec = plan.with_kv(spec, args.kv)
        named = bool(args.gpus or args.devices)
        request = PlanRequest(args.dp, args.tp, args.pp, args.dtype, args.max_len, args.memory, named=named)
        result = advice(model, spec, _devices(args), request)
    except (UserError, FileNotFoundError) as exc:
        print(json.dumps({"error": str(exc)}) if args.json else exc, file=sys.stdout if args.json else sys.stderr)
        return 2
    result = replace(result, summary=result.summary + (fetched_first(spec) if remark and result.fits else "") + remark)
    print(json.dumps(result.as_dict()) if args.json else result.summary)
    return 0 if result.fits else 1


if __name__ == "__main__":
    sys.exit(main())
