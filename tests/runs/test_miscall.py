"""A call of `infer` in another order, or by others' words, is answered with the call to write."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import holynb
from holynb.config import Options
from holynb.errors import BadOption, BadPrompt
from holynb.run import miscall

DF = pd.DataFrame({"text": ["a"]})
TEMPLATE = "Mood of {{ text }}"
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    f'holynb.infer("{TEMPLATE}", df=df)': ((DF,), {"prompt": TEMPLATE}),
    f'holynb.infer("{TEMPLATE}", "sim/echo", df=df)': ((DF, TEMPLATE), {"model": "sim/echo"}),
    f'holynb.infer("{TEMPLATE}", "sim/up", df=df)': ((TEMPLATE, "sim/up", DF), {}),
    f'holynb.infer("{TEMPLATE}", "fast", df=df)': ((TEMPLATE,), {"model": "fast", "data": DF, "max_tokens": 5}),
    'holynb.infer("Hello", df=df)': (("Hello", DF), {}),
    'holynb.infer("… {{ column }} …", "sim/echo", df=df)': ((DF, "sim/echo"), {}),
    'holynb.infer("Say it twice", "sim/echo")': (("sim/echo", "Say it twice"), {}),
    'holynb.infer("Hello", "sim/echo")': ((), {"prompt": "Hello", "model": "sim/echo"}),
    'holynb.infer([{"messages": messages}], "sim/echo")': ((), {"messages": [{"role": "user", "content": "x"}], "model": "sim/echo"}),
    'holynb.infer("the prompt")': ((), {"temperature": 0}),
    f'holynb.infer("{"x" * 60}…")': ((), {"question": "x" * 200}),
}


@pytest.mark.parametrize("written", CALLS)
def test_another_order_is_answered_with_the_call_to_write(written: str) -> None:
    args, options = CALLS[written]
    with pytest.raises(BadOption) as caught:
        holynb.infer(*args, **options)
    assert str(caught.value) == f"infer takes the prompt first, then the route, and rows as df=. Write {written}"


def test_with_df_given_the_rest_is_put_in_its_place() -> None:
    with pytest.raises(BadOption, match=r'Write holynb\.infer\("Mood of \{\{ text \}\}", "sim/echo", df=df\)$'):
        holynb.infer(prompt=TEMPLATE, model="sim/echo", df=DF)


def test_what_is_in_its_place_is_sent() -> None:
    assert holynb.infer(prompts=TEMPLATE, route="sim/echo", df=DF).wait(20).frame()["text"].tolist() == ["Mood of a"]
    assert holynb.infer(DF["text"], "sim/echo").wait(20).frame()["text"].tolist() == ["a"], "a column is a list of prompts"
    assert not {*miscall.PROMPTS, *miscall.FRAMES, *miscall.ROUTES} & set(Options.__slots__)


def test_messages_without_their_list_are_told_where_they_go() -> None:
    with pytest.raises(BadPrompt, match=r"Prompt 0 is a message\. A conversation is one prompt: \[\{'messages': "):
        holynb.infer([{"role": "user", "content": "hi"}], "sim/echo")
