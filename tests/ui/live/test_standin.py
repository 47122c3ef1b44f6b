"""The sentence in the place of a widget whose kernel is gone: in what is saved, how often it is renewed, and what a page without news is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import ipywidgets as w
import pytest

from holynb.ui.live import pulse, standin, timer
from holynb.ui.live.assets import asset
from holynb.ui.live.pulse import Pulse
from holynb.ui.live.standin import FIRST_S, RENEW_S, StandIn

VIEW = "application/vnd.jupyter.widget-view+json"


class Handle:
    def __init__(self, shown: list[Any]) -> None:
        self.shown = shown

    def update(self, bundle: Any, *, raw: bool) -> None:
        assert raw
        self.shown.append(bundle)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    bundles: list[Any] = []

    def display(bundle: Any, *, raw: bool, display_id: bool = False) -> Handle | None:
        assert raw
        bundles.append(bundle)
        return Handle(bundles) if display_id else None

    monkeypatch.setattr("IPython.display.display", display)
    return bundles


def test_the_widgets_own_output_has_the_sentence_and_no_repr(shown: list[Any]) -> None:
    bundle = StandIn(lambda: "`%infer show <b>` shows it.").bundle(w.VBox())
    assert VIEW in bundle
    assert bundle["text/plain"] == "%infer show <b> shows it."
    assert bundle["text/html"] == standin.NO_WORDS, "GitHub shows the HTML of both outputs"


def test_the_sentence_is_html_in_the_output_beside_the_widget(shown: list[Any]) -> None:
    now = [0.0]
    it = StandIn(lambda: "`%infer show <b>` shows it.", clock=lambda: now[0])
    it.open()
    now[0] = FIRST_S
    it.renew()
    assert "<code>%infer show &lt;b&gt;</code> shows it." in shown[-1]["text/html"]


def test_it_is_empty_at_first_and_renewed_no_more_often_than_every_ten_seconds(shown: list[Any]) -> None:
    now, rows = [0.0], [0]
    it = StandIn(lambda: f"{rows[0]} rows", clock=lambda: now[0])
    assert it.renew() is False, "there is no output yet"
    it.open()
    for tenth in range(400):
        now[0], rows[0] = tenth / 10, tenth
        it.renew()
    assert shown[0] == {"text/plain": ""}, "with HTML JupyterLab would load what makes it safe before the first picture"
    said = [int(b["text/plain"].split()[0]) for b in shown[1:]]
    assert said == [int(10 * (FIRST_S + i * RENEW_S)) for i in range(4)]
    it.say_last()
    assert shown[-1]["text/plain"] == "399 rows", "the end is said at once"
    assert it.end({"text/html": "charts"})
    assert shown[-1] == {"text/html": "charts"}


def test_the_page_finds_what_it_hides(shown: list[Any]) -> None:
    now = [0.0]
    it = StandIn(lambda: "gone", identity="abc", clock=lambda: now[0])
    it.open()
    now[0] = 9
    it.renew()
    assert 'class="holynb-standin holynb-standin-abc"' in shown[-1]["text/html"]
    assert ".holynb-standin-${id}" in asset("connection.js")
    assert len(shown[-1]["text/html"]) < 500


def test_panel_and_dashboard_say_how_to_open_them_again(shown: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standin, "FIRST_S", 0.05)
    monkeypatch.setattr(pulse, "FIRST_S", 0.05)

    async def scene() -> None:
        pulse.show(w.HTML("rows"), "The dashboard", "%infer dash")
        await asyncio.sleep(0.3)

    asyncio.run(scene())
    assert [b["text/plain"] for b in shown] == ["The dashboard was open here. %infer dash opens it again.", "", shown[0]["text/plain"]]
    assert VIEW in shown[0]


def test_a_pulse_beats_only_for_a_page_that_asked_and_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[Any] = []
    monkeypatch.setattr(pulse, "BEAT_S", 0.01)

    async def scene() -> None:
        pulse = Pulse({"standin": "", "again": "", "then": ""})
        enough = asyncio.Event()
        pulse.send = lambda beat: beats.append(beat) or (len(beats) >= 3 and enough.set())
        await asyncio.sleep(0.03)
        assert beats == [], "JupyterLab with the extension costs nothing"
        for _ in range(2):
            pulse._on_message(pulse, {"cmd": "beat"}, [])
        pulse._on_message(pulse, {"cmd": ["nonsense"]}, [])
        before = set(timer._tasks)
        assert len(before) == 1, "two pages share one beat"
        async with asyncio.timeout(5):
            await enough.wait()
            pulse.close()
            await asyncio.wait(before)

    asyncio.run(scene())
    assert beats[:3] == [{}, {}, {}]
