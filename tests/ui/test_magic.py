"""The magics in a real IPython: what a cell gives, shows, binds, refuses, and that loading leaves nothing behind."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pandas as pd
import psutil
import pytest
from layout import ROOT
from ui.shells import Here, one_line_error, run, shell

import holynb
from holynb import runlog
from holynb.config.options import TABLE
from holynb.errors import InferError


@pytest.fixture
def here(here: Here) -> Here:
    here.shell.user_ns["df"] = pd.DataFrame({"a": [1, 2, 3]}, index=["x", "y", "y"])
    return here


# -- the value -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("magic", ["%%infer", "%%holynb"])
def test_a_cell_gives_a_frame_that_is_shown_once(here: Here, magic: str) -> None:
    result = here(f"{magic} sim/echo\nhello there")
    assert isinstance(result.value, pd.DataFrame)
    assert result.value["text"].tolist() == ["hello there"]
    assert here["_"] is result.value
    assert here["Out"][1] is result.value
    assert result.out.count("hello there") == 1
    assert "finish_reason" not in result.out, "no table of pandas beside the output"
    assert "finish_reason" in here("_.T").out, "and the frame shows as ever afterwards"


def test_a_name_binds_silently_or_shown(here: Here) -> None:
    silent = here("%%infer r << sim/echo -l\nfirst words\nsecond words")
    assert silent.value is None
    assert here["r"]["text"].tolist() == ["first words", "second words"]
    assert "first words" not in silent.out
    assert "2 rows" in silent.out
    shown = here("%%infer s= << sim/echo -l\nfirst words\nsecond words")
    assert shown.value is None
    assert "first words" in shown.out
    assert here("%%infer t << sim/echo -q\nx").out == ""
    assert here("%%infer t << sim/echo --show none\nx").out == ""
    for quiet in ("-q", "--show none"):
        kept = here(f"%%infer sim/stream --max-tokens 2 --no-cache --bg {quiet}\nx")
        assert (kept.out, kept.err, kept.value.n) == ("", "", 1), "in the background and without a name too"
    assert "shown all the same" in here("%%infer t << sim/echo --show table -l\nshown all the same\nb").out


def test_rows_of_a_frame_keep_its_index(here: Here) -> None:
    result = here("%%infer sim/echo --df df\nvalue {{ a }} of {{ n }}".replace("{{ n }}", "{{ df | length }}"))
    assert result.value["text"].tolist() == ["value 1 of 3", "value 2 of 3", "value 3 of 3"]
    assert result.value.index.tolist() == ["x", "y", "y"]
    into = here("%%infer sim/echo --df df --into said\nvalue {{ a }}").value
    assert into.columns.tolist() == ["a", "said"]
    assert here["df"].columns.tolist() == ["a"]


def test_notebook_variables_braces_and_raw(here: Here) -> None:
    here("name = 'Ada'")
    assert here('%%infer sim/echo\n{{ name }} has {x} and {"json": 1}').value["text"][0] == 'Ada has {x} and {"json": 1}'
    assert here("%%infer sim/echo --raw\n{{ name }}").value["text"][0] == "{{ name }}"


def test_a_body_may_end_in_a_semicolon_hold_magics_and_quotes(here: Here) -> None:
    for magic in ("%%infer", "%%time\n%%infer"):
        result = here(f'{magic} sim/echo\nit\'s "done";\n%time x\n!ls\n?end')
        assert result.value["text"][0].strip() == 'it\'s "done";\n%time x\n!ls\n?end'
    silent = here("%%infer sim/echo\nsay this;")
    assert silent.value["text"][0].strip() == "say this;"
    assert "say this;" in silent.out


def test_the_synchronous_door_gives_the_same(here: Here) -> None:
    result = here("r = get_ipython().run_cell_magic('infer', 'sim/echo -l', 'a\\nb')")
    assert here["r"]["text"].tolist() == ["a", "b"]
    assert result.value is None
    assert "finish_reason" in here("r.T").out
    timed = here("%%time\n%%infer sim/echo -l\nc words\nd")
    assert timed.value["text"].tolist() == ["c words", "d"]
    assert timed.out.count("c words") == 2 - 1 + 1, "once as prompt, once as answer: one table"


def test_the_python_door_and_last(here: Here) -> None:
    here("%%infer sim/echo\nlast words")
    assert holynb.last is not None
    assert holynb.last.frame()["text"].tolist() == ["last words"]
    assert here("import holynb\nholynb.last.n").value == 1
    assert len(holynb.runs) >= 1


def test_background_gives_the_run(here: Here) -> None:
    result = here("%%infer r << sim/echo --bg -p latency=1\nx")
    assert result.value is None
    assert "%infer stop" in result.out, "one line, where no front end could follow it"
    assert here["r"].wait(10).frame()["text"].tolist() == ["x"]
    assert here("%%infer sim/echo --bg\nx").value.wait(10).done


def test_dry_run_and_show_code_send_nothing(here: Here) -> None:
    before = len(holynb.runs)
    dry = here("%%infer sim/echo --df df --dry-run\nvalue {{ a }}")
    assert dry.value is None
    for part in ("nothing was sent", "3 rows", "value 1", "Cost, estimated: $", "not needed"):
        assert part in dry.out
    code = here("%%infer sim/echo --show-code --max-tokens 7 --think off --df df\nvalue {{ a }}")
    assert "max_tokens=7,\n    think='off'," in code.out
    assert len(holynb.runs) == before
    assert here(code.out).error is None
    assert here["frame"]["text"].tolist() == ["value 1", "value 2", "value 3"]


def test_a_dry_run_needs_no_key_and_says_so(here: Here) -> None:
    dry = here("%%infer holysheep/gpt-4.1 --max-tokens 100 --dry-run\nhello")
    assert "Key: no HOLYSHEEP_API_KEY." in dry.out
    assert "Cost, estimated: $" in dry.out


# -- what goes wrong -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%%infer sim/echo --modle x\nhi", "There is no option --modle"),
        ("%%infer sim/echo --max-tokns 5\nhi", "Did you mean --max-tokens"),
        ("%%infer sim/echo --max-tokens five\nhi", "--max-tokens takes a whole number"),
        ("%%infer sim/ecko\nhi", "Did you mean sim/echo"),
        ("%%infer smi/echo\nhi", "Did you mean sim"),
        ("%%infer nothing\nhi", "neither an alias nor a route"),
        ("%%infer sim/echo --df dff\n{{ a }}", "Did you mean df"),
        ("%%infer sim/echo --df df\n{{ b }}", "There is no column or variable 'b'"),
        ("%%infer sim/echo --file nowhere.csv\n{{ b }}", "There is no file"),
        ("%%infer sim/echo --df df --into a\n{{ a }}", "already has a column"),
        ("%%infer sim/echo", "has no prompt"),
        ("%%infer sim/echo\n", "has no prompt"),
        ("%%infer sim/echo\n   \n\n", "has no prompt"),
        ("%%infer sim/echo --batch\nhi", "sim has no batch API"),
        ("%%infer openai/gpt-4.1\nhi", "OPENAI_API_KEY"),
        ("%%infer sim/echo -p api_key=sk-abcdefghijklmnop123456\nhi", "looks like an API key"),
        ("%%infer 2x << sim/echo\nhi", "cannot be a variable's name"),
        ("%%infer sim/echo --resume nope\nhi", "There is no run 'nope'"),
        ("%infer some text", "write it below %%infer"),
        ("%infer what is a cache?", "write it below %%infer"),
        ("x = 1\n%infer what's a cache?", "write it below %%infer"),
        ("%%infer a= vllm/mock\nhi", "<< is missing after a=. Write a= << vllm/mock"),
        ("%infer statsu", "Did you mean stat"),
        ("%infer dash", "needs a front end with widgets"),
        ("%infer resume", "There is no unfinished run"),
        ("%infer resume a b", "takes the name or the id of one run, or nothing"),
        ("%infer resume nope", "There is no run 'nope'"),
        ("%infer run", "--only failed"),
        ("%infer run --only failed --max-tokens 5", "does not take --max-tokens"),
        ("%infer resume x --df y", "does not take --df"),
        ("%infer run --only failed nope", "There is no run 'nope'"),
        ("%infer show nope", "There is no run 'nope'"),
        ("%infer stop nope", "No run 'nope' is active"),
        ("%infer key nobody", "There is no provider 'nobody'"),
        ("%infer key openai", "no way to ask here"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(here: Here, cell: str, says: str) -> None:
    before = len(holynb.runs)
    result = here(cell)
    assert says in one_line_error(result)
    assert "abcdefghij" not in result.err
    assert not [r for r in holynb.runs[before:] if r.error is None], "nothing was sent"


def test_a_mistake_is_one_line_through_the_synchronous_door_too(here: Here) -> None:
    result = here("%%time\n%%infer sim/echo --modle x\nhi")
    assert "UsageError: There is no option --modle" in result.err
    assert "Traceback" not in result.out + result.err


def test_debug_gives_the_traceback(here: Here) -> None:
    result = here("%%infer sim/echo --df dff --debug\n{{ a }}")
    assert "Traceback" in result.out + result.err
    assert "BadOption" in result.out + result.err


def test_some_failed_rows_are_rows(here: Here) -> None:
    result = here("%%infer sim/echo -l --retries 0 -p fault=500 --only failed".replace(" --only failed", "") + "\na\nb")
    assert isinstance(result.error, InferError)
    mixed = here("%%infer r << sim/flaky -l --retries 0 -p seconds=0\n" + "\n".join(f"row {i}" for i in range(40)))
    frame = here["r"]
    bad = int((frame["status"] == "error").sum())
    assert 0 < bad < 40
    assert f"{bad} of 40 failed" in mixed.out
    assert "%infer run --only failed" in mixed.out
    assert frame.loc[frame["status"] == "error", "text"].isna().all()
    again = here("%infer run --only failed --retries 3").value
    assert len(again) == 40
    assert int((again["status"] == "error").sum()) < bad
    good = frame["status"] == "ok"
    assert again.loc[good, "text"].equals(frame.loc[good, "text"])


def test_every_row_failed_is_one_line_and_the_frame_is_bound(here: Here) -> None:
    result = here("%%infer r << sim/echo -l -p fault=401\na\nb")
    assert isinstance(result.error, InferError)
    assert "Traceback" not in result.out + result.err
    assert "InferError: no row could be answered (2 of 2 failed: 2 auth)" in result.out + result.err
    assert here["r"]["error_type"].tolist() == ["auth", "auth"]


def test_one_prompt_that_failed_is_told_once(here: Here) -> None:
    result = here("%%infer r << sim/echo -p fault=401\na")
    assert isinstance(result.error, InferError)
    assert (result.out + result.err).count("simulated 401") == 1
    assert here["r"]["error_type"].tolist() == ["auth"]
    assert "simulated 401" in here("%infer show").out


# -- settings and the line -------------------------------------------------------------------------------------------------
def test_config_sets_the_default_and_refuses_what_files_would(here: Here) -> None:
    assert here("%config InferMagic.default = 'sim/echo'").error is None
    assert here("%%infer\nhi").value["route"][0] == "sim/echo"
    assert here("%config InferMagic.alias = {'fast': 'sim/echo'}").error is None
    assert here("%%infer fast\nhi").value["route"][0] == "sim/echo"
    assert here("get_ipython()._holynb.provider = {'x': {'base': 'nowhere'}}").error is not None
    assert here("%config InferMagic.default = ''").error is None


def test_config_is_gone_after_unloading() -> None:
    from holynb.config import settings

    with shell() as ip:
        run(ip, "%load_ext holynb")
        run(ip, "%config InferMagic.default = 'sim/echo'")
        assert str(settings.route()) == "sim/echo"
        run(ip, "%unload_ext holynb")
        assert str(settings.route()) == settings.EMBEDDED


def test_help_prints_every_option(here: Here) -> None:
    from holynb.ui.line_magic import COMMANDS, SUMMARY_COLUMN

    text = here("%%infer?").out
    assert all(flag in text for option in TABLE for flag in option.flags)
    listed = here("%infer help").out
    for word in COMMANDS:
        assert f"%infer {word}" in listed
        for asked in (f"%infer help {word}", f"%infer {word}?", *([f"%infer {word} --help"] * (word != "help"))):
            assert " ".join(COMMANDS[word].help.split()) in " ".join(here(asked).out.split()), "whatever the width it is wrapped at"
    assert here("%infer").out == listed
    # A long usage has its own line: what each does stands in one column, and is found there.
    column = " ".join(" ".join(row[SUMMARY_COLUMN:] for row in listed.splitlines()).split())
    assert [c.help for c in COMMANDS.values() if c.help.partition("\n")[0] not in column] == []


def test_one_answer_is_shown_as_its_format_says_and_again_in_another(here: Here) -> None:
    body = 'Here:\n```json\n{"a":[1,2]}\n```\n'
    assert '{"a":[1,2]}\n1 row' in here(f"%%infer c << sim/echo --format code --name coded --show all\n{body}").out
    assert "```json" in here("%infer show coded --format text").out
    assert '{\n  "a": [\n    1,' in here('%%infer sim/echo --format json\n{"a":[1,2]}').out
    assert "--format takes one of text, markdown, code, json" in one_line_error(here("%%infer sim/echo --format html\nhi"))


def test_runs_show_and_resume_read_the_log(here: Here) -> None:
    here("%%infer r << sim/echo -l --name mine\nfirst answer\nsecond answer")
    assert "mine" in here("%infer runs").out
    assert "first answer" in here("%infer show mine").out
    here("%unload_ext holynb")
    from holynb.run import session

    session._session.clear()
    here("%load_ext holynb")
    stored = here("%infer show mine").out
    assert "first answer" in stored
    assert "2 rows" in stored
    assert "first answer" not in here("%infer show mine --show charts").out
    again = here("%infer resume mine")
    assert again.value["text"].tolist() == ["first answer", "second answer"]
    assert again.value["cached"].all(), "nothing was sent again"


def test_a_run_that_was_refused_everywhere_cost_nothing_in_the_list_either(here: Here) -> None:
    here("%%infer sim/echo --name refused -p fault=auth --retries 0\nx")
    assert "$0.00" in next(line for line in here("%infer runs").out.splitlines() if "refused" in line)


def test_a_run_is_listed_with_all_that_it_has_paid(here: Here) -> None:
    for prompt in ("one", "two", "one"):  # the last is answered by the log
        here(f"%%infer sim/echo --name often --max-tokens 4000\n{prompt} {'word ' * 300}")
    paid = next(line for line in here("%infer runs").out.splitlines() if "often" in line)
    each = Decimal(re.search(r"\$([\d.]+)", here("%infer cost often").out)[1])
    assert each > 0
    assert f"${each}" in paid


def test_a_variable_names_the_run_that_it_holds(here: Here) -> None:
    here("%%infer held << sim/echo -l --bg\nfirst answer\nsecond answer")
    held = here.shell.user_ns["held"].wait(20)
    here("%%infer later << sim/echo\nanother")
    assert "first answer" in here("%infer show held").out
    for again in ("resume held", "run --only failed held"):
        assert here(f"%infer {again}").value.wait(20).frame()["text"].tolist() == ["first answer", "second answer"], again
    here("%%infer slow << sim/stream -l --bg --max-tokens 400\none\ntwo")
    slow = here.shell.user_ns["slow"]
    assert f"Stopping {slow.id}" in here("%infer stop slow").out
    assert slow.wait(20).stopped
    assert held.done


def test_status_and_stop(here: Here) -> None:
    assert "No run is active" in here("%infer status").out
    assert "No run is active" in here("%infer stop").out
    here("%%infer r << sim/stream --bg --name long\nx")
    assert "run long on sim/stream: 0 of 1 row " in here("%infer status").out
    assert "Stopping long" in here("%infer stop long").out
    frame = here["r"].wait(10).frame()
    assert frame["status"].tolist() == ["cancelled"]
    assert here["r"].stopped


def test_a_run_that_was_killed_is_unfinished_and_one_that_goes_on_is_running(here: Here, home: Path) -> None:
    here("%%infer sim/echo --name dead\nx")
    with sqlite3.connect(home / "runs.sqlite") as db:
        db.execute("UPDATE runs SET ended = NULL, status = 'running'")
    db.close()
    here("%%infer sim/stream --name alive --bg\nx")
    end = time.monotonic() + 30
    while runlog.log().find("alive") is None and time.monotonic() < end:
        time.sleep(0.01)
    lines = {line.split()[1]: line.split()[3] for line in here("%infer runs").out.splitlines()[1:]}
    assert lines == {"dead": "unfinished", "alive": "running"}
    again = here("%infer resume")
    assert again.value["text"].tolist() == ["x"], "the one that nobody continues"
    assert re.search(r"Resuming dead \(\S+\): 0 of 1 row left\.", again.out)
    assert "no unfinished run" in here.refused("%infer resume")
    here("%infer stop alive")


def test_models_and_keys(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-real-key-0123456789")
    out = here("%infer models").out
    assert "openai/gpt-4.1" in out
    assert "key in OPENAI_API_KEY" in out
    assert "no HOLYSHEEP_API_KEY" in out
    assert "not-a-real-key" not in out
    assert re.search(r"^ *azure +your resource, in AZURE_OPENAI_ENDPOINT", out, re.MULTILINE)
    assert re.search(r"^ *sagemaker +endpoints of your AWS account +AWS credentials", out, re.MULTILINE)
    assert re.search(r"^ *pool +on this machine", out, re.MULTILINE)
    assert "deepseek" not in here("%infer models openai").out
    monkeypatch.setattr("holynb.ui.magic.InferMagic.can_ask", lambda self: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "typed-key-9876543210")
    typed = here("%infer key holysheep").out
    assert "HOLYSHEEP_API_KEY is kept" in typed
    assert "typed-key" not in typed
    from holynb.config import keys

    keys.forget()


# -- loading ---------------------------------------------------------------------------------------------------------------
def test_loading_and_unloading_leave_nothing() -> None:
    with shell() as ip:
        tables = {kind: set(ip.magics_manager.magics[kind]) for kind in ("line", "cell")}
        transforms = list(ip.input_transformers_cleanup)
        callbacks = {name: list(ip.events.callbacks[name]) for name in ip.events.callbacks}
        process = psutil.Process()
        threads = set(threading.enumerate())
        sockets, files, children = len(process.net_connections()), set(process.open_files()), process.children()
        for _ in range(2):
            loaded = run(ip, "%load_ext holynb")
            assert (loaded.out, loaded.err) == ("", "")
            run(ip, "%%infer r << sim/echo\nx")
            run(ip, "%reload_ext holynb")
            run(ip, "%%infer r << sim/stream --bg\nx")
            gone = run(ip, "%unload_ext holynb")
            assert (gone.out, gone.err) == ("", "")
        assert {kind: set(names) for kind, names in ip.magics_manager.magics.items()} == tables
        assert ip.input_transformers_cleanup == transforms
        assert "InferMagic" not in [type(c).__name__ for c in ip.configurables]
        assert {name: list(ip.events.callbacks[name]) for name in ip.events.callbacks} == callbacks
        assert set(threading.enumerate()) == threads
        assert len(process.net_connections()) == sockets
        assert process.children() == children
        assert {f.path for f in process.open_files()} <= {f.path for f in files}
        assert "compute_format_data" not in vars(ip.displayhook)


def test_another_magic_of_the_name_comes_back() -> None:
    with shell() as ip:
        ip.register_magic_function(lambda line, cell: "theirs", "cell", "infer")
        run(ip, "%load_ext holynb")
        assert isinstance(run(ip, "%%infer sim/echo\nx").value, pd.DataFrame)
        run(ip, "%unload_ext holynb")
        assert run(ip, "%%infer x\ny").value == "theirs"


def test_loading_takes_little_time() -> None:
    """Budget 300 ms over IPython; five times that of a processor here, because the machine is shared. The benchmark measures it."""
    code = (
        "import time, sys\nfrom IPython.core.interactiveshell import InteractiveShell\nip = InteractiveShell.instance()\n"
        "began = time.process_time()\nip.run_line_magic('load_ext', 'holynb')\nprint(time.process_time() - began)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT, env=environment()
    )
    assert float(result.stdout.split()[-1]) < 1.5


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(ROOT))}


def test_code_above_the_magic_is_told_what_goes_first(here: Here) -> None:
    for name in ("infer", "holynb"):
        result = here(f"x = 1\n%%{name} sim/echo\nhello")
        assert "%%infer goes in the first line of its cell, below comments only" in result.err + result.out
    result = here("# what customers think\n%%infer out << sim/echo -q\nhello")
    assert list(here["out"]["text"]) == ["hello"], result.err
