"""llama.cpp's answers for the rows of `rows.py`, recorded in `answers.json`: `python tests/llamacpp/record.py [KIND]`.

Needs xllamacpp, which is no dependency of the tests: pip install --target DIR xllamacpp, and PYTHONPATH=DIR. Each file is read in a process of its
own, because llama.cpp ends the process over some that it does not take.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import files
import rows

HERE = Path(__file__).parent
#: So many tokens are continued, and so many of the likeliest recorded.
STEPS, BEST = 8, 5
#: Where llama.cpp ends the process, without a debugger looking at it first.
QUIET = {**os.environ, "GGML_NO_BACKTRACE": "1"}


class Server:
    """llama.cpp's own server in this process, with float32 throughout."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.fit_params, params.verbosity = files.CONTEXT, 1, False, False, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps({"cache_prompt": False, **body}).encode()
        request = urllib.request.Request(self._server.listening_address + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def computed(self) -> list[dict[str, Any]]:
        """Of each prompt: the greedy continuation, and the likeliest first tokens with their log probabilities."""
        out = []
        for prompt in rows.PROMPTS:
            said = self.post(
                "/completion",
                {
                    "prompt": prompt,
                    "n_predict": STEPS,
                    "samplers": ["top_k"],
                    "top_k": 1,
                    "n_probs": BEST,
                    "ignore_eos": True,
                    "return_tokens": True,
                },
            )
            best = [[one["id"], round(one["logprob"], 4)] for one in said["completion_probabilities"][0]["top_logprobs"]]
            assert best[0][0] == said["tokens"][0]
            out.append({"tokens": said["tokens"], "best": best})
        return out

    def ends(self, words: int) -> list[int]:
        """Which of the last six tokens end an answer."""
        forced = [(i, {"prompt": [5, 6], "n_predict": 2, "temperature": 0, "logit_bias": [[i, 1000.0]]}) for i in range(words - 6, words)]
        return [i for i, body in forced if self.post("/completion", body)["stop_type"] == "eos"]

    def cut(self, texts: tuple[str, ...]) -> dict[str, list[list[int]]]:
        """Token ids of every text, with and without what begins and ends it."""

        def ids(text: str, special: bool) -> list[int]:
            return self.post("/tokenize", {"content": text, "add_special": special, "parse_special": True})["tokens"]

        return {"plain": [ids(text, False) for text in texts], "special": [ids(text, True) for text in texts[:2]]}


def ask(kind: str, name: str) -> Any:
    """What llama.cpp says of one row. In a process of its own."""
    row = rows.pre_tokenizer(name) if kind == "pre" else getattr(rows, kind.upper())[name]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x.gguf"
        row.write(path)
        server = Server(path)
    if kind == "computed":
        return server.computed()
    if kind == "ends":
        return server.ends(len(row.facts()["tokenizer.ggml.tokens"]))
    return server.cut(row.texts) if kind in ("cut", "pre") else "taken"


def recorded(kind: str, name: str) -> Any:
    """The same, or None where llama.cpp does not take the file."""
    done = subprocess.run([sys.executable, __file__, kind, name], capture_output=True, text=True, check=False, timeout=120, env=QUIET)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if not lines and kind != "refused":
        print(f"{kind} {name}: {done.stderr[-600:]}", file=sys.stderr)
    return json.loads(lines[0].removeprefix("ANSWER ")) if lines else None


def main() -> None:
    if len(sys.argv) == 3:
        print("ANSWER " + json.dumps(ask(*sys.argv[1:])), flush=True)
        os._exit(0)  # its threads take their time
    from importlib.metadata import version

    loader = json.loads((HERE / "loader.json").read_text())
    wanted = {kind: list(getattr(rows, kind.upper())) for kind in ("computed", "ends", "cut", "refused")} | {
        "pre": list(loader["pre_tokenizers"])
    }
    wanted = {kind: names for kind, names in wanted.items() if kind in sys.argv[1:2] or len(sys.argv) == 1}
    found: dict[str, Any] = json.loads((HERE / "answers.json").read_text("utf-8")) if len(sys.argv) == 2 else {}
    with ThreadPoolExecutor(2) as pool:
        found |= {kind: dict(zip(names, pool.map(lambda n, k=kind: recorded(k, n), names), strict=True)) for kind, names in wanted.items()}
    # Ways to cut that say the same of every text here are told once.
    cuts: dict[str, str] = {}
    for name, said in found["pre"].items():
        if said and "as" not in said:
            first = cuts.setdefault(json.dumps(said), name)
            found["pre"][name] = said if first == name else {"as": first}
    out = json.dumps({**found, "version": f"xllamacpp {version('xllamacpp')}"}, ensure_ascii=False)
    (HERE / "answers.json").write_text(out.replace('}, "', '},\n "').replace("]]}, ", "]]},\n ") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
