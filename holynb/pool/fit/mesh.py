"""Which rank holds what: stages of layers, slices of heads, columns and vocabulary. Numbers only; knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from holynb.errors import UserError
from holynb.pool.fit.experts import ExpertLayers
from holynb.pool.fit.groups import GROUP
from holynb.pool.fit.quantization import BLOCK, Quantization
from holynb.pool.fit.spec import Spec

__all__ = ["Mesh", "Shard", "check_divisible", "stage_layers", "tensor_sizes"]

#: Tokens in the cache of a batch that stages are balanced for: 64 rows of 512.
STEP_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class Shard:
    """A rank's share: half-open ranges of layers, heads, KV heads, MLP columns, vocabulary, each expert's columns; which ends it has."""

    layers: tuple[int, int]
    heads: tuple[int, int]
    kv_heads: tuple[int, int]
    inner: tuple[int, int]
    vocab: tuple[int, int]
    expert_inner: tuple[int, int] = (0, 0)
    has_embedding: bool = True
    has_head: bool = True
    adds_bias: bool = True
    """One rank of a tensor group adds the biases of row-parallel products, so that the sum has them once."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """One replica's ranks: `tensor` × `pipe`, and which one this is. Neighbours in a tensor group have neighbouring ranks."""

    tensor: int = 1
    pipe: int = 1
    rank: int = 0
    micro: int = 0
    """Batches in flight; 0: as many as stages."""
    address: str = ""
    """Where the ranks meet, as torch.distributed takes it: tcp://127.0.0.1:PORT or file:///PATH."""

    @property
    def size(self) -> int:
        return self.tensor * self.pipe

    @property
    def tensor_rank(self) -> int:
        """This rank's place in its tensor group."""
        return self.rank % self.tensor

    @property
    def stage(self) -> int:
        """This rank's place in the pipeline."""
        return self.rank // self.tensor

    @property
    def lanes(self) -> int:
        """Batches in flight."""
        return max(self.micro, self.pipe)

    def shard(self, spec: Spec) -> Shard:
        """What of `spec` this rank holds. Raises UserError with the sizes that work."""
        check_divisible(spec, self.tensor, self.pipe)
        t, i = self.tensor, self.tensor_rank
        layers = stage_layers(spec, self.pipe)[self.stage]
        kv = (i * spec.kv_heads // t, (i + 1) * spec.kv_heads // t) if spec.kv_heads % t == 0 else (i * spec.kv_heads // t,) * 2
        if kv[0] == kv[1]:
            kv = (kv[0], kv[0] + 1)
        return Shard(
            layers=layers,
            heads=(i * spec.heads // t, (i + 1) * spec.heads // t),
            kv_heads=kv,
            inner=(i * spec.inner // t, (i + 1) * spec.inner // t),
            vocab=_vocab(spec.vocab, t, i),
            expert_inner=(0, 0) if spec.experts is None else _expert_columns(spec.experts, t, i),
            has_embedding=self.stage == 0,
            has_head=self.stage == self.pipe - 1,
            adds_bias=i == 0,
        )


def _expert_columns(experts: ExpertLayers, parts: int, i: int) -> tuple[int, int]:
    """Shares as equal as the blocks allow that an expert's columns are cut in."""
    blocks = experts.inner // experts.unit
    return i * blocks // parts * experts.unit, (i + 1) * blocks // parts * experts.unit


def _vocab(vocab: int, parts: int, i: int) -> tuple[int, int]:
    """Equal shares, the last one shorter where it must be: gathering wants equal ones, so callers pad to `ceil`."""
    share = -(-vocab // parts)
    return min(i * share, vocab), min((i + 1) * share, vocab)


def tensor_sizes(spec: Spec) -> list[int]:
    """The tensor-parallel sizes that cut this model evenly; KV heads are copied where there are fewer than ranks."""
    return [
        t
        for t in range(1, spec.heads + 1)
        if spec.heads % t == 0
        and not any(columns % (t * _indivisible(spec, t)) for columns in _mlp_columns(spec))
        and (spec.experts is None or t <= spec.experts.inner // spec.experts.unit)
        and (spec.kv_heads % t == 0 or t % spec.kv_heads == 0)
    ]


def _indivisible(spec: Spec, parts: int) -> int:
    """Columns of an MLP that stay together: those that share a scale."""
    how = spec.quantization
    return {"block": BLOCK, "group": GROUP}.get(how.weights, 1) if parts > 1 and isinstance(how, Quantization) else 1


def _mlp_columns(spec: Spec) -> list[int]:
    """Columns that must be cut evenly: of a whole MLP, of an expert that is not cut in blocks."""
    if spec.experts is None:
        return [spec.inner]
    return [spec.inner] * bool(spec.experts.dense) + [spec.experts.inner] * (spec.experts.unit == 1)


def check_divisible(spec: Spec, tensor: int, pipe: int) -> None:
    """Raises UserError where the model cannot be cut so."""
    if tensor not in tensor_sizes(spec):
        sizes = ", ".join(map(str, tensor_sizes(spec)))
        columns = " and ".join(map(str, _mlp_columns(spec)))
        blocks = f" in blocks of {BLOCK}" if _indivisible(spec, tensor) > 1 else ""
        what = f"{spec.heads} heads, {spec.kv_heads} KV heads and {columns} MLP columns{blocks}"
        raise UserError(f"{what} do not divide by --tp {tensor}. For this model --tp can be {sizes}.")
    if not 1 <= pipe <= spec.layers:
        raise UserError(f"{spec.layers} layers do not make {pipe} stages. --pp can be 1 to {spec.layers}.")


def stage_layers(spec: Spec, pipe: int) -> list[tuple[int, int]]:
    """Layers of each stage, so that the one that reads most in a step reads least: its weights, and of each layer a batch's cache.

    The head is read without a cache. By weights alone it counted as 3.2 layers of 8B, and took as long as 2.1 (one H200, 128 rows).
    """
    cache, whole = STEP_TOKENS * 2 * spec.kv_heads * spec.head_dim, () if spec.experts is None else spec.experts.dense
    # All layers but those that are whole beside experts are alike: a plan asks for many divisions of hundreds of them.
    alike = next((i for i in range(spec.layers) if i not in whole), 0)
    layers = [spec.weights_of(alike) + cache] * spec.layers
    for i in whole:
        layers[i] = spec.weights_of(i) + cache
    layers[-1] += spec.vocab * spec.hidden
    return list(_split(tuple(layers), pipe))


@lru_cache(maxsize=256)
def _split(costs: tuple[int, ...], parts: int) -> list[tuple[int, int]]:
    """Contiguous parts with the smallest maximum (by bisection on it), each with at least one item."""
    low, high = max(costs), sum(costs)
    while low < high:
        middle = (low + high) // 2
        if len(_greedy(costs, middle, parts)) <= parts:
            high = middle
        else:
            low = middle + 1
    return _greedy(costs, low, parts)


def _greedy(costs: Sequence[int], most: int, parts: int) -> list[tuple[int, int]]:
    """Fill each part up to `most`, but leave one item for each part still to come."""
    stages: list[tuple[int, int]] = []
    start = total = 0
    for i, cost in enumerate(costs):
        left = parts - len(stages) - 1
        if i > start and (total + cost > most or len(costs) - i <= left):
            stages.append((start, i))
            start, total = i, 0
        total += cost
    return [*stages, (start, len(costs))]
