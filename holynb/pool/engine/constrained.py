"""What a row may say next: its place in a grammar → bits over the vocabulary, by llguidance. Knows no torch and no schedule.

Grammars are compiled on a thread of their own, once each; jobs wait here until theirs is, so that no step waits for it.
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

__all__ = ["GrammarCompiler", "GrammarState", "masks"]

#: Compiled grammars that are kept, the last ones used.
_KEPT = 64

#: Tokens of digits in a row after which a number ends: more than any float64 has. A schema's `number` has no end of its own,
#: and a small model that has begun with 3.333 goes on until its tokens are spent.
LONGEST = 24


class GrammarState:
    """One row's place in its grammar. `digits`: tokens of digits that it ends with. `fault`: why the grammar cannot go on; the row must end then."""

    __slots__ = ("digits", "fault", "matcher", "owner", "taken")

    def __init__(self, owner: GrammarCompiler, matcher: Any) -> None:
        self.owner, self.matcher, self.taken, self.digits = owner, matcher, 0, 0
        self.fault: str | None = None

    def follow(self, said: Sequence[int]) -> None:
        """Go on to where the row is now; `said` are all tokens of its answer."""
        fresh = list(said[self.taken :])
        self.taken = len(said)
        for token in fresh:
            self.digits = self.digits + 1 if self.owner.is_digits(token) else 0
        if fresh and not self.matcher.consume_tokens(fresh):
            self.fault = str(self.matcher.get_error()).partition("\n")[0][:200] or "the grammar refuses what was said"


def masks(seqs: Sequence[Seq]) -> NDArray[np.int32]:
    """(rows, vocabulary / 32): what each of these rows, all with a constraint, may say next. All its tokens must be known."""
    states = [s.constraint for s in seqs if isinstance(s.constraint, GrammarState)]
    for seq, state in zip(seqs, states, strict=True):
        state.follow(seq.tokens[len(seq.job.ids) :])
    owner = states[0].owner
    out = owner.masks([g.matcher for g in states])
    for row, state in zip(out, states, strict=True):
        if state.digits >= LONGEST:
            owner.shorten(row)
    return out


class GrammarCompiler:
    """One rank's grammars. `vocab` is the width of the logits. Called by the runner's thread alone."""

    def __init__(self, folder: Path, vocab: int) -> None:
        self._folder, self._vocab = folder, vocab
        self._threads: ThreadPoolExecutor | None = None
        self._executor: Any = None
        self._made: OrderedDict[tuple[str, tuple[int, ...]], Future[Any]] = OrderedDict()
        self._tokenizers: dict[tuple[int, ...], Any] = {}
        self._digits: NDArray[np.int32] | None = None
        self._letters: NDArray[np.int32] | None = None
        self._waiting: list[tuple[Job, Future[Any]]] = []

    @property
    def idle(self) -> bool:
        """No job waits for its grammar."""
        return not self._waiting

    def add(self, job: Job) -> None:
        """Have the job's grammar compiled; `ready` gives the job back then."""
        self._waiting.append((job, self._future(job)))

    def cancel(self, job_id: int) -> None:
        self._waiting = [(j, f) for j, f in self._waiting if j.id != job_id]

    def ready(self, seconds: float) -> tuple[list[Job], list[tuple[Job, str]]]:
        """Jobs whose grammar is there now, and those whose grammar is none, with why. Waits up to `seconds` for the first."""
        if seconds and self._waiting:
            wait([f for _, f in self._waiting], seconds, FIRST_COMPLETED)
        done = [(j, f) for j, f in self._waiting if f.done()]
        self._waiting = [(j, f) for j, f in self._waiting if not f.done()]
        wrong = [(j, str(f.exception())) for j, f in done if f.exception() is not None]
        return [j for j, f in done if f.exception() is None], wrong

    def begin(self, job: Job) -> GrammarState:
        """The place where the job's answer begins. Compiles now what is not compiled yet. Raises ValueError."""
        return GrammarState(self, self._future(job).result().deep_copy())

    def masks(self, matchers: list[Any]) -> NDArray[np.int32]:
        """Side by side on the processor's cores."""
        from llguidance import LLExecutor
        from llguidance import numpy as bits

        if self._executor is None:
            self._executor = LLExecutor()
        out = bits.allocate_token_bitmask(len(matchers), self._vocab)
        bits.fill_next_token_bitmask_par(self._executor, [(m, i) for i, m in enumerate(matchers)], out)
        return out

    def is_digits(self, token: int) -> bool:
        return self._digits is not None and bool((int(self._digits[token // 32]) >> (token % 32)) & 1)

    def shorten(self, row: NDArray[np.int32]) -> None:
        """Bar digits where something else may follow and no letter may: inside a number, that is, and not inside a text."""
        if self._digits is not None and self._letters is not None:
            rest = row & ~self._digits
            if rest.any() and not (rest & self._letters).any():
                row[:] = rest

    def _read(self, tokenizer: Any) -> None:
        """Which tokens are digits, and which are letters that no number has."""
        import numpy as np

        words = [tokenizer.decode_bytes([i]) for i in range(self._vocab)]
        for name, kind in (("_digits", b"0123456789"), ("_letters", b"abcdfghijklmnopqrstuvwxyz")):
            bits = np.zeros(-(-self._vocab // 32) * 32, np.uint8)
            bits[[i for i, word in enumerate(words) if word and not word.lower().strip(kind)]] = 1
            setattr(self, name, np.packbits(bits, bitorder="little").view(np.int32))

    def _future(self, job: Job) -> Future[Any]:
        key = (job.grammar or "", job.eos)
        if key not in self._made:
            self._threads = self._threads or ThreadPoolExecutor(1, "holynb-grammar")
            self._made[key] = self._threads.submit(self._compile, *key)
        self._made.move_to_end(key)
        while len(self._made) > _KEPT:
            self._made.popitem(last=False)
        return self._made[key]

    def _compile(self, grammar: str, eos: tuple[int, ...]) -> Any:
        """A matcher at the grammar's beginning. Raises ValueError where it is none, or no token would end the answer."""
        from llguidance import LLMatcher, LLTokenizer

        if not eos:
            raise ValueError("a grammar needs a token that ends the answer, and this model has none")
        if eos not in self._tokenizers:
            words = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
            tokenizer = LLTokenizer(words, n_vocab=self._vocab, eos_token=list(eos))
            self._read(tokenizer)
            self._tokenizers[eos] = tokenizer
        matcher = LLMatcher(self._tokenizers[eos], grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(str(matcher.get_error()).partition("\n")[0])
        return matcher
