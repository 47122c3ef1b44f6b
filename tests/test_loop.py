"""The io loop: a thread of its own that starts when asked, ends when told, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from holynb import loop


@pytest.fixture(autouse=True)
def closed():
    yield
    loop.close()


def test_work_runs_on_its_own_thread():
    async def where() -> str:
        return threading.current_thread().name

    assert loop.submit(where()).result(5) == "holynb-io"
    assert loop.running()


def test_close_cancels_what_is_left_and_ends_the_thread():
    cancelled = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    loop.submit(forever())
    loop.submit(asyncio.sleep(0)).result(5)
    loop.close()
    assert cancelled.is_set()
    assert "holynb-io" not in {t.name for t in threading.enumerate()}
    loop.close()


def test_it_starts_again_after_a_close():
    loop.submit(asyncio.sleep(0)).result(5)
    loop.close()
    assert loop.submit(asyncio.sleep(0, "again")).result(5) == "again"


def test_a_call_without_a_loop_does_nothing():
    ran: list[int] = []
    loop.call(ran.append, 1)
    assert ran == []


def test_it_is_asyncios_own_whatever_policy_the_program_has_set():
    """uvloop's, which Ray's workers have, refuses what our connections ask for."""

    class Foreign(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            raise AssertionError("a loop of the program's policy")

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Foreign())
    try:
        assert loop.submit(asyncio.sleep(0, "ours")).result(5) == "ours"
    finally:
        asyncio.set_event_loop_policy(before)
