"""OpenAI's two protocols behind one engine: chat completions, and Responses for models that have nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from holynb.engines import openai, responses
from holynb.engines.hosted import Hosted, Traits, Wire
from holynb.errors import Fault
from holynb.types import Endpoint, Secret

__all__ = ["ONLY_RESPONSES", "OpenAI", "either"]

#: What servers say of a model without chat completions: OpenAI (aaif-goose/goose#2564, micz/ThunderAI#570) and Azure
#: (langchain-ai/langchain#35050).
ONLY_RESPONSES = re.compile(
    r"only supported in v1/responses|not a chat model and thus not supported in the v1/chat/completions"
    r"|chatCompletion operation does not work with the specified model",
    re.IGNORECASE,
)
#: The trait of such a model.
TRAIT = "responses"


class OpenAI(Hosted):
    """An OpenAI-compatible server."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:
        super().__init__(endpoint, key, either(openai.WIRE, responses.WIRE))


def either(chat: Wire, other: Wire) -> Wire:
    """`chat`, and `other` from the moment that a server says that a model is only asked there."""

    def adapt(traits: Traits, fault: Fault) -> Traits:
        if ONLY_RESPONSES.search(openai.detail_of(fault).message):
            return traits | {TRAIT}
        return chat.adapt(traits, fault)

    return replace(chat, adapt=adapt, other=(TRAIT, other))
