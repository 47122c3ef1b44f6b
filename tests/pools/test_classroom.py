"""The page of a class: its commands and settings are taken as they stand there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from holynb import cli, port_tokens
from holynb.config import settings
from holynb.pools.options import PoolOptions
from holynb.ui.cell import grammar
from holynb.ui.commands import pool

PAGE = (Path(__file__).parents[2] / "notebooks" / "CLASSROOM.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"```(?:bash|text)\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if "holynb pool" in line
]
#: What redirects is the shell's.
WORDS = [shlex.split(line.partition(" >> ")[0].partition("holynb pool ")[2]) for line in COMMANDS]


def test_the_pool_starts_as_it_says_by_hand_and_with_the_machine() -> None:
    starts = [words[1:] for words in WORDS if words[0] == "start"]
    assert len(starts) == 2
    assert starts[0] == starts[1], "after a reboot it is the same pool"
    values, (model,) = grammar.parse_options(starts[0], {flag: o for o in pool.START_OPTIONS for flag in o.flags})
    by_name = {o.name: o for o in pool.START_OPTIONS}
    options = PoolOptions.parse(model, {n: o.convert(v) if (o := by_name[n]).convert else v for n, v in values.items()})
    assert (options.pool_name, options.idle, options.restart) == ("class", 30 * 86400, 3)
    assert f"http://127.0.0.1:{options.port}/v1" in PAGE


def test_tokens_are_added_as_it_says(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("kim\n이서준\n", encoding="utf-8")
    adds = [words for words in WORDS if words[:2] == ["token", "add"]]
    assert len(adds) == 1
    assert cli.main(["pool", *adds[0]]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["kim", "이서준"]
    assert [(t.name, t.tokens_per_day, bool(t.expires)) for t in port_tokens.read(home)] == [
        ("kim", 50_000, True),
        ("이서준", 50_000, True),
    ]


@pytest.mark.usefixtures("no_project")
def test_a_students_settings_are_read(home: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    tomllib.loads(block)
    (home / "config.toml").write_text(block, encoding="utf-8")
    assert str(settings.route()) == "school/class"
    endpoint = settings.endpoint(settings.route())
    assert (endpoint.base_url, endpoint.key_name) == ("http://127.0.0.1:8123/v1", "SCHOOL_TOKEN")


def test_the_cells_of_chapter_one_that_it_leaves_out_are_there() -> None:
    """The same words in English and Korean: a chapter that changes, changes the page."""
    for name, heads in (
        ("01-first-run", ("A local pool", "Many rows", "The same over HTTP")),
        ("01-first-run-ko", ("내 컴퓨터의 풀", "여러 행", "HTTP로도 똑같이")),
    ):
        chapter = (Path(__file__).parents[2] / "notebooks" / f"{name}.ipynb").read_text("utf-8")
        assert all(f"## {head}" in chapter and head in PAGE for head in heads)
        many = chapter.partition(f"## {heads[1]}")[2].partition(f"## {heads[2]}")[0]
        cells = [cell for cell in many.split('"cell_type": "code"') if "pool/smollm2-135m" in cell.partition('"source"')[2]]
        assert len(cells) == 2
        assert chapter.count("%infer pool start smollm2-135m --port 0") == chapter.count("%infer pool stop smollm2-135m") == 1
