"""Continuous batching: which sequences run in the next step, and what came of the last. Knows tokens and blocks; no torch, no sockets.

Scheduling is per iteration, as in Orca (Yu et al., OSDI 2022): a step decodes one token for every running sequence whose prompt is in
the cache. Beside them it takes prompt tokens up to a budget, as in chunked prefill (Sarathi-Serve, Agrawal et al., OSDI 2024). A step
may be planned while the one before is still in flight: the sequence then counts a token that is not read back yet.
On a pipeline several batches are in flight, each with rows of its own (a lane). They take turns, so that every stage has one of them:
micro-batching as in GPipe (Huang et al., 2019), without its flush, because rows of different lanes do not depend on each other.
"""

from __future__ import annotations

from holynb.pool.engine import blocktables
from holynb.pool.engine.cache import BlockAllocator, block_keys
from holynb.pool.engine.lanes import balance
from holynb.pool.engine.scores import Scores
from holynb.pool.engine.sequence import PrefillChunk, Seq, Step, check_room
from holynb.pool.engine.speculation import Speculation, joined
from holynb.pool.engine.turns import Turns
from holynb.pool.fit import BatchLimits
from holynb.pool.protocol import Emit, Job

__all__ = ["BatchScheduler"]


class BatchScheduler:
    """Sequences waiting and running over one block allocator, in `lanes` batches in flight.

    A row is planned with at most `max_pending` tokens that are sampled but not read back. `batch_cap` (rows) and `chunk_cap` (prompt
    tokens a step) are the limits at the moment: they shrink when memory runs out. `speculation`: no row guesses, until
    another is set; of one lane alone.
    """

    #: Steps without an out-of-memory error after which shrunken caps grow.
    GROW_AFTER_STEPS = 32

    def __init__(self, blocks: BlockAllocator, limits: BatchLimits, lanes: int = 1, max_pending: int = 1) -> None:
        self.blocks, self.limits, self.lanes, self.max_pending = blocks, limits, lanes, max_pending
        self.speculation = Speculation(0)
        self.waiting: Turns[Seq] = Turns(lambda seq: seq.job)
        self.running: list[Seq] = []
        self.batch_cap, self.chunk_cap = limits.batch, limits.chunk
        self.ooms = self.preempted = self.tokens_shared = self.tokens_in = self.tokens_out = 0
        self.constrained = self.special = 0
        """Rows that are sequential (the next step of each needs the token of the one before), and all that are not plain."""
        self._steps_since_oom = self._next_lane = self._step_count = 0
        self._unbalanced = False
        """Rows joined or left a lane since the lanes were last balanced."""
        self._last_step = [0] * lanes
        self._jobs: dict[int, Seq] = {}

    def check(self, job: Job) -> None:
        """Raises ValueError, with the sizes, if the job can never fit."""
        check_room(job, self.limits.max_len, self.blocks.capacity)
        if job.id in self._jobs:
            raise ValueError(f"job {job.id} is here already")

    def add(self, job: Job) -> Seq:
        """Queue a job. Raises ValueError as `check` does."""
        self.check(job)
        seq = self._jobs[job.id] = Seq(job)
        self.waiting.append(seq)
        self.tokens_in += len(job.ids)
        seq.watch(self.max_pending + 2)
        self._count(seq, 1)
        return seq

    def cancel(self, job_id: int) -> None:
        """Drop a job at once; its token in a step in flight is ignored. Unknown ids are ignored."""
        seq = self._jobs.get(job_id)
        if seq is not None:
            self._finish(seq)

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._jobs

    def plan(self) -> Step | None:
        """The next step, of the lane whose turn it is or else of another; None if there is nothing to run now."""
        if self._unbalanced and self.lanes > 1:
            self._unbalanced = balance(self.running, self.lanes)
        counts = [] if self.special or self.waiting else self.speculation.choose(self.running, self.max_pending + 2)
        if counts and any(seq.pending for seq in self.running):
            return None  # a guess follows on the token that is under way
        for turn in range(self.lanes):
            step = Step(lane=(self._next_lane + turn) % self.lanes)
            self._plan_decode(step)
            if counts and len(step.decode) == len(counts):
                self.speculation.plan(step, counts, self.blocks)
            self._plan_prefill(step)
            if step.decode or step.prefill:
                self._start(step)
                return step
        return None

    def _start(self, step: Step) -> None:
        self._step_count += 1
        self._last_step[step.lane], self._next_lane = self._step_count, (step.lane + 1) % self.lanes
        self._unbalanced |= bool(step.prefill)
        step.plain = not self.special or all(s.plain for s in (*step.decode, *(c.seq for c in step.prefill)))
        for seq in step.sampled:
            seq.pending += 1
            seq.lane, seq.last_step = step.lane, self._step_count

    def commit(self, step: Step, tokens: list[int], scores: Scores | None = None) -> list[Emit]:
        """Take a step's tokens, in the order of `step.sampled`, and what log probabilities were asked of it."""
        emits = [Emit(s.job.id, note="admitted", cached=s.prefix_hits) for s in step.admitted if not s.finished]
        if scores is not None:
            scores.keep_prompts()
        sampled, tokens = self.speculation.accept(step, tokens, self.blocks) if step.guesses else (step.sampled, tokens)
        for i, (seq, token) in enumerate(zip(sampled, tokens, strict=True)):
            seq.pending -= 1
            if seq.finished:
                continue
            job = seq.job
            seq.tokens.append(token)
            self.tokens_out += 1
            if seq.thought is not None:
                self._count(seq, -1)  # before a token may be forced, each is known before the next, as under a grammar
                seq.think(token, self.max_pending + 2)
                self._count(seq, 1)
            stops = (token in job.eos and not job.ignore_eos) or token in job.stop_ids
            finish = "stop" if stops else "length" if len(seq.tokens) - len(job.ids) >= job.max_new else None
            fault = "not_finite" if token < 0 else None  # as `sampling.NOT_FINITE`
            fault = seq.constraint.fault if fault is None and seq.constraint is not None else fault
            if fault is not None:
                stops, finish = True, "error"
            emits.append(Emit(job.id, () if stops else (token,), finish, fault))
            if scores is not None and job.logprobs is not None:
                scores.put(emits[-1], seq, i)
            if finish:
                self._finish(seq)
        self._grow_caps()
        self.speculation.observe(step, self.running)
        return joined(emits) if step.guesses else emits

    def fail(self, step: Step) -> list[Emit]:
        """Memory ran out in this step: it is rolled back and both caps are halved. Every row stays, and its emit is marked `oom`.

        The row of a step that cannot be made smaller ends as an error, so that the others go on.
        """
        self.ooms += 1
        self._steps_since_oom = 0
        rows = [*step.decode, *(chunk.seq for chunk in step.prefill)]
        minimal = len(rows) == 1 and sum(chunk.count for chunk in step.prefill) <= self.blocks.size and not step.guesses
        self._roll_back(step)
        self.batch_cap = max(1, min(self.batch_cap, len(rows)) // 2)
        longest = max((chunk.count for chunk in step.prefill), default=self.chunk_cap)
        self.chunk_cap = max(self.blocks.size, min(self.chunk_cap, longest) // 2)
        while len(self.running) > self.batch_cap:
            self._preempt(self.running[-1])
        alive = [s for s in rows if not s.finished]
        for seq in alive if minimal else ():
            self.cancel(seq.job.id)
        return [Emit(s.job.id, finish="error" if minimal else None, note="oom") for s in alive]

    def _roll_back(self, step: Step) -> None:
        """Restore the state before the step was planned, except that its prompts start over: blocks they share may hold nothing."""
        for block in step.published:
            self.blocks.unpublish(block)
        for seq in step.sampled:
            seq.pending -= 1
        for seq in step.decode:
            seq.cached -= not seq.finished
        if step.guesses:
            self.speculation.give_up(step, self.blocks)
        for chunk in reversed(step.prefill):
            if chunk.seq in self.running:
                self._preempt(chunk.seq)

    def _plan_decode(self, step: Step) -> None:
        """Add the lane's rows that can decode, each with a slot for its next token."""
        size, max_pending = self.blocks.size, 0 if self.constrained else self.max_pending
        for seq in list(self.running):
            if seq.lane != step.lane or not seq.prefilled or seq.at_limit or seq.cached != seq.size - 1:
                continue
            # A pending token lies where the lane's last step left it on the device, and nowhere else.
            joins = seq.last_step != self._last_step[step.lane]
            if seq.pending and (joins or seq.pending > max_pending):
                continue
            if seq.cached == len(seq.blocks) * size and not self._grow(seq, step):
                continue
            step.decode.append(seq)
            step.mixed |= joins
        for seq in step.decode:
            seq.cached += 1

    def _grow(self, seq: Seq, step: Step) -> bool:
        """Allocate a sequence's next blocks, preempting the youngest if need be. Returns False if the sequence itself was preempted."""
        blocktables.publish(self.blocks, seq, seq.cached)
        if self.blocks.slides:
            blocktables.slide(self.blocks, seq)
        while self.blocks.free < self.blocks.groups:
            if self._preempt_youngest(step) is seq:
                return False
        blocktables.grow(self.blocks, seq)
        return True

    def _preempt_youngest(self, step: Step) -> Seq:
        # A step in flight may still write to its blocks; it does so before any later step reads them.
        victim = self.running[-1]
        if victim in step.decode:
            step.decode.remove(victim)
        self._preempt(victim)
        return victim

    def _plan_prefill(self, step: Step) -> None:
        """Add prompt chunks of running sequences, then of newly admitted ones, up to the token budget."""
        # A pipeline's stages wait for the first chunk, one after the other, so that half of a lane's share is filled sooner.
        budget, most = max(self.blocks.size, self.chunk_cap // (2 * self.lanes if self.lanes > 1 else 1)), self.limits.batch
        for seq in [s for s in self.running if not s.prefilled]:
            if budget and step.logit_rows < most and seq in self.running:
                budget -= self._plan_chunk(seq, budget, step)
        while budget and self.waiting and len(self.running) < self.batch_cap and step.logit_rows < most:
            if (seq := self.waiting.first).pending or not self._admit(seq, budget):
                break
            self.waiting.take()
            self.running.append(seq)
            step.admitted.append(seq)
            budget -= self._plan_chunk(seq, budget, step)

    def _plan_chunk(self, seq: Seq, budget: int, step: Step) -> int:
        """Add the next tokens of a prompt, `budget` at most. Returns their number."""
        count, scored = min(budget, seq.size - seq.cached), seq.scores_prompt
        if scored:  # no more than the device has logits for
            count = min(count, self.limits.batch - step.logit_rows)
        if self.blocks.slides and not (count := self._slide_on(seq, count, step)):
            return 0
        last = seq.cached + count == seq.size
        step.prefill.append(PrefillChunk(seq, seq.cached, count, last, scored))
        step.logit_rows += step.prefill[-1].logit_rows
        seq.cached += count
        if last:
            seq.prefilled = True
        step.published += blocktables.publish(self.blocks, seq, seq.cached)  # to be unpublished if it fails
        return count

    def _slide_on(self, seq: Seq, count: int, step: Step) -> int:
        """Room for the next tokens of a prompt in the groups that slide. Returns how many have it; older rows take it from the youngest."""
        blocks = self.blocks
        blocktables.slide(blocks, seq)
        # As for admission: the youngest leaves each other row a block to grow.
        kept = (len(self.running) - 1) * blocks.groups
        while not (fits := blocktables.room(blocks, seq, kept if self.running[-1] is seq else 0)) and self.running[-1] is not seq:
            self._preempt_youngest(step)
            kept = (len(self.running) - 1) * blocks.groups
        count = min(count, fits)
        blocktables.extend(blocks, seq, seq.cached + count)
        return count

    def _admit(self, seq: Seq, budget: int) -> bool:
        """Allocate blocks for a waiting sequence, the cached prefix shared. Returns False if too few are free for `budget` tokens of it."""
        blocks, size = self.blocks, self.blocks.size
        # Not in `add`: thousands of jobs may come at once, and the device waits for the first of them.
        seq.keys = seq.keys or block_keys(seq.job.ids, size)
        # Log probabilities of a prompt need all of it to go through the model.
        prefix = blocktables.shared(blocks, [] if seq.scores_prompt else seq.keys[: (seq.size - 1) // size])
        # One block of growth for each running sequence: without it a full cache admits, preempts and admits again.
        if blocktables.need(blocks, seq, prefix, budget) + len(self.running) * blocks.groups > blocks.free and self.running:
            return False
        blocktables.start(blocks, seq, prefix)
        self.tokens_shared += seq.cached
        seq.prefix_hits = min(seq.cached, len(seq.job.ids))
        return True

    def _preempt(self, seq: Seq) -> None:
        """Return a sequence to the head of the queue with all its tokens, and release its blocks; they are recomputed."""
        self.preempted += 1
        self.running.remove(seq)
        self._release(seq)
        self.waiting.put_back(seq)

    def _finish(self, seq: Seq) -> None:
        if seq in self.running:
            self.running.remove(seq)
        else:
            self.waiting.remove(seq)
        self.waiting.count(seq.job.client, seq.size - len(seq.job.ids))
        seq.finished = True
        self._release(seq)
        self._count(seq, -1)
        del self._jobs[seq.job.id]

    def _count(self, seq: Seq, by: int) -> None:
        self.constrained, self.special = self.constrained + by * seq.sequential, self.special + by * (not seq.plain)

    def _release(self, seq: Seq) -> None:
        blocktables.release(self.blocks, seq)
        self._unbalanced = True

    def _grow_caps(self) -> None:
        """After a while without an out-of-memory error, the batch cap grows by a quarter and the chunk cap doubles."""
        self._steps_since_oom += 1
        if self._steps_since_oom >= self.GROW_AFTER_STEPS and (self.batch_cap < self.limits.batch or self.chunk_cap < self.limits.chunk):
            self._steps_since_oom = 0
            self.batch_cap = min(self.limits.batch, self.batch_cap + max(1, self.batch_cap // 4))
            self.chunk_cap = min(self.limits.chunk, self.chunk_cap * 2)
