"""The fields that completion offers for `-p` are ones that the vendors' SDKs know, and that a pool takes."""

from __future__ import annotations

import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase
from google.genai.types import GenerationConfig
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from holynb import poolfields
from holynb.ui.cell import wirefields


@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        (wirefields._CHAT, CompletionCreateParamsBase.__annotations__),
        (wirefields._RESPONSES, ResponseCreateParamsBase.__annotations__),
        (wirefields._MESSAGES, MessageCreateParamsBase.__annotations__),
        (wirefields._GENERATION, {f.alias for f in GenerationConfig.model_fields.values()}),
    ],
)
def test_a_vendor_knows_what_is_offered(fields: tuple[str, ...], theirs: object) -> None:
    assert set(fields) <= set(theirs)  # type: ignore[call-overload]


def test_a_pool_refuses_no_field_that_is_offered() -> None:
    names = wirefields.names("pool/mine")
    assert "top_k" in names
    assert not {"messages", "stream", "n", "temperature"} & set(names)
    for name in names:
        poolfields.check_cell({name: None}, schema=False)
    for name in (n for n in names if wirefields.values("pool/mine", n) == ["true", "false"]):
        poolfields.check_cell({name: True}, schema=False)


@pytest.mark.parametrize("route", ["nobody/x", "open", "/", "sim"])
def test_a_route_that_is_still_typed_has_none(route: str) -> None:
    assert wirefields.names(route) == wirefields.values(route, "fault") == []


def test_every_fault_of_the_simulator_is_offered() -> None:
    from holynb.engines import sim

    assert wirefields.values("sim/echo", "fault") == list(sim.FAULTS)
