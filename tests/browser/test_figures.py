"""The live view stays cheap: bytes, kernel time, and an hour in the memory of the page. `figures.py` measures times too, and the same with plotly."""

from __future__ import annotations

from typing import Any

import pytest
from browser.figures import JOB, once

pytestmark = pytest.mark.browser

#: An hour in a few seconds: a row a second, a tick a second, paced below what the server lets through.
HOUR = """
async def hour(upto):
    from IPython.display import display
    global view, clock
    if "view" not in globals():
        from holynb.ui.live import LiveView
        class Slow(Job):
            def go(self): pass
            elapsed = property(lambda self: clock)
        clock = 0.0
        job = Slow(0, rows=4000); job.started = job.asked.started
        view = LiveView(job); display(view.widget)
    job = view.source
    while clock < upto:
        r = int(clock); now = job.started + clock; clock += 1.0
        o = Outcome("ok", "an answer " * 10, route="sim/stream", attempts=1, usage=Usage(9, 50), latency_s=1.0 + r % 7, ttft_s=0.1)
        for e in (Started(r, 1, "sim/stream", now), Gauge("RAM", r, 10**4, now, r // 2), Ended(r, o, now + 0.9)): job.journal.append(e)
        view.tick(); await asyncio.sleep(0.003)
"""


def test_opening_kernel_time_and_frames(lab: Any, window: Any) -> None:
    nobody, ours = once(lab, window, "nobody"), once(lab, window, "ours")
    print(f"\n{nobody}\n{ours}")
    assert ours["errors"] == []
    assert ours["opening_kB"] <= 100
    assert ours["kernel_share"] - nobody["kernel_share"] <= 0.10, "twice of what it takes on a quiet machine"
    assert ours["frames"] > 30, "the page kept drawing"


def test_an_hour_takes_no_more_memory_of_the_page_than_ten_minutes(notebook: Any) -> None:
    page = notebook(JOB + HOUR, "await hour(600)", "await hour(3600)")
    page.run(1)
    page.run(2)
    probe = page.page.context.new_cdp_session(page.page)
    probe.send("Performance.enable")

    def heap() -> float:
        probe.send("HeapProfiler.collectGarbage")
        metrics = {m["name"]: m["value"] for m in probe.send("Performance.getMetrics")["metrics"]}
        return metrics["JSHeapUsedSize"] / 2**20

    page.until(lambda: "600 of 4,000" in page.find(".hn-done").inner_text(), 20, "ten minutes")
    before = heap()
    page.run(3, 90)
    page.until(lambda: "3,600 of 4,000" in page.find(".hn-done").inner_text(), 20, "an hour")
    after = heap()
    print(f"\nheap of the page: {before:.1f} MiB after ten minutes, {after:.1f} MiB after an hour")
    assert after - before < 8, "3,000 more rows in the table are a few MiB; charts and messages leave nothing"
    assert page.there(".hn .hn-row") < 40
