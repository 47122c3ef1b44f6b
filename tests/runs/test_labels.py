"""`--label`: what can be one, what is compared, and what is refused before anything is sent."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
import pytest

import holynb
from holynb.config import Options
from holynb.errors import BadOption, BadPrompt, BadRoute
from holynb.run import plan, resume
from holynb.run.labels import compared
from holynb.types import Outcome
from holynb.ui.output import report

SENTIMENT = {"type": "object", "properties": {"mood": {"type": "string", "enum": ["pos", "neg"]}, "stars": {"type": "integer"}}}


RATED = {"type": "object", "properties": {"rating": {"type": "number"}, "stars": {"type": "integer"}}}


def made(values: list[Any], **options: Any) -> plan.Plan:
    df = pd.DataFrame({"t": ["x"] * len(values), "y": values})
    return plan.make("{{ t }}", "sim/json", Options.parse({"df": df, "label": "y", **options}))


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([0.5, 1.5], {}, "--label y holds floats, such as 0.5"),
        ([1.0, 2.0], {}, "df['y'] = df['y'].astype('Int64')"),
        ([None, None], {}, "every row of it is missing"),
        ([["a"], ["b"]], {}, "--label y holds lists"),
        ([pd.Timestamp(0), pd.Timestamp(1)], {}, "--label y holds values of Timestamp"),
        (["a", "b"], {"label": "Y"}, "--label Y: there is no such column"),
        (["a", "b"], {"label": "y=mood"}, "there is no --schema"),
        (["pos", "neg"], {"schema": SENTIMENT}, "which column of --schema is compared with it? --label y=mood"),
        (["pos", "neg"], {"schema": SENTIMENT, "label": "y=mod"}, "the schema has no column 'mod'"),
        (["good", "bad"], {"schema": SENTIMENT, "label": "y=mood"}, "no answer can match: mood is one of 'pos', 'neg'"),
        (["many", "few"], {"schema": SENTIMENT, "label": "y=stars"}, "no answer can match: stars is another kind of value"),
        (["  ", ""], {}, "every label is blank"),
        (["many", "few"], {"schema": RATED, "label": "y=rating"}, "no answer can match: rating is another kind of value"),
    ],
)
def test_what_can_be_no_label_is_refused_in_one_line(values: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOption, match=re.escape(message)) as refused:
        made(values, **options)
    assert "\n" not in str(refused.value)


def test_companions_alone_are_refused() -> None:
    for options, message in (({"exact": True}, "--exact"), ({"label": "y"}, "add --df NAME")):
        with pytest.raises(BadOption, match=message):
            plan.make("x", "sim/echo", Options.parse(options))


def test_whole_numbers_with_gaps_true_and_false_and_categories_are_labels() -> None:
    for values, expected in (
        ([1.0, None, 3.0], ["1", None, "3"]),
        ([True, False], ["True", "False"]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        ([3, "x"], ["3", "x"]),
    ):
        labels = made(values).labels  # type: ignore[arg-type]
        assert labels is not None
        assert list(labels.values) == expected


@pytest.mark.parametrize(("field", "values"), [("rating", ["2.0", "1.50", "-3", "1e2"]), ("stars", ["2", "007", "-3", None])])
def test_a_label_of_a_number_is_written_as_the_field_is(field: str, values: list[str | None]) -> None:
    plan = made(values, schema=RATED, label=f"y={field}")
    assert plan.labels is not None
    assert not plan.notes or "can never be" not in " ".join(plan.notes)
    for label, value in zip(plan.labels.values, values, strict=True):
        number = None if value is None else float(value)
        said = None if number is None else Outcome("ok", json.dumps({"rating": number, "stars": int(number)}))
        assert label == (None if said is None else compared(said, plan.labels, plan.schema, exact=False))


def test_a_name_that_two_columns_have_is_no_label() -> None:
    df = pd.DataFrame([["x", "a", "b"]], columns=["t", "y", "y"])
    with pytest.raises(BadOption, match="--label y: 2 columns have this name"):
        plan.make("{{ t }}", "sim/json", Options.parse({"df": df, "label": "y"}))


def test_labels_that_some_answers_can_never_be_are_told() -> None:
    notes = made(["pos", "meh", None], schema=SENTIMENT, label="y=mood").notes
    assert "y has 'meh', which mood can never be." in notes
    assert "1 of 3 rows has no y, and no part in the figures." in notes


def test_a_prompt_that_shows_the_label_is_told() -> None:
    df = pd.DataFrame({"t": ["x"], "y": ["a"]})
    made_of = plan.make("{{ t }} {{ y }}", "sim/echo", Options.parse({"df": df, "label": "y"})).notes
    assert any("The prompt shows the model y" in note for note in made_of)


def test_the_figures_are_of_the_rows_that_have_both_and_the_log_says_the_same() -> None:
    df = pd.DataFrame({"t": ["pos", "NEG.", "pos", "other"], "y": ["pos", "neg", "neg", None]})
    run = holynb.infer("{{ t }}", "sim/echo", df=df, label="y", name="n").wait(30)
    for quality in (report.of(run).quality, report._from_log("n").quality):
        (x,) = quality.labelled
        assert (x.confusion.n, x.confusion.hits, x.unlabelled, x.failed) == (3, 2, 1, 0)
    assert run.quality().metrics.loc["accuracy", "value"] == pytest.approx(2 / 3)
    resumed = resume.resumed("n").labels
    assert resumed is not None
    assert [resumed.of(i) for i in range(4)] == ["pos", "neg", "neg", None]
    exact = holynb.infer("{{ t }}", "sim/echo", df=df, label="y", exact=True).wait(30)
    assert exact.quality().assessment.labelled[0].confusion.hits == 1


def test_failed_rows_are_outside_and_accuracy_is_also_said_with_them() -> None:
    df = pd.DataFrame({"t": ["a", "b", "c", "d"], "y": ["a", "b", "x", "d"], "fault": ["", "400", "", "content_filter"]})
    run = holynb.infer("{{ t }}", "sim/echo", df=df, label="y", params_from="fault", retries=0).wait(30)
    (x,) = run.quality().assessment.labelled
    assert (x.confusion.n, x.confusion.hits, x.failed) == (2, 1, 2)
    assert (x.confusion.accuracy, x.accuracy_of_all) == (0.5, 0.25)
    assert "2 failed: 25.0 % with them as wrong" in run.quality().__repr__()


def test_what_no_row_puts_into_its_prompt_is_said_before_it_is_sent():
    """Without it 500 equal questions, or labels of empty cells, look like answers."""
    df = pd.DataFrame({"text": ["I love it", None, float("nan"), "", "   ", "broke"], "id": range(6), "stars": [1, None, 3, 4, 5, 5]})

    def lines(body: str, **options: Any) -> list[str]:
        return list(
            plan.make(body, "sim/json", Options.parse({"df": "reviews", **options}), variables={"reviews": df, "tone": "warm"}).notes
        )

    for body in ("Label it.", "Label {text}.", "Be {{ tone }}: label it."):
        assert lines(body) == ["No column of reviews is in the prompt: every row asks the same. Write {{ text }}."]
    assert lines("Label {id}.") == ["No column of reviews is in the prompt: every row asks the same. Write {{ id }}."]
    assert lines("Label {{ text }}", raw=True) == lines("Label it.")
    assert not lines("Label it.", system="The text is: {{ text }}", where="id == 0 or id == 5")
    assert not lines("Label it.", limit=1)

    blank = "4 of 6 rows have nothing in {{ text }} and are asked all the same: --where \"text.str.strip() > ''\" leaves them out."
    assert lines("Label: {{ text }}") == [blank]
    assert not lines("Label: {{ text }}", where="text.str.strip() > ''"), "what the line says to do does it"
    assert lines("Label: {{ text }} with {{ stars }}")[1].endswith(
        'in {{ stars }} and is asked all the same: --where "stars.notna()" leaves it out.'
    )
    assert not lines("Label: {{ stars }}", where="stars.notna()")
    assert lines("Label: {{ text }}", where="id > 1") == [
        "3 of 4 rows have nothing in {{ text }} and are asked all the same: and text.str.strip() > '' at the end of --where leaves them out."
    ]
    assert not lines("{{ text }}"), "empty prompts are skipped, and told as such"
    assert not lines("Label: {{ text|default('nothing', true) }}")


def test_a_column_of_the_frame_itself_is_no_value_of_a_row():
    df = pd.DataFrame({"text": ["a"] * 99, "review text": ["b"] * 99})
    for body, own in (("{{ reviews.text }}", "{{ text }}"), ('{{ reviews["review text"] }}', '{{ row["review text"] }}')):
        with pytest.raises(
            BadPrompt, match=re.escape(f"of 99 rows would go into the prompt of each row: write {own} for the row's own value")
        ):
            plan.make(body, "sim/json", Options.parse({"df": "reviews"}), variables={"reviews": df})
    with pytest.raises(BadRoute, match="is several routes: --compare sim/echo,sim/json asks each"):
        plan.make("a", "sim/echo,sim/json", Options(), variables={})
