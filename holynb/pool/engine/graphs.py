"""The step executor of a GPU: decode rows and prompt chunks go through the model as one CUDA graph, and are read back a step later.

A CUDA graph (CUDA C++ Programming Guide, "CUDA Graphs") is captured for each size at its first use; smaller batches are padded with
rows that write nothing. What a graph reads from outside lies in buffers that never move. Inside, our kernels follow each other by
programmatic dependent launch (same guide; `kernels_support.gpu.lang`): one may start before the one in front has ended.
Token ids stay on the device from one step to the next; on a pipeline every stage gets them from the last one's device, so that no
host stands between two steps. If a row is not plain (a grammar, penalties, log probabilities), the graph ends at the logits, and what
such rows need besides follows it (`apart.py`), without a graph: the host computes masks and counts at the same time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holynb.pool.engine.apart import StepScores, device_of, sample_decode, sample_prefill
from holynb.pool.engine.capture import Capture
from holynb.pool.engine.inputs import SAMPLING_FIELDS, DecodeBatch, pack_prefill, pad_last, pair_seeds
from holynb.pool.engine.mixed_batch import mixed_forward_batch
from holynb.pool.engine.model import Decoder, ForwardBatch
from holynb.pool.engine.more_groups import MoreGroups
from holynb.pool.engine.pinned import PinnedBuffers
from holynb.pool.engine.pipeline import SingleStage
from holynb.pool.engine.scores import Scores
from holynb.pool.engine.sequence import PrefillChunk, Step
from holynb.pool.engine.sizes import CHUNK_SIZES, MIXED_BATCH_SIZES, batch_sizes, sizes_up_to
from holynb.pool.fit import BatchLimits
from kernels_support.gpu.feeding import DecodeInputs, feed
from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Decode, Prefill, splits
from kernels_support.gpu.sampler import sample_into
from kernels_support.gpu.sampling import SamplingParams

__all__ = ["GraphExecutor", "StepInFlight", "sampling_params"]

#: Sets of pinned buffers: one is filled while the device may still read those of steps in flight.
MIN_HOST_BUFFERS = 12


@dataclass(slots=True)
class StepInFlight:
    """A launched step. Its tokens are at `indices` of `host` once the copy is `enqueued` and, on a GPU, the event `copied` is reached."""

    host: Tensor
    indices: list[int]
    lane: int
    scores: StepScores | None = None
    enqueued: bool = False
    copied: Any = None


class GraphExecutor:
    """Runs steps on one device, one step behind the scheduler. `capture=False` runs the same kernels without graphs, for comparison.

    `block`: tokens of a KV cache block. Its buffers have room for `limits`.
    """

    def __init__(
        self, model: Decoder, kv: Tensor, block: int, limits: BatchLimits, *, capture: bool = True, stage: SingleStage | None = None
    ) -> None:
        self.stage = stage or SingleStage()
        self.lookahead = self.stage.lookahead + 1
        self.model, self.kv, self.block, self._cache, groups = model, kv, block, model.cache_of(kv), len(model.windows)
        self.batches, self.chunks = sizes_up_to(batch_sizes(model.spec), limits.batch), sizes_up_to(CHUNK_SIZES, limits.chunk)
        self.mixed_batches = sizes_up_to(MIXED_BATCH_SIZES, limits.batch)
        self.rows, self.width = limits.batch, -(-limits.max_len // block)
        self.lanes = [DecodeBatch(limits.batch, self.width, block, 2 * limits.batch * i, groups) for i in range(self.lookahead)]
        self._allocate(limits)
        blank = {self.decode_inputs: -1, self.order: 0, self.prompt_tokens: -1, self.tiles: -1, self.last: 0, self.tokens: 0}
        self._capture = Capture(blank | self._more.blank) if capture and kv.is_cuda else None
        self._graphs: dict[tuple[int, int, bool], Callable[[], None]] = {}
        self._logits: Tensor | None = None
        self._device = device_of(kv)
        self._unreceived: deque[StepInFlight] = deque()

    def _allocate(self, limits: BatchLimits) -> None:
        """Buffers that graphs read and write, and the pinned memory that they are filled from."""
        rows, chunk, width = self.rows, limits.chunk, self.width
        self._more = MoreGroups(len(self.model.windows) - 1, rows, width, chunk, self.kv)
        ints = partial(torch.zeros, dtype=torch.int32, device=self.kv.device)
        # Sampled tokens of a step: decode rows', then prompts'.
        self.tokens = ints(2 * rows)
        # The last tokens of each lane, which its next step reads.
        self.lane_tokens = self.tokens.view(1, -1) if self.lookahead == 1 else ints(self.lookahead, 2 * rows)
        self.decode_table, self.prefill_table = ints(rows, width), ints(rows, width)
        self.decode_sampling, self.prefill_sampling = ints(SAMPLING_FIELDS, rows), ints(SAMPLING_FIELDS, rows)
        # What `feed` reads, and what it writes: ids, positions, slots, lengths, next positions.
        self.decode_inputs, self.decode_rows = ints(4 * rows), ints(5, rows)
        self.order = torch.arange(rows, dtype=torch.int32, device=self.kv.device)
        self.prompt_tokens = ints(3 * chunk)
        self.tiles, self.spans, self.last = ints(2 * (chunk // PREFILL_TILE_QUERIES + rows)), ints(3 * rows), ints(rows)
        # From the previous stage and to the next one; a whole model has neither.
        hidden_rows = 0 if self.stage.first and self.stage.last else rows + chunk
        self.hidden_in = torch.zeros(hidden_rows, self.model.spec.hidden, dtype=self.model.dtype, device=self.kv.device)
        self.hidden_out = torch.zeros_like(self.hidden_in)
        size = (
            rows * (4 + 2 * SAMPLING_FIELDS + 5)
            + 3 * chunk
            + 2 * (chunk // PREFILL_TILE_QUERIES + rows)
            + 2 * rows * width
            + self._more.size
        )
        self._pinned = PinnedBuffers(size, 2 * rows, max(MIN_HOST_BUFFERS, 2 * self.lookahead + 2), self.kv)

    def launch(self, step: Step) -> StepInFlight:
        """Start a step. `read_back` returns its tokens, in the order of `step.sampled`."""
        host, batch = self._pinned.begin_step(), self.lanes[step.lane]
        prefilled = [chunk.seq for chunk in step.prefill if chunk.samples]
        with torch.inference_mode():
            # Before this step's work, or the host would get those tokens only after it.
            self._receive(step.lane)
            # A grammar's mask is computed while the device computes, so those rows do not wait for a chunk. All stages must decide alike.
            apart = not step.prefill or not step.plain
            scores = StepScores.of(step)
            rows = self._send_decode(batch, step, self.batches if apart else self.mixed_batches) if step.decode else 0
            chunk = self._send_prefill(step.prefill) if step.prefill else 0
            if rows and apart:
                self._run(rows, 0, step, scores)
            if chunk:
                self._run(0 if apart else rows, chunk, step, scores)
            places = list(range(step.rows)) if step.guesses else batch.record_sampled(step.decode, prefilled, self.rows)
            launched = StepInFlight(host, places, step.lane, scores)
            self._unreceived.append(launched)
            if self.stage.last:
                self._receive(step.lane)
        return launched

    def read_back(self, launched: StepInFlight) -> list[int]:
        """Wait for a step and read its tokens."""
        while not launched.enqueued:
            self._enqueue_copy(self._unreceived.popleft())
        if launched.copied is not None:
            launched.copied.synchronize()
        tokens: list[int] = launched.host.numpy()[launched.indices].tolist()
        return tokens

    def scores(self, launched: StepInFlight) -> Scores | None:
        """The log probabilities of a step that was read back; None where none were asked for."""
        return None if launched.scores is None else launched.scores.read()

    def _receive(self, lane: int) -> None:
        """Bring the lane's last tokens to where its next step reads them."""
        while any(launched.lane == lane for launched in self._unreceived):
            self._enqueue_copy(self._unreceived.popleft())

    def _enqueue_copy(self, launched: StepInFlight) -> None:
        """Copy a step's tokens to its lane's buffer and from there to the host, without waiting."""
        lane_tokens = self.lane_tokens[launched.lane]
        with torch.inference_mode():
            if self.stage.last and self.lookahead > 1:
                lane_tokens.copy_(self.tokens)
            self.stage.broadcast_tokens(lane_tokens)
            launched.host.copy_(lane_tokens, non_blocking=True)
            if launched.scores is not None:
                values = launched.scores.values(lane_tokens)
                self.stage.broadcast_tokens(values)
                launched.scores.host = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
                launched.scores.host.copy_(values, non_blocking=True)
        launched.enqueued = True
        if self.kv.is_cuda:
            launched.copied = torch.cuda.Event()
            launched.copied.record()

    def reset(self) -> None:
        """After a failed step: take all state from the host again."""
        for batch in self.lanes:
            batch.reset()

    def warm(self) -> int:
        """Capture every size now instead of at its first use. Returns the number of graphs."""
        pairs = [(b, 0) for b in self.batches] + [(b, c) for b in (0, *self.mixed_batches) for c in self.chunks]
        for rows, chunk in sorted(pairs, key=sum, reverse=True):
            self.graph(rows, chunk)
        return len(self._graphs)

    def _send_decode(self, batch: DecodeBatch, step: Step, sizes: Sequence[int]) -> int:
        """Send the decode rows' inputs. Returns the captured size that they run as."""
        n = step.rows
        size = sizes[bisect_left(sizes, n)]
        fresh = batch.fill_guesses(step.decode, step.guesses) if step.guesses else batch.fill(step.decode, mixed=step.mixed)
        # All lanes share the buffers: with several, another lane's rows may be there.
        if fresh or self.lookahead > 1:
            batch.sampling[:3, n:] = 0
            self._pinned.send_table(batch.table[:n, : batch.columns], self.decode_table)
            self._more.send_tables(self._pinned, batch, n)
            self._pinned.send(pair_seeds(batch.sampling), self.decode_sampling)
            self._pinned.send(batch.order, self.order)
        batch.inputs[:, n:size] = -1
        self._pinned.send(batch.inputs[:, :size], self.decode_inputs)
        self._more.send_blocks(self._pinned, batch, size)
        return size

    def _send_prefill(self, chunks: list[PrefillChunk]) -> int:
        """Send the prompt chunks' inputs. Returns the captured size that they run as."""
        batch = pack_prefill(chunks, self.block, PREFILL_TILE_QUERIES)
        tokens = batch.tokens.shape[1]
        size = self.chunks[bisect_left(self.chunks, tokens)]
        prompts = min(self.rows, size)
        self._pinned.send(pad_last(batch.tokens, size, -1), self.prompt_tokens)
        self._pinned.send(pad_last(batch.tiles.T, size // PREFILL_TILE_QUERIES + prompts, -1).T, self.tiles)
        self._pinned.send(batch.spans, self.spans)
        self._pinned.send(pad_last(batch.last[None], prompts, 0), self.last)
        self._pinned.send(pair_seeds(pad_last(batch.sampling, self.rows, 0)), self.prefill_sampling)
        self._pinned.send_table(batch.table, self.prefill_table)
        self._more.send_prefill(self._pinned, batch, size)
        return size

    def _run(self, rows: int, chunk: int, step: Step, scores: StepScores | None) -> None:
        """Receive hidden states, replay a graph, send hidden states. Rows that are not plain are sampled after it, by themselves."""
        seqs = (c.seq for c in step.prefill) if chunk else step.decode
        plain = step.plain or not self.stage.last or all(s.plain for s in seqs)
        graph, size = self.graph(rows, chunk, sample=plain), rows + chunk
        self.stage.receive_hidden(size, self.hidden_in[:size])
        with self.stage.timed():
            graph()
        if not self.stage.last:
            # A copy: the next step writes to the buffer, and this send may still be pending.
            self.stage.send_hidden(self.hidden_out[:size].clone())
        if plain or self._logits is None:
            return
        if rows:
            params, into = self._decode_sampler(rows)
            tokens = sample_decode(self._logits, step.decode, params, self._device, scores)
        else:
            params, into = self._prefill_sampler(chunk)
            tokens = sample_prefill(self._logits, step, params, self._device, scores)
        into[: len(tokens)].copy_(tokens)

    def _decode_sampler(self, rows: int) -> tuple[SamplingParams, Tensor]:
        """The sampling parameters of a decode batch, and where its tokens go."""
        return sampling_params(self.decode_sampling, self.decode_rows[4], rows), self.tokens[:rows]

    def _prefill_sampler(self, chunk: int) -> tuple[SamplingParams, Tensor]:
        """The sampling parameters of a prefill's prompts, and where their tokens go."""
        prompts = min(self.rows, chunk)
        return sampling_params(self.prefill_sampling, self.prefill_sampling[3], prompts), self.tokens[self.rows : self.rows + prompts]

    def graph(self, rows: int, chunk: int = 0, *, sample: bool = True) -> Callable[[], None]:
        """The graph of `rows` decode rows, a `chunk` of prompt tokens, or both (0: none). `sample` False: it ends at the logits."""
        key = rows, chunk, sample
        if key not in self._graphs:
            if not sample and self._logits is None:
                self._logits = torch.empty(self.rows, self.model.spec.vocab, dtype=self.model.dtype, device=self.kv.device)
            work = partial(self._work, rows, chunk, sample=sample)
            self._graphs[key] = work if self._capture is None else self._capture(work)
        return self._graphs[key]

    def _work(self, rows: int, chunk: int, *, sample: bool = True) -> None:
        """What is captured: from token ids to sampled tokens, logits or hidden states for the next stage."""
        if rows and chunk:
            batch = mixed_forward_batch(self._decode_pass(rows), self._prefill_pass(chunk))
        else:
            batch = self._decode_pass(rows) if rows else self._prefill_pass(chunk)
        output = self.model.forward(batch, self._cache, self.hidden_in[: rows + chunk])
        if not self.stage.last:
            self.hidden_out[: rows + chunk].copy_(output)
        elif sample:
            if rows:
                sample_into(output[:rows], *self._decode_sampler(rows))
            if chunk:
                sample_into(output[rows:], *self._prefill_sampler(chunk))
        elif self._logits is not None:
            self._logits[: output.shape[0]].copy_(output)

    def _decode_pass(self, rows: int) -> ForwardBatch:
        """The last token of each decode row, computed on the device from `decode_inputs`."""
        inputs, table = self.decode_inputs[: 4 * rows].view(4, rows), self.decode_table[:rows]
        ids, positions, slots, lengths, next_positions = (row[:rows] for row in self.decode_rows)
        feed(DecodeInputs(inputs, self.lane_tokens.view(-1), table, ids, positions, slots, lengths, next_positions, self.block))
        attend = Decode(table, lengths, self.block, splits(rows, self.kv.shape[2]), self.order[:rows])
        return ForwardBatch(ids, positions, slots, attend, others=self._more.decode(inputs, attend))

    def _prefill_pass(self, chunk: int) -> ForwardBatch:
        """Prompt tokens; those at `last` are sampled."""
        prompts = min(self.rows, chunk)
        ids, positions, slots = self.prompt_tokens[: 3 * chunk].view(3, chunk)
        tiles = self.tiles[: 2 * (chunk // PREFILL_TILE_QUERIES + prompts)].view(-1, 2)
        attend = Prefill(self.prefill_table[:prompts], tiles, self.spans.view(-1, 3), self.block)
        # Padding has the id and position -1: clamped, because only its slot (-1: not written) tells it apart.
        others = self._more.prefill(chunk, attend)
        return ForwardBatch(ids.clamp(min=0), positions.clamp(min=0), slots, attend, self.last[:prompts], others=others)


def sampling_params(sampling: Tensor, position: Tensor, rows: int) -> SamplingParams:
    """The first `rows` of `sampling` (SAMPLING_FIELDS, any) int32, as `inputs.pair_seeds` returns it, reinterpreted without a copy."""
    seeds = sampling[4:6].view(-1).view(torch.int64)
    return SamplingParams(
        sampling[0].view(torch.float32)[:rows], sampling[2][:rows], sampling[1].view(torch.float32)[:rows], seeds[:rows], position[:rows]
    )
