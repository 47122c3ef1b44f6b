"""The doctor: its checks are right, and whatever does not work has a cure."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holynb import cli
from holynb.doctor import accounts, checks, gpu, notebook, pool, text
from holynb.doctor.check import Check
from holynb.engines import servers
from holynb.errors import Fault


def by_name(*, ask: bool = False) -> dict[str, Check]:
    return {c.name: c for c in checks(ask=ask)}


def without(monkeypatch: pytest.MonkeyPatch, installed: Callable[[str], str | None]) -> None:
    """As if only these distributions were installed."""
    for module in (notebook, pool, accounts, gpu):
        monkeypatch.setattr(module, "installed", installed)


def test_here_everything_needed_works() -> None:
    results = by_name()
    for name in ("Python", "home", "settings", "run log", "Jupyter", "local pool", "pools"):
        assert results[name].state == "works", results[name]
    assert "Nothing is broken" in text(list(results.values()))


def test_whatever_does_not_work_has_a_cure() -> None:
    assert all(c.cure for c in checks() if c.state != "works" and c.name != "GPU")


def test_missing_packages_are_absent_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, lambda name: None)
    results = by_name()
    assert (results["local pool"].state, results["local pool"].cure) == ("absent", "pip install 'holynb[local]'")
    assert (results["Jupyter"].state, results["Jupyter"].cure) == ("absent", "pip install 'holynb[lab]'")
    assert "demo" not in text([results["local pool"]])


@pytest.mark.usefixtures("home", "no_project")
def test_without_a_key_nothing_is_asked_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_TOKEN"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(servers, "models", lambda *_: pytest.fail("asked"))
    assert [c.says for c in accounts.answers()] == ["nothing was asked: no OpenAI-compatible provider has a key"]


def test_the_ipykernel_that_loses_updates_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, {"ipykernel": "7.0.2"}.get)
    assert by_name()["Jupyter"].state == "broken"
    without(monkeypatch, {"ipykernel": "6.31.0"}.get)
    assert "from ipykernel 7.4 on" in by_name()["Jupyter"].says


def test_broken_settings_and_logs_are_told_and_the_rest_goes_on(home: Path) -> None:
    (home / "config.toml").write_text("default = [")
    (home / "runs.sqlite").write_text("this is no database, and long enough to be read as one" * 20)
    results = by_name()
    assert results["settings"].state == "broken"
    assert "config.toml" in results["settings"].says
    assert results["run log"].state == "broken"
    assert results["run log"].cure.startswith("mv ")
    assert results["Python"].state == "works"


@pytest.mark.parametrize(("config", "lanes", "advised"), [("{}", 8, True), ('{"quantization_config": {}}', 8, False), ("{}", 0, False)])
def test_an_embedded_model_that_lies_in_float32_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, lanes: int, advised: bool
) -> None:
    folder = tmp_path / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "holynb.json").write_text("{}")
    (folder / "config.json").write_text(config)
    monkeypatch.setattr("holynb.config.settings.home", lambda: tmp_path)
    monkeypatch.setattr("holynb.doctor.pool.lanes", lambda: lanes)
    check = next(pool.embedded())
    assert (check.state, ", in float32 as an" in check.says, check.cure.startswith("rm -r ")) == ("works", advised, advised)


def test_runs_are_counted() -> None:
    import holynb
    from holynb import runlog

    holynb.infer("x", "sim/echo").wait()
    runlog.close()
    assert by_name()["run log"].says.startswith("1 run, ")


def test_keys_are_told_apart_and_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-real-looking-key-0123456789")
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "YOUR_HOLYSHEEP_API_KEY")
    results = by_name()
    assert (results["openai"].state, results["holysheep"].state, results["deepseek"].state) == ("works", "broken", "absent")
    assert cli.main(["doctor"]) == 1
    assert "a-real-looking" not in capsys.readouterr().out


def test_little_disk_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    monkeypatch.setattr(pool, "_free_memory", lambda: 300_000_000)
    results = by_name()
    assert (results["home"].state, results["local pool"].state) == ("broken", "broken")
    assert "HOLYNB_HOME" in results["home"].cure


def test_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert {"name", "state", "says", "cure"} == set(results[0])


def test_it_writes_and_starts_nothing(home: Path) -> None:
    before = sorted(p.name for p in home.iterdir())
    checks()
    assert sorted(p.name for p in home.iterdir() if p.name != "run") == before


def test_a_key_without_an_address_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a-real-looking-key-0123456789")
    assert (by_name()["azure"].state, by_name()["azure"].says) == ("absent", "key in AZURE_OPENAI_API_KEY, but no address")
    assert "AZURE_OPENAI_ENDPOINT" in by_name()["azure"].cure
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
    assert by_name()["azure"].state == "works"


# -- sagemaker -----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ~/.aws/config, and nothing in the environment."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "aws-config"
    config.write_text("")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return config


def test_sagemaker_says_what_it_lacks_one_after_the_other(aws: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = by_name()["sagemaker"]
    assert (check.state, check.cure.partition("=")[0]) == ("absent", "export AWS_DEFAULT_REGION")
    assert check.says == "no region, no AWS keys found (a role of this machine is looked up when a request is signed)"
    (home / "config.toml").write_text('[provider.sagemaker.options]\nregion = "eu-west-1"')
    check = by_name()["sagemaker"]
    assert (check.state, check.says.partition(",")[0], check.cure.partition("=")[0]) == ("absent", "region eu-west-1", "export AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-EXAMPLEKEY")
    check = by_name()["sagemaker"]
    assert (check.state, check.says) == ("works", "region eu-west-1, keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    assert "EXAMPLE" not in text([check])


@pytest.mark.parametrize(
    "settings", ["role_arn = arn:aws:iam::1:role/x\nsource_profile = default", "sso_session = mine", "aws_access_key_id = AKIDEXAMPLE"]
)
def test_a_profile_is_read_and_nobody_is_asked(aws: Path, monkeypatch: pytest.MonkeyPatch, settings: str) -> None:
    aws.write_text(f"[profile work]\nregion = us-east-2\n{settings}\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    check = by_name()["sagemaker"]
    assert (check.state, check.says) == ("works", "region us-east-2, keys of the profile work")
    monkeypatch.setenv("AWS_PROFILE", "wrok")
    check = by_name()["sagemaker"]
    assert (check.state, "wrok" in check.says, "AWS_PROFILE" in check.cure) == ("broken", True, True)


def test_bedrock_is_looked_at_as_sagemaker_is_and_takes_a_token(aws: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (by_name()["bedrock"].state, by_name()["bedrock"].says) == (by_name()["sagemaker"].state, by_name()["sagemaker"].says)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "ABSK-0123456789abcdef")
    check = by_name()["bedrock"]
    assert (check.state, check.says, check.cure.partition("=")[0]) == (
        "absent",
        "no region, key in AWS_BEARER_TOKEN_BEDROCK",
        "export AWS_DEFAULT_REGION",
    )
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    without(monkeypatch, lambda name: None)
    check = by_name()["bedrock"]
    assert (check.state, check.says, check.cure) == ("works", "region eu-west-1, key in AWS_BEARER_TOKEN_BEDROCK", ""), "no botocore"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "YOUR_KEY_HERE")
    check = by_name()["bedrock"]
    assert (check.state, "placeholder" in check.says, "%infer key bedrock" in check.cure) == ("broken", True, True)


def test_without_botocore_sagemaker_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, lambda name: None)
    assert by_name()["sagemaker"].cure == "pip install 'holynb[aws]'"


# -- what a first minute stumbles over, each broken once -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "old", "cure"),
    [("jupyterlab", "3.6.8", "'jupyterlab>=4'"), ("notebook", "6.5.7", "'notebook>=7'"), ("ipywidgets", "7.8.5", "'ipywidgets>=8'")],
)
def test_a_page_that_is_too_old_for_the_table(monkeypatch: pytest.MonkeyPatch, name: str, old: str, cure: str) -> None:
    without(monkeypatch, {"ipykernel": "7.4.0", name: old}.get)
    found = by_name()[name]
    assert (found.state, found.cure) == ("broken", f"pip install -U {cure}")


@pytest.mark.parametrize(("variable", "name"), [(v, n) for v, (n, _) in notebook.PLACES.items()])
def test_hosted_notebooks_are_known(monkeypatch: pytest.MonkeyPatch, variable: str, name: str) -> None:
    for other in notebook.PLACES:
        monkeypatch.delenv(other, raising=False)
    assert "place" not in by_name()
    monkeypatch.setenv(variable, "1")
    assert by_name()["place"].says.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("https", "no", "state", "says"),
    [
        ("http://user:secret@proxy.example:3128", "127.0.0.1,localhost", "works", "http://proxy.example:3128"),
        ("proxy.example:3128", "127.0.0.1", "works", "http://proxy.example:3128"),
        ("http://proxy.example:many", "127.0.0.1", "broken", "port is no number"),
        ("ftp://proxy.example", "127.0.0.1", "broken", "no address of a proxy"),
    ],
)
def test_a_proxy(monkeypatch: pytest.MonkeyPatch, https: str, no: str, state: str, says: str) -> None:
    assert "proxy" not in by_name()
    monkeypatch.setenv("HTTPS_PROXY", https)
    monkeypatch.setenv("NO_PROXY", no)
    found = by_name()["proxy"]
    assert found.state == state
    assert says in found.says
    assert "secret" not in found.says + found.cure
    if state == "works":
        monkeypatch.setenv("HTTP_PROXY", https)
        monkeypatch.delenv("NO_PROXY")
        assert by_name()["proxy"].cure == "export NO_PROXY=localhost,127.0.0.1"


def test_a_bundle_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "company.pem"))
    found = by_name()["certificates"]
    assert (found.state, found.cure) == ("broken", "unset SSL_CERT_FILE, or name your company's bundle")


def test_a_default_model_that_has_ended_names_its_successor(home: Path) -> None:
    (home / "config.toml").write_text('default = "deepseek/deepseek-chat"')
    found = by_name()["model"]
    assert found.state == "broken"
    assert found.cure.startswith('default = "deepseek/deepseek-')


@pytest.mark.parametrize(("status", "state", "says"), [(200, "works", "lists 2 models"), (401, "broken", "401"), (503, "broken", "503")])
def test_a_key_is_tried_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, status: int, state: str, says: str) -> None:
    asked = []

    async def models(endpoint: object, secret: object) -> list[int]:
        asked.append(secret)
        if status != 200:
            raise Fault("auth" if status == 401 else "server", f"{status} from the server")
        return [1, 2]

    monkeypatch.setattr(servers, "models", models)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-real-looking-key-0123456789")
    assert "openai asked" not in by_name()
    assert not asked
    found = by_name(ask=True)["openai asked"]
    assert (found.state, says in found.says) == (state, True)
    assert bool(found.cure) == (state == "broken")
    assert ("%infer key openai" in found.cure) == (status == 401)


#: What `nvidia-smi` prints on a machine of two, and a torch that opens them, that finds the driver too old, and one that is killed there.
TWO = "echo 'NVIDIA H200, 143771, 580.65.06\nNVIDIA H200, 143771, 580.65.06'"
TORCH = """
class version: cuda = "13.0"
class cuda:
    synchronize = staticmethod(lambda: None)
    device_count = staticmethod(lambda: 2)
def zeros(*shape, device):
    {zeros}
"""
OLD = 'raise RuntimeError("The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver.")'
SEEN = "2x NVIDIA H200 (151 GB each), driver 580.65.06; "


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for nvidia-smi is a shell script")
@pytest.mark.parametrize(
    ("smi", "torch", "zeros", "state", "says", "cure"),
    [
        (
            TWO,
            "2.13.0",
            "pass",
            "works",
            SEEN + "torch 2.13.0 (CUDA 13.0) computes on 2; pools use GPUs unless started with --devices cpu",
            "",
        ),
        (
            TWO,
            "2.13.0+cpu",
            "",
            "broken",
            SEEN + "but torch 2.13.0+cpu is built for CPUs alone",
            "pip install --force-reinstall torch==2.13.0",
        ),
        (
            TWO,
            "2.13.0",
            OLD,
            "broken",
            SEEN + "the driver 580.65.06 is too old for torch 2.13.0 (CUDA 13.0)",
            "a newer NVIDIA driver, or a torch",
        ),
        (TWO, "2.13.0", "import os; os._exit(9)", "broken", SEEN + "torch 2.13.0 cannot compute there: it ended with 9", "nvidia-smi"),
        (TWO, None, "", "absent", SEEN + "no torch that could use it", "pip install 'holynb[local]'"),
        (
            "echo No devices were found; exit 6",
            "2.13.0",
            "",
            "broken",
            "found, but nvidia-smi says: No devices were found",
            "nvidia-smi; after",
        ),
        ("exec sleep 30", "2.13.0", "", "broken", "found, but nvidia-smi does not answer within 1 s", "nvidia-smi; after"),
    ],
)
def test_gpus_are_counted_and_named_and_torch_is_tried_on_them(
    smi: str, torch: str | None, zeros: str, state: str, says: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "torch.py").write_text(TORCH.format(zeros=zeros or "pass"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "_devices", lambda: [Path("/dev/nvidia0")])
    monkeypatch.setattr(gpu, "_ASK_S", 1.0 if "sleep" in smi else 30.0)
    monkeypatch.setattr(gpu, "installed", {"torch": torch}.get)
    check = next(gpu.gpu())
    assert (check.state, check.says) == (state, says)
    assert check.cure == cure or (cure and check.cure.startswith(cure))
