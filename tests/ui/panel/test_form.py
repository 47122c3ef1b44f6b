"""The panel: from its fields to a DataFrame without a magic, mistakes as one line, buttons that fit the moment. Its look: tests/browser."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from holynb import loop, runlog, translation
from holynb.config import settings
from holynb.errors import BadOption
from holynb.events import Gauge
from holynb.pools.info import PoolInfo
from holynb.run import session
from holynb.ui import magic as magics
from holynb.ui.commands import pool
from holynb.ui.live import timer
from holynb.ui.panel import commands, localized, note, poolfields
from holynb.ui.panel.form import Form
from holynb.ui.panel.poolform import PoolForm
from holynb.ui.panel.pooltable import table


@pytest.fixture
def magic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    shell = InteractiveShell()
    magics.load(shell)
    shell.user_ns["reviews"] = pd.DataFrame({"text": ["good", "bad"], "stars": [5, 1]}, index=["a", "b"])
    yield shell._holynb
    magics.unload(shell)
    loop.close()
    runlog.close()
    settings.reset()


def on_a_loop(do: Callable[[], Any], until: Callable[[], bool]) -> None:
    """Do something on a running loop, as a kernel's callbacks are, and wait for what it brings about."""

    async def main() -> None:
        do()
        end = time.monotonic() + 20
        while not until():
            assert time.monotonic() < end, "nothing came of it"
            await asyncio.sleep(0.02)
        timer.stop()
        await asyncio.sleep(0)

    asyncio.run(main())


def filled(magic: Any, **fields: str) -> Form:
    form = Form(magic, "reviews")
    form.route.value = fields.pop("route", "sim/echo")
    form.prompt.value = fields.pop("prompt", "Say {{ text }}")
    for name, value in fields.items():
        form.more[name].value = value
    return form


def mistakes(form: Form) -> str:
    """What is said to be wrong, at a field or below the buttons."""
    return " ".join([*(n.box.value for n in form.notes.values() if "holynb-wrong" in n.box.value), form.message.value])


def test_from_the_fields_to_a_frame(magic: Any) -> None:
    form = filled(magic, max_tokens="50")
    on_a_loop(lambda: form.buttons["Run"].click(), lambda: "answers" in magic.shell.user_ns)
    answers = magic.shell.user_ns["answers"]
    assert list(answers["text"]) == ["Say good", "Say bad"]
    assert list(answers.index) == ["a", "b"]
    assert "answers holds a DataFrame of 2 rows." in form.message.value
    assert "Say good" in form.outlet.box.children[0].outputs[0]["data"]["text/html"]
    assert form.run.options.max_tokens == 50


def test_the_live_view_is_there_while_it_runs_and_stop_stops(magic: Any) -> None:
    form = filled(magic, route="sim/stream")
    seen: list[bool] = []

    def over() -> bool:
        live = [c for c in form.outlet.box.children if type(c).__name__ == "LiveWidget"]
        if live and not seen:
            seen.append(form.buttons["Run"].disabled and not form.buttons["Stop"].disabled)
            form.buttons["Stop"].click()
        return "answers" in magic.shell.user_ns

    on_a_loop(lambda: form.buttons["Run"].click(), over)
    assert seen == [True]
    assert form.run.stopped
    assert form.buttons["Stop"].disabled
    assert not form.buttons["Run"].disabled


def test_what_the_form_is_doing_is_said_and_a_second_click_sends_nothing(magic: Any) -> None:
    form = filled(magic, route="sim/stream")
    said: list[str] = []
    form.state.observe(lambda change: said.append(change["new"]), "value")

    def twice() -> None:
        form.send()
        run = form.run
        form.send()
        assert form.run is run
        assert "Running 2 prompts" in form.state.value
        form.buttons["Stop"].click()

    on_a_loop(twice, lambda: "answers" in magic.shell.user_ns)
    assert "Preparing" in said[0]
    assert form.state.value == ""


def test_what_stays_is_what_a_cell_leaves_charts_included(magic: Any) -> None:
    form = filled(magic)
    on_a_loop(form.send, lambda: "answers" in magic.shell.user_ns)
    assert [set(o["data"]) for o in form.outlet.box.children[0].outputs] == [{"text/html", "text/plain"}]
    form.route.value = "sim/stream"
    form.more["max_tokens"].value = "12"
    del magic.shell.user_ns["answers"]
    on_a_loop(form.send, lambda: "answers" in magic.shell.user_ns)
    table, charts = form.outlet.box.children[0].outputs
    assert "holynb-rows" in table["data"]["text/html"]
    assert "application/vnd.plotly.v1+json" in charts["data"]
    assert "<img" in charts["data"]["text/html"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "  "}, "There is no prompt yet"),
        ({"prompt": "{{ txt }}"}, "txt"),
        ({"route": "nothing"}, "nothing"),
        ({"max_tokens": "many"}, "--max-tokens takes a whole number"),
        ({"prompt": "<script>{{ x }}"}, "x"),
    ],
)
def test_a_mistake_is_one_line_and_sends_nothing(magic: Any, fields: dict[str, str], says: str) -> None:
    form = filled(magic, **fields)
    form.send()
    assert says in mistakes(form)
    assert "<script>" not in mistakes(form)
    assert form.run is None
    assert not form.buttons["Run"].disabled


def test_a_tier_is_chosen_or_several_are_typed(magic: Any) -> None:
    form = filled(magic, tier="flex,standard")
    assert form.more["tier"].options == ("flex", "standard", "priority", "flex,standard")
    assert form.more["tier"].placeholder == "flex, standard or priority"
    assert "--tier flex,standard" in form.draft().line()
    form.more["tier"].value = "cheap"
    form.send()
    assert "--tier takes flex, standard, priority" in form.notes["tier"].box.value


def test_how_much_it_thinks_is_chosen_or_typed(magic: Any) -> None:
    form = filled(magic, think="high")
    assert form.more["think"].options == ("off", "low", "medium", "high", "max")
    assert "--df reviews --think high" in form.draft().line()
    form.more["think"].value = "4000"
    assert form.draft().options["think"] == "4000"
    form.more["think"].value = "12k"
    form.send()
    assert "--think takes off, low, medium, high, max, or a number of tokens from 1" in form.notes["think"].box.value


def test_a_result_needs_a_name_that_can_be_one(magic: Any) -> None:
    form = filled(magic)
    form.name.value = "my answers"
    form.send()
    assert "cannot be a variable" in form.notes["name"].box.value


def test_one_prompt_without_rows_and_with_a_system_prompt(magic: Any) -> None:
    form = filled(magic, route="sim/echo")
    form.prompt.value = "x"
    form.frame.value = ""
    form.system.value = "be brief"
    draft = form.draft()
    assert draft.options["system"] == "be brief"
    assert "df" not in draft.options
    on_a_loop(form.send, lambda: "answers" in magic.shell.user_ns)
    assert len(magic.shell.user_ns["answers"]) == 1


def test_a_dry_run_shows_a_sample_and_sends_nothing(magic: Any) -> None:
    form = filled(magic)
    form.buttons["Dry run"].click()
    assert "nothing was sent" in form.message.value
    assert "Say good" in form.message.value
    assert form.run is None
    assert session.runs() == [] or all(r.plan.rows.source is not magic.shell.user_ns["reviews"] for r in session.runs())


def test_a_dry_run_says_which_key_is_missing_and_what_it_would_cost(magic: Any) -> None:
    form = filled(magic, route="holysheep/gpt-4.1")
    form.buttons["Dry run"].click()
    assert "no HOLYSHEEP_API_KEY" in form.message.value
    assert "Cost, estimated: $" in form.message.value
    form.buttons["Run"].click()
    assert "%infer key holysheep" in form.notes["route"].box.value


def test_all_columns_are_offered_as_a_template_names_them(magic: Any) -> None:
    magic.shell.user_ns["wide"] = pd.DataFrame([range(31)], columns=[*(f"c{i}" for i in range(30)), "two words"])
    form = Form(magic, "reviews")
    assert form.columns.names == ["text", "stars"]
    magic.shell.user_ns["reviews"] = magic.shell.user_ns["wide"]
    form._show_columns()
    assert form.columns.names == [*(f"c{i}" for i in range(30)), 'row["two words"]']
    form.frame.value = ""
    assert form.columns.names == []


def test_nothing_is_sent_that_was_not_chosen(magic: Any) -> None:
    assert Form(magic, "reviews").draft().options == {"df": "reviews"}


def test_every_field_under_more_has_a_sentence_and_says_its_unit(magic: Any) -> None:
    form = Form(magic)
    assert all(note.sentence.endswith(".") for name, note in form.notes.items() if name in form.more)
    assert {form.more[name].placeholder for name in ("max_tokens", "budget", "timeout")} == {"tokens", "dollars", "seconds"}
    assert all(field.placeholder for field in form.more.values() if hasattr(field, "placeholder"))
    assert "format" in form.more


def test_a_mistake_is_said_at_its_field_and_goes_away_once_mended(magic: Any) -> None:
    form = filled(magic, max_tokens="many")
    form.send(dry=True)
    assert 'role="alert"' in form.notes["max_tokens"].box.value
    assert form.message.value == ""
    assert form.unfold.value, "the section with the field is open"
    form.more["max_tokens"].value = ""
    form.send(dry=True)
    assert not any("holynb-wrong" in n.box.value for n in form.notes.values())
    assert "nothing was sent" in form.message.value


def test_only_options_are_offered(magic: Any) -> None:
    from holynb.config.options import BY_NAME

    form = Form(magic)
    assert form.more
    assert set(form.more) <= set(BY_NAME)


def test_insert_gives_the_cell_to_the_page_or_to_be_copied(magic: Any) -> None:
    form = filled(magic)
    sent: list[Any] = []
    form.bridge.send = sent.append
    form.buttons["Insert as %%infer cell"].click()
    assert sent == [{"kind": "insert", "source": "%%infer answers << sim/echo --df reviews\nSay {{ text }}"}]
    form.bridge._on_message(form.bridge, {"cmd": "inserted", "done": False}, [])
    assert form.cell.layout.display == "flex"
    assert form.cell.value == sent[0]["source"]
    form.bridge._on_message(form.bridge, {"cmd": "inserted", "done": True}, [])
    assert form.cell.layout.display == "none"


@pytest.mark.parametrize("word", ["Dry run", "Insert as %%infer cell"])
def test_a_press_waits_for_what_was_typed_before_it(magic: Any, word: str) -> None:
    form, sent = filled(magic, prompt="Sa"), list[dict[str, Any]]()
    form.bridge._on_message(form.bridge, {"cmd": "where", "notebook": False}, [])
    form.bridge.send = sent.append
    drafts = []
    form.draft, draft = lambda: drafts.append(draft()) or drafts[-1], form.draft
    form.buttons[word].click()
    assert (drafts, sent) == ([], [{"kind": "typed", "press": 0}])
    form.prompt.value = "Say {{ text }}"  # which the page held back while the kernel was busy
    for _ in range(2):
        form.bridge._on_message(form.bridge, {"cmd": "typed", "press": 0}, [])
    assert [d.body for d in drafts] == ["Say {{ text }}"]


def test_a_system_prompt_of_several_lines_goes_into_a_variable(magic: Any) -> None:
    form = filled(magic)
    form.system.value = "one\ntwo"
    form._insert()
    assert "--system-from system_prompt" in form.cell.value
    assert magic.shell.user_ns["system_prompt"] == "one\ntwo"


# -- pools -------------------------------------------------------------------------------------------------------------
def test_the_pool_fields_are_the_words_of_the_magic() -> None:
    form = PoolForm()
    form.fields["dp"].value = "2"
    form.fields["max_len"].value = "2048"
    assert form.args("start") == ["start", "smollm2-135m", "--dp", "2", "--max-len", "2048"]
    assert "--python" not in form.args("start")
    form.fields["engine"].value, form.fields["python"].value, form.fields["restart"].value = "vllm", "/opt/v", "2"
    assert form.args("start")[4:] == ["--max-len", "2048", "--engine", "vllm", "--python", "/opt/v"], (
        "what the other engine has no use for is left out"
    )


def test_starting_happens_in_a_thread_and_its_words_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    threads = []

    def run(words: list[str], notice: Callable[[str], None]) -> tuple[str, None]:
        threads.append(threading.current_thread() is threading.main_thread())
        notice("loading weights")
        if words[0] == "stop":
            raise BadOption("there is no pool <b>")
        return "pool/smollm2-135m is ready", None

    info = PoolInfo(
        "mine",
        "m",
        "ready",
        1,
        "h",
        memory=(Gauge("cuda:0", 30 * 2**30, 80 * 2**30, 0.0, 20 * 2**30, {"weights": 12.0 * 2**30, "kv": 8.0 * 2**30}),),
        kv_used=50,
        kv_total=200,
    )
    monkeypatch.setattr(pool, "run", run)
    monkeypatch.setattr("holynb.pools.listing", lambda: [info])
    form = PoolForm()
    on_a_loop(lambda: form.start.click(), lambda: len(form.pools.children) == 1)
    assert "is ready" in form.message.value
    assert threads == [False]
    page, stop = form.pools.children[0].children
    assert "pool/mine" in page.value
    assert stop.description == "Stop pool/mine"
    on_a_loop(lambda: stop.click(), lambda: "there is no pool &lt;b&gt;" in form.message.value)
    assert 'role="alert"' in form.message.value
    assert form.pools.children[0].children[1] is stop, "a refresh leaves the button where it is"


def test_a_start_that_is_refused_says_so_at_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], notice: Callable[[str], None]) -> tuple[str, None]:
        raise BadOption("--port takes a number from 1 to 65535, or 0 for a free one, not 99999.")

    monkeypatch.setattr(pool, "run", run)
    monkeypatch.setattr("holynb.pools.listing", list)
    form = PoolForm()

    def press() -> None:
        form.start.click()
        assert form.start.disabled
        assert form.start.description == "Starting …"

    on_a_loop(press, lambda: not form.start.disabled and bool(form.pools.children))
    assert 'role="alert"' in form.section.notes["port"].box.value
    assert form.message.value == ""
    assert form.start.description == "Start"
    assert "No pool of yours runs" in form.pools.children[0].value


def test_models_that_were_fetched_or_lie_beside_the_notebook_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.config import settings

    monkeypatch.setattr(settings, "home", lambda: tmp_path / "fresh")
    for folder in (tmp_path / "fresh" / "models" / "org--name", tmp_path / "mine"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (tmp_path / "small.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert poolfields.known_models() == ["smollm2-135m", "org/name", "./mine", "./small.gguf"]


def test_the_table_of_pools_says_how_full_they_are() -> None:
    g = Gauge("cuda:0", 30 * 2**30, 80 * 2**30, 0.0, 20 * 2**30, {"weights": 12.0 * 2**30, "kv": 8.0 * 2**30})
    page = table([PoolInfo("<b>", "m", "ready", 1, "h", memory=(g,), kv_used=50, kv_total=200)])
    assert "25% of 200 tokens" in page
    assert "weights 12.9 GB, KV cache 8.59 GB · 32.2 GB of 85.9 GB used" in page
    assert "<b>" not in page
    assert "No pool of yours runs" in table([])
    assert "starting: loading 40%" in table([PoolInfo("a", "m", "starting", 1, "h", stage="loading", share=0.4)])


def test_a_class_has_a_table_of_its_own_below_its_pool() -> None:
    clients = [{"name": f"student{i}", "used": 10 * i, "per_day": 100 if i else None} for i in range(33)]
    pool = PoolInfo("class", "m", "ready", 1, "h", clients=tuple(clients))
    page = table([pool, PoolInfo("other", "m", "ready", 2, "h", clients=tuple(clients))])
    pools, names = page.split('<div tabindex="0" role="group" aria-label="Named tokens: 33"')
    assert "student" not in pools, "the state of a pool is its state"
    assert "overflow:auto" in names.split(">")[0]
    shown = re.findall(r"student\d+", names)
    assert shown[0] == "student32", "the most first"
    assert len(shown) == len({*shown}) == 33, "once for all pools, which count together"
    assert re.search(r"320.*100.*>0<", names, re.DOTALL)
    assert "no limit" in names
    assert 'role="group"' not in table([PoolInfo("class", "m", "ready", 1, "h")])


# -- the words ---------------------------------------------------------------------------------------------------------
def test_without_widgets_the_panel_says_what_to_do_instead() -> None:
    plain: Any = SimpleNamespace(shell=None)
    for word, instead in ((commands.panel, "%%infer cell"), (commands.dash, "%infer status")):
        with pytest.raises(BadOption, match=f"widgets.*{instead}"):
            word(plain, [])
        with pytest.raises(BadOption, match="unexpected argument"):
            word(plain, ["extra"])


#: What is typed, or is a number or a place: the same in every language.
TYPED = re.compile(r"[a-z][a-z-]*|[\d.]+m?|/\S+|\u200b")


def test_in_korean_the_pools_tab_and_every_choice_are_korean(magic: Any) -> None:
    translation.choose(lambda: "ko")
    try:
        form, pools = Form(magic, "reviews"), PoolForm()
        pools._show_pools([])
        both = w.Tab([form.box, pools.box])
        localized.localize(both)
    finally:
        translation.choose(None)
    entries = [text for field in localized.widgets(both) if isinstance(field, w.Dropdown) for text in field._options_labels]
    assert "reviews: 2개 행 (2 rows)" in entries
    shown = [getattr(field, name, None) for field in localized.widgets(pools.box) for name in localized.LABELS]
    pages = [re.sub("<.*?>", "", field.value) for field in localized.widgets(pools.box) if isinstance(field, w.HTML)]
    english = [text for text in (*entries, *shown, *pages) if text and not re.search("[가-힣]", text) and not TYPED.fullmatch(text)]
    assert english == []


def test_a_sentence_begins_large_but_for_what_is_typed_so() -> None:
    assert note.sentence("replicas") == "Replicas."
    assert note.sentence("float32, float16 or bfloat16") == "float32, float16 or bfloat16."
    assert note.sentence("--tier of it") == "--tier of it."
