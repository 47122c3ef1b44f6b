"""Answers held to a JSON schema, on the embedded model over a pool's socket: how many are valid, and what holding them costs.

    python tests/benchmarks/engine_json.py [--rows 300] [--at-once 32] [--models FOLDER]

Three schemas in turn, temperature 1 with a seed a row. Each answer is parsed and validated by `jsonschema`. The cost is measured in the
engine alone, at batch 32: the same prompts with and without a schema, in tokens a CPU second, and the milliseconds of masks a step.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import jsonschema  # noqa: E402
from servers.unix import chat  # noqa: E402


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS = [
    closed(
        mood={"enum": ["good", "bad", "mixed"]},
        stars={"type": "integer", "minimum": 1, "maximum": 5},
        why={"type": "string", "maxLength": 40},
    ),
    closed(
        name={"type": "string", "minLength": 1, "maxLength": 20},
        born={"type": "string", "pattern": "^[12][0-9]{3}-[01][0-9]$"},
        tags={"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 4},
        price={"type": ["number", "null"], "minimum": 0, "maximum": 1000},
    ),
    {
        **closed(kind={"const": "tree"}, root={"$ref": "#/$defs/node"}),
        "$defs": {
            "node": closed(label={"type": "string", "maxLength": 8}, leaf={"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/end"}]}),
            "end": closed(depth={"type": "integer", "minimum": 0, "maximum": 9}),
        },
    },
]
ASKED = ("Judge this review", "Describe this thing", "Draw a small tree of this", "이 문장을 정리해 줘")


def prompt(i: int) -> str:
    return f"{ASKED[i % len(ASKED)]}: item {i}, {'warm and cheap' if i % 2 else 'cold 😡 and dear'}."


def ask(path: str, i: int) -> str:
    """What is wrong with answer `i`; empty where it is valid."""
    schema = SCHEMAS[i % len(SCHEMAS)]
    body = {
        "messages": [{"role": "user", "content": prompt(i)}],
        "max_tokens": 300,
        "temperature": 1.0,
        "seed": i,
        "response_format": {"type": "json_schema", "json_schema": {"name": "row", "schema": schema}},
    }
    _, said = chat(path, body, 600)
    try:
        choice = said["choices"][0]
        jsonschema.validate(json.loads(choice["message"]["content"]), schema)
        return "" if choice["finish_reason"] == "stop" else str(choice["finish_reason"])
    except (KeyError, ValueError, jsonschema.ValidationError) as exc:
        return f"{type(exc).__name__}: {str(exc)[:100]}"


def cost(folder: Path, batch: int = 32, new: int = 48) -> str:
    """The engine alone. Rows with a schema often end early: rates are of what each wrote."""
    from holynb.pool.engine import constrained
    from holynb.pool.engine.runner import Runner
    from holynb.pool.protocol import Job
    from holynb.pool.server.grammar import json_grammar
    from holynb.pool.server.tokenizer import ChatTokenizer

    runner, text, spent = Runner(folder), ChatTokenizer(folder), [0.0, 0]
    masks = constrained.GrammarCompiler.masks

    def timed(self: Any, matchers: list[Any]) -> Any:
        begin = time.perf_counter()
        made = masks(self, matchers)
        spent[0] += time.perf_counter() - begin
        spent[1] += 1
        return made

    constrained.GrammarCompiler.masks = timed  # type: ignore[method-assign]
    begin = time.perf_counter()
    grammars = [json_grammar(json.dumps(s)) for s in SCHEMAS]
    check = (time.perf_counter() - begin) / len(SCHEMAS)
    ids = [tuple(text.encode_chat([{"role": "user", "content": prompt(i)}])) for i in range(batch)]
    rates: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(4):
        for held in (False, True):
            cpu, tokens = time.process_time(), 0
            for i in range(batch):
                runner.add(Job(turn * 1000 + i, ids[i], new, 1.0, seed=i, eos=text.eos, grammar=grammars[i % 3] if held else None))
            while not runner.idle:
                tokens += sum(len(e.tokens) for e in runner.step())
            rates[held].append(tokens / (time.process_time() - cpu))
    best = {held: max(r[1:]) for held, r in rates.items()}
    return (
        f"batch {batch}: {best[False]:.0f} tokens a CPU second free, {best[True]:.0f} held ({best[True] / best[False]:.2f}); "
        f"masks {1000 * spent[0] / spent[1]:.2f} ms a step; a schema is checked in {1000 * check:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--models", type=Path, help="a home's folder of models (default: holynb's own)")
    said = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    from holynb import pools
    from holynb.config import settings

    models = (said.models or settings.home() / "models").resolve()
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "models").symlink_to(models, target_is_directory=True)
        os.environ["HOLYNB_HOME"] = place
        info = pools.start()
        try:
            begin = time.perf_counter()
            with ThreadPoolExecutor(said.at_once) as threads:
                wrong = [w for w in threads.map(lambda i: ask(str(info.socket), i), range(said.rows)) if w]
            took = time.perf_counter() - begin
        finally:
            pools.stop("all")
    print(f"{said.rows - len(wrong)} of {said.rows} answers are valid JSON of their schema, {took:.0f} s", *wrong[:5], sep="\n")
    print(cost(models / "smollm2-135m"))


if __name__ == "__main__":
    main()
