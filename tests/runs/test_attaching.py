"""Attachments of whole runs: a row ends alone, the log keeps a hash, Run All sends nothing, and what cannot be sent is refused before."""

from __future__ import annotations

import base64
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pictures
import pytest
from pictures import PDF, PNG, attached, said_with
from servers import golden
from servers.asking import KEY
from servers.exact import Exact, reply

import holynb
from holynb import attachments, runlog
from holynb.config import Options
from holynb.errors import BadOption, BadPrompt
from holynb.pricing import prices
from holynb.run import plan as plans
from holynb.run import quote, resume
from holynb.types import Message, Request, Route
from holynb.ui.commands import preview
from holynb.ui.live.pictures import Pictures
from holynb.ui.output import pictures as thumbs
from holynb.ui.output import report, static

pytestmark = pytest.mark.usefixtures("no_project", "ended")

BODY = "Look at {{ attach(photo) }} and say {{ q }}"


def frame(folder: Path, **more: Any) -> pd.DataFrame:
    paths = pictures.written(folder, a_png=PNG, b_pdf=PDF)
    return pd.DataFrame({"photo": [paths["a_png"], str(folder / "none.png"), None, PNG, [paths["b_pdf"], PNG]], "q": list("abcde"), **more})


def test_a_row_ends_alone_and_run_all_sends_nothing(tmp_path: Path, home: Path):
    df = frame(tmp_path)
    first = holynb.infer(BODY, "sim/echo", df=df).wait()
    result = first.frame()
    assert result.status.tolist() == ["ok", "error", "ok", "ok", "ok"]
    assert result.error[1] == f"{tmp_path / 'none.png'} cannot be read: no such file or directory"
    assert (result.error_type[1], result.attempts.tolist()) == ("bad_request", [1, 0, 1, 1, 1])
    assert result.text[0] == "Look at  and say a"
    assert [n for n in first.plan.notes if "attachment" in n] == ["1 row of 5 has no attachment, and goes without."]
    again = holynb.infer(BODY, "sim/echo", df=df).wait().frame()
    assert again.cached.tolist() == [True, False, True, True, True]
    runlog.close()
    logged = b"".join(f.read_bytes() for f in home.iterdir() if f.is_file())
    assert hashlib.sha256(PNG).hexdigest().encode() in logged
    assert PNG[40:80] not in logged
    assert base64.b64encode(PNG)[40:80] not in logged


def test_another_picture_or_scale_is_another_request(tmp_path: Path):
    def key(value: Any, **options: Any) -> str:
        message = said_with(attached(value, **options))
        return Request(0, (message,), Route("sim", "echo")).key("")

    keys = [key(PNG), key(pictures.noise(seed=1)), key(PNG, longest=99), key(PNG, at=3)]
    assert len(set(keys)) == 4
    bare = Request(0, (Message("user", "a"),), Route("sim", "echo"))
    identity = ["", "sim/echo", [["user", "a"]], [None, None, None, [], None, {}], 0, None]  # what it was before there were any
    assert bare.key("") == hashlib.sha256(json.dumps(identity, separators=(",", ":")).encode()).hexdigest()


def test_a_file_that_has_come_is_sent_with_the_failed_rows(tmp_path: Path):
    run = holynb.infer(BODY, "sim/echo", df=frame(tmp_path)).wait()
    (tmp_path / "none.png").write_bytes(PNG)
    again = resume.failed_again(run.id)
    asked = again.rows.requests[1]
    assert asked is not None
    assert asked.attachments[0].problem is None


def test_resume_reads_files_again_and_says_what_the_log_does_not_hold(tmp_path: Path):
    df = pd.DataFrame({"photo": [pictures.written(tmp_path, a_png=PNG)["a_png"], PNG, "http://127.0.0.1:1/a.png"]})
    run = holynb.infer("What is it?", "sim/echo", df=df, attach="photo", attach_max=99).wait()
    found = [r.attachments[0] for r in resume.resumed(run.id).rows.requests if r is not None]
    assert [a.problem and a.problem.partition(",")[0] for a in found] == [None, "is not in the run log", None]
    assert [a.longest for a in found] == [99] * 3
    (tmp_path / "a.png").write_bytes(pictures.noise(seed=1))
    changed = resume.resumed(run.id).rows.requests[0]
    assert changed is not None
    assert changed.attachments[0].problem == "has changed since: run the cell again with --resume, or the same --name"


def test_a_dry_run_says_what_goes_along_and_shows_no_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = plans.make(BODY, "openai/gpt-4o", Options(df=frame(tmp_path), dry_run=True, attach_max=1024))
    text = preview.text(made)
    assert "attached: a.png · PNG picture, 40 × 30, " in text
    assert "Row 1 ends without being sent" in text
    assert "base64" not in text
    assert max(map(len, text.split())) < 200
    asked = quote.quote(made).estimate
    assert asked.rows == 4
    assert asked.tokens_in[0] >= 3 * 255


@pytest.mark.parametrize(
    ("route", "options", "words"),
    [
        ("pool/smollm2-135m", {}, "the models of a pool read text alone"),
        ("deepseek/deepseek-v4-pro", {}, "takes no pictures"),
        ("sim/echo", {"chunk": "auto"}, "--chunk cuts long texts"),
        ("sim/echo", {"attach": ("foto",)}, "Did you mean photo?"),
    ],
)
def test_what_cannot_be_sent_is_refused_before(route: str, options: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    with pytest.raises(BadOption, match=words.replace("?", r"\?")):
        plans.make("{{ q }}", route, Options(**{"df": frame(tmp_path), "attach": ("photo",), **options}))


def test_companions_need_an_attachment_and_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadOption, match="--attach-max is about attachments"):
        plans.make("{{ q }}", "sim/echo", Options(df=frame(tmp_path), attach_max=99))
    monkeypatch.setattr(attachments, "installed", lambda: False)
    with pytest.raises(BadOption, match="pip install pillow"):
        plans.make("{{ q }}", "sim/echo", Options(df=frame(tmp_path), attach=("photo",), attach_max=99))


@pytest.mark.parametrize("body", ["{{ attach() }}", "{{ attach(photo, q) }}", "{{ attach(1) }}", "{{ attach(foto) }}"])
def test_a_template_names_one_column(body: str, tmp_path: Path):
    with pytest.raises(BadPrompt, match=r"attach"):
        plans.make(body, "sim/echo", Options(df=frame(tmp_path)))


def test_where_it_stands_in_the_prompt_and_without_a_frame(tmp_path: Path):
    df = frame(tmp_path)[:1]
    body = '{% if q %}{{ attach("photo") }}-{{ attach(row["photo"]) }}{% endif %} {{ q }}'
    (request,) = plans.make(body, "sim/echo", Options(df=df)).rows.requests
    assert request is not None
    assert [(request.messages[0].content, a.at) for a in request.attachments] == [("- a", 0), ("- a", 1)]
    (request,) = plans.make("a {{ attach(x) }} b", "sim/echo", Options(), variables={"x": PNG}).rows.requests
    assert request is not None
    assert [(a.name, a.at) for a in request.attachments] == [("x", 2)]
    (request,) = plans.make([{"prompt": "a", "attach": [PNG, PDF]}], "sim/echo", Options()).rows.requests
    assert request is not None
    assert [a.group for a in request.attachments] == ["image", "pdf"]
    # A row's own text is no mark, whatever it says.
    (request,) = plans.make("{{ q }}", "sim/echo", Options(df=pd.DataFrame({"q": ["{{ attach(q) }}\ue0000:0\ue001"]}))).rows.requests
    assert request is not None
    assert request.attachments == ()


def test_a_budget_reserves_what_an_attachment_may_count_for():
    route = Route("openai", "gpt-4o")
    with_one, bare = (prices.worst_case(route, (m,), 10) for m in (said_with(attached(PNG)), said_with()))
    assert with_one is not None
    assert bare is not None
    assert with_one - bare == Decimal(255) * Decimal("2.5") / 10**6


@pytest.mark.usefixtures("keyed")
def test_a_server_gets_them_and_its_words_are_kept_apart(monkeypatch: pytest.MonkeyPatch):
    with Exact([reply(golden.OPENAI.whole)]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base}/v1")
        run = holynb.infer([{"prompt": "What is it?", "attach": PNG}], "openai/gpt-4o", show_code=False).wait()
        assert server.asked[0].json["messages"][0]["content"][1]["type"] == "image_url"
    assert run.frame().status.tolist() == ["ok"]


# -- what is seen --------------------------------------------------------------------------------------------------------
def test_thumbnails_are_small_escaped_and_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(thumbs, "_taken", {})
    monkeypatch.setattr(thumbs, "MAX_RUN_CHARS", 10_000)
    monkeypatch.setattr(thumbs, "MAX_NOTEBOOK_CHARS", 16_000)
    df = pd.DataFrame({"photo": [pictures.noise(80, 80, seed=i) for i in range(8)]})
    html = static.as_html(report.of(holynb.infer("What?", "sim/echo", df=df, attach="photo").wait()))
    addresses = [part.partition('"')[0] for part in html.split('src="data:image/jpeg')[1:]]
    assert 2 <= len(addresses) < 8
    assert max(map(len, addresses)) <= 4000
    assert sum(map(len, addresses)) <= 10_000
    assert html.count("[photo · PNG picture, 80 × 80, 19 kB]") == 8 - len(addresses)
    for seed in range(3):  # other outputs of the notebook share what is left
        other = [(attached(pictures.noise(80, 80, seed=seed * 9 + i + 50)),) for i in range(4)]
        thumbs.for_rows(lambda row, other=other: other[row], range(4))
    assert 10_000 < sum(thumbs._taken.values()) <= 16_000
    assert "<script>" not in thumbs.as_html([attached("https://example.com/<script>.png"), attached('/x"><script>')])
    assert 'src="http' not in thumbs.as_html([attached("https://example.com/a.png")])


def test_prompts_beside_thumbnails_begin_at_one_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(thumbs, "_taken", {})
    rows = [(attached(pictures.noise(90, 10, seed=1)),), (), (attached(pictures.noise(10, 90, seed=2)),)]
    shown = thumbs.for_rows(lambda row: rows[row], range(3))
    room = f"{thumbs.WIDTH + thumbs.GAP}px"
    assert [f"width:{thumbs.WIDTH}px" in shown[row] and f"0 {thumbs.GAP}px" in shown[row] for row in (0, 2)] == [True, True]
    assert room in shown[1]
    assert thumbs.for_rows(lambda _: (), range(3)) == {}
    assert "max-width" in thumbs.for_rows(lambda row: rows[row], (0,), 72)[0], "alone, as it is"


def test_a_live_view_gets_them_as_they_are_made():
    rows = [(attached(pictures.noise(60, 60, seed=i + 900)),) for i in range(20)]
    view = Pictures(lambda row: rows[row], len(rows))
    sent = dict(view.take(range(16, 20)))
    assert sent == {}
    while view.pending:
        sent |= dict(view.take(range(16, 20)))
    assert set(sent) == set(range(20))
    assert dict(view.all()) == sent
    assert all(address.startswith("data:image/jpeg;base64,") for address in sent.values())
    assert Pictures(None, 3).take(range(3)) == []
