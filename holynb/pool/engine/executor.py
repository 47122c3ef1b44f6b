"""What runs planned steps: plain torch on a CPU, CUDA graphs on a GPU. Knows tensors; knows no scheduler and no jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from holynb.pool.engine.scores import Scores
from holynb.pool.engine.sequence import Step
from holynb.pool.fit import BatchLimits, Mesh, Spec

if TYPE_CHECKING:
    from torch import Tensor

    from holynb.pool.engine.first_steps import Compilation, FirstSteps
    from holynb.pool.engine.model import Decoder
    from holynb.pool.engine.pipeline import SingleStage

__all__ = ["StepExecutor", "executor_for", "first_steps"]


class StepExecutor(Protocol):
    """Runs steps, of which up to `lookahead` may be in flight before the oldest is read back."""

    lookahead: int

    def launch(self, step: Step) -> Any:
        """Start a step. Returns what `read_back` takes."""

    def read_back(self, launched: Any) -> list[int]:
        """Wait for a launched step. Returns its tokens, in the order of `step.sampled`."""

    def scores(self, launched: Any) -> Scores | None:
        """The log probabilities of a step that was read back and is not plain; None where none were asked for."""

    def reset(self) -> None:
        """Forget the failed step."""

    def warm(self) -> int:
        """Prepare every batch size. Returns their number."""


def executor_for(model: Decoder, kv: Tensor, block: int, limits: BatchLimits, stage: SingleStage) -> StepExecutor:
    """The executor for the device of `kv`, the KV cache, whose blocks have `block` tokens."""
    if kv.is_cuda:
        from holynb.pool.engine.graphs import GraphExecutor

        return GraphExecutor(model, kv, block, limits, stage=stage)
    from holynb.pool.engine.eager import EagerExecutor

    return EagerExecutor(model, kv, block, stage)


def first_steps(executor: StepExecutor, compilation: Compilation | None, spec: Spec, mesh: Mesh) -> FirstSteps | None:
    """What runs while the kernels of a GPU's `executor` compile. None for a model that waits for them, once they are compiled.

    Several ranks must agree on every step, and do not end to compile at the same time.
    """
    if compilation is None:
        return None
    from holynb.pool.engine.first_steps import FirstSteps, serves
    from holynb.pool.engine.graphs import GraphExecutor

    if mesh.size > 1 or not isinstance(executor, GraphExecutor) or not serves(spec):
        compilation.wait()
        return None
    return FirstSteps(executor, compilation)
