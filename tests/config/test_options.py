"""The options of a cell: names and values are checked before anything is sent."""

from __future__ import annotations

import dataclasses
import unicodedata

import pytest

from holynb.config.converters import duration, key_value
from holynb.config.options import PLANNED, TABLE, Options
from holynb.errors import BadOption


def test_the_table_and_the_options_name_the_same_things():
    assert [o.name for o in TABLE] == [f.name for f in dataclasses.fields(Options)]
    flags = [flag for o in TABLE for flag in o.flags]
    assert len(flags) == len(set(flags))
    assert all(o.help for o in TABLE)
    assert not set(PLANNED) & set(flags)


def test_defaults_are_the_contracts():
    o = Options.parse({})
    assert (o.timeout, o.connect_timeout, o.retries, o.cache, o.show) == (None, 10.0, 3, True, "all")


def test_values_are_converted():
    o = Options.parse(
        {"max_tokens": "1_000", "temperature": "0", "stop": "END", "p": ["a=1", "b=x", "c=[1,2]"], "deadline": "1h30m", "cache": False}
    )
    assert (o.max_tokens, o.temperature, o.stop, o.deadline, o.cache) == (1000, 0.0, ("END",), 5400.0, False)
    assert o.p == {"a": 1, "b": "x", "c": [1, 2]}


@pytest.mark.parametrize(
    ("given", "think"),
    [("off", "off"), (" high ", "high"), ("max", "max"), (4000, 4000), ("12_000", 12000), ("4,096", 4096), (None, None)],
)
def test_think_is_a_level_or_a_number_of_tokens(given: object, think: object):
    assert Options.parse({"think": given}).think == think


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": 1}, "There is no option 'modle'"),
        ({"max_token": 1}, "Did you mean max_tokens?"),
        ({"reasoning_effort": "low"}, "There is no option 'reasoning_effort'. Did you mean think? %infer help lists them."),
        ({"service_tier": "flex"}, "Did you mean tier?"),
        ({"max_tokens": 0}, "--max-tokens takes a whole number from 1, not 0"),
        ({"max_tokens": True}, "--max-tokens takes a whole number from 1, not True"),
        *(
            ({"think": v}, f"--think takes off, low, medium, high, max, or a number of tokens from 1, not {v!r}")
            for v in (True, False, 0, -1, "0", "HIGH", "12k", "", 1.5, float("nan"), "none", ["low"], 10**9)
        ),
        ({"max_tokens": "5,0"}, "--max-tokens takes a whole number from 1, not '5,0'"),
        ({"chunk": "1,00"}, "--chunk takes auto, or a number of tokens from 64, not '1,00'"),
        ({"max_tokens": "many"}, "--max-tokens takes a whole number from 1, not 'many'"),
        ({"temperature": "hot"}, "--temperature takes a number from 0 to 5, not 'hot'"),
        ({"temperature": float("nan")}, "--temperature takes a number"),
        ({"budget": float("nan")}, "--budget takes a number from 0, not nan"),
        ({"p": ["n=1", "top_k"]}, "-p takes KEY=VALUE, such as -p top_k=20, not 'top_k'"),
        ({"budget": -1}, "--budget takes a number from 0, not -1"),
        ({"budget": True}, "--budget takes a number from 0, not True"),
        ({"budget": "0.5$"}, "--budget takes a number from 0, not '0.5$'"),
        ({"confirm": "inf"}, "--confirm takes a number from 0, not 'inf'"),
        ({"chunk": "much"}, "--chunk takes auto, or a number of tokens from 64, not 'much'"),
        ({"chunk": 63}, "--chunk takes auto, or a number of tokens from 64, not 63"),
        ({"timeout": 0}, "--timeout takes a number above 0"),
        ({"p": "novalue"}, "-p takes KEY=VALUE"),
        ({"deadline": "soon"}, "--deadline takes a duration such as 90, 90s, 15m or 1h30m"),
        ({"show": "some"}, "--show takes one of all, table, charts, none"),
        ({"only": "good"}, "--only takes one of failed"),
        ({"stop": 5}, "--stop takes one text, or a list of texts, not 5"),
        ({"p": 5}, "-p takes KEY=VALUE, not 5"),
        ({"fallback": 5}, "--fallback takes names, a,b or a list of them, not 5"),
        ({"cache": "no"}, "--no-cache is a switch: True or False, not 'no'"),
        ({"raw": 1}, "--raw is a switch: True or False, not 1"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(values: dict[str, object], message: str):
    with pytest.raises(BadOption) as caught:
        Options.parse(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), (7, 7)]
)
def test_durations(text: object, seconds: float):
    assert duration(text) == seconds


def test_a_mapping_passes_through():
    assert key_value({"a": {"b": 1}}) == {"a": {"b": 1}}


@pytest.mark.parametrize("name", ["name", "into", "fallback", "df", "schema"])
def test_half_a_surrogate_pair_is_refused_where_something_is_named_with_it(name: str) -> None:
    with pytest.raises(BadOption, match="contains half of a surrogate pair"):
        Options.parse({name: "y\ud800"})
    assert Options.parse({"system": "y\ud800"}).system == "y\ud800", "what is only sent goes out as an escape"


def test_dollars_may_be_written_as_dollars():
    assert Options.parse({"budget": "$0.50", "confirm": " $2"}) == Options.parse({"budget": 0.5, "confirm": 2})


def test_names_that_look_alike_are_one():
    """A Mac's files, and what is copied from them, write Hangul and accents in parts."""
    apart = unicodedata.normalize("NFD", "낮잠 é")
    o = Options.parse({"name": apart, "resume": apart})
    assert o.name == o.resume == "낮잠 é" != apart
