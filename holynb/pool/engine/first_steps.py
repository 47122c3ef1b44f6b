"""The first steps of a rank whose kernels are not compiled yet: plain torch on the same device, weights and KV cache.

What Triton compiles takes seconds where it never compiled before; cuBLAS and torch's own kernels lie in torch's libraries. So a first
answer begins while they are compiled in the background, and goes on with them. Small steps only: plain attention holds all scores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from holynb.pool.engine.eager import EagerExecutor, EagerStep
from holynb.pool.engine.graphs import GraphExecutor
from holynb.pool.engine.scores import Scores
from holynb.pool.engine.sequence import Step
from holynb.pool.fit import Spec
from kernels_support.gpu.lang import plain_torch

__all__ = ["Compilation", "FirstSteps", "serves"]

#: The largest step: rows that decode, prompt tokens, and tokens before and with them. Scores of 16 heads in float32 take 64 MB then.
_MAX_ROWS, _MAX_CHUNK, _MAX_LENGTH = 8, 512, 2048

#: Between two threads' turns, while others compile: each of a thousand operations gives the interpreter away, for 5 ms by default.
_SWITCH_S = 1e-4


class Compilation(Protocol):
    """What compiles in the background."""

    @property
    def done(self) -> bool:
        """Whether what the first token needs is there."""

    def wait(self) -> None:
        """Block until it is."""


def serves(spec: Spec) -> bool:
    """Whether plain torch computes this model about as its kernels do: experts and packed matrices it would widen one by one."""
    return spec.quantization is None and not spec.kv_fp8 and not any(spec.experts_of(i) for i in range(spec.layers))


class FirstSteps:
    """Runs each step when it is launched. `kernels`: what runs those that follow."""

    lookahead = 0

    def __init__(self, kernels: GraphExecutor, compilation: Compilation) -> None:
        self.kernels, self.model, self.kv, self._compilation = kernels, kernels.model, kernels.kv, compilation
        self._plain = EagerExecutor(kernels.model, kernels.kv, kernels.block)

    def over(self, step: Step | None = None) -> bool:
        """Whether this step (None: any) is the kernels'; waits for them where it is too large for plain torch."""
        if step is not None and not self._compilation.done and _small(step):
            return False
        self._compilation.wait()
        return True

    def launch(self, step: Step) -> EagerStep:
        """Run a step."""
        with _quick_turns(), plain_torch():
            return self._plain.launch(step)

    def read_back(self, launched: EagerStep) -> list[int]:
        """The tokens of a launched step."""
        return self._plain.read_back(launched)

    def scores(self, launched: EagerStep) -> Scores | None:
        """The log probabilities of a step; None where none were asked for."""
        return self._plain.scores(launched)

    def reset(self) -> None:
        """Nothing to reset: no state is kept from one step to the next."""

    def warm(self) -> int:
        """Prepare the kernels' sizes."""
        return self.kernels.warm()


def _small(step: Step) -> bool:
    ends = [s.cached for s in step.decode] + [c.start + c.count for c in step.prefill]
    chunk = sum(c.count for c in step.prefill)
    return len(step.decode) <= _MAX_ROWS and chunk <= _MAX_CHUNK and max(ends) <= _MAX_LENGTH


@contextmanager
def _quick_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
