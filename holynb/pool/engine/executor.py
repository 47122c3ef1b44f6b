"""What runs planned steps: plain torch on a CPU, CUDA graphs on a GPU. Knows tensors; knows no scheduler and no jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from holynb.pool.engine.scores import Scores
from holynb.pool.engine.sequence import Step
from holynb.pool.fit import BatchLimits

if TYPE_CHECKING:
    from torch import Tensor

    from holynb.pool.engine.model import Decoder
    from holynb.pool.engine.pipeline import SingleStage

__all__ = ["StepExecutor", "executor_for"]


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
