"""A rank's torch is imported without what ranks do not need, computes all the same, and is whole as soon as somebody asks for more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from holynb.pool.engine import torch_parts
from holynb.pool.engine.runner import Runner
from holynb.pool.protocol import Job

#: In a process of its own: torch is imported once. Prints one line of JSON.
LOOK = """
import json, sys
from pathlib import Path
from holynb.pool.engine import torch_parts
from holynb.pool.engine.runner import Runner
from holynb.pool.protocol import Job
Runner.prepare("cpu")
import torch
seen = {"absent": [p for p in torch_parts._PARTS if p not in sys.modules]}
runner, said = Runner(Path(sys.argv[1])), []
runner.add(Job(0, tuple(range(5, 25)), 6, 0.7, seed=1, ignore_eos=True))
while not runner.idle:
    said += [t for e in runner.step() for t in e.tokens]
seen["said"], seen["after"] = said, [p for p in torch_parts._PARTS if p not in sys.modules]
try:
    torch.no_such_name
except AttributeError as exc:
    seen["wrong"] = str(exc)
from torch.fx.experimental import proxy_tensor
seen["late"] = [p for p in torch_parts._PARTS if p not in sys.modules]
seen["vmap"] = torch.vmap(lambda a: a * 2)(torch.ones(3)).tolist()
seen["sum"] = (torch.empty(3, device="meta") + 1).shape[0]
seen["left"] = [n for m in torch_parts._torch_modules() for n, v in vars(m).items() if type(v).__name__ in ("_Missing", "_Empty")]
seen["once"] = proxy_tensor is sys.modules["torch.fx.experimental.proxy_tensor"] and proxy_tensor.__spec__.origin == proxy_tensor.__file__
print(json.dumps(seen))
"""


def test_without_its_parts_torch_computes_the_same_and_is_whole_when_asked(tmp_path: Path) -> None:
    if not torch_parts._known():
        pytest.skip("this torch is imported whole")
    tiny.make("qwen3", tmp_path)
    done = subprocess.run([sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["absent"] == seen["after"] == list(torch_parts._PARTS), "the engine asked for none of them"
    runner, said = Runner(tmp_path), []
    runner.add(Job(0, tuple(range(5, 25)), 6, 0.7, seed=1, ignore_eos=True))
    while not runner.idle:
        said += [t for e in runner.step() for t in e.tokens]
    assert seen["said"] == said
    assert "no_such_name" in seen["wrong"]
    assert seen["late"] == seen["left"] == []
    assert (seen["vmap"], seen["sum"], seen["once"]) == ([2.0] * 3, 3, True)
