"""The Slurm script of the manual, with stand-ins for Slurm's and Ray's commands: what its job, its nodes and a later shell are given."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "notebooks" / "cluster" / "ray.slurm"
COMMANDS = {
    "srun": 'while [ "${1#-}" != "$1" ]; do case $1 in -w) shift 2;; *) shift;; esac; done; exec "$@"',
    "scontrol": "printf 'n1\\nn2\\n'",
    "hostname": "echo 10.0.0.1",
    "ray": 'echo "$* with ${#RAY_AUTH_TOKEN} at $RAY_BASE_URL" >> "$SEEN"',
}
#: Ray as the script's wait sees it.
RAY = """
import os
def init(**options): pass
def nodes():
    path = os.environ["SEEN"]
    return [{"Alive": True} for _ in open(path)] if os.path.exists(path) else []
def cluster_resources(): return {"GPU": 8}
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("openssl") is None, reason="the script is for Slurm on Linux, and takes openssl"
)


def job(folder: Path, *command: str, number: int = 41) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the script as Slurm would; its end, and what Ray was called with."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    for name, text in COMMANDS.items():
        (bin_ / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin_ / name).chmod(0o755)
    (folder / "ray.py").write_text(RAY)
    env = {"PATH": f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder), "SEEN": str(folder / "seen")}
    env |= {"SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "4"}
    done = subprocess.run(["bash", SCRIPT, *command], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done, (folder / "seen").read_text()


def test_a_later_shell_reads_address_and_token_from_a_file_of_the_owner_alone(tmp_path: Path) -> None:
    later = 'stat -c %a holynb-41.env; env -i bash -c ". ./holynb-41.env; env" | grep -E "^(RAY|SERVE)"'
    done, seen = job(tmp_path, "bash", "-c", later)
    assert done.returncode == 0, done.stderr
    mode, *rest = [line for line in done.stdout.splitlines() if line.startswith(("RAY", "SERVE")) or line.isdigit()]
    assert mode == "600"
    told = dict(line.split("=", 1) for line in rest)
    host, port = told["RAY_ADDRESS"].split(":")
    assert host == "10.0.0.1"
    assert len(told["RAY_AUTH_TOKEN"]) == 64
    assert told["RAY_AUTH_TOKEN"] not in done.stdout.replace(f"TOKEN={told['RAY_AUTH_TOKEN']}", "") + done.stderr
    client = told["RAY_CLIENT"].removeprefix("ray://10.0.0.1:")
    assert told["RAY_BASE_URL"] == f"http://127.0.0.1:{told['SERVE_PORT']}/v1"
    assert len({port, client, told["SERVE_PORT"]}) == 3
    assert f"--head --port={port} --ray-client-server-port={client} --num-cpus=8 --num-gpus=4" in seen
    assert seen.count(f"with 64 at {told['RAY_BASE_URL']}") == 2, "each node has them from its own start of Ray"
    assert not (tmp_path / "holynb-41.env").exists(), "the token's file ends with the job"


def test_ports_that_another_job_has_are_passed_over_and_the_commands_end_is_the_jobs(tmp_path: Path) -> None:
    taken = 20000 + 3 * 41 % 12000
    with socket.create_server(("", taken)):
        done, seen = job(tmp_path, "bash", "-c", "exit 3")
    assert done.returncode == 3
    assert f"={taken} " not in seen
