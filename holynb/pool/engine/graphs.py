"""A step on a GPU: decode rows and prompt chunks go through the model together, as one captured graph, fed with integers, read back a step later.

A graph is captured for each size when it is first wanted; smaller work is padded with rows that write nothing. Everything a
graph reads from outside lies in buffers that never move. Token ids stay on the device from one step to the next; on a pipeline they
come back to every stage from the last one's device, so that no host stands between two steps.
Where a row has a grammar, the graph ends at the logits: the host finds out what the row may say while the device computes them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holynb.pool.engine.capture import Capture
from holynb.pool.engine.constrained import masks
from holynb.pool.engine.inputs import SAMPLING, DecodeBatch, pack, padded, paired
from holynb.pool.engine.model import Decoder, Pass
from holynb.pool.engine.pinned import Pinned
from holynb.pool.engine.pipeline import Alone
from holynb.pool.engine.sequence import PrefillChunk, Seq, Step
from holynb.pool.fit import BatchLimits
from kernels_support.gpu.feeding import DecodeInputs, feed
from kernels_support.gpu.masking import mask
from kernels_support.gpu.paged import PREFILL_TILE_QUERIES, Decode, MixedBatch, Prefill, splits
from kernels_support.gpu.sampler import sample_into
from kernels_support.gpu.sampling import SamplingParams

__all__ = ["BATCHES", "BESIDE", "CHUNKS", "Graphs", "StepInFlight", "below", "choice"]

#: Sizes that are captured; a batch takes the next larger one.
BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256)
CHUNKS = (64, 256, 1024, 2048, 4096, 8192)

#: Sizes of a batch that goes through the model beside a chunk. Few: padding costs next to nothing there, and there is a graph for each pair.
BESIDE = (16, 64, 256)

#: Host buffers in turn: one is being filled while steps under way may still be read.
TURNS = 12


@dataclass(slots=True)
class StepInFlight:
    """A step under way: where its tokens will be, whether they are on their way there, and what says that they are."""

    host: Tensor
    places: list[int]
    lane: int
    coming: bool = False
    done: Any = None


class Graphs:
    """Runs steps on one device, one behind the scheduler. `capture=False` runs the same kernels one by one, for comparison."""

    def __init__(
        self, model: Decoder, kv: Tensor, block: int, limits: BatchLimits, *, capture: bool = True, stage: Alone | None = None
    ) -> None:
        self.stage = stage or Alone()
        self.ahead = self.stage.ahead + 1
        self.model, self.kv, self.block = model, kv, block
        self.batches, self.chunks = (below(s, most) for s, most in ((BATCHES, limits.batch), (CHUNKS, limits.chunk)))
        self.beside = below(BESIDE, limits.batch)
        self.rows, self.width = limits.batch, -(-limits.max_len // block)
        # A batch for each step that a pipeline has under way.
        self.lanes = [DecodeBatch(limits.batch, self.width, block, first=2 * limits.batch * i) for i in range(self.ahead)]
        self._buffers(limits)
        blank = {self.said: -1, self.order: 0, self.chunk: -1, self.tiles: -1, self.last: 0, self.tokens: 0}
        self._capture = Capture(blank) if capture and kv.is_cuda else None
        self._graphs: dict[tuple[int, int, bool], Callable[[], None]] = {}
        self._logits: Tensor | None = None
        self._owed: deque[StepInFlight] = deque()

    def _buffers(self, limits: BatchLimits) -> None:
        """Memory that graphs read and write, and pinned memory that feeds it."""
        rows, chunk, width = self.rows, limits.chunk, self.width
        ints = partial(torch.zeros, dtype=torch.int32, device=self.kv.device)
        self.tokens = ints(2 * rows)
        # What each lane said last, for its next step to read.
        self.kept = self.tokens.view(1, -1) if self.ahead == 1 else ints(self.ahead, 2 * rows)
        self.table, self.prompts = ints(rows, width), ints(rows, width)
        self.said, self.how, self.how_prompts = ints(4 * rows), ints(SAMPLING, rows), ints(SAMPLING, rows)
        self.made = ints(5, rows)
        self.order = torch.arange(rows, dtype=torch.int32, device=self.kv.device)
        self.chunk = ints(3 * chunk)
        self.tiles, self.spans, self.last = ints(2 * (chunk // PREFILL_TILE_QUERIES + rows)), ints(3 * rows), ints(rows)
        # What comes in from the stage before and goes out to the next; a whole model has neither.
        many = 0 if self.stage.first and self.stage.last else rows + chunk
        wide = torch.zeros(many, self.model.spec.hidden, dtype=self.kv.dtype, device=self.kv.device)
        self.hidden_in, self.hidden_out = wide, torch.zeros_like(wide)
        size = rows * (4 + 2 * SAMPLING + 5) + 3 * chunk + 2 * (chunk // PREFILL_TILE_QUERIES + rows) + 2 * rows * width
        self._host = Pinned(size, 2 * rows, max(TURNS, 2 * self.ahead + 2), self.kv)

    def launch(self, step: Step) -> StepInFlight:
        """Start a step. Its tokens come, in the order of `step.sampled`, from `land`."""
        back, lanes = self._host.turn(), self.lanes[step.lane]
        sampled = [r.seq for r in step.prefill if r.samples]
        with torch.inference_mode():
            # Before this step's work, or the host would hear of the tokens only after it.
            self._receive(step.lane)
            # What a grammar allows is found out while the device computes, so those rows are not kept waiting for a chunk. Every stage must see it alike.
            apart = not step.prefill or any(s.job.grammar is not None for s in step.sampled)
            rows = self._send_decode(lanes, step, self.batches if apart else self.beside) if step.decode else 0
            chunk = self._send_prompts(step.prefill) if step.prefill else 0
            if rows and apart:
                self._run(rows, 0, step.decode)
            if chunk:
                self._run(0 if apart else rows, chunk, sampled)
            flight = StepInFlight(back, lanes.sampled(step.decode, sampled, self.rows), step.lane)
            self._owed.append(flight)
            if self.stage.last:
                self._receive(step.lane)
        return flight

    def land(self, flight: StepInFlight) -> list[int]:
        """Wait for a step and read its tokens."""
        while not flight.coming:
            self._take(self._owed.popleft())
        if flight.done is not None:
            flight.done.synchronize()
        found: list[int] = flight.host.numpy()[flight.places].tolist()
        return found

    def _receive(self, lane: int) -> None:
        """See to it that the lane's last tokens are where its next step reads them."""
        while any(f.lane == lane for f in self._owed):
            self._take(self._owed.popleft())

    def _take(self, flight: StepInFlight) -> None:
        """A step's tokens, where they lie on the device and on their way to the host."""
        kept = self.kept[flight.lane]
        with torch.inference_mode():
            if self.stage.last and self.ahead > 1:
                kept.copy_(self.tokens)
            self.stage.ids(kept)
            flight.host.copy_(kept, non_blocking=True)
        flight.coming = True
        if self.kv.is_cuda:
            flight.done = torch.cuda.Event()
            flight.done.record()

    def forget(self) -> None:
        """A step failed: begin anew from what the host knows."""
        for lanes in self.lanes:
            lanes.forget()

    def warm(self) -> int:
        """Capture every size now instead of when first wanted. Returns how many there are."""
        pairs = [(b, 0) for b in self.batches] + [(b, c) for b in (0, *self.beside) for c in self.chunks]
        for rows, chunk in sorted(pairs, key=sum, reverse=True):
            self.graph(rows, chunk)
        return len(self._graphs)

    def _send_decode(self, lanes: DecodeBatch, step: Step, sizes: Sequence[int]) -> int:
        """What the rows that decode need to know. Returns the size of batch they run as."""
        n = len(step.decode)
        size = sizes[bisect_left(sizes, n)]
        # The buffers are one lane's at a time.
        if lanes.decode(step.decode, mixed=step.mixed) or self.ahead > 1:
            lanes.how[:3, n:] = 0
            self._host.send_table(lanes.table[:n, : lanes.used], self.table)
            self._host.send(paired(lanes.how), self.how)
            self._host.send(lanes.order, self.order)
        lanes.said[:, n:size] = -1
        self._host.send(lanes.said[:, :size], self.said)
        return size

    def _send_prompts(self, rows: list[PrefillChunk]) -> int:
        """What a chunk's prompts need to know. Returns the size of chunk they run as."""
        chunk = pack(rows, self.block, PREFILL_TILE_QUERIES)
        tokens = chunk.tokens.shape[1]
        size = self.chunks[bisect_left(self.chunks, tokens)]
        many = min(self.rows, size)
        self._host.send(padded(chunk.tokens, size, -1), self.chunk)
        self._host.send(padded(chunk.tiles.T, size // PREFILL_TILE_QUERIES + many, -1).T, self.tiles)
        self._host.send(chunk.spans, self.spans)
        self._host.send(padded(chunk.last[None], many, 0), self.last)
        self._host.send(paired(padded(chunk.how, self.rows, 0)), self.how_prompts)
        self._host.send_table(chunk.table, self.prompts)
        return size

    def _run(self, rows: int, chunk: int, seqs: list[Seq]) -> None:
        """One graph, with what comes in before it and goes out after it. `seqs` are sampled; where one has a grammar there is only a batch or only a chunk."""
        constrained = self.stage.last and any(s.constraint is not None for s in seqs)
        graph, size = self.graph(rows, chunk, sample=not constrained), rows + chunk
        self.stage.before(size, self.hidden_in[:size])
        with self.stage.working():
            graph()
        if not self.stage.last:
            # A copy: the buffer is the next step's too, and the one before may still be on its way.
            self.stage.after(self.hidden_out[:size].clone())
        if constrained and rows:
            self._constrained(seqs, choice(self.how, self.made[4], rows), self.tokens[:rows])
        elif constrained:
            many = min(self.rows, chunk)
            self._constrained(seqs, choice(self.how_prompts, self.how_prompts[3], many), self.tokens[self.rows : self.rows + many])

    def _constrained(self, seqs: list[Seq], how: SamplingParams, tokens: Tensor) -> None:
        """Sample logits that lie ready, where some rows may not say everything. The device computes while the masks are made."""
        assert self._logits is not None  # noqa: S101 - a graph has just written them
        lanes = [i for i, s in enumerate(seqs) if s.constraint is not None]
        words = masks([seqs[i] for i in lanes])
        logits = self._logits[: len(tokens)]
        mask(logits, self._sent(np.array(lanes, np.int32)), self._sent(words))
        sample_into(logits, how, tokens)

    def _sent(self, values: np.ndarray[Any, Any]) -> Tensor:
        """A tensor of its own on the device. torch keeps the pinned copy until the device has read it."""
        host = torch.from_numpy(values)
        return host.pin_memory().to(self.kv.device, non_blocking=True) if self.kv.is_cuda else host

    def graph(self, rows: int, chunk: int = 0, *, sample: bool = True) -> Callable[[], None]:
        """The captured work of a batch of `rows`, a `chunk` of prompt tokens, or both (0: none of it). `sample` False: it ends at the logits."""
        key = rows, chunk, sample
        if key not in self._graphs:
            if not sample and self._logits is None:
                self._logits = torch.empty(self.rows, self.model.spec.vocab, dtype=self.kv.dtype, device=self.kv.device)
            work = partial(self._work, rows, chunk, sample=sample)
            self._graphs[key] = work if self._capture is None else self._capture(work)
        return self._graphs[key]

    def _work(self, rows: int, chunk: int, *, sample: bool = True) -> None:
        """What is captured: embed to tokens, logits or the next stage's hidden states."""
        if rows and chunk:
            part = joined(self._decoding(rows), self._prompts(chunk))
        else:
            part = self._decoding(rows) if rows else self._prompts(chunk)
        made = self.model.forward(part, self.kv, self.hidden_in[: rows + chunk])
        if not self.stage.last:
            self.hidden_out[: rows + chunk].copy_(made)
        elif sample:
            if rows:
                sample_into(made[:rows], choice(self.how, self.made[4], rows), self.tokens[:rows])
            if chunk:
                many = min(self.rows, chunk)
                sample_into(made[rows:], choice(self.how_prompts, self.how_prompts[3], many), self.tokens[self.rows : self.rows + many])
        elif self._logits is not None:
            self._logits[: made.shape[0]].copy_(made)

    def _decoding(self, rows: int) -> Pass:
        """The last token of each row, as the device has it."""
        said, table = self.said[: 4 * rows].view(4, rows), self.table[:rows]
        ids, positions, slots, lengths, following = (row[:rows] for row in self.made)
        feed(DecodeInputs(said, self.kept.view(-1), table, ids, positions, slots, lengths, following, self.block))
        parts = splits(rows, self.kv.shape[2])
        return Pass(ids, positions, slots, Decode(table, lengths, self.block, parts, self.order[:rows]))

    def _prompts(self, chunk: int) -> Pass:
        """Prompt tokens, of which a few are sampled from."""
        many = min(self.rows, chunk)
        ids, positions, slots = self.chunk[: 3 * chunk].view(3, chunk)
        tiles = self.tiles[: 2 * (chunk // PREFILL_TILE_QUERIES + many)].view(-1, 2)
        attend = Prefill(self.prompts[:many], tiles, self.spans.view(-1, 3), self.block)
        # Padding has the id and position -1: clamped, because only its slot (-1: not written) tells it apart.
        return Pass(ids.clamp(min=0), positions.clamp(min=0), slots, attend, self.last[:many])


def below(sizes: Sequence[int], most: int) -> list[int]:
    """The sizes up to `most`, which is always one of them."""
    return [s for s in sizes if s < most] + [most]


def joined(decode: Pass, prompts: Pass) -> Pass:
    """Both as one pass: every row of the batch is sampled from, then those of the chunk that are."""
    assert isinstance(decode.attend, Decode) and isinstance(prompts.attend, Prefill) and prompts.last is not None  # noqa: S101, PT018 - for the type checker
    rows = decode.ids.shape[0]
    first = torch.arange(rows, dtype=torch.int32, device=decode.ids.device)
    return Pass(
        torch.cat((decode.ids, prompts.ids)),
        torch.cat((decode.positions, prompts.positions)),
        torch.cat((decode.slots, prompts.slots)),
        MixedBatch(decode.attend, prompts.attend),
        torch.cat((first, prompts.last + rows)),
    )


def choice(how: Tensor, position: Tensor, rows: int) -> SamplingParams:
    """The first `rows` of `how` (SAMPLING, any) int32, as `holynb.pool.engine.inputs` makes it, read as what it stands for."""
    seeds = how[4:6].view(-1).view(torch.int64)
    return SamplingParams(
        how[0].view(torch.float32)[:rows], how[2][:rows], how[1].view(torch.float32)[:rows], seeds[:rows], position[:rows]
    )
