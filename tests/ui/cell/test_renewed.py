"""`%infer resume` fills the variable of the run's cell; what is something else by now stays."""

from __future__ import annotations

import pandas as pd
import pytest
from ui.shells import Here

from holynb.errors import NotRunning
from holynb.run import assembly, session

#: Two rows at a time have an answer when the deadline comes.
CUT = "-c 1 -p latency=0.3 --deadline 0.5 --no-cache"
GO_ON = "--deadline 60 -c 9"


@pytest.fixture
def cut(here: Here) -> Here:
    """A shell whose `labels` is the frame of a run that its deadline cut, named `half`."""
    here.shell.user_ns["df"] = pd.DataFrame({"a": list("wxyz")}, index=list("ABCD"))
    here(f"%%infer labels << sim/echo --df df --into said --name half {CUT}\nsay {{{{ a }}}}")
    assert 0 < here["labels"]["said"].notna().sum() < 4
    return here


def test_the_variable_is_whole_after_resume(cut: Here) -> None:
    before = cut["labels"]
    result = cut(f"%infer resume half {GO_ON}")
    assert "labels now holds this result.\n" in result.out
    assert cut["labels"] is result.value is not before
    assert cut["labels"].columns.tolist() == ["a", "said"], "the input's columns, too"
    assert cut["labels"]["said"].to_dict() == {"A": "say w", "B": "say x", "C": "say y", "D": "say z"}
    assert "is something else by now" not in cut("copy = labels.copy()\n%infer run --only failed half").out, "again, and it holds this one"


@pytest.mark.parametrize("change", ["labels = 3", "labels['mine'] = 1", "labels.loc['A', 'said'] = 'mine'", "labels = labels.head(2)"])
def test_what_is_something_else_by_now_stays(cut: Here, change: str) -> None:
    cut(change)
    mine = cut["labels"]
    result = cut(f"%infer run --only failed half {GO_ON}")
    assert "labels is something else by now and stays as it is: labels = %infer resume half takes this result." in result.out
    assert cut["labels"] is mine
    assert result.value["said"].notna().all()


def test_after_a_restart_the_log_knows_the_name_but_not_the_input(cut: Here) -> None:
    cut(f"%%infer plain << sim/echo -l --name lines {CUT}\none\ntwo\nthree")
    session._session.clear()
    cut("del plain, labels")
    assert "plain now holds this result." in cut(f"%infer resume lines {GO_ON}").out
    assert cut["plain"]["text"].tolist() == ["one", "two", "three"]
    assert "labels stays as it is: the columns of its input are not in the run log." in cut(f"%infer resume half {GO_ON}").out
    assert "labels" not in cut.shell.user_ns


def test_a_variable_that_holds_a_run_holds_the_one_that_goes_on(here: Here) -> None:
    here(f"%%infer held << sim/echo -l --bg --name behind {CUT}\none\ntwo\nthree")
    before = here["held"]
    before.wait(20)
    assert "held now holds this run." in here(f"%infer resume behind {GO_ON}").out
    assert here["held"] is not before
    assert here["held"].wait(20).frame()["text"].tolist() == ["one", "two", "three"]
    assert here(f"%infer resume behind -q {GO_ON}").out == ""


def test_a_go_that_could_not_begin_leaves_the_variable_to_the_next(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here(f"%%infer held << sim/echo -l --name half {CUT}\none\ntwo\nthree")
    assert 0 < (here["held"]["status"] == "ok").sum() < 3

    async def gone(*args: object) -> None:
        raise NotRunning("pool/half is not running.")

    with monkeypatch.context() as away:
        away.setattr(assembly, "ready", gone)
        assert "is not running" in here.refused(f"%infer run --only failed half {GO_ON}")
    assert "held now holds this result.\n" in here(f"%infer run --only failed half {GO_ON}").out
    assert set(here["held"]["status"]) == {"ok"}
