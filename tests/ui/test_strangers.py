"""Names that strangers chose, of models, routes, pools, columns, devices, errors: every page shows them as text, every terminal without escapes."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from servers.exact import Exact, reply
from ui.facts import failed, ok, record

from holynb import doctor, pools
from holynb.doctor.check import Check
from holynb.errors import BadOption
from holynb.events import Gauge, Load
from holynb.pools import PoolInfo
from holynb.pricing.spending import SpendingLine
from holynb.run.bench import Measured
from holynb.runlog import RunRecord
from holynb.schema import load
from holynb.ui.commands import bench_report, models, pool
from holynb.ui.output import listing, plots, static
from holynb.ui.output.listing import Listing
from holynb.ui.panel import dash, pooltable

IMAGE = "<img src=x onerror=alert(1)>"
#: The last begins as our own bars in tables do.
EVIL = [
    IMAGE,
    f'"><script>alert(1)</script>{IMAGE}',
    '<a href="https://evil.example">log in</a>',
    f"<b {IMAGE}",
    f"<b onclick=alert(1)>{IMAGE}",
]
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\x00"


@pytest.fixture(params=EVIL)
def evil(request: pytest.FixtureRequest) -> str:
    return f"{request.param}{ESCAPES}"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def alive(page: str) -> list[Any]:
    """What would act in a page, in the drawings inside it too."""
    tags = Tags(page).seen
    bad = [(t, a) for t, a in tags if t in ("script", "a", "iframe", "object") or any(k.startswith("on") for k in a)]
    for tag, attributes in tags:
        source = attributes.get("src") or ""
        if source.startswith("data:image/svg+xml;base64,"):
            bad += alive(base64.b64decode(source.partition(",")[2]).decode())
        elif tag == "img":
            bad.append((tag, attributes))
    return bad


def final_output(evil: str) -> Iterator[str]:
    rows = [ok(evil, route=evil, model=evil), failed("server", evil, route="x/y"), ok()]
    events = [e for t in range(3) for e in (Gauge(evil, 10 + t, 100, 100.0 + t), Load(evil, 100.0 + t, 1 + t, 2, 0.5))]
    schema = load({"type": "object", "properties": {evil: {"type": "string"}}})
    many = record(rows, [evil] * 3, notes=[evil], labels=[evil] * 3, schema=schema)
    yield static.as_html(many)
    yield static.as_html(record(rows, [evil] * 3, events=[*many.events, *events]))
    yield static.as_html(record([*rows, ok()], [evil] * 4, variants=(evil, "b")))
    yield static.as_html(record([failed("server", evil)], notes=[evil]))


def dashboard(evil: str) -> Iterator[str]:
    yield dash.runs_table([], [RunRecord(evil, evil, evil, 9, 100.0, None, evil, ok=4)], 400.0)
    yield dash.spending_table([SpendingLine(dt.date(2026, 11, 1), evil, evil, 10, 1, 0, 100, 50, Decimal(1), 0)])
    info = PoolInfo(evil, evil, evil, 1, evil, stage=evil, devices=(evil,), memory=(Gauge(evil, 10, 100, 0.0),), why=evil)
    yield pooltable.table([info])


def benchmark(evil: str) -> Iterator[str]:
    measured = Measured(evil, 3, 3, evil, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, steps=1, setup=evil)
    yield bench_report.as_html([measured])


@pytest.mark.parametrize("pages", [final_output, dashboard, benchmark])
def test_no_page_does_what_a_name_says(pages: Callable[[str], Iterator[str]], evil: str) -> None:
    for page in pages(evil):
        assert alive(page) == []
        assert "alert(1)" in page or "log in" in page, "the name is not there, so nothing was tried"


def test_the_search_finds_what_it_looks_for() -> None:
    drawing = base64.b64encode(f"<svg>{IMAGE}</svg>".encode()).decode()
    assert all(alive(f"<td>{text}</td>") for text in EVIL)
    assert alive(f'<img src="data:image/svg+xml;base64,{drawing}">')
    assert alive('<img src="data:image/svg+xml;base64,">') == []


def test_a_bar_of_our_own_is_still_drawn() -> None:
    page = listing.table(Listing(["a", "b"], [["x", dash._progress("running", 1, 2)]]))
    assert "width:50.0%" in page


def test_a_providers_name_is_text(evil: str) -> None:
    page = dash.history([SpendingLine(dt.date(2026, 11, d), f"{evil}/m", "m", 1, 1, 0, 1, 1, Decimal(1), 0) for d in (1, 2)])
    assert alive(page) == []
    assert "$1.00" in page


def test_plotly_reads_no_tags_in_names(evil: str) -> None:
    """It makes links of some, in titles, legends and ticks."""
    chart = plots.Chart(evil, {evil: [(0.0, 1.0), (1.0, 2.0)]}, {})
    figures = [
        plots.spec({"memory": chart}),
    ]
    for figure in figures:
        text = json.dumps(figure)
        assert not re.search(r"<(img|script|a |b [^>])", text)
        assert "&lt;" in text


# -- terminals -----------------------------------------------------------------------------------------------------------


def test_text_holds_no_escapes(evil: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    monkeypatch.setattr(pools, "logs", lambda name, lines: [evil, f"second {evil}"])
    texts = [
        static.as_text(record([ok(evil, route=evil), failed("server", evil), ok()], [evil] * 3, notes=[evil])),
        bench_report.as_text([Measured(evil, 3, 3, evil)]),
        pool.run(["logs", "x"], print)[0],
        doctor.text([Check(evil, "broken", evil, evil)]),
    ]
    for text in texts:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_a_servers_list_of_models_is_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    with Exact([reply({"data": [{"id": f"m{ESCAPES}"}, {"id": "n"}]})]) as server:
        text = models.text(api_base=f"{server.base}/v1")
    assert "vllm/m" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("body", ["<html>a page</html>", "", "[]", "7"])
def test_a_server_that_lists_nothing_is_one_line(body: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    with Exact([reply(body)]) as server:
        assert "Models cannot be listed" in models.text(api_base=f"{server.base}/v1")


def test_a_refused_word_moves_no_cursor() -> None:
    with pytest.raises(BadOption, match="There is no %infer pool x") as caught:
        pool.run([f"x{ESCAPES}"], print)
    assert "\x1b" not in str(caught.value)
