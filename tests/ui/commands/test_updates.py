"""`%infer prices update` and `%infer models update`: read, shown, taken only when told to, and gone back from. A stand-in serves the tables."""

from __future__ import annotations

import datetime as dt
import json
import stat
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from servers.exact import Exact, reply

from holynb import cli
from holynb.config import models, settings, update_files
from holynb.config.options import Options
from holynb.errors import BadOption, BadRoute, BadSetting
from holynb.pricing import foreign, prices
from holynb.run import plan
from holynb.types import Route, Usage
from holynb.ui.commands import models as commands
from holynb.ui.commands import preview, updates

GENAI = [
    {
        "id": "openai",
        "models": [
            {
                "id": "gpt-6-luna",
                "match": {"equals": "gpt-6-luna"},
                "context_window": 2000000,
                "prices": {"input_mtok": 0.2, "output_mtok": 1},
            },
            {
                "id": "gpt-4o-mini",
                "match": {"starts_with": "gpt-4o-mini"},
                "prices": {"input_mtok": 0.15, "output_mtok": 0.6, "cache_read_mtok": 0.075},
            },
            {"id": "gpt-9", "match": {"equals": "gpt-9"}, "context_window": 9000, "prices": {"input_mtok": 3, "output_mtok": 4}},
            {"id": "broken", "match": {}, "prices": {"input_mtok": -3, "output_mtok": 4}},
        ],
    }
]
LITELLM = {
    "gpt-6-luna": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 922000, "deprecation_date": "2028-01-01"},
    "claude-sonnet-4-5": {"litellm_provider": "anthropic", "mode": "chat", "max_input_tokens": 200000, "deprecation_date": "2026-09-29"},
}
LUNA = Route("openai", "gpt-6-luna")


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "today", lambda: dt.date(2026, 12, 24))
    update_files._stamps.clear()
    yield
    settings.reset()
    update_files._stamps.clear()


def luna_costs() -> Decimal | None:
    """Dollars of a million tokens of input, below every tier."""
    cost = prices.price(LUNA, None, Usage(100_000, 0))
    return None if cost is None else cost * 10


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(GENAI), encoding="utf-8")
    return path


def test_it_is_shown_first_and_taken_only_then(table: Path, home: Path) -> None:
    shown = updates.run("prices", ["update", "--from", str(table)])
    assert "openai/gpt-6-luna  $0.1 in, $0.5 out" in shown
    assert "  $0.2 in, $1 out" in shown
    assert "1 changed, 1 new (openai/gpt-9), 1 the same." in shown
    assert "1 entry left out as invalid: openai/broken: input_mtok should be a number" in shown
    assert "Nothing is taken yet" in shown
    assert luna_costs() == Decimal("0.1")
    table.write_text("not that any more", encoding="utf-8")  # just what was shown is taken
    assert "Taken: 3 prices" in updates.run("prices", ["update", "--take"])
    assert luna_costs() == Decimal("0.2")
    assert prices.price(Route("openai", "gpt-9"), None, Usage(1_000_000, 0)) == 3
    assert stat.S_IMODE((home / "prices.json").stat().st_mode) == 0o600
    assert not (home / "prices.new.json").exists()
    assert "read 2026-12-24" in updates.run("prices", [])
    assert "Removed" in updates.run("prices", ["update", "--remove"])
    assert luna_costs() == Decimal("0.1")
    assert "nothing to remove" in updates.run("prices", ["update", "--remove"])


def test_a_price_that_a_later_one_has_followed_is_no_change(tmp_path: Path) -> None:
    """genai-prices keeps what o3 once cost; what counts is its price since then. One that is still to come is shown with its day."""
    then, since, soon = ({"input_mtok": a, "output_mtok": b} for a, b in ((10, 40), (2, 8), (3, 9)))
    dated = [
        {"prices": then},
        {"constraint": {"start_date": "2025-06-10"}, "prices": since},
        {"constraint": {"start_date": "2027-06-10"}, "prices": soon},
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": "openai", "models": [{"id": "o3", "match": {"equals": "o3"}, "prices": dated}]}]), encoding="utf-8")
    shown = updates.run("prices", ["update", "--from", str(path)])
    assert "$10" not in shown
    assert "openai/o3 from 2027-06-10  $2 in, $8 out" in shown
    assert "$3 in, $9 out" in shown


def test_the_addresses_are_those_that_are_kept_up() -> None:
    """genai-prices froze its first files in 2026 ("no longer receive provider, model or price updates")."""
    assert updates.ADDRESSES["prices"].endswith("/genai-prices/main/prices/new_data/v2/data.json")


def test_what_was_read_later_counts(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "today", lambda: dt.date(2026, 1, 1))
    updates.run("prices", ["update", "--from", str(table), "--take"])
    assert luna_costs() == Decimal("0.1"), "an update older than what ships does not count"
    assert prices.price(Route("openai", "gpt-9"), None, Usage(1_000_000, 0)) == 3, "where nothing else is known it does"
    settings.override(price={"openai/gpt-9": {"input": 7, "output": 7}})
    assert prices.price(Route("openai", "gpt-9"), None, Usage(1_000_000, 0)) == 7, "the user's own price counts above all"


def test_it_comes_from_an_address_that_the_user_sets(home: Path) -> None:
    with Exact([reply(GENAI)]) as server:
        (home / "config.toml").write_text(f'[update]\nprices = "{server.base}/t.json"\n', encoding="utf-8")
        assert f"{server.base}/t.json" in updates.run("prices", [])
        assert "1 changed" in updates.run("prices", ["update"])
        (asked,) = server.asked
        assert (asked.method, asked.path) == ("GET", "/t.json")
        assert "authorization" not in asked.headers
        assert "x-api-key" not in asked.headers
        shown = updates.run("prices", ["update", f"--from={server.base}/other.json", "--take"])
        assert server.asked[-1].path == "/other.json", "another address than what waits is read anew"
        assert "changed" in shown
        assert "Taken" in shown


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply("<html>not found</html>", 404), "answered 404"),
        (reply("<html>hello</html>"), "neither JSON nor TOML"),
        (reply({"a": 1}), "is not a table of prices"),
        (reply(b"", 302), "redirects"),
    ],
)
def test_what_is_no_table_is_one_line_and_changes_nothing(answer: bytes, words: str, home: Path) -> None:
    with Exact([answer]) as server, pytest.raises(BadSetting, match=words) as raised:
        updates.run("prices", ["update", "--from", f"{server.base}/t.json", "--take"])
    assert "\n" not in str(raised.value)
    assert not list(home.glob("*.json"))


def test_a_file_that_is_too_large_or_not_there(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MAX_BYTES", 20)
    for path in (table, tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(BadSetting):
            updates.run("prices", ["update", "--from", str(path)])
    with Exact([reply(GENAI)]) as server, pytest.raises(BadSetting, match="more than"):
        updates.run("prices", ["update", "--from", f"{server.base}/t.json"])


def test_a_models_update_adds_what_is_not_known_and_reports_ends(tmp_path: Path) -> None:
    path = tmp_path / "models.json.txt"
    path.write_text(json.dumps(LITELLM), encoding="utf-8")
    shown = updates.run("models", ["update", "--from", str(path)])
    assert "openai/gpt-6-luna  context 1,050,000, answer 128,000, images, thinks  " in shown
    assert "reported to end 2028-01-01" in shown
    updates.run("models", ["update", "--take"])
    assert models.lifecycle(LUNA) == "reported to end 2028-01-01"
    assert models.lifecycle(Route("anthropic", "claude-sonnet-4-5")) == "ended 2026-11-30; successor anthropic/claude-sonnet-5-5"
    known = models.find("openai", "gpt-6-luna")
    assert known is not None
    assert known.context == 1050000, "a fact stands against a report"
    updates.run("models", ["update", "--remove"])
    assert models.lifecycle(LUNA) == ""


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["updte"], "Did you mean update"), (["update", "--taek"], "Did you mean --take"), (["update", "--from"], "--from takes the address")],
)
def test_slips_of_the_pen(words: list[str], hint: str) -> None:
    with pytest.raises(BadOption, match=hint):
        updates.run("prices", words)


def test_a_slip_of_the_pen_in_models_is_no_provider() -> None:
    with pytest.raises(BadOption, match=r"takes a provider or update, not 'updaet'\. Did you mean update"):
        commands.command("models", ["updaet"])
    with pytest.raises(BadRoute, match="Did you mean openai"):
        commands.command("models", ["opena"])


def test_an_address_of_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.holynb.update]\nprices = "https://evil.example.com/t.json"\n', encoding="utf-8")
    with pytest.raises(BadSetting, match=r"is read only from your own config\.toml"):
        updates.run("prices", ["update"])


@pytest.mark.parametrize("address", ["ftp://x/y", "https://user:secret@x/y", "https://x/y?key=secret"])
def test_an_address_that_cannot_be(address: str, home: Path) -> None:
    with pytest.raises(BadOption) as raised:
        updates.run("prices", ["update", "--from", address])
    assert "secret" not in str(raised.value)
    (home / "config.toml").write_text(f'[update]\nprices = "{address}"\n', encoding="utf-8")
    with pytest.raises(BadSetting, match=r"update\.prices") as named:
        updates.run("prices", ["update"])
    assert "secret" not in str(named.value)


def test_in_a_terminal(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prices", "update", "--from", str(table)]) == 0
    assert "Nothing is taken yet. holynb prices update --take" in capsys.readouterr().out
    assert cli.main(["prices", "update", "--take"]) == 0
    assert cli.main(["models", "openai"]) == 0
    assert "openai/gpt-6-luna" in capsys.readouterr().out
    assert cli.main(["prices", "nonsense"]) == 2
    assert cli.main(["models", "update", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: holynb models [PROVIDER]")
    assert "holynb models update [--take]" in shown


# -- how old they are --------------------------------------------------------------------------------------------------------
def dry_run(route: str, **options: Any) -> str:
    return preview.text(plan.make("x", route, Options.parse({"dry_run": True, **options}), variables={}))


def test_a_dry_run_says_that_prices_are_old(monkeypatch: pytest.MonkeyPatch, table: Path) -> None:
    assert "days ago" not in dry_run("openai/gpt-6-luna")
    monkeypatch.setattr(models, "today", lambda: dt.date(2027, 1, 22))
    assert "The price of openai/gpt-6-luna was read 2026-11-22, 61 days ago: %infer prices update." in dry_run("openai/gpt-6-luna")
    assert "days ago" not in dry_run("sim/echo")
    assert "days ago" not in dry_run("pool/smollm2-135m")
    monkeypatch.setattr(models, "today", lambda: dt.date(2027, 1, 28))
    shown = dry_run("openai/gpt-6-luna", fallback="deepseek/deepseek-flash")
    assert "was read 2026-11-15, 74 days ago" in shown, "the oldest of several"
    assert "What is known of models was read 2026-11-28, 61 days ago: %infer models update." in shown
    updates.run("prices", ["update", "--from", str(table), "--take"])
    assert "The price of" not in dry_run("openai/gpt-6-luna")
