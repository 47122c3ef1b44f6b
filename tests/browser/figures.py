"""What the live view costs, measured in JupyterLab in Chromium: python tests/browser/figures.py [--mbit 1]

The same job, 64 rows at 2,000 tokens a second for some seconds, shown four ways in one run: by nobody, by the live view, and by plotly's
FigureWidget with an ipywidgets HTML table at the same pace. Kernel share is CPU time of the kernel's process; what the job itself
takes is shown as "nobody". Opening is what comes over the socket until the first picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.lab import CHROMIUM, FLAGS, Lab, Page, write_notebook

JOB = """
import asyncio, json, threading, time
from holynb.journal import Journal
from holynb.types import Ended, Gauge, Message, Outcome, Started, Usage
from holynb.ui.feed import Asked

class Job:
    "64 rows that stream 2,000 tokens a second together; a row ends after 100 tokens and another takes its place."
    label, state = "", "running"
    def __init__(self, seconds, n=64, rate=2000, rows=2000):
        self.journal, self.seconds, self.n, self.rate = Journal(rows), seconds, n, rate
        self.started = time.time()
        self.asked = Asked([f"Say something about the number {i}" for i in range(rows)], started=self.started, title="a job")
        self.thread = threading.Thread(target=self.go, daemon=True); self.thread.start()
    @property
    def elapsed(self): return time.time() - self.started
    def messages(self, row): return [Message("user", "x")]
    def cancel(self): pass
    def go(self):
        flying, said, top, sent, gauge = list(range(self.n)), [0] * len(self.journal.rows), self.n, 0, 0.0
        for r in flying: self.journal.append(Started(r, 1, "sim/stream", time.time()))
        while self.elapsed < self.seconds:
            while sent < self.elapsed * self.rate:
                i = sent % self.n; r = flying[i]
                self.journal.say(r, f" word{said[r]}"); said[r] += 1; sent += 1
                if said[r] >= 60 + r % 64 and top < len(said):
                    o = Outcome("ok", "a whole answer " * 20, route="sim/stream", attempts=1, usage=Usage(9, said[r]), latency_s=3.0, ttft_s=0.1)
                    self.journal.append(Ended(r, o, time.time())); flying[i] = top; self.journal.append(Started(top, 1, "sim/stream", time.time())); top += 1
            if self.elapsed > gauge: self.journal.append(Gauge("RAM", 10**9, 10**10, time.time(), 10**8)); gauge += 0.5
            time.sleep(0.01)
        self.state = "done"

async def nobody(job):
    while job.state == "running": await asyncio.sleep(0.1)

async def ours(job):
    from IPython.display import display
    from holynb.ui.live import LiveView
    view = LiveView(job); display(view.widget)
    while job.state == "running":
        await asyncio.sleep(0.1); view.tick()

async def plotly(job):
    import html, plotly.graph_objects as go, ipywidgets as w
    from IPython.display import display
    from holynb.ui.feed import Feed
    feed, cursor = Feed(job.asked), 0
    names = ["cost", "latency", "rate", "memory"]
    figures = [go.FigureWidget(data=[go.Scatter(y=[0.0], name=n)], layout={"height": 160}) for n in names]
    table = w.HTML(); display(w.HBox([table, w.VBox(figures)]))
    while job.state == "running":
        await asyncio.sleep(0.2)
        events, cursor = job.journal.since(cursor)
        feed.take(events, job.journal.tails(140), job.elapsed)
        shown = [feed.row(r) for r in feed.flying]
        table.value = "<table>" + "".join(f"<tr><td>{r[0]}</td><td>{html.escape(r[2])}</td></tr>" for r in shown) + "</table>"
        charts = feed.course.points.all()["charts"]
        for figure, name in zip(figures, names):
            columns = next(iter(charts.get(name, {"": []}).values()))
            figure.data[0].y = [v or 0 for v in columns]

async def measured(way, seconds=6.0):
    job = Job(seconds); cpu = time.process_time(); await way(job); cpu = time.process_time() - cpu
    print("CPU", cpu / job.elapsed)
"""

WATCH = """() => { window.frames_ = []; window.long_ = []; window.first_ = null; window.t0_ = performance.now(); let last = performance.now();
  const step = now => { window.frames_.push(now - last); last = now; window.raf_ = requestAnimationFrame(step); }; window.raf_ = requestAnimationFrame(step);
  new PerformanceObserver(l => l.getEntries().forEach(e => window.long_.push(e.duration))).observe({type: 'longtask'});
  const look = () => { const e = document.querySelector('.hn .hn-sizer .hn-row') ?? document.querySelector('.js-plotly-plot .main-svg');
    if (e && window.first_ === null) window.first_ = performance.now() - window.t0_; else if (window.first_ === null) setTimeout(look, 10); }; look(); return null; }"""
READ = """() => { cancelAnimationFrame(window.raf_); const f = window.frames_.slice().sort((a, b) => a - b);
  return {p95: f[Math.floor(f.length * .95)], frames: f.length, longest: Math.max(0, ...window.long_), long: window.long_.length, first: window.first_}; }"""


def once(lab: Lab, window: Any, way: str, mbit: float | None = None) -> dict[str, Any]:
    """One way to show the job, on a page of its own."""
    context = window.new_context(viewport={"width": 1280, "height": 900})
    page = Page(lab, context, write_notebook(lab.root / f"{way}{mbit or ''}.ipynb", [JOB, f"await measured({way})"]))
    page.run(0)
    if mbit:
        network = context.new_cdp_session(page.page)
        network.send("Network.enable")
        rate = mbit * 1e6 / 8
        network.send(
            "Network.emulateNetworkConditions", {"offline": False, "latency": 30, "downloadThroughput": rate, "uploadThroughput": rate}
        )
    before = page.received
    page.page.evaluate(WATCH)
    page.start(1)
    opened = None
    if way != "nobody":
        page.until(lambda: page.page.evaluate("() => window.first_"), 120, "the first picture")
        opened = page.received - before
    page.idle(180)
    seen = page.page.evaluate(READ)
    out = {"way": way, "kernel_share": float(page.text(1).split("CPU")[-1].split()[0]), "opening_kB": opened and opened / 1000,
           "all_kB": (page.received - before) / 1000, **seen, "errors": page.errors}  # fmt: skip
    page.close()
    context.close()
    lab.end_kernels()
    return out


def main() -> None:
    from playwright.sync_api import sync_playwright

    asked = argparse.ArgumentParser()
    asked.add_argument("--mbit", type=float, default=1.0)
    said = asked.parse_args()
    lab = Lab()
    try:
        with sync_playwright() as started:
            window = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for way, mbit in (("nobody", None), ("ours", None), ("plotly", None), ("ours", said.mbit)):
                print(
                    json.dumps(
                        {k: round(v, 3) if isinstance(v, float) else v for k, v in {**once(lab, window, way, mbit), "mbit": mbit}.items()}
                    )
                )
            window.close()
    finally:
        lab.close()


if __name__ == "__main__":
    main()
