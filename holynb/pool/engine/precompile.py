"""Precompilation: the Triton kernels that the engine will launch, recorded over meta tensors and compiled while the weights load.

Triton compiles a kernel at its first launch, one after the other, and a first token waits for a dozen of them. Nothing depends on this
module: a kernel that is not compiled yet when it is launched is compiled then.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from holynb.pool.engine.expert_shapes import layer_experts
from holynb.pool.engine.graphs import sampling_params
from holynb.pool.engine.inputs import SAMPLING_FIELDS
from holynb.pool.engine.meta_matrices import meta_fp8, meta_int4, meta_packed
from holynb.pool.engine.model import Attend, norm_for
from holynb.pool.engine.sizes import CHUNK_SIZES, MIXED_BATCH_SIZES, batch_sizes, sizes_up_to
from holynb.pool.fit import BatchLimits, Mesh, Shard, Spec, cache_groups, cpus
from holynb.pool.fit.experts import ExpertLayers
from holynb.pool.fit.groups import GroupQuantization
from kernels_support.gpu import dense, experts, fp8, gemm_small_m, int4, packed
from kernels_support.gpu.allreduce_norm import FLAG_COUNT, Peers, allreduce_rms_norm
from kernels_support.gpu.attention import AttentionKind
from kernels_support.gpu.feeding import DecodeInputs, feed
from kernels_support.gpu.feeding_groups import GroupInputs, feed_groups
from kernels_support.gpu.gelu_mul import gelu_mul
from kernels_support.gpu.lang import Launch, record_launches, triton
from kernels_support.gpu.norms import Joining
from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Decode, MixedBatch, Prefill, splits
from kernels_support.gpu.quantize_fp8 import FP8, Quantized
from kernels_support.gpu.rotary import Heads, rotate_and_store
from kernels_support.gpu.sampler import sample_into

__all__ = ["Precompiler", "begin", "launches"]

#: Four take a little over half the time of one, for half of Triton is Python.
_THREADS = 4

_MAX_WAIT_S = 60.0

#: Blocks of the meta KV cache: enough that Triton specializes its strides as it will a real one's.
_META_BLOCKS = 1024


class Precompiler:
    """Compiles for `device` (cuda:N) in the background: what the first token needs in several threads, then the rest in one.

    `record` returns both lists, as `launches` does; that, too, is done in the background.
    """

    def __init__(self, record: Callable[[], tuple[list[Launch], list[Launch]]], device: str) -> None:
        self._pool = ThreadPoolExecutor(min(_THREADS, cpus()), "holynb-compile", initializer=_use_device, initargs=(device,))
        self._first: list[Future[None]] = []
        self._recorded = self._pool.submit(self._begin, record)

    @property
    def done(self) -> bool:
        """Whether the first token's kernels are compiled, or cannot be."""
        return self._recorded.done() and all(f.done() for f in self._first)

    def wait(self) -> None:
        """Block until the first token's kernels are compiled, for `_MAX_WAIT_S` at most. Failures are logged; the launch raises them."""
        wait([self._recorded], _MAX_WAIT_S)
        wait(self._first, _MAX_WAIT_S)

    def _begin(self, record: Callable[[], tuple[list[Launch], list[Launch]]]) -> None:
        try:
            first, later = record()
            triton.runtime.driver.active.get_current_target()  # initialized here: several threads must not do it at a time
        except Exception:  # noqa: BLE001 - the first launches raise it again, in the thread that can say so
            traceback.print_exc()
            first, later = [], []
        # All launches of a kernel in one thread: Triton creates a kernel's cache when it first compiles it.
        groups = [list(group) for _, group in groupby(sorted(first, key=_name), _name)]
        with suppress(RuntimeError):  # the process is about to end
            self._first = [self._pool.submit(_compile, group, load=True) for group in groups]
            self._pool.submit(_compile, later, load=False)
        self._pool.shutdown(wait=False)


def begin(  # noqa: PLR0917 - what a rank is made of
    spec: Spec, mesh: Mesh, limits: BatchLimits, block: int, dtype: torch.dtype, device: str
) -> Precompiler:
    """Start to compile what this rank will launch, in the background."""
    return Precompiler(partial(launches, spec, mesh, limits, block, dtype), device)


def _use_device(device: str) -> None:
    torch.cuda.set_device(device)


def launches(spec: Spec, mesh: Mesh, limits: BatchLimits, block: int, dtype: torch.dtype) -> tuple[list[Launch], list[Launch]]:
    """The distinct specializations that a rank launches for its first token, and those it launches besides when batches grow."""
    model = _MetaModel(spec, mesh, limits, block, dtype)
    batches, chunks = sizes_up_to(batch_sizes(spec), limits.batch), sizes_up_to(CHUNK_SIZES, limits.chunk)
    mixed_batches = sizes_up_to(MIXED_BATCH_SIZES, limits.batch)
    with record_launches() as recorded:
        for chunk in chunks:
            model.step(0, chunk)
        model.step(batches[0], 0)
        count = len(recorded)
        for rows, chunk in [(b, 0) for b in batches] + [(b, c) for b in mixed_batches for c in chunks]:
            model.step(rows, chunk)
    return list(recorded.values())[:count], list(recorded.values())[count:]


def _compile(recorded: Iterable[Launch], *, load: bool) -> None:
    for launch in recorded:
        try:
            launch.compile(load=load)
        except Exception:  # noqa: BLE001 - the kernel's own launch will raise it again; the others can still be compiled
            traceback.print_exc()


def _name(launch: Launch) -> str:
    return str(launch.kernel.__name__)


class _MetaModel:
    """A rank's shard of a model as its kernels see it: shapes, types and strides, one layer for all. Only our own kernels.

    `GraphExecutor` over a `Decoder` on torch's meta device would do the same; but torch's first addition there takes a second.
    """

    def __init__(self, spec: Spec, mesh: Mesh, limits: BatchLimits, block: int, dtype: torch.dtype) -> None:
        self._spec, self._mesh, self._limits, self._block = spec, mesh, limits, block
        self._shard = mesh.shard(spec)
        self._grouped = isinstance(spec.quantization, GroupQuantization) and not spec.quantization.widened
        self._new = partial(torch.empty, dtype=dtype, device="meta")
        self._ints = partial(torch.empty, dtype=torch.int32, device="meta")
        self._peers = Peers(torch.empty(mesh.tensor, dtype=torch.int64, device="meta"), mesh.tensor_rank, mesh.tensor)
        finer = torch.float32 if spec.exact_norms or spec.norm_offset else dtype
        self._norm = partial(torch.empty, dtype=finer, device="meta")
        norm = self._norm(spec.head_dim) if spec.qk_norm == "head" else None
        kv_heads = _width(self._shard.kv_heads)
        scales = torch.empty(2, kv_heads, dtype=torch.float32, device="meta") if spec.kv_fp8 else None
        self._heads = Heads(_width(self._shard.heads), kv_heads, spec.head_dim, norm, norm, spec.eps, scales, spec.rotary or None)
        out, sinks = meta_fp8(spec, spec.hidden, self._heads.heads * spec.head_dim), self._new(self._heads.heads) if spec.sinks else None
        self._kinds = _attention_kinds(spec, self._shard, limits.max_len, sinks, out is not None and out.by_row)
        shape = 2, kv_heads, _META_BLOCKS * block, spec.head_dim
        self._kv = torch.empty(shape, dtype=FP8 if spec.kv_fp8 else dtype, device="meta")
        self._columns, self._more = -(-limits.max_len // block), len(cache_groups(spec, mesh, limits.max_len).windows) - 1

    def step(self, rows: int, chunk: int) -> None:
        """Launch the kernels of a batch of `rows`, a `chunk` of prompt tokens, or both (0: none)."""
        slots, decode = self._decode(rows) if rows else (None, None)
        prompts = min(self._limits.batch, chunk)
        prefill = Prefill(
            self._ints(prompts, self._columns),
            self._ints(chunk // PREFILL_TILE_QUERIES + prompts, 2),
            self._ints(self._limits.batch, 3),
            self._block,
        )
        attend = prefill if decode is None else MixedBatch(decode, prefill) if chunk else decode
        output = self._layers(rows + chunk, self._ints(chunk) if slots is None or chunk else slots, attend)
        self._head(output, rows, prompts)

    def _decode(self, rows: int) -> tuple[Tensor, Decode]:
        ints, table = self._ints, self._ints(rows, self._columns)
        ids, positions, slots, lengths, next_positions = (row[:rows] for row in ints(5, self._limits.batch))
        feed(DecodeInputs(ints(4, rows), ints(2 * self._limits.batch), table, ids, positions, slots, lengths, next_positions, self._block))
        if more := self._more:
            feed_groups(
                GroupInputs(
                    ints(4, rows),
                    ints(more, rows),
                    ints(more, self._limits.batch, self._columns),
                    ints(more, self._limits.batch),
                    self._block,
                )
            )
        return slots, Decode(table, lengths, self._block, splits(rows, self._heads.kv), ints(rows))

    def _layers(self, rows: int, slots: Tensor, attend: Attend) -> Tensor:
        """The first layer, without a residual yet, and one that stands for all others. Returns the partial sum for the norm after it."""
        spec, heads, new = self._spec, self._heads, self._new
        keys, values = self._kv
        stream, wide = new(rows, spec.hidden), (heads.heads + 2 * heads.kv) * heads.size
        part, adds_bias = stream, self._shard.adds_bias
        kinds = {spec.experts_of(i) for i in range(*self._shard.layers)}
        for residual, own in itertools.product((None, stream), sorted(kinds, key=lambda kind: kind is not None)):
            # Another stage's output is a whole sum.
            normed = self._add_norm(part, residual, wide, whole=residual is None and not self._shard.has_embedding)
            self._linear(normed, wide, biased=spec.qkv_bias)
            rope = torch.empty(rows, spec.rotary or heads.size, device="meta")
            for kind, rotated in self._kinds:
                layout = heads if rotated else replace(heads, rotary=0)
                q = rotate_and_store(new(rows, wide), layout, rope, slots, keys, values)
                attended = attend(q, keys, values, heads.kv_scales, kind)
            attended = attended if isinstance(attended, Quantized) else attended.view(rows, -1)
            output = self._linear(attended, spec.hidden, biased=spec.out_bias and adds_bias, row_parallel=True)
            if own is not None:
                part = self._experts(self._add_norm(output, stream, 0, "mlp_norm"), own)
                continue
            product = self._gated(self._add_norm(output, stream, 2 * _width(self._shard.inner), "mlp_norm"))
            part = self._linear(product, spec.hidden, biased=spec.mlp_bias and adds_bias, row_parallel=True)
        return part

    def _head(self, part: Tensor, *counts: int) -> None:
        """Logits of all rows, then one sampling of each count of them."""
        if not self._shard.has_head:
            return
        rows, ints = sum(counts), self._ints
        x = self._new(rows, self._spec.hidden)
        self._add_norm(part.new_empty(*part.shape[:-2], rows, self._spec.hidden), x, 0)
        self._linear(x, _width(self._shard.vocab), biased=False, plain=not self._grouped)
        for count in filter(None, counts):
            sample_into(
                self._new(count, self._spec.vocab),
                sampling_params(ints(SAMPLING_FIELDS, self._limits.batch), ints(count), count),
                ints(count),
            )

    def _add_norm(self, x: Tensor, residual: Tensor | None, columns: int, role: str = "norm", *, whole: bool = False) -> Tensor | Quantized:
        """The norm for a matrix of so many rows (0: the head's)."""
        spec, eps, names = self._spec, self._spec.eps, self._spec.layer_norms
        weight = self._norm(spec.hidden) if not columns or role in names else None
        joins = residual is not None and ("out_norm" if role == "mlp_norm" else "down_norm") in names
        way = Joining(self._norm(spec.hidden) if joins else None, 1.0 if residual is None else spec.residual_scale)
        if whole or self._mesh.tensor == 1 or x.shape[0] > self._limits.batch or weight is None or not way.plain:
            return norm_for(x, residual, weight, eps, meta_fp8(self._spec, columns, spec.hidden) if columns else None, way)[0]
        return allreduce_rms_norm(x, 4 * FLAG_COUNT, self._peers, residual, weight, eps)[0]

    def _linear(self, x: Tensor | Quantized, columns: int, *, biased: bool, row_parallel: bool = False, plain: bool = False) -> Tensor:
        """As `dense.linear`, or with `row_parallel` as `Collectives.row_parallel_linear`."""
        rows, width = x.values.shape if isinstance(x, Quantized) else x.shape
        weight, bias = self._new(columns, width), self._new(columns) if biased else None
        if not plain and (eight := meta_fp8(self._spec, columns, width)):
            return fp8.linear(x, eight, bias, split_k=row_parallel and self._mesh.tensor == 1)
        if isinstance(x, Quantized):
            raise TypeError("eight bits for a matrix that has more")
        if not plain and self._grouped:
            matrix, parts = meta_packed(self._spec, columns, width), row_parallel and self._mesh.tensor == 1
            return self._new(rows, columns) if matrix is None else packed.linear(x, matrix, bias, split_k=parts)
        if not plain and (four := meta_int4(self._spec, columns, width)):
            return int4.linear(x, four, bias, split_k=row_parallel and self._mesh.tensor == 1)
        return (dense.linear_split_k if row_parallel and self._mesh.tensor == 1 else dense.linear)(x, weight, bias)

    def _experts(self, x: Tensor | Quantized, layout: ExpertLayers) -> Tensor:
        """As `Collectives.experts`; of a GGUF file none but MXFP4, as of its other matrices."""
        x, count = dense.plain(x), layout.count
        own = layer_experts(self._spec, layout, _width(self._shard.expert_inner), self._new, adds_bias=self._shard.adds_bias)
        if (tiles := experts.router_tiles(x, count)) is None:
            logits = self._linear(x, count, biased=layout.biases, plain=True)
        else:
            logits = gemm_small_m.launch(x, own.router, own.router_bias, tiles)
        part = x if self._grouped and not layout.mxfp4 else experts.launch(x, logits, own, self._ints(count))
        return part if self._mesh.tensor == 1 else self._new(*x.shape)

    def _gated(self, x: Tensor | Quantized) -> Tensor | Quantized:
        """As `dense.swiglu`."""
        columns, hidden = 2 * _width(self._shard.inner), self._spec.hidden
        weight, bias = self._new(columns, hidden), self._new(columns) if self._spec.mlp_bias else None
        if self._spec.act != "silu":
            return gelu_mul(self._linear(x, columns, biased=self._spec.mlp_bias))
        if eight := meta_fp8(self._spec, columns, hidden):
            return fp8.swiglu(x, eight, bias, meta_fp8(self._spec, hidden, columns // 2))
        if not isinstance(x, Quantized) and (four := meta_int4(self._spec, columns, hidden)):
            return int4.swiglu(x, four, bias)
        if not isinstance(x, Quantized) and self._grouped:
            matrix = meta_packed(self._spec, columns, hidden)
            return self._new(x.shape[0], columns // 2) if matrix is None else packed.swiglu(x, matrix, bias)
        return dense.swiglu(x, weight, bias)


def _attention_kinds(
    spec: Spec,
    shard: Shard,
    max_len: int,
    sinks: Tensor | None,
    eights: bool,
) -> list[tuple[AttentionKind, bool]]:
    """The kinds of attention of this rank's layers, each once, and whether it has rotary positions."""
    kinds = []
    for i in range(*shard.layers):
        window = spec.windows[i] if spec.windows and spec.windows[i] < max_len else 0
        kind = AttentionKind(spec.attention_scale or None, spec.attention_cap, window, sinks, eights)
        kinds.append((kind, not spec.rotated or spec.rotated[i]))
    return list(dict.fromkeys(kinds))


def _width(span: tuple[int, int]) -> int:
    return span[1] - span[0]
