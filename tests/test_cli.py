"""The console command: output, exit codes, and one line instead of a traceback for a mistake of the user."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from layout import ROOT

from holynb import __version__, cli
from holynb.config import settings


def test_no_word_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("demo", "pool", "bench", "kernel", "doctor"))


@pytest.mark.parametrize("words", [["doctro"], ["demo", "--x"], ["kernel"], ["kernel", "remove"], ["demo", "-n", "many"]])
def test_a_word_that_is_none_is_a_usage_message(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage: holynb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pool", "lst"], "Did you mean list"),
        (["pool", "stop", "nope"], "There is no running pool 'nope'. No pool is running."),
        (["pool", "status", "nope"], "Start it: holynb pool start MODEL --name nope"),
        (["pool", "start", "--name", "all"], "cannot be called all"),
        (["pool", "start", "x", "--dpp", "2"], "There is no option --dpp"),
        (["pool", "start", "x", "--dp", "two"], "--dp takes a whole number"),
        (["pool", "start", "x", "y"], "unexpected argument 'y'"),
        (["pool", "list", "x"], "takes no more arguments; unexpected: 'x'"),
        (["pool", "logs"], "the name of one pool"),
        (["pool", "stop", "a", "b"], "the name of one pool"),
        (["pool", "stop"], "No pool of yours is running. Start one: holynb pool start smollm2-135m"),
        (["pool", "status"], "No pool of yours is running. Start one: holynb pool start smollm2-135m"),
        (["pool", "logs", "a", "b"], "a number of lines"),
    ],
)
def test_a_mistake_of_the_user_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert says in streams.err
    assert streams.err.startswith("holynb: ")
    assert len(streams.err.splitlines()) == 1


SCHOOL = 'default = "school/class"\n[provider.school]\nbase = "http://127.0.0.1:8123/v1"\nkey = "SCHOOL_TOKEN"\n'


@pytest.mark.usefixtures("fake_pools")
def test_a_students_list_of_pools_names_the_class(capsys: pytest.CaptureFixture[str]) -> None:
    (settings.home() / "config.toml").write_text(SCHOOL, encoding="utf-8")
    line = "school is a server that your settings name, at http://127.0.0.1:8123/v1. Ask it: %%infer school/class"
    no_key = (
        "  school needs a key, but SCHOOL_TOKEN is not set. Set SCHOOL_TOKEN in the environment or a .env file, or run %infer key school."
    )
    assert cli.main(["pool", "list"]) == 0
    assert capsys.readouterr().out == f"{line}\n{no_key}\nNo pool of yours is running. Start one: holynb pool start smollm2-135m\n"
    assert cli.main(["pool", "status", "class"]) == 0
    assert capsys.readouterr().out == f"{line}\n{no_key}\n"
    for words in (["logs", "school/class"], ["stop", "school"]):
        assert cli.main(["pool", *words]) == 2
        assert capsys.readouterr().err == f"holynb: {line}. Whoever runs it sees its state, and stops it.\n"
    assert cli.main(["pool", "status"]) == 2
    assert capsys.readouterr().err == f"holynb: {line}. No pool of yours is running. Start one: holynb pool start smollm2-135m\n"


@pytest.mark.usefixtures("fake_pools")
def test_pools_from_the_console(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool", "list"]) == 0
    assert capsys.readouterr().out == "No pool of yours is running. Start one: holynb pool start smollm2-135m\n"
    assert cli.main(["pool", "start", model, "--name", "mine", "--port", "0"]) == 0
    streams = capsys.readouterr()
    assert "pool/mine is ready" in streams.out
    assert "%%infer pool/mine" in streams.out
    assert "loading" in streams.err, "progress goes to stderr"
    assert cli.main(["pool", "status", "mine", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["state"]) == ("mine", "ready")
    assert cli.main(["pool", "status"]) == 0, "the only one is meant"
    status = capsys.readouterr().out
    assert facts["token"] not in status
    assert facts["base_url"] in status
    assert cli.main(["pool", "list", "--json"]) == 0
    assert [p["name"] for p in json.loads(capsys.readouterr().out)] == ["mine"]
    assert cli.main(["pool", "list"]) == 0
    assert "pool/mine" in capsys.readouterr().out
    assert cli.main(["pool", "logs", "mine", "5"]) == 0
    assert "ready: mine" in capsys.readouterr().out
    assert cli.main(["pool", "stop", "mime"]) == 2
    assert "Did you mean mine? Running: pool/mine." in capsys.readouterr().err
    assert cli.main(["pool", "stop", "mine"]) == 0
    assert capsys.readouterr().out == "Stopped pool/mine.\n"
    for every in ("all", "--all"):
        assert cli.main(["pool", "stop", every]) == 0
        assert capsys.readouterr().out == "No pool was running.\n"


def test_help_of_pool_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool"]) == 0
    whole = capsys.readouterr().out
    assert all(f"holynb pool {word}" in whole for word in ("start", "list", "status", "stop", "logs"))
    assert cli.main(["pool", "start", "--help"]) == 0
    assert "--max-len" in capsys.readouterr().out
    assert cli.main(["pool", "stop", "--help"]) == 0
    assert "--max-len" not in capsys.readouterr().out


def test_the_kernel_is_installed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "env/share/jupyter"))
    assert cli.main(["kernel", "install"]) == 0
    place = tmp_path / "env/share/jupyter/kernels/holynb/kernel.json"
    assert "--ext=holynb" in json.loads(place.read_text())["argv"]
    assert cli.main(["kernel", "uninstall"]) == 0
    assert not place.exists()
    assert cli.main(["kernel", "uninstall"]) == 0
    assert "No holynb kernel is installed." in capsys.readouterr().out


def test_an_environment_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "prefix", "/proc/nowhere")
    assert cli.main(["kernel", "install"]) == 2
    assert "Cannot write to" in capsys.readouterr().err


def test_interrupts_and_failures_have_their_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from holynb.errors import InferError

    for raised, code in ((KeyboardInterrupt(), 130), (InferError("no row could be answered"), 1), (BrokenPipeError(), 0)):

        def fail(raised: BaseException = raised, **_: object) -> None:
            raise raised

        monkeypatch.setattr("holynb.demo.main", lambda *a, fail=fail, **k: fail())
        monkeypatch.setattr(sys, "stderr", io.StringIO())  # a broken pipe closes it
        assert cli.main(["demo"]) == code
    monkeypatch.undo()


def test_it_runs_as_a_module_and_quietly_into_a_closed_pipe() -> None:
    version = subprocess.run(
        [sys.executable, "-m", "holynb", "--version"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert version.stdout == f"holynb {__version__}\n"
    piped = subprocess.run(
        f"{sys.executable} -m holynb doctor | true", shell=True, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert "Traceback" not in piped.stderr
