"""Korean stands before the English, which stays as the code says it: one table, the same placeholders, every line of it said somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from layout import ROOT
from ui.facts import record

from holynb import cli, schema, translation
from holynb.config import Options, keys, language, settings
from holynb.errors import BadSetting, HolynbError, InferError
from holynb.run import plan, resume
from holynb.types import Endpoint, Outcome, Route
from holynb.ui import line_magic
from holynb.ui.cell import grammar
from holynb.ui.output import rows
from holynb.ui.output.listing import Listing
from holynb.ui.output.static import as_html, as_text

TABLE = translation.table()
ENTRIES = [(section, en, ko) for section, lines in TABLE.items() for en, ko in lines.items()]
PLACEHOLDER = re.compile(r"\{\w+\}")
HANGUL = re.compile(r"[가-힣]")


@pytest.fixture
def korean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    translation.choose(lambda: "ko")
    yield
    translation.choose(None)


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYNB_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("HOLYNB_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def said(text: str) -> str:
    """The Korean of a line; it fails where there is none, or where the English does not stand behind it."""
    shown = translation.say(text)
    assert shown.endswith(f" ({text})"), text
    assert HANGUL.search(shown.removesuffix(f" ({text})"))
    return shown


# -- the table -----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def code_strings() -> set[str]:
    """All strings of the code, {} in the place of what an f-string fills in."""
    out = set()
    paths = [
        p
        for p in (ROOT / "holynb").rglob("*.py")
        if not {"pool", "bounded", "runlog"} & set(p.parts) or "fit" in p.parts or p.name == "advice.py"
    ]
    for node in (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            out.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            out.add("".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values))
    return out


@lru_cache(maxsize=1)
def joined_code_strings() -> str:
    return "\0".join(code_strings())


def test_placeholders_are_the_same_in_both() -> None:
    assert not [en for _, en, ko in ENTRIES if {p for p in PLACEHOLDER.findall(en) if p[1] != "_"} != set(PLACEHOLDER.findall(ko))]
    assert not [en for _, en, ko in ENTRIES if not HANGUL.search(ko) or HANGUL.search(en)]


def test_no_line_stands_twice() -> None:
    lines = [en for _, en, _ in ENTRIES]
    assert len(lines) == len(set(lines))
    assert len(TABLE["message"]) >= 30


def test_every_english_line_is_what_the_code_says() -> None:
    """A message that was changed there and not here would be said in English alone."""
    assert not [gone for _, en, _ in ENTRIES for gone in unsaid(en)]


def unsaid(english: str) -> list[str]:
    """What of a line the code does not say: in one string, or, where it is put together of pieces, in several."""
    if PLACEHOLDER.sub("{}", english) in joined_code_strings():
        return []
    sentences = [s.strip(" .,:;?()`") for piece in PLACEHOLDER.split(english) for s in re.split(r"(?<=[.?:]) ", piece)]
    return [f"{s!r} of {english!r}" for s in sentences if len(s) > 3 and s not in joined_code_strings()]


def test_every_command_of_the_help_has_its_korean() -> None:
    assert {c.help.partition("\n")[0] for c in line_magic.COMMANDS.values()} - set(TABLE["help"]) == set()


def test_heads_of_tables_are_what_the_code_says_and_no_message_takes_them() -> None:
    assert not set(translation.heads()) - code_strings()
    assert all(map(HANGUL.search, translation.heads().values()))
    assert {"text", "status", *rows.NUMBERS} <= set(translation.heads())


@pytest.mark.usefixtures("korean")
def test_a_table_has_its_heads_in_korean_and_what_is_the_users_own_as_it_is() -> None:
    assert Listing(["pool", "its own"], [["a", "b"]]).head == ["풀 (pool)", "its own"]
    answered = record([Outcome("ok", "yes")] * 2, ["a", "b"])
    for shown in (as_html(answered), as_text(answered)):
        assert all(word in shown for word in ("프롬프트 (prompt)", "답 (text)", "상태 (status)", "출력 토큰 (tokens_out)"))
    mine = replace(answered, schema=schema.load({"type": "object", "properties": {"score": {"type": "string"}}, "required": ["score"]}))
    assert rows.heads(mine) == ["프롬프트 (prompt)", "score", "상태 (status)"], "a column of a schema is the user's own"


@pytest.mark.usefixtures("korean")
def test_a_plan_of_a_pool_is_said_in_korean() -> None:
    fits = (
        "m fits on 2x80GB as --tp 2 in bfloat16: 8.19 GB of weights per device, 838,926 tokens of KV cache per replica, ready in about 8 s."
    )
    assert said(fits).startswith("m 모델은 2x80GB에서 --tp 2, bfloat16로 실행할 수 있습니다: 장치당 가중치 8.19 GB")
    known = f"{fits} Judged by the known shape of Qwen/Qwen3-8B; once its files are here, by them."
    assert "Qwen/Qwen3-8B의 구조로" in said(known).partition(" (m fits")[0]
    no = "70B does not fit on 4x24GB in bfloat16: the weights alone are 139 GB. It would fit in fp8, as --tp 4."
    assert said(f"{no} About 32B is the most that fits on 4x24GB in bfloat16.").partition(" (70B")[0].endswith("약 32B까지입니다.")
    assert said("Per device: 16 GB of weights + 2.37 GB of work + 3.43 GB of KV cache = 21.6 GB of 24 GB.").startswith(
        "장치당: 가중치 16 GB"
    )
    fetched = said(f"{fits} The time is for files on this disk: first about 16.4 GB are fetched.").partition(" (m fits")[0]
    assert "먼저 약 16.4 GB를 내려받습니다" in fetched
    row = "a row of 40,960 tokens (--max-len) is more than the 19,895 that its KV cache would hold. It would fit as --tp 2."
    short = said(f"m does not fit on 2x24GB as --dp 2 in bfloat16: {row} Its own context is 40,960 tokens: --max-len 50000 gives no more.")
    short = short.partition(" (m does")[0]
    assert "40,960토큰짜리 행(--max-len)은 KV 캐시에 들어갈 19,895토큰보다 깁니다." in short
    assert short.endswith("--max-len 50000(으)로도 더 늘어나지 않습니다.")
    many = said("8B does not fit on 2x24GB: --dp 3 needs 3 devices, and 2 are named. It would fit as --dp 2.").partition(" (8B")[0]
    assert many.endswith("장치 3개가 필요한데, 지정한 장치는 2개입니다. 다음과 같이 하면 들어갑니다: as --dp 2.")
    full = said("8B does not fit on 1x17GB in bfloat16: beside 16 GB of weights, 90% of 17 GB has no room for keys, values and work.")
    assert "17 GB의 90%에 남지 않습니다." in full
    assert said("Start it: %infer pool start m --tp 2").startswith("시작: %infer pool start m --tp 2")


# -- what is said --------------------------------------------------------------------------------------------------------
def error_of(make: Any) -> str:
    with pytest.raises(HolynbError) as caught:
        make()
    return str(caught.value)


MISTAKES = {
    "no key": lambda: keys.resolve(
        Endpoint(Route("openai", "m"), "openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "https://x.example/keys")
    ),
    "a route that is none": lambda: settings.route("gpt"),
    "a provider alone": lambda: settings.route("openai"),
    "an unknown provider": lambda: settings.route("opnai/gpt"),
    "an unknown option": lambda: grammar.parse("sim/echo --teperature 1"),
    "a word too many": lambda: grammar.parse("sim/echo hello there"),
    "a key on the line": lambda: grammar.parse("openai/m sk-abcdefghijklmnopqrstuvwxyz0123456789"),
    "a value": lambda: grammar.parse("sim/echo --max-tokens many") and plan.make("x", "sim/echo", Options.parse({"max_tokens": "many"})),
    "a missing variable": lambda: plan.make("{{ txt }}", "sim/echo", Options(), variables={"text": "x"}),
    "no frame": lambda: plan.make("{{ txt }}", "sim/echo", Options(df="reviews"), variables={}),
    "no file": lambda: plan.make("{{ txt }}", "sim/echo", Options(file="reviews.csv"), variables={}),
    "no price": lambda: plan.make("x", "vllm/m", Options(budget=1, api_base="http://127.0.0.1:1/v1"), variables={}),
    "nothing to resume": resume.unfinished,
    "no such run": lambda: resume.resumed("nope", {}),
}


@pytest.mark.usefixtures("korean")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_the_first_hour_is_said_in_korean(name: str) -> None:
    line = said(error_of(MISTAKES[name]))
    assert "Did you mean" not in line.partition(" (")[0], "a suggestion is said in Korean too"
    assert "\n" not in line


@pytest.mark.usefixtures("korean")
def test_what_ends_a_run_is_said_in_korean() -> None:
    refused = "openai refused the key in OPENAI_API_KEY (401: no). Get one at https://x.example/keys, then set it with %infer key openai."
    assert "거부했습니다" in said(f"no row could be answered (3 of 3 failed: 3 auth): {refused}").partition(" (no row")[0]
    again = "%infer key openai, then %infer run --only failed"
    both = said(f"no row could be answered (3 of 3 failed: 3 auth): {refused} {again}")
    assert "키를 거부했습니다" in both
    assert "다음 단계: %infer key openai" in both
    assert said("7 of 200 failed: 5 timeout, 2 content_filter. %infer run --only failed").startswith("200개 행 중 7개 실패")
    assert said("Interrupted: 3 of 7 rows are answered and kept in holynb.last. %infer resume r1 sends the rest.").startswith("중단됨")
    rest = "%infer resume r1 sends the rest and fills done, and so does the cell, run again."
    assert "done을(를)" in said(f"Interrupted: 3 of 7 rows are answered and kept in done and holynb.last. {rest}").split(" (")[0]
    assert translation.say("1 ok\n3 of 4 failed: 3 auth. %infer run --only failed").startswith("1 ok\n4개 행 중 3개 실패")
    for cut, answers in (("12", "100 answers were"), ("1", "1 answer was")):
        line = said(f"{cut} of {answers} cut off at the token limit: raise --max-tokens.")
        assert line.startswith(f"답 {answers.split()[0]}개 중 {cut}개가 토큰 한도에서"), line
    assert InferError(refused)._render_traceback_() == [f"InferError: {said(refused)}"]
    column = "There is no column or variable 'txt' for {{ txt }}. Did you mean text? --raw sends the body untouched."
    assert said(column).startswith(
        "{{ txt }}에 쓸 열이나 변수 'txt'이(가) 없습니다. 혹시 text인가요? --raw를 쓰면 본문을 그대로 보냅니다. ("
    )
    for text in ("", "an answer", "키", "There is no spoon."):
        assert translation.say(text) == text, "what the table does not know stays"


@pytest.mark.usefixtures("korean")
def test_the_help_is_said_in_korean() -> None:
    lines = " ".join(line_magic.help_text().split())  # wherever it is wrapped
    assert all(f"({c.help.partition(chr(10))[0]})" in lines for c in line_magic.COMMANDS.values())
    assert "진행 중인 실행" in line_magic.help_text("status")


# -- who asks for it -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("variables", "setting", "chosen"),
    [
        ({}, "", "en"),
        ({"LANG": "ko_KR.UTF-8"}, "", "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C.UTF-8"}, "", "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR"}, "", "ko"),
        ({"LANG": "ko_KR.UTF-8"}, "en", "en"),
        ({"LANG": "kok_IN"}, "", "en"),
        ({}, "ko", "ko"),
        ({"HOLYNB_LANGUAGE": "en"}, "ko", "en"),
        ({"HOLYNB_LANGUAGE": "ko"}, "en", "ko"),
    ],
)
def test_the_variable_wins_over_the_setting_and_that_over_the_locale(
    variables: dict[str, str], setting: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if setting:
        (tmp_path / "config.toml").write_text(f'[ui]\nlanguage = "{setting}"\n')
    assert language.chosen() == chosen


def test_a_language_that_is_not_there_is_a_bad_setting_and_no_trouble_for_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[ui]\nlanguage = "de"\n')
    with pytest.raises(BadSetting, match=r'ui\.language should be "en" or "ko"'):
        settings.current()
    assert language.chosen() == "en"


def test_english_reads_no_table_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "table", lambda: pytest.fail("the table was read"))
    translation._compiled.cache_clear()
    translation.choose(language.chosen)
    try:
        text = "7 of 200 failed: 5 timeout, 2 content_filter. %infer run --only failed"
        assert translation.say(text) is text
    finally:
        translation.choose(None)


def test_the_console_asks_the_same_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")
    try:
        assert cli.main(["bench", "opnai/gpt"]) == 2
    finally:
        translation.choose(None)
    assert capsys.readouterr().err.startswith("holynb: 'opnai'(이)라는 제공자가 없습니다.")
