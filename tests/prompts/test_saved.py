"""Saved prompts: what is kept comes back, names are files' names everywhere, nothing is lost by saving again."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holynb.config.options import Options
from holynb.errors import BadOption, BadPrompt, BadSetting
from holynb.prompts import saved

ANY_TEXT = st.text().filter(lambda t: t.strip() and t.encode("utf-8", "replace").decode() == t)
EVERYTHING = {
    "system": "You are\nkind.",
    "max_tokens": 50,
    "temperature": 0.0,
    "top_p": 0.5,
    "stop": ["END", "\n"],
    "seed": 7,
    "think": "high",
    "lines": True,
    "p": ["logprobs=true", 'response_format={"type": "json_object"}', "x.y=1.5"],
    "params_from": "a,b",
}


def test_a_prompt_comes_back_as_it_was(home: Path) -> None:
    options = Options.parse({**EVERYTHING, "df": "frame", "limit": 3, "name": "run", "budget": 2})
    assert set(EVERYTHING) <= set(saved.SAVED_OPTIONS)
    prompt = saved.save("summarise", "Shorten {{ text }}.\n\nIn one line.", "sim/echo", options)
    assert prompt.path == home / "prompts" / "summarise.toml"
    body, route, back = saved.apply("", None, Options.parse({"use": "summarise"}))
    assert (body, route) == ("Shorten {{ text }}.\n\nIn one line.", "sim/echo")
    for name in saved.SAVED_OPTIONS:
        assert getattr(back, name) == getattr(options, name), name
    assert (back.df, back.limit, back.name, back.budget, back.use) == (None, None, None, None, None), "a cell's own options are not kept"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=ANY_TEXT, system=ANY_TEXT, key=st.text(st.characters(codec="utf-8", exclude_characters="="), min_size=1).filter(str.strip))
def test_any_text_survives_the_file(body: str, system: str, key: str) -> None:
    prompt = saved.save("any", body, None, Options(system=system, p={key: [body, {key: system}]}))
    back = saved.load("any")
    assert (back.body, back.options) == (body, prompt.options)


def test_the_file_reads_well_and_is_private(home: Path) -> None:
    saved.save("poem", 'Write "a poem".\nAbout {{ x }}\\n', "sim/echo", Options(temperature=0.2))
    path = home / "prompts" / "poem.toml"
    text = path.read_text("utf-8")
    assert "body = '''\nWrite \"a poem\".\nAbout {{ x }}\\n'''" in text
    assert "[options]\ntemperature = 0.2" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["poem.toml"], "no temporary file is left"


def test_it_outlives_the_process(home: Path) -> None:
    code = "from holynb.prompts import saved\nfrom holynb.config.options import Options\nsaved.save('kept', '한국어 요약: {{ t }}', 'sim/echo', Options())"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, "HOLYNB_HOME": str(home)})
    assert saved.load("kept").body == "한국어 요약: {{ t }}"


def test_saving_again_replaces_and_keeps_the_one_before(home: Path) -> None:
    first = saved.save("a", "one", None, Options())
    again = saved.save("a", "one", None, Options())
    assert not first.replaced
    assert (again.replaced, again.at) == (False, first.at), "Run All changes nothing"
    assert saved.save("a", "two", None, Options()).replaced
    assert saved.load("a").body == "two"
    assert "one" in (home / "prompts" / "before" / "a.toml").read_text("utf-8")
    assert [s.name for s in saved.listing()] == ["a"]


def test_removing_keeps_it_aside(home: Path) -> None:
    saved.save("a", "one", None, Options())
    assert saved.remove("a").read_text("utf-8").count("one") == 1
    assert saved.listing() == []
    with pytest.raises(BadOption, match="no saved prompt"):
        saved.remove("a")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "con", "LPT1", "nul.txt", "x" * 65, "end.", "a:b", "/abs"]
)
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(BadOption, match="cannot be a saved prompt's name"):
        saved.save(name, "text", None, Options())
    with pytest.raises(BadOption):
        saved.load(name)


@pytest.mark.parametrize("name", ["a", "요약", "summarise-2", "v1.2", "x" * 64, "con-tent"])
def test_names_that_can_be(name: str) -> None:
    saved.save(name, "text", None, Options())
    assert [s.name for s in saved.listing()] == [name]


def test_what_the_line_says_goes_above_what_was_saved() -> None:
    saved.save("a", "text", "sim/echo", Options(temperature=0.2, max_tokens=9, system="Saved."))
    _, route, options = saved.apply(None, "sim/stream", Options.parse({"use": "a", "max_tokens": 5}))
    assert (route, options.temperature, options.max_tokens) == ("sim/stream", 0.2, 5)
    _, _, other = saved.apply(None, None, Options.parse({"use": "a", "system_from": "variable"}))
    assert (other.system, other.system_from) == (None, "variable")


def test_without_use_nothing_changes() -> None:
    options = Options()
    assert saved.apply(["x"], "sim/echo", options) == (["x"], "sim/echo", options)


def test_mistakes_are_one_line(home: Path) -> None:
    saved.save("summarise", "text", None, Options())
    for call, message in (
        (lambda: saved.load("sumarise"), "Did you mean summarise"),
        (lambda: saved.apply("a prompt", None, Options(use="summarise")), "brings its own prompt"),
        (lambda: saved.save("x", "text", None, Options(schema=object())), "name of a schema"),
        (lambda: saved.save("x", "text", None, Options(p={"a": None})), "cannot keep null"),
        (lambda: saved.save("x", "text", None, Options(p={"a": float("nan")})), "cannot keep null or NaN"),
    ):
        with pytest.raises(BadOption, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(BadPrompt, match="no prompt to save"):
        saved.save("x", " \n", None, Options())
    assert [s.name for s in saved.listing()] == ["summarise"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("body = 3", "needs the prompt"),
        ("route = 'sim/echo'", "needs the prompt"),
        ("body = 'x'\nroute = 3", "should be text"),
        ("body = 'x'\nbudy = 'y'", "Did you mean body"),
        ("body = 'x'\noptions = 3", "a table"),
        ("bo dy", "not a saved prompt"),
        ("body = 'x'\n[options]\ndf = 'x'", "keeps no option 'df'"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_hand_written_file_that_does_not_hold(home: Path, text: str, message: str) -> None:
    path = home / "prompts" / "mine.toml"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadSetting, match=message) as caught:
        saved.load("mine")
    assert "\n" not in str(caught.value)
    saved.save("mine", "a new one", None, Options())
    assert (path.parent / "before" / "mine.toml").read_bytes() == text.encode("latin-1"), "what a person wrote is not lost"


def test_a_value_that_does_not_hold_names_the_file(home: Path) -> None:
    path = home / "prompts" / "mine.toml"
    path.parent.mkdir()
    path.write_text("body = 'x'\n[options]\nmax_tokens = -1\n")
    with pytest.raises(BadSetting, match=r"mine\.toml: --max-tokens takes a whole number from 1"):
        saved.apply(None, None, Options(use="mine"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(home: Path) -> None:
    (home / "prompts").mkdir(mode=0o500)
    with pytest.raises(BadSetting, match="cannot be written"):
        saved.save("a", "text", None, Options())
