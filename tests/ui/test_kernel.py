"""The cell in a real kernel: what the page gets, how calmly, and what an interrupt leaves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from ui.kernels import Kernel, Reply, kernel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of jupyter_client and its sockets


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with kernel(tmp_path_factory.mktemp("home")) as loaded_kernel:
        loaded = loaded_kernel("%load_ext holynb")
        assert (loaded.content["status"], loaded.of("stream", "display_data", "error")) == ("ok", [])
        yield loaded_kernel


def test_the_output_is_the_display_of_the_value(here: Kernel) -> None:
    reply = here("%%infer sim/echo -l\nfirst answer\nsecond <b>answer</b>")
    assert reply.content["status"] == "ok"
    assert len(reply.shown) == 1
    assert set(reply.shown[0]) == {"text/html", "text/plain"}
    assert reply.of("execute_result") == []
    assert "second &lt;b&gt;answer" in reply.shown[0]["text/html"]
    assert here.value("type(_).__name__, type(Out[max(Out)]).__name__, _.shape") == "('DataFrame', 'DataFrame', (2, 18))"
    again = here("_")
    assert "dataframe" in again.of("execute_result")[0]["data"]["text/html"]


def test_a_short_run_shows_nothing_but_its_end(here: Kernel) -> None:
    reply = here("%%infer sim/echo\nhello")
    assert len(reply.of("display_data")) == 1
    assert reply.of("update_display_data", "clear_output", "stream") == []


def test_progress_is_late_calm_and_replaced_by_the_end(here: Kernel) -> None:
    reply = here("%%infer p << sim/echo -l -p latency=0.25 -c 1\n" + "\n".join(f"row {i}" for i in range(12)))
    first = reply.times("display_data")
    updates = reply.times("update_display_data")
    assert len(first) == 1
    assert first[0] >= 0.99, "nothing flashes in the first second"
    for start in [t / 10 for t in range(int(reply.seconds * 10))]:
        assert sum(start <= t < start + 1 for t in [*first, *updates]) <= 6, "five redraws a second, and the end"
    lines = [c["data"]["text/plain"] for c in reply.of("display_data", "update_display_data")]
    # A slow machine may have no row yet, and so no rate, or all of them and nothing left.
    says = [("rows/s" in line and ("left" in line or "12 of 12" in line)) or "so far" in line for line in lines[:-1]]
    assert all(says) and all(" of 12" in line for line in lines[:-1]), lines
    (final,) = reply.shown
    assert "12 rows" in final["text/plain"]
    assert "data:image/svg+xml" in final["text/html"]
    assert here.value("len(p)") == "12"


def test_one_prompt_streams_while_somebody_watches(here: Kernel) -> None:
    reply = here("%%infer one << sim/stream --no-cache --max-tokens 25\ntell me")
    words = [len(c["data"]["text/plain"].splitlines()[0].split()) for c in reply.of("display_data", "update_display_data")[:-1]]
    assert words == sorted(words)
    assert len(set(words)) > 5
    assert here.value("bool(one.ttft_s[0] + 1 < one.latency_s[0])") == "True", "the other words take two seconds and more"


@pytest.mark.parametrize("cell", ["%%time\n%%infer {}", "%%capture c\n%%infer {}", "get_ipython().run_cell('%%infer {}')"])
def test_nested_it_is_synchronous_and_works(here: Kernel, cell: str) -> None:
    body = "n << sim/echo --no-cache\nnested"
    reply = here(cell.format(body if cell.startswith("%%") else body.replace("\n", "\\n")))
    assert (reply.content["status"], reply.of("error")) == ("ok", [])
    assert here.value("n.text[0]") == "'nested'"


def test_other_work_of_the_loop_goes_on_while_the_cell_waits(here: Kernel) -> None:
    """What a click needs. A blocking cell would leave the count at 0."""
    here(
        "import asyncio\nclicks = []\nasync def clicking():\n    for i in range(100):\n        await asyncio.sleep(.02)\n        clicks.append(i)\n"
    )
    here("task = asyncio.ensure_future(clicking())")
    here("%%infer w << sim/echo --no-cache -p latency=1\nx")
    assert int(here.value("len(clicks)")) > 10


def interrupted(here: Kernel, cell: str, *when: str) -> Reply:
    """Run a cell, and interrupt it each time that what it shows last says so: a pattern for each interrupt."""
    sent, reply = here.start(cell), None
    for pattern in when:
        reply = here.until(sent, lambda so_far, pattern=pattern: re.search(pattern, so_far.latest), reply)
        assert not reply.ended, f"the cell ended before it said {pattern!r}"
        here.manager.interrupt_kernel()
    return here.finish(sent, reply)


@pytest.mark.parametrize("magic", ["%%infer", "%%time\n%%infer"])
def test_an_interrupt_keeps_what_is_there_and_ends_the_cell_as_an_error(here: Kernel, magic: str) -> None:
    """What is in flight has its grace, and no new request goes out: the rest would take a quarter of a minute."""
    rows = "\n".join(f"row {i}" for i in range(160))
    reply = interrupted(here, f"{magic} cut << sim/echo -l -c 4 -p latency=0.4 --no-cache\n{rows}", r"\b([4-9]|\d\d) of 160")
    content = reply.content
    assert (content["status"], content["ename"]) == ("error", "Interrupted")
    assert len(content["traceback"]) == 1
    assert content["traceback"][0].startswith("Interrupted: ")
    assert "%infer resume" in content["traceback"][0]
    counts = eval(here.value("dict(cut.status.value_counts())"), {"np": np})
    assert counts["ok"] >= 4
    assert counts["cancelled"] >= 80
    assert counts["ok"] + counts["cancelled"] == 160
    assert here.value("(__import__('holynb').last.frame().status == cut.status).all()") in ("True", "np.True_")
    assert "stopped" in reply.shown[-1]["text/plain"]
    assert here("1 + 1").content["status"] == "ok"


#: Whoever waits for the grace of a first interrupt, or for an answer, waits for longer than a cell of these tests may take.
PATIENT = "from functools import partial\nimport holynb.run.run as r\nr.Policy = partial(r.Policy, grace=600.0)"


def test_a_second_interrupt_ends_at_once(here: Kernel) -> None:
    here(PATIENT)
    try:
        reply = interrupted(here, "%%infer two << sim/echo -l -p latency=600 --timeout 900 --no-cache\na\nb", "0 of 2", "stopping")
    finally:
        here("r.Policy = r.Policy.func")
    assert reply.content["ename"] == "Interrupted"
    assert here.value("two.status.tolist()") == "['cancelled', 'cancelled']"


def test_after_an_interrupt_the_kernels_own_handler_is_back(here: Kernel) -> None:
    reply = interrupted(here, "import time\nprint('begun', flush=True)\nfor i in range(300):\n    time.sleep(.1)", "begun")
    assert reply.content["ename"] == "KeyboardInterrupt"


def test_an_interrupted_run_is_resumed_by_name(here: Kernel) -> None:
    rows = "\n".join(f"resumed row {i}" for i in range(60))
    interrupted(here, f"%%infer --name halfway sim/echo -l -c 2 -p latency=0.3\n{rows}", r"\b([2-9]|\d\d) of 60")
    reply = here("%infer resume halfway -c 60")
    assert reply.content["status"] == "ok"
    assert here.value("_.status.tolist() == ['ok'] * 60") == "True"
    assert 2 <= int(here.value("int(_.cached.sum())")) <= 50


def test_mistakes_are_one_line_and_an_error_for_run_all(here: Kernel) -> None:
    for cell in ("%%infer sim/echo --modle x\nhi", "%%infer sim/echo", "%infer some text", "%infer resume nowhere"):
        reply = here(cell)
        assert reply.content["status"] == "error"
        assert len(reply.text.strip().splitlines()) == 1
        assert reply.text.startswith("UsageError: ")


def test_unloading_leaves_no_thread_and_the_kernel_as_it_was(here: Kernel) -> None:
    here("import threading\n%unload_ext holynb")
    assert "holynb" not in here.value("[t.name for t in threading.enumerate()]")
    assert here("%%infer sim/echo\nx").content["status"] == "error"
    assert here("%load_ext holynb").of("stream", "error", "display_data") == []
    assert here("%%infer sim/echo\nx").content["status"] == "ok"
