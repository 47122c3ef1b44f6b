"""Continuous batching: which sequences run in the next step, and what became of them. Knows tokens and blocks; knows no torch, no sockets.

A step decodes one token for every running sequence whose prompt is in the cache, and fills the rest of its token budget with
prompt chunks. It may be planned while the one before is still in flight: a sequence then counts a token it does not know yet.
On a pipeline several batches are under way, each of rows of its own (a lane); they take turns, so that every stage has one of them.
"""

from __future__ import annotations

from collections import deque

from holynb.pool.engine.cache import Blocks, chain
from holynb.pool.engine.sequence import PrefillChunk, Seq, Step
from holynb.pool.fit import BatchLimits
from holynb.pool.protocol import Emit, Job

__all__ = ["BatchScheduler"]


class BatchScheduler:
    """Sequences waiting and running over one set of blocks, in `flights` lanes. A row is planned with at most `unknown` tokens that are sampled but not read back.
    `cap` and `chunk` are what is allowed at the moment: they shrink when memory runs out.
    """

    #: Steps without trouble after which a shrunken batch grows by a quarter.
    CALM = 32

    def __init__(self, blocks: Blocks, limits: BatchLimits, flights: int = 1, unknown: int = 1) -> None:
        self.blocks, self.limits, self.flights, self.unknown = blocks, limits, flights, unknown
        self.waiting: deque[Seq] = deque()
        self.running: list[Seq] = []
        self.cap, self.chunk = limits.batch, limits.chunk
        self.ooms = self.preempted = self.shared = self.tokens_in = self.tokens_out = 0
        self.constrained = 0
        """Jobs here that have a grammar: the next step of each needs the token of the one before."""
        self._calm = self._lane = self._steps = 0
        self._uneven = False
        """Rows came to their lane or left it since it was last looked at."""
        self._last = [0] * flights
        self._jobs: dict[int, Seq] = {}

    def check(self, job: Job) -> None:
        """Raises ValueError with the sizes where the job can never fit."""
        n, room = len(job.ids), self.blocks.total * self.blocks.size
        if not n or job.max_new < 1:
            raise ValueError(f"nothing to do: {n} prompt tokens, {job.max_new} to write; both must be at least 1")
        if n + job.max_new > self.limits.max_len:
            raise ValueError(
                f"{n} prompt tokens and {job.max_new} to write are more than the {self.limits.max_len} that one sequence can have"
            )
        if n + job.max_new > room:
            raise ValueError(f"{n} prompt tokens and {job.max_new} to write are more than the {room} that the KV cache holds")
        if job.id in self._jobs:
            raise ValueError(f"job {job.id} is here already")

    def add(self, job: Job) -> Seq:
        """Queue a job. Raises ValueError as `check` does."""
        self.check(job)
        seq = self._jobs[job.id] = Seq(job)
        self.waiting.append(seq)
        self.tokens_in += len(job.ids)
        self.constrained += job.grammar is not None
        return seq

    def cancel(self, job_id: int) -> None:
        """Drop a job at once; a step in flight that still has it is ignored. Unknown ones are nobody's loss."""
        seq = self._jobs.get(job_id)
        if seq is None:
            return
        if seq in self.running:
            self.running.remove(seq)
        else:
            self.waiting.remove(seq)
        self._end(seq)

    @property
    def idle(self) -> bool:
        """Nothing waits or runs."""
        return not self._jobs

    def plan(self) -> Step | None:
        """The next step, of the lane whose turn it is or else of another; None where there is nothing to run now."""
        if self._uneven and self.flights > 1:
            self._even()
        for turn in range(self.flights):
            step = Step(lane=(self._lane + turn) % self.flights)
            self._decodes(step)
            self._prefills(step)
            if step.decode or step.prefill:
                self._go(step)
                return step
        return None

    def _go(self, step: Step) -> None:
        self._steps += 1
        self._last[step.lane], self._lane = self._steps, (step.lane + 1) % self.flights
        self._uneven |= bool(step.prefill)
        for seq in step.sampled:
            seq.pending += 1
            seq.lane, seq.asked = step.lane, self._steps

    def _even(self) -> None:
        """Where one lane has a quarter more rows than it should, half of what it has more goes over to the emptiest."""
        lanes: list[list[Seq]] = [[] for _ in range(self.flights)]
        for seq in self.running:
            if seq.ready:
                lanes[seq.lane].append(seq)
        most, least = max(lanes, key=len), min(lanes, key=len)
        more = len(most) - len(least)
        self._uneven = more > 1 and 4 * more > len(most)
        if self._uneven:
            to = lanes.index(least)
            for seq in most[-(more // 2) :]:
                seq.lane = to

    def commit(self, step: Step, tokens: list[int]) -> list[Emit]:
        """Take a step's tokens, in the order of `step.sampled`."""
        emits = [Emit(s.job.id, note="admitted", cached=s.found) for s in step.admitted if not s.dead]
        for seq, token in zip(step.sampled, tokens, strict=True):
            seq.pending -= 1
            if seq.dead:
                continue
            job = seq.job
            seq.tokens.append(token)
            self.tokens_out += 1
            stops = token in job.eos and not job.ignore_eos
            finish = "stop" if stops else "length" if len(seq.tokens) - len(job.ids) >= job.max_new else None
            fault = seq.constraint.fault if seq.constraint is not None else None
            if fault is not None:
                stops, finish = True, "error"
            emits.append(Emit(job.id, () if stops else (token,), finish, fault))
            if finish:
                self._finish(seq)
        self._calmer()
        return emits

    def fail(self, step: Step) -> list[Emit]:
        """Memory ran out in this step: nothing of it counts. Batch and chunk are halved; every row stays, and is marked.

        A step that cannot be made smaller ends its row as an error, so that the others go on.
        """
        self.ooms += 1
        self._calm = 0
        rows = [*step.decode, *(r.seq for r in step.prefill)]
        hopeless = len(rows) == 1 and sum(r.count for r in step.prefill) <= self.blocks.size
        self._undo(step)
        self.cap = max(1, min(self.cap, len(rows)) // 2)
        self.chunk = max(self.blocks.size, min(self.chunk, max((r.count for r in step.prefill), default=self.chunk)) // 2)
        while len(self.running) > self.cap:
            self._preempt(self.running[-1])
        alive = [s for s in rows if not s.dead]
        for seq in alive if hopeless else ():
            self.cancel(seq.job.id)
        return [Emit(s.job.id, finish="error" if hopeless else None, note="oom") for s in alive]

    def _undo(self, step: Step) -> None:
        """Everything as before the step was planned, but prompts begin anew: blocks they share may hold nothing."""
        for block in step.published:
            self.blocks.forget(block)
        for seq in step.sampled:
            seq.pending -= 1
        for seq in step.decode:
            seq.cached -= not seq.dead
        for row in reversed(step.prefill):
            if row.seq in self.running:
                self._preempt(row.seq)

    def _decodes(self, step: Step) -> None:
        size, unknown = self.blocks.size, 0 if self.constrained else self.unknown
        for seq in list(self.running):
            if seq.lane != step.lane or not seq.ready or seq.spent or seq.cached != seq.size - 1:
                continue
            # A token that nobody has read yet lies where the lane's last step left it, and nowhere else.
            other = seq.asked != self._last[step.lane]
            if seq.pending and (other or seq.pending > unknown):
                continue
            if seq.cached == len(seq.blocks) * size and not self._grow(seq, step):
                continue
            step.decode.append(seq)
            step.mixed |= other
        for seq in step.decode:
            seq.cached += 1

    def _grow(self, seq: Seq, step: Step) -> bool:
        """One more block for a sequence, taken from the youngest if need be. False where the sequence itself had to give way."""
        self._share(seq, seq.cached, None)
        while not self.blocks.free:
            # A step in flight may still write to these blocks; it does so before any later step reads them.
            victim = self.running[-1]
            if victim in step.decode:
                step.decode.remove(victim)
            self._preempt(victim)
            if victim is seq:
                return False
        seq.blocks.append(self.blocks.take(seq.blocks[-1] + 1))
        return True

    def _prefills(self, step: Step) -> None:
        budget = max(self.blocks.size, self.chunk // self.flights)
        for seq in self.running:
            if budget and not seq.ready:
                budget -= self._chunk(seq, budget, step)
        while budget and self.waiting and len(self.running) < self.cap and not self.waiting[0].pending:
            if not self._admit(self.waiting[0]):
                break
            seq = self.waiting.popleft()
            self.running.append(seq)
            step.admitted.append(seq)
            budget -= self._chunk(seq, budget, step)

    def _chunk(self, seq: Seq, budget: int, step: Step) -> int:
        """Plan the next tokens of a prompt. `ready` says that the prompt is through."""
        count = min(budget, seq.size - seq.cached)
        done = seq.cached + count == seq.size
        step.prefill.append(PrefillChunk(seq, seq.cached, count, done))
        seq.cached += count
        if done:
            seq.ready = True
        self._share(seq, seq.cached, step)
        return count

    def _admit(self, seq: Seq) -> bool:
        """Give a waiting sequence blocks for all it has so far; False where they are not there."""
        blocks, size = self.blocks, self.blocks.size
        # Not when the job comes: thousands may come at once, and the device waits for the first of them.
        seq.keys = seq.keys or chain(seq.job.ids, size)
        found = blocks.find(seq.keys[: (seq.size - 1) // size])
        need = -(-seq.size // size) - len(found)
        idle = sum(not blocks.refs[b] for b in found)
        # One block of growth for each that runs: without it a full cache admits, preempts and admits again.
        if need + idle + len(self.running) > blocks.free and self.running:
            return False
        for block in found:
            blocks.hold(block)
        seq.blocks = found
        seq.cached, seq.published = len(found) * size, len(found)
        self.shared += seq.cached
        seq.found = min(seq.cached, len(seq.job.ids))
        near = blocks.start(-(-(len(seq.job.ids) + seq.job.max_new) // size) - len(found))
        for _ in range(need):
            seq.blocks.append(blocks.take(near))
            near = seq.blocks[-1] + 1
        return True

    def _share(self, seq: Seq, cached: int, step: Step | None) -> None:
        """Publish the full blocks of the first `cached` tokens."""
        size = self.blocks.size
        full = min(cached, len(seq.tokens)) // size
        if full > len(seq.keys):
            known = len(seq.keys)
            seq.keys += chain(seq.tokens[known * size : full * size], size, seq.keys[-1] if seq.keys else b"")
        for i in range(seq.published, full):
            if self.blocks.publish(seq.blocks[i], seq.keys[i]) and step is not None:
                step.published.append(seq.blocks[i])
        seq.published = max(full, seq.published)

    def _preempt(self, seq: Seq) -> None:
        """Back to the head of the queue with all its tokens; its blocks are free."""
        self.preempted += 1
        self.running.remove(seq)
        self._release(seq)
        self.waiting.appendleft(seq)

    def _finish(self, seq: Seq) -> None:
        if seq in self.running:
            self.running.remove(seq)
        else:
            self.waiting.remove(seq)
        self._end(seq)

    def _end(self, seq: Seq) -> None:
        seq.dead = True
        self._release(seq)
        self.constrained -= seq.job.grammar is not None
        del self._jobs[seq.job.id]

    def _release(self, seq: Seq) -> None:
        for block in seq.blocks:
            self.blocks.release(block)
        seq.blocks = []
        seq.cached = seq.published = 0
        seq.ready, self._uneven = False, True

    def _calmer(self) -> None:
        """Grow back by a quarter after a while without trouble."""
        self._calm += 1
        if self._calm >= self.CALM and (self.cap < self.limits.batch or self.chunk < self.limits.chunk):
            self._calm = 0
            self.cap = min(self.limits.batch, self.cap + max(1, self.cap // 4))
            self.chunk = min(self.limits.chunk, self.chunk * 2)
