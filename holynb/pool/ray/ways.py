"""How a model could lie in a cluster: which dp, tp and pp fit its nodes and their memory, which replica lies where, what is left. No Ray.

Sizes that are 0 in the config are chosen here. What is free now decides; what others use is not planned with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from holynb import units
from holynb.errors import UserError
from holynb.pool.fit import Device, Fit, Mesh, Spec, best_dtype, check_divisible, describe_fit, flags, plan
from holynb.pool.fit.cards import has_fp8
from holynb.pool.fit.fp8_units import check_units
from holynb.pool.fit.mesh import tensor_sizes
from holynb.pool.fit.row_length import own_context, too_short
from holynb.pool.ray.config import RayConfig
from holynb.pool.ray.placement import ClusterNode, Places, counted, lay, strategy, why_not

__all__ = ["cluster_plan"]

#: Most ways that are listed, most stages of a pipeline, most GPUs that a layer lies on.
_MAX_WAYS, _MAX_PP, _MAX_TP = 8, 11, 8
#: Most ranks of a pool.
_MAX_RANKS = 64


def cluster_plan(model: str, spec: Spec, cluster: Sequence[ClusterNode], config: RayConfig) -> dict[str, Any]:
    """What fits where, in a sentence and as data. Raises UserError where the model cannot be divided so, or there is nothing to divide."""
    check_divisible(spec, config.tp or 1, config.pp or 1)
    hosts = [n for n in cluster if (n.gpus if config.gpu else n.cpus)]
    if not hosts:
        raise UserError(f"The cluster has no node with {'GPUs' if config.gpu else 'CPUs'}.")
    if config.gpu and any(n.gpu_memory is None for n in hosts):
        raise UserError("The cluster does not say how much memory its GPUs have. Name it: --gpus 80GB")
    config = replace(config, dtype=config.dtype or best_dtype(spec, cpu=not config.gpu))
    check_units(spec, Device(1, 0, cpu=not config.gpu, fp8=_have_fp8(hosts)), str(config.dtype))
    ways, shown = _ways(spec, hosts, config), _shown(hosts, gpu=config.gpu)
    chosen, would = _at(config, config.dp[0] or 1, config.tp or 1, config.pp or 1), None
    if ways:
        chosen = _at(config, ways[0].dp, ways[0].tp, ways[0].pp)
        says = f"{model} {_says(spec, hosts, chosen, ways[0])}.".replace("these GPUs", shown, 1)
    else:
        would = _would(spec, hosts, config)
        division = "" if _is_open(config) else f" as {chosen.flags}"
        says = f"{model} does not fit on {shown}{division} in {config.dtype}: {_missing(spec, hosts, config, chosen)}."
        says += f" It would fit {would[0]}." if would else ""
    says += own_context(spec, config.max_len)
    places = lay(chosen, hosts, 0 if _is_open(config) and not ways else None)
    listed = [asdict(way) | {"flags": flags(way).strip()} for way in ways[:_MAX_WAYS]]
    return {
        "model": model,
        "on": config.address,
        "devices": shown,
        "says": says,
        "best": listed[0] if listed else None,
        "ways": listed,
        "would": would[1] if would else None,
        "strategy": strategy(chosen),
        "wanted": chosen.dp[0],
        "nodes": [_node(n, places) for n in hosts],
        "replicas": [[next(n.address for n in hosts if n.id == node) for node in stages] for stages in places.replicas],
        "why": why_not(chosen, hosts),
    }


def _at(config: RayConfig, dp: int, tp: int, pp: int) -> RayConfig:
    return replace(config, dp=(dp, dp), tp=tp, pp=pp)


def _ways(spec: Spec, hosts: Sequence[ClusterNode], config: RayConfig) -> list[Fit]:
    """Those that are asked for and fit what is free, the best first."""
    ways = []
    for tp, pp in _sizes(spec, hosts, config):
        # On CPUs, which threads of one replica fill, one a node where no number is asked for.
        wanted = config.dp[0] or (_MAX_RANKS // (tp * pp) if config.gpu else len(hosts))
        most = len(lay(_at(config, 1, tp, pp), hosts, wanted).replicas)
        if most and most >= config.dp[0] and (way := _fit(spec, hosts, _at(config, most, tp, pp))).fits:
            ways.append(way)
    return sorted(ways, key=plan.preference, reverse=True)


def _sizes(spec: Spec, hosts: Sequence[ClusterNode], config: RayConfig) -> Iterator[tuple[int, int]]:
    """Of tp and pp, those that are asked for, or all that these nodes could hold; on CPUs one of each, which is the fastest."""
    if not config.gpu:
        yield config.tp or 1, config.pp or 1
        return
    widest, total = int(max(n.gpus for n in hosts)), int(sum(n.gpus for n in hosts))
    for tp in [config.tp] if config.tp else [t for t in tensor_sizes(spec) if t <= min(widest, _MAX_TP)]:
        most = min(_MAX_PP, spec.layers, max(1, total // tp))
        yield from ((tp, pp) for pp in ([config.pp] if config.pp else range(1, most + 1)))


def _fit(spec: Spec, hosts: Sequence[ClusterNode], config: RayConfig) -> Fit:
    """How a replica lies on its devices: of the GPU with the least memory, or of the CPU that most ranks share."""
    limits = plan.limits_of(spec, cpu=not config.gpu, max_len=config.max_len)
    device = _device(hosts, config)
    way = plan.fit(spec, device, Mesh(config.tp, config.pp), str(config.dtype), limits, share=config.memory)
    return replace(way, dp=config.dp[0])


def _device(hosts: Sequence[ClusterNode], config: RayConfig) -> Device:
    if config.gpu:
        return Device(config.size, min(n.gpu_memory or 0 for n in hosts), fp8=_have_fp8(hosts))
    ranks = Counter(node for stages in lay(config, hosts).replicas for node in stages for _ in range(config.tp))
    shares = [n.memory // max(1, ranks[n.id]) for n in hosts if n.memory is not None]
    return Device(config.size, min(shares, default=0), cpu=True)


def _have_fp8(hosts: Sequence[ClusterNode]) -> bool:
    return all(has_fp8(n.kind) for n in hosts if n.gpus)


def _says(spec: Spec, hosts: Sequence[ClusterNode], config: RayConfig, way: Fit) -> str:
    """How it fits, and how its replicas lie; of its devices it says `these GPUs`."""
    limits, device = plan.limits_of(spec, cpu=not config.gpu, max_len=config.max_len), _device(hosts, config)
    how = describe_fit(spec, device, way, str(config.dtype), limits).replace(f"on {device}", "on these GPUs", 1)
    laid = lay(config, hosts).replicas
    across = sum(len(set(stages)) > 1 for stages in laid)
    used = len({node for stages in laid for node in stages})
    few = "" if across == len(laid) == 1 else "each " if across in (0, len(laid)) else f"{across} of them "
    how_laid = f"{few}{f'across nodes ({strategy(config)})' if across else 'on one node'}"
    return f"{how}; {counted(len(laid), 'replica')} on {counted(used, 'node')}, {how_laid}"


def _is_open(config: RayConfig) -> bool:
    """Whether any dp, tp and pp will do."""
    return not (config.dp[0] or config.tp or config.pp)


def _missing(spec: Spec, hosts: Sequence[ClusterNode], config: RayConfig, chosen: RayConfig) -> str:
    """Why it does not fit: there is no place, or the places are too small."""
    if (why := why_not(chosen, hosts)) is not None:
        return why
    way, device = _fit(spec, hosts, chosen), _device(hosts, chosen)
    if short := too_short(way, plan.limits_of(spec, cpu=not config.gpu, max_len=config.max_len)):
        return short
    whole = plan.weights_bytes(plan.started(spec, way.dtype, cpu=device.cpu), Mesh().shard(spec), plan.ITEMSIZE[way.dtype], cpu=device.cpu)
    if _is_open(config) and config.gpu:
        total = sum((n.gpu_memory or 0) * n.gpus for n in hosts)
        return f"the weights are {units.memory(whole)}, and its GPUs have {units.memory(total)}"
    part = f", {units.memory(way.weights)} of them" if chosen.size > 1 else ""
    where = f"a GPU of {units.memory(device.memory)}" if config.gpu else f"a rank whose share of its node is {units.memory(device.memory)}"
    cache = ", where keys, values and work have no room beside them" if way.weights < device.memory else ""
    return f"the weights are {units.memory(whole)}{part} on {where}{cache}"


def _would(spec: Spec, hosts: Sequence[ClusterNode], config: RayConfig) -> tuple[str, str | None] | None:
    """The nearest that fits, in words and as flags: fewer replicas of these sizes, others, a smaller dtype; None where nothing does.

    Files of four bits are another model's: of them there are only words.
    """
    smaller = plan.smaller_dtypes(spec, str(config.dtype), fp8=_have_fp8(hosts))
    tries = [replace(config, dp=(0, 0)), _at(config, 0, 0, 0)]
    tries += [_at(replace(config, dtype=dtype), 0, 0, 0) for dtype in smaller if config.gpu]
    for one in tries:
        if ways := _ways(spec, hosts, one):
            way, best = flags(ways[0]).strip(), ways[0]
            words = f"as {way}" if way else "as one replica on one device"
            return (words, way) if best.dtype == config.dtype else (f"in {best.dtype}, {words}", f"{way} --dtype {best.dtype}".strip())
    four = plan.in_four_bits(spec) if config.gpu else None
    if four and (ways := _ways(four, hosts, _at(replace(config, dtype="bfloat16"), 0, 0, 0))):
        return f"in four bits (files of AWQ or GPTQ), as {flags(ways[0]).strip() or 'one replica on one device'}", None
    return None


def _shown(hosts: Sequence[ClusterNode], *, gpu: bool) -> str:
    """`2 nodes of 4x H100 80GB`, `3 nodes of 8 CPUs`; of unlike nodes each kind."""
    kinds = Counter(_kind(n, gpu=gpu) for n in hosts)
    return " and ".join(f"{counted(many, 'node')} of {kind}" for kind, many in kinds.items())


def _kind(node: ClusterNode, *, gpu: bool) -> str:
    if not gpu:
        return counted(int(node.cpus), "CPU")
    size = "" if node.gpu_memory is None else f"{node.gpu_memory / 1e9:.0f}GB"
    return f"{node.gpus:g}x {' '.join(filter(None, [node.kind, size])) or 'GPU'}"


def _node(node: ClusterNode, places: Places) -> dict[str, Any]:
    """A node as data: what it has, what is free, the stages of replicas that go there, and what is left then."""
    (free_cpus, free_gpus), (cpus, gpus) = node.free or (node.cpus, node.gpus), places.left[node.id]
    holds = [
        {"replica": number, "stages": [s for s, where in enumerate(stages) if where == node.id], "divided": len(set(stages)) > 1}
        for number, stages in enumerate(places.replicas)
        if node.id in stages
    ]
    return {
        "address": node.address,
        "kind": node.kind or None,
        "gpus": node.gpus,
        "gpu_memory": node.gpu_memory,
        "cpus": node.cpus,
        "memory": node.memory,
        "free_cpus": free_cpus,
        "free_gpus": free_gpus,
        "replicas": holds,
        "left_cpus": cpus,
        "left_gpus": gpus,
    }
