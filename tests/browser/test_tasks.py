"""What people do all day takes few keys. `tasks.py` counts ten such things, also against another tree."""

from __future__ import annotations

from typing import Any

import pytest
from browser import tasks
from browser.cells import HELD, WHOLE, allow
from browser.tasks import Task

pytestmark = pytest.mark.browser


def taken(page: Any, task: Task, way: Any) -> tuple[int | None, int | None]:
    count = tasks.counted(page, task, way)
    assert count.keys is not None, f"{task.name}: {count.way}: {count.reason}"
    return count.keys, count.clicks


def named(words: str) -> Task:
    return next(task for task in tasks.TASKS if words in task.name)


def test_a_run_is_stopped_resumed_and_its_cost_is_found(notebook: Any) -> None:
    task = named("stop a run")
    page = notebook(*tasks.notebook_of(task)[1:])
    page.say(HELD)  # it goes on until it is stopped
    allow(page, 3)
    tasks.begin(page, task)
    assert taken(page, task, tasks.stop) == (0, 1)
    allow(page, WHOLE)
    tasks.in_the_last_cell(page)
    assert taken(page, named("resume"), tasks.resume) == (14, 0)
    assert taken(page, named("have cost"), tasks.cost_command) == (12, 0)


def test_why_a_row_failed_is_there_to_be_read(notebook: Any) -> None:
    task = named("why a row failed")
    page = notebook(*tasks.notebook_of(task)[1:])
    tasks.begin(page, task)
    assert taken(page, task, tasks.look) == (0, 0)
