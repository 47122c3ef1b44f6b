"""A project that names an address of its own, from a cell: what is refused, what trusts it, and what reaches its server before and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.exact import Asked, Exact, reply, streamed
from servers.golden import OPENAI
from ui.shells import Here

import holynb
from holynb import doctor
from holynb.config import settings
from holynb.errors import BadSetting
from holynb.run import resume

KEY = "sk-real-0123456789abcdef"


def answer(asked: Asked, _: int) -> list[bytes]:
    if asked.method == "GET":
        return [reply({"object": "list", "data": [{"id": "m", "object": "model"}]})]
    return [streamed(OPENAI.stream) if asked.json.get("stream") else reply(OPENAI.whole)]


@pytest.fixture
def server() -> Iterator[Exact]:
    with Exact(answer) as server:
        yield server


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Exact, ended: None) -> Path:
    """A checkout whose `.env` names the server, and a key of the user's own in the environment."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (folder / ".env").write_text(f"OPENAI_BASE_URL={server.base}/v1\n")
    settings.reset()
    return folder


def test_nothing_reaches_it_before_and_everything_after(here: Here, server: Exact, project: Path) -> None:
    host = f"127.0.0.1:{server.port}"
    line = here.refused("%%infer openai/m\nhello")
    assert f"{project / '.env'}, a project file" in line
    assert f"%infer trust {host} " in line
    for cell in (
        "%%infer sim/flaky --fallback openai/m\nhello",
        "%%infer openai/m --compare sim/echo\nhello",
        "%%infer sim/echo --spread openai/m\nhello",
        "%infer bench openai/m,sim/echo",
    ):
        assert "%infer trust" in here(cell).err, cell
    with pytest.raises(BadSetting, match="%infer trust"):
        holynb.infer("hello", "openai/m")
    dry = here("%%infer openai/m --dry-run\nhello")
    assert "held back" in dry.out
    assert f"%infer trust {host}" in dry.out
    for cell in ("%infer models openai", "%infer models", "%infer trust"):
        assert here(cell).error is None
    (check,) = [c for c in doctor.checks() if c.name == "openai"]
    assert (check.state, check.cure) == ("broken", f"%infer trust {host} in a notebook")
    assert server.connections == 0

    assert "From now on the key of openai may go to" in here(f"%infer trust {host}").out
    assert here("%%infer openai/m\nhello").value["status"].tolist() == ["ok"]
    assert [a.headers["authorization"] for a in server.asked] == [f"Bearer {KEY}"]


def test_a_server_of_the_projects_own_is_not_listed_with_the_key(
    here: Here, server: Exact, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE_API_KEY", KEY)
    (project / "pyproject.toml").write_text(f'[tool.holynb.provider.mine]\nbase = "{server.base}/v1"\n')
    listed = here("%infer models mine")
    assert f"%infer trust 127.0.0.1:{server.port}" in listed.out
    assert server.connections == 0


def test_it_is_listed_and_taken_back(here: Here, server: Exact, project: Path) -> None:
    host = f"127.0.0.1:{server.port}"
    listed = here("%infer trust").out.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[host, "openai"]]
    assert "waits" in listed[1]
    assert str(project / ".env") in listed[1]
    here(f"%infer trust {server.base}/v1")  # an address will do
    assert "trusted" in here("%infer trust").out
    assert "Trusted already" in here(f"%infer trust {host}").out
    assert "No longer" in here(f"%infer trust {host} --remove").out
    assert "%infer trust" in here.refused("%%infer openai/m\nhello")


def test_what_is_no_host_of_this_project_is_refused(here: Here, server: Exact, home: Path) -> None:
    assert f"Did you mean 127.0.0.1:{server.port}?" in here.refused("%infer trust 127.0.0.1:1")
    assert "takes one host" in here.refused("%infer trust a b")
    assert "takes one host" in here.refused("%infer trust --remove")
    assert "is not a host" in here.refused("%infer trust https://")
    assert "is not a host" in here.refused("%infer trust h:port")
    assert "other.example is not trusted" in here.refused("%infer trust other.example --remove")
    assert not (home / "trust.toml").exists()


def test_a_cells_own_address_with_a_variable_of_the_projects(
    here: Here, server: Exact, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "the-deploy-token-01")
    (project / ".env").unlink()
    (project / "pyproject.toml").write_text('[tool.holynb.provider.openai]\nkey = "DEPLOY_TOKEN"\n')
    cell = f"%%infer openai/m --api-base {server.base}/v1\nhello"
    assert "the key's variable" in here.refused(cell)
    assert server.connections == 0
    here(f"%infer trust 127.0.0.1:{server.port}")
    assert here(cell).value["status"].tolist() == ["ok"]


def test_one_word_trusts_every_file_that_sends_the_key_there(
    here: Here, server: Exact, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "the-deploy-token-01")
    (project / "pyproject.toml").write_text('[tool.holynb.provider.openai]\nkey = "DEPLOY_TOKEN"\n')
    said = here(f"%infer trust 127.0.0.1:{server.port}").out
    assert str(project / ".env") in said
    assert str(project / "pyproject.toml") in said
    assert here("%%infer openai/m\nhello").value["status"].tolist() == ["ok"]


def test_an_address_that_changes_after_a_run_is_asked_about_when_rows_are_sent_again(server: Exact, project: Path) -> None:
    (project / ".env").unlink()
    with Exact([reply({"error": {"message": "no"}}, 400)]) as mine:
        run = holynb.infer(["a", "b"], "openai/m", api_base=f"{mine.base}/v1", name="first")
        with pytest.raises(holynb.InferError):
            run.wait()
    with Exact([reply({"error": {"message": "no"}}, 400)]) as own:
        settings.override(provider={"openai": {"base": f"{own.base}/v1"}})
        second = holynb.infer(["a", "b"], "openai/m", name="second")
        with pytest.raises(holynb.InferError):
            second.wait()
        settings.reset()
    (project / ".env").write_text(f"OPENAI_BASE_URL={server.base}/v1\n")
    with pytest.raises(BadSetting, match="%infer trust"):
        resume.failed_again("second")
    with pytest.raises(BadSetting, match="%infer trust"):
        resume.resumed("second")
    assert server.connections == 0


def test_tab_offers_the_hosts_that_wait(server: Exact) -> None:
    from holynb.ui.cell import complete

    line = "%infer trust "
    found = complete.suggest(line, 0, len(line), "", variables=dict, commands=list)
    assert found == [(f"127.0.0.1:{server.port}", "host")]


def test_plain_http_is_said_with_the_run(here: Here) -> None:
    dry = here("%%infer openai/m --api-base http://10.0.0.9:8000/v1 --dry-run\nhello")
    assert dry.out.count("The key of openai goes to 10.0.0.9:8000 over plain http") == 1


def test_a_script_is_told_where_its_prompts_go(server: Exact, project: Path) -> None:
    (project / ".env").write_text(f"VLLM_BASE_URL={server.base}/v1\n")
    with pytest.warns(UserWarning, match=f"vllm is reached at 127.0.0.1:{server.port}, as .*, a project file, says"):
        run = holynb.infer("hello", "vllm/m")
    assert run.wait().frame()["status"].tolist() == ["ok"]
    with pytest.warns(UserWarning, match="plain http"):
        holynb.infer("", "openai/m", api_base="http://10.0.0.9:8000/v1").wait()  # an empty prompt: nothing is sent


def test_a_run_s_own_name_comes_before_a_variable_of_it(here: Here) -> None:
    """`replies` is the variable of one run and the name of another."""
    here("%%infer sim/echo --name replies\nof the run named replies")
    here("%%infer replies << sim/echo\nof the variable replies")
    here("%%infer other << sim/echo\nof the variable other")
    assert "named replies" in here("%infer show replies").out
    assert "variable other" in here("%infer show other").out, "no run has this name"
