"""Help of `%infer`, its words and `%%infer?` fits a terminal of 80 columns."""

from __future__ import annotations

import pytest

from holynb import cli
from holynb.ui import line_magic
from holynb.ui.cell import grammar
from holynb.ui.commands import pool
from holynb.ui.output.helplines import HELP_WIDTH
from holynb.ui.output.text import columns

HELP = {
    "all": line_magic.help_text(),
    "%%infer": grammar.cell_help(),
    **{word: line_magic.help_text(word) for word in line_magic.COMMANDS},
    **{f"pool {word}": pool.run([word, "--help"], print)[0] for word in pool.HELP},
    "pool": pool.run(["help"], print)[0],
    "holynb pool": pool.run(["help"], print, command="holynb pool")[0],
}


@pytest.mark.parametrize("name", HELP)
def test_help_fits_80_columns(name: str) -> None:
    assert [line for line in HELP[name].split("\n") if columns(line) > HELP_WIDTH] == []


@pytest.mark.parametrize("words", [["bench", "--help"], ["models", "--help"], ["prices", "--help"]])
def test_the_consoles_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert [line for line in capsys.readouterr().out.split("\n") if columns(line) > HELP_WIDTH] == []


def test_the_list_has_every_word_once() -> None:
    heads = [line for line in HELP["all"].split("\n") if line.startswith("  %infer ")]
    assert [h.split()[1] for h in heads] == list(line_magic.COMMANDS)
