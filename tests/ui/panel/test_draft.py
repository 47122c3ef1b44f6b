"""The cell that the panel writes says what its fields say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holynb.ui.cell import grammar
from holynb.ui.panel.draft import Draft, quoted


def read(draft: Draft) -> tuple[grammar.CellLine, str]:
    first, _, body = draft.cell().partition("\n")
    assert first.startswith("%%infer")
    return grammar.parse(first.removeprefix("%%infer")), body


def test_a_job_is_a_cell_that_reads_back() -> None:
    draft = Draft(
        "Translate {{ text }}\n---\nis fine",
        "sim/echo",
        {"df": "reviews", "system": "Be brief, 한국어로", "max_tokens": "50", "stream": True, "cache": False},
        "out",
    )
    line, body = read(draft)
    assert (
        draft.cell().splitlines()[0]
        == "%%infer out << sim/echo --df reviews --system 'Be brief, 한국어로' --max-tokens 50 --stream --no-cache"
    )
    assert (line.name, line.show, line.route, body) == ("out", False, "sim/echo", draft.body)
    assert line.options == {**draft.options}


def test_nothing_said_is_a_bare_cell() -> None:
    assert Draft("hello").cell() == "%%infer\nhello"


@given(
    st.text(st.characters(exclude_characters="\\\n", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40).filter(
        str.strip
    )
)
def test_any_value_is_one_word_of_the_line(value: str) -> None:
    assert grammar.split(f"--system {quoted(value)} --stream") == ["--system", value, "--stream"]


def test_line_breaks_become_spaces_on_the_line() -> None:
    assert quoted("two\nlines") == "'two lines'"
