"""Which module speaks an endpoint's batch API. Imports each when it is needed."""

from __future__ import annotations

from holynb.batches.limits import ProviderLimits
from holynb.batches.vendor import Vendor
from holynb.engines.hosted import Hosted

__all__ = ["of"]


def of(engine: Hosted, limits: ProviderLimits) -> Vendor:
    """The batch API behind this engine, whose provider `limits` are of."""
    wire = engine.endpoint.wire
    if wire == "anthropic":
        from holynb.batches.anthropic_batches import AnthropicBatches

        return AnthropicBatches(engine, limits)
    if wire == "gemini":
        from holynb.batches.gemini_batches import GeminiBatches

        return GeminiBatches(engine, limits)
    from holynb.batches.openai_batches import OpenAIBatches

    return OpenAIBatches(engine, limits)
