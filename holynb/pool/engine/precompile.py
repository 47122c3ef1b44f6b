"""What the engine will launch on a GPU, compiled by a few threads while the weights load: its kernels are noted over tensors that are not there.

Triton compiles a kernel when it is first started, one after the other, and a first token waits for a dozen of them. Nothing depends on what is done
here: a kernel that is not there when it is started is compiled then.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from holynb.pool.engine.graphs import BATCHES, BESIDE, CHUNKS, below, choice
from holynb.pool.engine.inputs import SAMPLING
from holynb.pool.engine.model import Attend
from holynb.pool.fit import BatchLimits, Mesh, Spec, cpus
from kernels_support.gpu import dense, gemm_small_m, gemv
from kernels_support.gpu.allreduce_norm import FLAG_COUNT, Peers, allreduce_rms_norm
from kernels_support.gpu.feeding import DecodeInputs, feed
from kernels_support.gpu.lang import Launch, record_launches, triton
from kernels_support.gpu.norms import add_rms_norm
from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Decode, MixedBatch, Prefill, splits
from kernels_support.gpu.rotary import Heads, rotate_and_store
from kernels_support.gpu.sampler import sample_into
from kernels_support.gpu.silu_mul import silu_mul

__all__ = ["Precompiler", "launches"]

#: Threads that compile. Four take a little over half the time of one, for half of Triton is Python.
_THREADS = 4

#: Seconds to wait for them.
_PATIENCE = 60.0

#: Blocks of a cache that is not there: enough that Triton sees its strides as it will see a real one's.
_BLOCKS = 1024


class Precompiler:
    """Compiles for `device` (cuda:N) from now on: what the first token needs by several threads, then the rest by one."""

    def __init__(self, noted: tuple[list[Launch], list[Launch]], device: str) -> None:
        first, later = noted
        triton.runtime.driver.active.get_current_target()  # made once, and not by several threads at a time
        pool = ThreadPoolExecutor(min(_THREADS, cpus()), "holynb-compile", initializer=torch.cuda.set_device, initargs=(device,))
        # All of one kernel by one thread: Triton makes a kernel's cache when it first compiles it.
        self._first = [pool.submit(_compile, list(group), load=True) for _, group in groupby(sorted(first, key=_name), _name)]
        pool.submit(_compile, later, load=False)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Until what the first token needs is there. What could not be compiled is said in the log, and again where it is started."""
        wait(self._first, _PATIENCE)


def launches(spec: Spec, mesh: Mesh, limits: BatchLimits, block: int, dtype: torch.dtype) -> tuple[list[Launch], list[Launch]]:
    """What a rank of this mesh starts for its first token, and what it starts besides when batches grow; each that compiles differently once."""
    part = _Part(spec, mesh, limits, block, dtype)
    batches, beside, chunks = below(BATCHES, limits.batch), below(BESIDE, limits.batch), below(CHUNKS, limits.chunk)
    with record_launches() as noted:
        for chunk in chunks:
            part.step(0, chunk)
        part.step(batches[0], 0)
        count = len(noted)
        for rows, chunk in [(b, 0) for b in batches] + [(b, c) for b in beside for c in chunks]:
            part.step(rows, chunk)
    return list(noted.values())[:count], list(noted.values())[count:]


def _compile(these: Iterable[Launch], *, load: bool) -> None:
    for launch in these:
        try:
            launch.compile(load=load)
        except Exception:  # noqa: BLE001 - whatever it is, it will be said again by whoever needs the kernel; the others can still be made
            traceback.print_exc()


def _name(launch: Launch) -> str:
    return str(launch.kernel.__name__)


class _Part:
    """A rank's share of a model as its kernels see it: shapes, types and places in memory, one layer for all. What is not a kernel of ours is left out.

    `Graphs` over a `Decoder` on torch's meta device would do the same; it takes torch a second to learn how to add there.
    """

    def __init__(self, spec: Spec, mesh: Mesh, limits: BatchLimits, block: int, dtype: torch.dtype) -> None:
        self._spec, self._mesh, self._limits, self._block = spec, mesh, limits, block
        self._cut = mesh.cut(spec)
        self._new = partial(torch.empty, dtype=dtype, device="meta")
        self._ints = partial(torch.empty, dtype=torch.int32, device="meta")
        self._peers = Peers(torch.empty(mesh.tensor, dtype=torch.int64, device="meta"), mesh.slice, mesh.tensor)
        norm = self._new(spec.head_dim) if spec.qk_norm else None
        self._heads = Heads(_width(self._cut.heads), _width(self._cut.kv_heads), spec.head_dim, norm, norm, spec.eps)
        self._kv = self._new(2, self._heads.kv, _BLOCKS * block, spec.head_dim)
        self._columns = -(-limits.max_len // block)

    def step(self, rows: int, chunk: int) -> None:
        """A batch of `rows`, a `chunk` of prompt tokens, or both (0: none of it)."""
        slots, decode = self._decoding(rows) if rows else (None, None)
        many = min(self._limits.batch, chunk)
        prefill = Prefill(
            self._ints(many, self._columns),
            self._ints(chunk // PREFILL_TILE_QUERIES + many, 2),
            self._ints(self._limits.batch, 3),
            self._block,
        )
        attend = prefill if decode is None else MixedBatch(decode, prefill) if chunk else decode
        came = self._layers(rows + chunk, self._ints(chunk) if slots is None or chunk else slots, attend)
        self._head(came, rows, many)

    def _decoding(self, rows: int) -> tuple[Tensor, Decode]:
        ints, table = self._ints, self._ints(rows, self._columns)
        ids, positions, slots, lengths, following = (row[:rows] for row in ints(5, self._limits.batch))
        feed(DecodeInputs(ints(4, rows), ints(2 * self._limits.batch), table, ids, positions, slots, lengths, following, self._block))
        return slots, Decode(table, lengths, self._block, splits(rows, self._heads.kv), ints(rows))

    def _layers(self, rows: int, slots: Tensor, attend: Attend) -> Tensor:
        """The first layer, whose stream begins, and one like all the others. What it leaves for the norm after it."""
        spec, heads, new = self._spec, self._heads, self._new
        keys, values = self._kv
        stream, wide = new(rows, spec.hidden), (heads.heads + 2 * heads.kv) * heads.size
        came, lead = stream, self._cut.lead
        for residual in (None, stream):
            # What another stage hands on is whole.
            self._add_norm(came, residual, whole=residual is None and not self._cut.embeds)
            self._product(stream, wide, biased=spec.qkv_bias)
            q = rotate_and_store(new(rows, wide), heads, torch.empty(rows, heads.size, device="meta"), slots, keys, values)
            attended = attend(q, keys, values).view(rows, -1)
            self._add_norm(self._product(attended, spec.hidden, biased=spec.out_bias and lead, summed=True), stream)
            came = self._product(self._gated(stream), spec.hidden, biased=spec.mlp_bias and lead, summed=True)
        return came

    def _head(self, came: Tensor, *parts: int) -> None:
        """Logits of all, then each part's own sampling."""
        if not self._cut.ends:
            return
        rows, ints = sum(parts), self._ints
        x = self._new(rows, self._spec.hidden)
        self._add_norm(came.new_empty(*came.shape[:-2], rows, self._spec.hidden), x)
        self._product(x, _width(self._cut.vocab), biased=False)
        for count in filter(None, parts):
            sample_into(self._new(count, self._spec.vocab), choice(ints(SAMPLING, self._limits.batch), ints(count), count), ints(count))

    def _add_norm(self, x: Tensor, residual: Tensor | None, *, whole: bool = False) -> None:
        weight, eps = self._new(self._spec.hidden), self._spec.eps
        if whole or self._mesh.tensor == 1 or x.shape[0] > self._limits.batch:
            add_rms_norm(x, residual, weight, eps)
        else:
            allreduce_rms_norm(x, 4 * FLAG_COUNT, self._peers, residual, weight, eps)

    def _product(self, x: Tensor, columns: int, *, biased: bool, summed: bool = False) -> Tensor:
        """As `dense.linear`, or with `summed` as a rank's `product`."""
        weight, bias = self._new(columns, x.shape[1]), self._new(columns) if biased else None
        if how := dense.small_m_tiles(x, weight, split_k=summed and self._mesh.tensor == 1):
            return gemm_small_m.launch(x, weight, bias, how)
        return gemv.launch(x, weight, bias) if dense.takes_gemv(x, weight) else self._new(x.shape[0], columns)

    def _gated(self, x: Tensor) -> Tensor:
        """As `dense.swiglu`."""
        columns = 2 * _width(self._cut.inner)
        weight, bias = self._new(columns, x.shape[1]), self._new(columns) if self._spec.mlp_bias else None
        how = dense.small_m_tiles(x, weight, gated=True)
        if how is not None:
            return gemm_small_m.launch(x, weight, bias, how, gated=True)
        return silu_mul(self._product(x, columns, biased=self._spec.mlp_bias))


def _width(span: tuple[int, int]) -> int:
    return span[1] - span[0]
