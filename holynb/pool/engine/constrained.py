"""Constrained decoding: a row's state in its grammar → a bit mask over the vocabulary, by llguidance. Knows no torch and no schedule.

Grammars are compiled on a thread of their own, once each; jobs wait here for theirs, so that no step waits for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holynb.pool.engine.sequence import Seq
from holynb.pool.protocol import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GrammarCompiler", "GrammarState", "token_masks"]

#: Of compiled grammars, the least recently used beyond these are dropped.
_MAX_COMPILED_GRAMMARS = 64

#: Consecutive tokens of digits after which a number must end: more than any float64 has. A schema's `number` has no end of its own,
#: and a small model that has begun with 3.333 goes on until its tokens are spent.
MAX_DIGIT_TOKENS = 24


class GrammarState:
    """One row's state in its grammar; a `Constraint`. `consumed`: answer tokens so far. `digits`: trailing tokens of digits among them."""

    __slots__ = ("consumed", "digits", "fault", "matcher", "owner")

    def __init__(self, owner: GrammarCompiler, matcher: Any) -> None:
        self.owner, self.matcher, self.consumed, self.digits = owner, matcher, 0, 0
        self.fault: str | None = None

    def advance(self, answer: Sequence[int]) -> None:
        """Consume what is new in `answer`, all tokens of the row's answer so far. Sets `fault` if the grammar rejects it."""
        fresh = list(answer[self.consumed :])
        self.consumed = len(answer)
        for token in fresh:
            self.digits = self.digits + 1 if self.owner.is_digits(token) else 0
        if fresh and not self.matcher.consume_tokens(fresh):
            self.fault = str(self.matcher.get_error()).partition("\n")[0][:200] or "the grammar refuses what was said"


def token_masks(seqs: Sequence[Seq]) -> NDArray[np.int32]:
    """(rows, vocabulary / 32): a bit for each token that the row may take next. All rows have a constraint and no pending tokens.

    Before its first token, a row may also begin to think.
    """
    states = [s.constraint for s in seqs if isinstance(s.constraint, GrammarState)]
    for seq, state in zip(seqs, states, strict=True):
        state.advance(seq.answer)
    owner = states[0].owner
    out = owner.masks([g.matcher for g in states])
    for row, state in zip(out, states, strict=True):
        if state.digits >= MAX_DIGIT_TOKENS:
            owner.forbid_digits(row)
    for row, seq in zip(out, seqs, strict=True):
        if seq.thought is not None and (begins := seq.thought.begins) is not None:
            row.view("uint32")[begins // 32] |= 1 << begins % 32
    return out


class GrammarCompiler:
    """One rank's grammars. `vocab` is the width of the logits. Not thread-safe: called by the runner's thread alone."""

    def __init__(self, folder: Path, vocab: int) -> None:
        self._folder, self._vocab = folder, vocab
        self._threads: ThreadPoolExecutor | None = None
        self._executor: Any = None
        self._compiled: OrderedDict[tuple[str, tuple[int, ...]], Future[Any]] = OrderedDict()
        self._tokenizers: dict[tuple[int, ...], Any] = {}
        self._digits: NDArray[np.int32] | None = None
        self._letters: NDArray[np.int32] | None = None
        self._waiting: list[tuple[Job, Future[Any]]] = []

    @property
    def idle(self) -> bool:
        """Whether no job waits for its grammar."""
        return not self._waiting

    def add(self, job: Job) -> None:
        """Compile the job's grammar; `take_ready` returns the job when that is done."""
        self._waiting.append((job, self._future(job)))

    def cancel(self, job_id: int) -> None:
        self._waiting = [(j, f) for j, f in self._waiting if j.id != job_id]

    def take_ready(self, timeout_s: float) -> tuple[list[Job], list[tuple[Job, str]]]:
        """Jobs whose grammar is compiled, and those whose grammar is invalid with the error. Waits up to `timeout_s` for the first."""
        if timeout_s and self._waiting:
            wait([f for _, f in self._waiting], timeout_s, FIRST_COMPLETED)
        done = [(j, f) for j, f in self._waiting if f.done()]
        self._waiting = [(j, f) for j, f in self._waiting if not f.done()]
        errors = [(j, str(f.exception())) for j, f in done if f.exception() is not None]
        return [j for j, f in done if f.exception() is None], errors

    def begin(self, job: Job) -> GrammarState:
        """The state at the start of the job's answer. Blocks until its grammar is compiled. Raises ValueError if it is invalid."""
        return GrammarState(self, self._future(job).result().deep_copy())

    def masks(self, matchers: list[Any]) -> NDArray[np.int32]:
        """(matchers, vocabulary / 32): the tokens that each grammar allows, computed in parallel on the CPU's cores."""
        from llguidance import LLExecutor
        from llguidance import numpy as bits

        if self._executor is None:
            self._executor = LLExecutor()
        out = bits.allocate_token_bitmask(len(matchers), self._vocab)
        bits.fill_next_token_bitmask_par(self._executor, [(m, i) for i, m in enumerate(matchers)], out)
        return out

    def is_digits(self, token: int) -> bool:
        return self._digits is not None and bool((int(self._digits[token // 32]) >> (token % 32)) & 1)

    def forbid_digits(self, row: NDArray[np.int32]) -> None:
        """Clear the digits of a mask if something else may follow and no letter may, which is inside a number and not inside a string."""
        if self._digits is not None and self._letters is not None:
            rest = row & ~self._digits
            if rest.any() and not (rest & self._letters).any():
                row[:] = rest

    def _classify_tokens(self, tokenizer: Any) -> None:
        """Masks of the tokens that are digits, and of those that are letters which no number has."""
        import numpy as np

        words = [tokenizer.decode_bytes([i]) for i in range(self._vocab)]
        for name, kind in (("_digits", b"0123456789"), ("_letters", b"abcdfghijklmnopqrstuvwxyz")):
            bits = np.zeros(-(-self._vocab // 32) * 32, np.uint8)
            bits[[i for i, word in enumerate(words) if word and not word.lower().strip(kind)]] = 1
            setattr(self, name, np.packbits(bits, bitorder="little").view(np.int32))

    def _future(self, job: Job) -> Future[Any]:
        """The job's grammar, compiled or about to be."""
        key = (job.grammar or "", job.eos)
        if key not in self._compiled:
            self._threads = self._threads or ThreadPoolExecutor(1, "holynb-grammar")
            self._compiled[key] = self._threads.submit(self._compile, *key)
        self._compiled.move_to_end(key)
        while len(self._compiled) > _MAX_COMPILED_GRAMMARS:
            self._compiled.popitem(last=False)
        return self._compiled[key]

    def _compile(self, grammar: str, eos: tuple[int, ...]) -> Any:
        """A matcher at the grammar's start. Raises ValueError if the grammar is invalid or no token would end the answer."""
        from llguidance import LLMatcher, LLTokenizer

        if not eos:
            raise ValueError("a grammar needs a token that ends the answer, and this model has none")
        if eos not in self._tokenizers:
            definition = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
            tokenizer = LLTokenizer(definition, n_vocab=self._vocab, eos_token=list(eos))
            self._classify_tokens(tokenizer)
            self._tokenizers[eos] = tokenizer
        matcher = LLMatcher(self._tokenizers[eos], grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(str(matcher.get_error()).partition("\n")[0])
        return matcher
