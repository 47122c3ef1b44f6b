"""The journal: grows, folds, and is read from any thread at any pace."""

from __future__ import annotations

import threading

import pytest

from holynb.events import Ended, Failed, Noted, Started
from holynb.journal import Journal
from holynb.types import Outcome


def ended(row: int, text: str = "x") -> Ended:
    return Ended(row, Outcome("ok", text), 0.0)


def test_readers_go_on_from_their_cursor():
    journal = Journal(2)
    journal.append(Started(0, 1, "sim/echo", 0.0))
    events, cursor = journal.events_since(0)
    assert (len(events), cursor) == (1, 1)
    assert journal.events_since(cursor) == ([], 1)
    journal.append(ended(0))
    journal.note("a line")
    events, cursor = journal.events_since(cursor)
    assert [type(e) for e in events] == [Ended, Noted]
    assert cursor == 3


def test_rows_are_the_fold_of_the_events():
    journal = Journal(3)
    journal.append(ended(2, "two"))
    assert [o.text if o else None for o in journal.rows] == [None, None, "two"]
    assert journal.ended == 1


def test_a_row_ends_once():
    journal = Journal(1)
    journal.append(ended(0))
    with pytest.raises(RuntimeError, match="ended twice"):
        journal.append(ended(0))


def test_live_text_is_there_while_the_row_is_in_flight():
    journal = Journal(2)
    journal.append_text(0, "Hel")
    journal.append_text(0, "lo")
    assert journal.partial_texts() == {0: "Hello"}
    assert journal.partial_text(0) == "Hello"
    assert journal.partial_text(1) is None
    journal.append(ended(0))
    assert journal.partial_texts() == {}


def test_a_failed_attempts_text_is_forgotten():
    journal = Journal(1)
    journal.append_text(0, "half an ans")
    journal.append(Failed(0, 1, "a/b", "truncated", "cut", 0.0, 0.5))
    journal.append_text(0, "whole")
    assert journal.partial_texts() == {0: "whole"}


def test_an_event_is_returned_as_it_stands_in_the_journal():
    journal = Journal(1)
    first = Started(0, 1, "a/b", 1000.0)
    assert journal.add(first) is first
    assert journal.add(Started(0, 2, "a/b", 100.0)).at == 1000.0, "the clock was set back"
    assert [type(journal.add(e)) for e in (ended(0),)] == [Ended]


def test_a_reader_in_another_thread_sees_every_event_in_order():
    n = 5000
    journal = Journal(n)
    seen: list[int] = []

    def read() -> None:
        cursor = 0
        while len(seen) < n:
            events, cursor = journal.events_since(cursor)
            seen.extend(e.row for e in events if isinstance(e, Ended))
            journal.partial_texts()

    reader = threading.Thread(target=read)
    reader.start()
    for row in range(n):
        journal.append_text(row, "text")
        journal.append(ended(row))
    reader.join(20)
    assert seen == list(range(n))


def test_starts_are_the_beginnings_of_what_rows_in_flight_said() -> None:
    journal = Journal(2)
    for piece in ("Once ", "upon ", "a ", "time"):
        journal.append_text(0, piece)
    journal.append_text(1, "x" * 50)
    assert journal.text_starts(7) == {0: (4, "Once upon "), 1: (1, "x" * 50)}
    assert journal.text_starts(10**9)[0] == (4, "Once upon a time")


def test_a_line_in_place_of_an_answer_is_replaced_by_the_next_and_counted() -> None:
    """The count is how a view knows that there is something new."""
    journal = Journal(1)
    journal.replace_text(0, "in 4 parts")
    assert journal.text_starts(99) == {0: (1, "in 4 parts")}
    journal.replace_text(0, "1 of 4 parts")
    assert journal.text_starts(99) == {0: (2, "1 of 4 parts")}
    assert journal.partial_text(0) == "1 of 4 parts"


def test_times_go_on_where_the_wall_clock_is_set_back() -> None:
    journal = Journal(1)
    for at in (1000.0, 999.8, 1001.0, 400.0, 401.0, 2000.0):
        journal.append(Noted("x", at))
    assert [e.at for e in journal.events_since(0)[0]] == [1000.0, 999.8, 1001.0, 1001.0, 1002.0, 2601.0], (
        "a thread that was late is not a clock"
    )


def test_thoughts_of_rows_in_flight_stand_apart_from_their_text():
    journal = Journal(2)
    journal.append_thoughts(0, "hm ", None)
    journal.append_thoughts(0, "", 40)
    journal.append_thoughts(0, "so", None)
    assert journal.partial_texts() == {}
    assert (journal.partial_thoughts(0), journal.partial_thoughts(1), journal.thinking()) == ("hm so", None, {0: (5, 40)})
    journal.append_thoughts(1, "", 7)
    assert (journal.partial_thoughts(1), journal.thinking()[1]) == (None, (0, 7))
    journal.append(Failed(0, 1, "a/b", "server", "x", 1.0))
    journal.append(Ended(1, Outcome("ok", "x"), 2.0))
    assert (journal.partial_thoughts(0), journal.thinking()) == (None, {})
