"""A step on a GPU: decode rows and prompt chunks each as one captured graph, fed with integers, read back a step later.

A graph is captured for each size when it is first wanted; smaller work is padded with rows that write nothing. Everything a
graph reads from outside lies in buffers that never move. Token ids stay on the device from one step to the next; on a pipeline they
come back to every stage from the last one's device, so that no host stands between two steps.
Where a row has a grammar, the graph ends at the logits: the host finds out what the row may say while the device computes them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holynb.pool.guide import masks
from holynb.pool.job import Limits, Row, Seq, Step
from holynb.pool.lanes import SAMPLING, Lanes, pack, padded, paired
from holynb.pool.model import Decoder, Part
from holynb.pool.pinned import Pinned
from holynb.pool.stage import Alone
from kernels_support.gpu.choosing import choose_into
from kernels_support.gpu.feeding import Feed, feed
from kernels_support.gpu.masking import mask
from kernels_support.gpu.paged import QUERIES, Decode, Prefill, splits
from kernels_support.gpu.sampling import Choice

__all__ = ["Flight", "Graphs", "choice", "sizes"]

#: Sizes that are captured; a batch takes the next larger one.
BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256)
CHUNKS = (64, 256, 1024, 2048, 4096, 8192)

#: Host buffers in turn: one is being filled while steps under way may still be read.
TURNS = 12


@dataclass(slots=True)
class Flight:
    """A step under way: where its tokens will be, whether they are on their way there, and what says that they are."""

    host: Tensor
    places: list[int]
    lane: int
    coming: bool = False
    done: Any = None


class Graphs:
    """Runs steps on one device, one behind the scheduler. `capture=False` runs the same kernels one by one, for comparison."""

    def __init__(self, model: Decoder, kv: Tensor, block: int, limits: Limits, *, capture: bool = True, stage: Alone | None = None) -> None:
        self.stage = stage or Alone()
        self.ahead = self.stage.ahead + 1
        self.model, self.kv, self.block, self.capture = model, kv, block, capture and kv.is_cuda
        self.batches, self.chunks = sizes(limits)
        self.rows, self.width = limits.batch, -(-limits.max_len // block)
        # A batch for each step that a pipeline has under way.
        self.lanes = [Lanes(limits.batch, self.width, block, first=2 * limits.batch * i) for i in range(self.ahead)]
        self._buffers(limits)
        self._graphs: dict[tuple[str, int], Callable[[], None]] = {}
        self._logits: Tensor | None = None
        self._pool: Any = None
        self._owed: deque[Flight] = deque()

    def _buffers(self, limits: Limits) -> None:
        """Memory that graphs read and write, and pinned memory that feeds it."""
        rows, chunk, width = self.rows, limits.chunk, self.width
        ints = partial(torch.zeros, dtype=torch.int32, device=self.kv.device)
        self.tokens = ints(2 * rows)
        # What each lane said last, for its next step to read.
        self.kept = self.tokens.view(1, -1) if self.ahead == 1 else ints(self.ahead, 2 * rows)
        self.table, self.prompts = ints(rows, width), ints(rows, width)
        self.said, self.how, self.how_prompts = ints(4 * rows), ints(SAMPLING * rows), ints(SAMPLING * rows)
        self.made = ints(5, rows)
        self.order = torch.arange(rows, dtype=torch.int32, device=self.kv.device)
        self.chunk = ints(3 * chunk)
        self.tiles, self.spans, self.last = ints(2 * (chunk // QUERIES + rows)), ints(3 * rows), ints(rows)
        # What comes in from the stage before and goes out to the next; a whole model has neither.
        many = 0 if self.stage.first and self.stage.last else max(rows, chunk)
        wide = torch.zeros(many, self.model.spec.hidden, dtype=self.kv.dtype, device=self.kv.device)
        self.hidden_in, self.hidden_out = wide, torch.zeros_like(wide)
        size = 4 * rows * (2 + SAMPLING) + rows + 3 * chunk + 2 * (chunk // QUERIES + rows) + 2 * rows * width
        self._host = Pinned(size, 2 * rows, max(TURNS, 2 * self.ahead + 2), self.kv)

    def launch(self, step: Step) -> Flight:
        """Start a step. Its tokens come, in the order of `step.sampled`, from `land`."""
        back, lanes = self._host.turn(), self.lanes[step.lane]
        with torch.inference_mode():
            # Before this step's work, or the host would hear of the tokens only after it.
            self._receive(step.lane)
            if step.decode:
                self._start_decode(lanes, step)
            sampled = [r.seq for r in step.prefill if r.samples]
            if step.prefill:
                self._start_prefill(step.prefill, sampled)
            flight = Flight(back, lanes.sampled(step.decode, sampled, self.rows), step.lane)
            self._owed.append(flight)
            if self.stage.last:
                self._receive(step.lane)
        return flight

    def land(self, flight: Flight) -> list[int]:
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

    def _take(self, flight: Flight) -> None:
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
        for kind, sizes in (("decode", self.batches), ("prefill", self.chunks)):
            for size in reversed(sizes):
                self._graph(kind, size)
        return len(self._graphs)

    def _start_decode(self, lanes: Lanes, step: Step) -> None:
        seqs, n = step.decode, len(step.decode)
        size = self.batches[bisect_left(self.batches, n)]
        # The buffers are one lane's at a time.
        if lanes.decode(seqs, mixed=step.mixed) or self.ahead > 1:
            lanes.how[:3, n:size] = 0
            self._host.send_table(lanes.table[:n, : lanes.used], self.table)
            self._host.send(paired(lanes.how[:, :size]), self.how)
            self._host.send(lanes.order, self.order)
        lanes.said[:, n:size] = -1
        self._host.send(lanes.said[:, :size], self.said)
        if self._run("decode", size, seqs):
            how = choice(self.how[: SAMPLING * size].view(SAMPLING, size), self.made[4][:size])
            self._guided(seqs, how, self.tokens[:size])

    def _start_prefill(self, rows: list[Row], sampled: list[Seq]) -> None:
        chunk = pack(rows, self.block, QUERIES)
        tokens = chunk.tokens.shape[1]
        size = self.chunks[bisect_left(self.chunks, tokens)]
        many = min(self.rows, size)
        self._host.send(padded(chunk.tokens, size, -1), self.chunk)
        self._host.send(padded(chunk.tiles.T, size // QUERIES + many, -1).T, self.tiles)
        self._host.send(chunk.spans, self.spans)
        self._host.send(padded(chunk.last[None], many, 0), self.last)
        self._host.send(paired(padded(chunk.how, many, 0)), self.how_prompts)
        self._host.send_table(chunk.table, self.prompts)
        if self._run("prefill", size, sampled):
            how = self.how_prompts[: SAMPLING * many].view(SAMPLING, many)
            self._guided(sampled, choice(how, how[3]), self.tokens[self.rows : self.rows + many])

    def _run(self, kind: str, size: int, seqs: list[Seq]) -> bool:
        """One graph, with what comes in before it and goes out after it. True where it ended at the logits of these rows."""
        guided = self.stage.last and any(s.guide is not None for s in seqs)
        graph = self._graph(f"{kind} to logits" if guided else kind, size)
        self.stage.before(size, self.hidden_in[:size])
        with self.stage.working():
            graph()
        if not self.stage.last:
            # A copy: the buffer is the next step's too, and the one before may still be on its way.
            self.stage.after(self.hidden_out[:size].clone())
        return guided

    def _guided(self, seqs: list[Seq], how: Choice, tokens: Tensor) -> None:
        """Sample logits that lie ready, where some rows may not say everything. The device computes while the masks are made."""
        assert self._logits is not None  # noqa: S101 - a graph has just written them
        lanes = [i for i, s in enumerate(seqs) if s.guide is not None]
        words = masks([seqs[i] for i in lanes])
        logits = self._logits[: len(tokens)]
        mask(logits, self._sent(np.array(lanes, np.int32)), self._sent(words))
        choose_into(logits, how, tokens)

    def _sent(self, values: np.ndarray[Any, Any]) -> Tensor:
        """A tensor of its own on the device. torch keeps the pinned copy until the device has read it."""
        host = torch.from_numpy(values)
        return host.pin_memory().to(self.kv.device, non_blocking=True) if self.kv.is_cuda else host

    def _graph(self, kind: str, size: int) -> Callable[[], None]:
        """The captured work of one size."""
        if (kind, size) not in self._graphs:
            what, _, end = kind.partition(" ")
            if end and self._logits is None:
                self._logits = torch.empty(self.rows, self.model.spec.vocab, dtype=self.kv.dtype, device=self.kv.device)
            work = partial(self._decode if what == "decode" else self._prefill, size, sample=not end)
            self._graphs[kind, size] = self._captured(work) if self.capture else work
        return self._graphs[kind, size]

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run once so that everything is compiled and allocated, then once into a graph. Neither run does anything: see `_blank`."""
        with self._blank(), torch.inference_mode():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                work()
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        replay: Callable[[], None] = graph.replay
        return replay

    def _blank(self) -> Any:
        return _Blank({self.said: -1, self.chunk: -1, self.tiles: -1, self.last: 0, self.tokens: 0})

    def _decode(self, size: int, *, sample: bool = True) -> None:
        said, how = self.said[: 4 * size].view(4, size), self.how[: SAMPLING * size].view(SAMPLING, size)
        ids, positions, slots, lengths, following = (row[:size] for row in self.made)
        table = self.table[:size]
        feed(Feed(said, self.kept.view(-1), table, ids, positions, slots, lengths, following, self.block))
        parts = splits(size, self.kv.shape[2])
        part = Part(ids, positions, slots, Decode(table, lengths, self.block, parts, self.order[:size]))
        made = self.model.forward(part, self.kv, self.hidden_in[:size])
        self._finish(made, choice(how, following) if sample else None, self.tokens[:size])

    def _finish(self, made: Tensor, how: Choice | None, tokens: Tensor) -> None:
        """Sample what the last stage made, or leave its logits (`how` None); keep what another made for the next."""
        if not self.stage.last:
            self.hidden_out[: made.shape[0]].copy_(made)
        elif how is not None:
            choose_into(made, how, tokens)
        elif self._logits is not None:
            self._logits[: made.shape[0]].copy_(made)

    def _prefill(self, size: int, *, sample: bool = True) -> None:
        many = min(self.rows, size)
        ids, positions, slots = self.chunk[: 3 * size].view(3, size)
        how = self.how_prompts[: SAMPLING * many].view(SAMPLING, many)
        tiles = self.tiles[: 2 * (size // QUERIES + many)].view(-1, 2)
        attend = Prefill(self.prompts[:many], tiles, self.spans.view(-1, 3), self.block)
        # Padding has the id and position -1: clamped, because only its slot (-1: not written) tells it apart.
        part = Part(ids.clamp(min=0), positions.clamp(min=0), slots, attend, self.last[:many])
        made = self.model.forward(part, self.kv, self.hidden_in[:size])
        self._finish(made, choice(how, how[3]) if sample else None, self.tokens[self.rows : self.rows + many])


def sizes(limits: Limits) -> tuple[list[int], list[int]]:
    """Decode batches and prompt chunks that graphs are made for."""
    return [b for b in BATCHES if b < limits.batch] + [limits.batch], [c for c in CHUNKS if c < limits.chunk] + [limits.chunk]


class _Blank:
    """While inside, buffers say that there are no rows; afterwards they are as before."""

    def __init__(self, buffers: dict[Tensor, int]) -> None:
        self._buffers = buffers

    def __enter__(self) -> None:
        self._kept = [b.clone() for b in self._buffers]
        for buffer, nothing in self._buffers.items():
            buffer.fill_(nothing)

    def __exit__(self, *exc: object) -> None:
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)


def choice(how: Tensor, position: Tensor) -> Choice:
    """`how` (SAMPLING, rows) int32, as `holynb.pool.lanes` makes it, read as what it stands for."""
    return Choice(how[0].view(torch.float32), how[2], how[1].view(torch.float32), how[4:6].view(-1).view(torch.int64), position)
