"""What the live view costs, measured in JupyterLab in Chromium: python tests/browser/figures.py [--mbit 1]

The same job, 64 rows at 2,000 tokens a second for some seconds, shown four ways in one run: by nobody, by the live view, and by plotly's
FigureWidget with an ipywidgets HTML table at the same pace. Kernel share is CPU time of the kernel's process; what the job itself
takes is shown as "nobody". Opening is what comes over the socket up to the view's first message; a slow machine draws later, and more
comes until the first picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.lab import CHROMIUM, FLAGS, Lab, Page, write_notebook

JOB = """
import asyncio, json, threading, time
from holynb.journal import Journal
from holynb.events import Ended, Gauge, Started
from holynb.types import Message, Outcome, Usage
from holynb.ui.live.runinfo import RunInfo

class Job:
    "64 rows that stream 2,000 tokens a second together; a row ends after 100 tokens and another takes its place."
    label, name, state = "", "", "running"
    def __init__(self, seconds, n=64, rate=2000, rows=2000):
        self.journal, self.seconds, self.n, self.rate = Journal(rows), seconds, n, rate
        self.started = time.time()
        self.info = RunInfo([f"Say something about the number {i}" for i in range(rows)], started=self.started, title="a job")
        self.thread = threading.Thread(target=self.go, daemon=True); self.thread.start()
    @property
    def elapsed(self): return time.time() - self.started
    def messages(self, row): return [Message("user", "x")]
    def cancel(self): pass
    def go(self):
        in_flight, words, top, sent, gauge = list(range(self.n)), [0] * len(self.journal.rows), self.n, 0, 0.0
        for r in in_flight: self.journal.append(Started(r, 1, "sim/stream", time.time()))
        while self.elapsed < self.seconds:
            while sent < self.elapsed * self.rate:
                i = sent % self.n; r = in_flight[i]
                self.journal.append_text(r, f" word{words[r]}"); words[r] += 1; sent += 1
                if words[r] >= 60 + r % 64 and top < len(words):
                    o = Outcome("ok", "a whole answer " * 20, route="sim/stream", attempts=1, usage=Usage(9, words[r]),
                                latency_s=3.0, ttft_s=0.1)
                    self.journal.append(Ended(r, o, time.time())); in_flight[i] = top
                    self.journal.append(Started(top, 1, "sim/stream", time.time())); top += 1
            if self.elapsed > gauge: self.journal.append(Gauge("RAM", 10**9, 10**10, time.time(), 10**8)); gauge += 0.5
            time.sleep(0.01)
        self.state = "done"

async def nobody(job):
    while job.state == "running": await asyncio.sleep(0.1)

async def ours(job):
    from IPython.display import display
    from holynb.ui.live.widget import LiveView
    view = LiveView(job); display(view.widget)
    while job.state == "running":
        await asyncio.sleep(0.1); view.tick()

async def plotly(job):
    import html, plotly.graph_objects as go, ipywidgets as w
    from IPython.display import display
    from holynb.ui.live.feed import Feed
    feed, cursor = Feed(job.info), 0
    names = ["cost", "latency", "rate", "memory"]
    figures = [go.FigureWidget(data=[go.Scatter(y=[0.0], name=n)], layout={"height": 160}) for n in names]
    table = w.HTML(); display(w.HBox([table, w.VBox(figures)]))
    while job.state == "running":
        await asyncio.sleep(0.2)
        events, cursor = job.journal.events_since(cursor)
        feed.fold(events, job.journal.text_starts(140), job.elapsed)
        shown = [feed.row(r) for r in feed.in_flight]
        table.value = "<table>" + "".join(f"<tr><td>{r.row}</td><td>{html.escape(r.text)}</td></tr>" for r in shown) + "</table>"
        charts = feed.series.points.all()["charts"]
        for figure, name in zip(figures, names):
            columns = next(iter(charts.get(name, {"": []}).values()))
            figure.data[0].y = [v or 0 for v in columns]

async def measured(way, seconds=6.0):
    job = Job(seconds); cpu = time.process_time(); await way(job); cpu = time.process_time() - cpu
    print("CPU", cpu / job.elapsed)
"""

WATCH = """() => { window.frames_ = []; window.long_ = []; window.first_ = null; window.t0_ = performance.now();
  let last = performance.now();
  const step = now => { window.frames_.push(now - last); last = now; window.raf_ = requestAnimationFrame(step); };
  window.raf_ = requestAnimationFrame(step);
  new PerformanceObserver(l => l.getEntries().forEach(e => window.long_.push(e.duration))).observe({type: 'longtask'});
  const look = () => { const e = document.querySelector('.hn .hn-sizer .hn-row') ?? document.querySelector('.js-plotly-plot .main-svg');
    if (e && window.first_ === null) window.first_ = performance.now() - window.t0_;
    else if (window.first_ === null) setTimeout(look, 10); }; look(); return null; }"""
READ = """() => { cancelAnimationFrame(window.raf_); const f = window.frames_.slice().sort((a, b) => a - b);
  return {p95: f[Math.floor(f.length * .95)], frames: f.length, longest: Math.max(0, ...window.long_),
    long: window.long_.length, first: window.first_}; }"""


def once(page: Page, way: str, cell: int, mbit: float | None = None) -> dict[str, Any]:
    """One way to show the job, in a cell that awaits `measured(way)`. The notebook's first cell is JOB."""
    page.run(1)
    if mbit:
        network = page.page.context.new_cdp_session(page.page)
        network.send("Network.enable")
        rate = mbit * 1e6 / 8
        network.send(
            "Network.emulateNetworkConditions", {"offline": False, "latency": 30, "downloadThroughput": rate, "uploadThroughput": rate}
        )
    before, page.opened = page.received, None
    page.page.evaluate(WATCH)
    page.start(cell)
    pictured = None
    if way != "nobody":
        page.until(lambda: page.page.evaluate("() => window.first_"), 120, "the first picture")
        pictured = page.received - before
    page.idle(180)
    seen = page.page.evaluate(READ)
    return {
        "way": way,
        "kernel_share": float(page.text(cell).split("CPU")[-1].split()[0]),
        "opening_kB": page.opened and (page.opened - before) / 1000,
        "until_picture_kB": pictured and pictured / 1000,
        "all_kB": (page.received - before) / 1000,
        **seen,
        "errors": list(page.errors),
    }


#: An hour in a few seconds: a row a second, a tick a second, paced below what the server lets through. "RSS" is the kernel's.
HOUR = """
async def hour(upto):
    from IPython.display import display
    global view, clock
    if "view" not in globals():
        from holynb.ui.live.widget import LiveView
        class Slow(Job):
            def go(self): pass
            elapsed = property(lambda self: clock)
        clock = 0.0
        job = Slow(0, rows=4000); job.started = job.info.started
        view = LiveView(job); display(view.widget)
    job = view.source
    while clock < upto:
        r = int(clock); now = job.started + clock; clock += 1.0
        o = Outcome("ok", "an answer " * 10, route="sim/stream", attempts=1, usage=Usage(9, 50), latency_s=1.0 + r % 7, ttft_s=0.1)
        for e in (Started(r, 1, "sim/stream", now), Gauge("RAM", r, 10**4, now, r // 2), Ended(r, o, now + 0.9)): job.journal.append(e)
        view.tick(); await asyncio.sleep(0.003)
    import gc, psutil
    gc.collect(); print("RSS", psutil.Process().memory_info().rss / 2**20)
"""


def hour(page: Page, seconds: int = 3600) -> dict[str, float]:
    """MiB of the page's heap and of the kernel after ten minutes and an hour, or so many `seconds`. The notebook's cells: JOB + HOUR, hour(600), hour(seconds)."""
    probe = page.page.context.new_cdp_session(page.page)
    probe.send("Performance.enable")

    def heap() -> float:
        probe.send("HeapProfiler.collectGarbage")
        metrics = {m["name"]: m["value"] for m in probe.send("Performance.getMetrics")["metrics"]}
        return float(metrics["JSHeapUsedSize"]) / 2**20

    out = {}
    page.run(1)
    for cell, when, shown in ((2, "ten_minutes", "600 of 4,000"), (3, "later", f"{seconds:,} of 4,000")):
        printed = page.run(cell, 90)
        page.until(lambda shown=shown: shown in page.find(".hn-done").inner_text(), 20, shown)  # type: ignore[misc]
        out |= {f"page_{when}": heap(), f"kernel_{when}": float(printed.split("RSS")[-1].split()[0])}
    return out


#: Watches for the first rows of the view, and for long tasks.
OPENING = """() => { const seen = new MutationObserver(() => {
    const row = document.querySelector('.hn .hn-sizer .hn-row'); if (!row) {
        if (document.querySelector('.hn')) window.opened ??= performance.now(); return; }
    window.opened ??= performance.now(); seen.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = performance.now(); })); });
    seen.observe(document.body, {childList: true, subtree: true});
    new PerformanceObserver(l => l.getEntries().forEach(e => {
        window.longest = Math.max(window.longest ?? 0, e.duration); })).observe({type: 'longtask'});
    return null; }"""
MANY = [
    'rows = [f"prompt number {i}" for i in range(10_000)]; import pandas as pd; df = pd.DataFrame({"x": rows})',
    "%%infer sim/echo --df df --no-cache -p latency=2.5 -c 8\n{{ x }}",
]


def many(page: Page) -> dict[str, float]:
    """Milliseconds from the view of 10,000 rows to its first painted rows. The notebook's cells: MANY; the run is stopped by the caller."""
    page.run(1)
    before = page.received
    page.ask(OPENING)
    page.start(2)
    page.until(lambda: page.ask("() => window.painted ?? null"), 40, "the first rows")
    opened = (page.received - before) / 1000
    return {
        "painted_ms": page.ask("() => window.painted - window.opened"),
        "longest_ms": page.ask("() => window.longest ?? 0"),
        "opening_kB": opened,
    }


def saved(page: Page) -> dict[str, float]:
    """kB of a notebook saved after 100 rows with answers of 200 words."""
    page.run(1)
    page.run(2, 120)
    page.save()
    return {"saved_kB": page.path.stat().st_size / 1000}


def alone(lab: Lab, window: Any, name: str, measure: Callable[[Page], dict[str, Any]], cells: list[str]) -> dict[str, Any]:
    """A measurement in a notebook of its own."""
    context = window.new_context()
    page = Page(lab, context, write_notebook(lab.root / f"{name}.ipynb", ["%load_ext holynb", *cells]))
    page.run(0)
    try:
        return {"what": name, **measure(page)}
    finally:
        page.close()
        context.close()
        lab.end_kernels()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser()
    parser.add_argument("--mbit", type=float, default=1.0)
    args = parser.parse_args()
    lab = Lab()
    try:
        with sync_playwright() as started:
            window = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for way, mbit in (("nobody", None), ("ours", None), ("plotly", None), ("ours", args.mbit)):
                figures = alone(
                    lab, window, f"{way}{mbit or ''}", lambda page, w=way, m=mbit: once(page, w, 2, m), [JOB, f"await measured({way})"]
                )
                print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in {**figures, "mbit": mbit}.items()}))
            rows = 'import pandas as pd; df = pd.DataFrame({"x": [f"a review of some length, number {i}" for i in range(100)]})'
            asked_100 = [rows, "%%infer sim/stream --df df --no-cache -c 100 --max-tokens 200\nSay what you think of {{ x }}"]
            for name, measure, cells in (
                ("10,000 rows", many, MANY),
                ("an hour", hour, [JOB + HOUR, "await hour(600)", "await hour(3600)"]),
                ("100 rows saved", saved, asked_100),
            ):
                print(
                    json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in alone(lab, window, name, measure, cells).items()})
                )
            window.close()
    finally:
        lab.close()


if __name__ == "__main__":
    main()
