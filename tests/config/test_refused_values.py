"""A value that is refused is told by its kind: somebody may have put a key there."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from holynb.config import settings
from holynb.errors import BadSetting
from holynb.pricing import prices
from holynb.run import routing
from holynb.types import Route

#: Like no known provider's: what stands in a setting's place is not shown for its shape alone.
IN_A_SETTING = "(zq7Kp2mVw9Tn4Rb8"


@pytest.mark.parametrize(
    "table",
    [
        *({"price": {"openai/gpt-4.1": {"input": 1, "output": 2, field: IN_A_SETTING}}} for field in ("input", "output", "cached", "date")),
        {"price": {"pool/x": {"per_device_hour": IN_A_SETTING}}},
        {"price": {"openai/gpt-4.1": {"input": [IN_A_SETTING], "output": {"key": IN_A_SETTING}}}},
        *({"router": {"mine": {field: [IN_A_SETTING]}}} for field in ("column", "other", "escalate", "routes", "rules")),
        {"router": {"mine": {"column": {"key": IN_A_SETTING}}}},
        *(
            {"router": {"mine": {"routes": {"a": "cheap"}, "rules": [{"task": "a", "any": ["b"], field: IN_A_SETTING}]}}}
            for field in ("any", "all", "pattern", "longer", "shorter")
        ),
        {"router": {"mine": {"routes": {"a": "cheap"}, "rules": [{"task": "a", "pattern": [IN_A_SETTING]}]}}},
    ],
    ids=str,
)
def test_a_key_in_a_setting_is_not_repeated_by_the_message_that_refuses_it(table: dict[str, Any]):
    settings.override(**table)
    try:
        with pytest.raises(BadSetting) as caught:
            routing.load("mine") if "router" in table else [prices.list_price(Route.parse(r)) for r in table["price"]]
    finally:
        settings.reset()
    shown = "".join(traceback.format_exception(caught.value))
    assert IN_A_SETTING[1:6] not in str(caught.value)
    assert IN_A_SETTING[1:6] not in shown
