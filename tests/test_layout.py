"""The architecture, held by tests: which way imports point, what stays where, how large things may get."""

from __future__ import annotations

import ast
import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from layout import ROOT, Function, Module, containers, cycles, imports_of_all_kinds, is_package, modules, read, siblings, statements, under

#: Package → its rooms and modules in layers, from the ground up. A module may import what stands in a layer below its own; what stands
#: beside it in one layer it may not. Imports inside functions and for types alone count too. A new module needs a place here.
LAYERS: dict[str, tuple[str, ...]] = {
    "holynb": (
        "words",
        "attached | bounded | cache_mark | efforts | full_context | identity | loop | no_proxy | port_tokens | port_usage | quality | secret | spool | thoughts | timeouts | translation | typed_path | units | usage",
        "faults",
        "errors",
        "poolfields",
        "pool | types",
        "events | outcome_rows",
        "event_log",
        "attachments | config | files | journal | schema",
        "pools | prompts | runlog | scheduler",
        "engines | pricing",
        "batches | doctor | results",
        "run",
        "shards | ui",
        "demo",
        "cli",
        "__main__",
    ),
    "holynb.batches": (
        "limits | pace | vendor",
        "calls | pieces",
        "anthropic_batches | gemini_batches | openai_batches",
        "vendors",
    ),
    "holynb.bounded": (
        "allowance | rewrite",
        "sizes",
        "formats | methods",
        "filters",
        "environment",
    ),
    "holynb.attachments": (
        "kinds | measures | png | tokens",
        "pillow",
        "sources",
        "cells | content | thumbnails",
    ),
    "holynb.config": (
        "converters | dotenv | embedding_models | logins | model_entries | option_words | vertex_models",
        "option_table",
        "aws_chain | model_traits | options | prompt_caches",
        "home",
        "update_files",
        "models",
        "providers",
        "trust",
        "keys",
        "layers | suggest",
        "settings",
        "language",
    ),
    "holynb.doctor": (
        "check",
        "accounts | gpu | machine | network | notebook | pool | servers",
        "report",
    ),
    "holynb.engines": (
        "advice | aws_frames | codec | counts | direct | encodings | entry | environment | finish | meter | quotas | sample_json | sse | transport_errors",
        "cache_marks | dialects | fetching | parts | place | service_tiers | tokens",
        "loading | thinking",
        "classify | entra | google_login | http | sim",
        "answer | choices | pages | tags",
        "calls",
        "hosted | poolwire",
        "logged_in | openai | pool",
        "anthropic | aws_errors | gemini | responses | servers",
        "aws_hosted | own_servers | protocols | vertex",
        "azure | bedrock | sagemaker",
        "embeddings",
    ),
    "holynb.engines.embeddings": (
        "sim_wire | vectors",
        "cohere_wire | gemini_wire | ollama_wire | openai_wire",
        "azure_wire | bedrock_wire | pool_wire",
    ),
    "holynb.files": (
        "columns | content | cutting | filled",
        "delimited | jsonrows | stored",
        "arrow | workbook",
        "arrow_table",
        "reader | tables",
    ),
    "holynb.pool": (
        "modelfields | modelfiles",
        "headers",
        "fit | job | models | rankstats",
        "protocol",
        "advice | engine | server | worker",
        "ray | serve | vllm",
    ),
    "holynb.pool.engine": (
        "cache | capture | computetype | guesses | load_fp8 | meta_matrices | pinned | rope | sizes | symmetric | thought_state | torch_parts | turns",
        "acceptance | expert_shapes | steptimes",
        "model",
        "load_experts | load_experts_fp8 | load_groups | load_int4 | load_kv | random_weights | sequence",
        "blocktables | lanes | load_experts_groups | load_experts_packed",
        "allreduce | constrained | inputs | load | logit_rules | scores | speculation",
        "embedder | group | sample | scheduler",
        "apart | figures | mixed_batch | more_groups | pipeline",
        "eager | graphs",
        "first_steps | precompile",
        "executor | libraries",
        "runner",
    ),
    "holynb.pool.fit": (
        "experts | four_bits | known | limits | memory",
        "families | quantization",
        "groups | ropes",
        "spec",
        "mesh | shapes",
        "cache_groups | space",
        "plan",
        "cards | fp8_units | row_length",
        "preflight",
    ),
    "holynb.pool.models": (
        "check | gguf_facts | gguf_groups | gguf_header | gguf_pretokenizers",
        "gguf_config | gguf_experts | gguf_stacked | gguf_vocabulary",
        "gguf_tensors",
        "convert",
        "embedded",
        "weights",
    ),
    "holynb.pool.ray": (
        "bridge | config | moves | node | remote | sending",
        "placement | seat",
        "group | resources | ways",
        "weights",
        "replicas",
        "scaling | takeover | view",
        "server",
        "cluster",
        "lease",
        "__main__ | advice",
    ),
    "holynb.pool.server": (
        "apierror | chat_template | config | control_tokens | dispatch | generation | guides | metrics | pooling | rank | special_tokens",
        "clients | connection | grammar | http | messages | model_thinking | replica | tokenizer_files",
        "api | sockets | tokenizer",
        "answertext | effort",
        "answers | detokenize | jobs | prompts",
        "logprobs | service",
        "facts | lifecycle",
        "embeddings",
        "app | prepare",
        "__main__",
    ),
    "holynb.pool.serve": (
        "deploying",
        "deployment",
        "__main__",
    ),
    "holynb.pool.vllm": (
        "apart | output | reaper | upstream",
        "relay",
        "__main__",
    ),
    "holynb.poolfields": (
        "checks",
        "embeddings | table",
    ),
    "holynb.pools": (
        "info | options",
        "environment",
        "logfiles | vllm_env",
        "on_ray",
        "client",
        "identity | launch",
        "deploy",
    ),
    "holynb.pricing": (
        "price_entries",
        "prices",
        "estimate | foreign | roi",
        "spending",
    ),
    "holynb.prompts": (
        "attaching | datetimes | exact_floats | saved | tokens",
        "arrays",
        "array_methods | attach_calls | chunking | values",
        "missing_values | reading | shown",
        "sandbox",
        "templates",
        "blanks | row_fields",
        "render",
    ),
    "holynb.quality": (
        "intervals | matching",
        "agreement | confusion | paired",
        "assessment",
    ),
    "holynb.results": (
        "costs | index_labels | rows_file | vectors",
        "below_direct | cache_savings | columns | cut_answers",
        "frame",
        "out_rows | summary",
    ),
    "holynb.run": (
        "prompt_spool",
        "attaching | batch_terms | chunk_plan | embedding | inputs | judge | labels | long_row | miscall | out_claims | out_path | pythoncode | request_fields",
        "out_input | routing | service_tiers | shares | stored_requests | thinking_notes",
        "keys | reach",
        "plan",
        "out_file | pack | pending | prompt_cache | session | value",
        "assembly | billing | pending_rows | prefix_order | stored_rows",
        "logged_rows",
        "unfinished_rows",
        "quote | recorder | resume | spec | verdicts",
        "chunk_log | judged_rows | packs | reservation | work",
        "batch | map_reduce | quality",
        "run",
        "bench | function | reading",
    ),
    "holynb.run.batch": (
        "elsewhere | marks",
        "answers",
        "pieces",
        "queue",
        "lifecycle",
        "handle | setup",
    ),
    "holynb.runlog": (
        "vectors",
        "gate | lease | ledger | pieces | promises | records | statements",
        "replay | tables",
        "logfile | reader",
        "writer",
        "store",
        "current",
    ),
    "holynb.scheduler": (
        "breaker | budget | learned_rate | quota | refusals | token_estimate | waiting",
        "queues | limiter | prompt_cache",
        "failover | registry",
        "empty_answers | endpoint_faults | ends | retry | service_order | validation",
        "attempt",
        "recovery",
        "scheduler",
    ),
    "holynb.schema": (
        "keywords",
        "drafts",
        "validators",
        "normalize | shorthand",
        "schema",
    ),
    "holynb.ui": (
        "output",
        "live",
        "cell",
        "commands",
        "panel | reference",
        "line_magic",
        "magic",
    ),
    "holynb.ui.cell": (
        "bridge | candidates | displayhook | grammar | question | renewed | scope | transform | wait | wirefields",
        "complete | host | sidecar | views",
        "pending | rundisplay | said | shown",
    ),
    "holynb.ui.commands": (
        "own_servers | pool_nodes | pool_state | token_names",
        "active | bench_report | deploying | history | model_lines | pool_plan | pool_token | roi_report | routing | table_diff | trust",
        "pool",
        "bench | preview | roi | updates",
        "models | money",
        "key",
    ),
    "holynb.ui.live": (
        "measure | qualitytable",
        "protocol",
        "assets | buckets | in_flight | memory | only_row | pictures | recording | servers | timer | totals",
        "quality | timeseries",
        "runinfo",
        "heading",
        "feed",
        "replay | source",
        "again | detail | export | standin",
        "pulse | widget",
    ),
    "holynb.ui.output": (
        "glosses | page | text | thinned",
        "svg",
        "bars | crossed | helplines | html | listing | series",
        "markdown | pictures",
        "formats | quality | report",
        "compared | qualityview | rows",
        "static",
        "plots",
    ),
    "holynb.ui.panel": (
        "columns | disclosure | draft | localized | note | offers | outlet | pooltable",
        "more | picker | poolfields",
        "poolfit",
        "dash | form | poolform",
        "commands",
    ),
    "kernels_support": ("cpu | jupyter", "gpu"),
    "kernels_support.cpu": (
        "assembler | large_pages | machine_code",
        "grouped_code | row_code",
        "grouped_integers | rows",
        "grouped_product",
        "grouped",
    ),
    "kernels_support.gpu": (
        "lang | sampling",
        "feeding | feeding_groups | fp8_pairs | gated | gelu_mul | gemm_few | gemm_small_m | gemm_wide | gemv | int4_matrix | int4_words",
        "masking | mxfp4_matrix | mxfp4_words | packed_matrix | packed_words",
        "experts_few | gemm_packed | gemm_packed_few | word_pieces",
        "experts_few_words | quantize_fp8 | routing | silu_mul | threshold_search",
        "attention | paged_splits",
        "experts_grouped | fp8_matrix | norms | nucleus | paged_kernels",
        "paged",
        "allreduce_norm | experts_few_fp8 | experts_grouped_fp8 | experts_grouped_words | gemm_fp8 | gemm_fp8_few | gemm_int4 | gemm_int4_few",
        "fp8 | int4 | packed",
        "dense",
        "experts | rotary | sampler",
    ),
    "kernels_support.jupyter": (
        "capabilities | files | interrupt | limits | ram | shortage | socketdir | spec | wire",
        "lock | process",
        "rendezvous | supervisor",
    ),
}

#: Package → the only modules that may import it, at any time.
ONLY: dict[str, tuple[str, ...]] = {
    "httpx": ("holynb.engines.http", "holynb.engines.direct"),
    "httpx_aiohttp": ("holynb.engines.http",),
    "pandas": ("holynb.files", "holynb.results.frame", "holynb.results.columns", "holynb.results.vectors"),
    "torch": ("holynb.pool", "kernels_support.cpu", "kernels_support.gpu"),
    "triton": ("kernels_support.gpu",),
    "ipywidgets": ("holynb.ui",),
    "anywidget": ("holynb.ui",),
    "plotly": ("holynb.ui",),
    "IPython": ("holynb.ui",),
    "holynb.pool": ("holynb.pool",),
}

#: Rooms of the pool that decide and serve, and must start without torch.
NO_TORCH = tuple(
    f"holynb.pool.{name}"
    for name in ("fit.plan", "advice", "fit.mesh", "engine.scheduler", "server.__main__", "server.tokenizer", "models.embedded")
)

#: Upward imports that are wanted, each inside a function. Reason beside each.
UPWARD = {
    ("holynb.run.run", "holynb.ui"): "run.plot() is in the contract; it only opens the door when somebody asks for charts",
}

HEAVY = ("torch", "transformers", "pandas", "plotly", "httpx", "boto3")


def layer(container: str, name: str) -> int | None:
    """The layer of a room or module of this package, counted from the ground; None where it has no place."""
    places = [i for i, line in enumerate(LAYERS.get(container, ())) if name in line.split(" | ")]
    return places[0] if places else None


def line_of(container: str, name: str) -> int:
    """Where in this file a place is given to a room or module."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if line.strip() == f'"{container}": (')
    return next(n for n, line in enumerate(lines[first:], first + 1) if re.search(rf'["| ]{re.escape(name)}["| ]', line))


def against_the_order(container: str, module: Module) -> list[str]:
    """Imports of `module`, inside this package, of what does not stand below it. Each names the import's line and the two lines of LAYERS."""
    if not module.name.startswith(f"{container}."):
        return []
    out = []
    mine = module.name.removeprefix(f"{container}.").partition(".")[0]
    for i in module.imports:
        other = i.name.removeprefix(f"{container}.").partition(".")[0] if i.name.startswith(f"{container}.") else mine
        here, there = layer(container, mine), layer(container, other)
        if other == mine or here is None or there is None or there < here or (module.name, i.name) in UPWARD:
            continue
        places = f"layer {here} (test_layout.py:{line_of(container, mine)}) and layer {there} (test_layout.py:{line_of(container, other)})"
        out.append(f"{module.name}:{i.line} imports {i.name}, which does not stand below it: {mine} and {other} stand in {places}")
    return out


def trespasses(module: Module) -> list[str]:
    return [line for package, homes in ONLY.items() if not under(module.name, *homes) for line in module.reaches(package)]


def test_every_module_has_a_place() -> None:
    lost = [f"{c}.{name}" for c in containers() for name in siblings(c) if layer(c, name) is None]
    assert not lost, f"give {lost} a layer in tests/test_layout.py"
    gone = [f"{c}: {name}" for c, lines in LAYERS.items() for line in lines for name in line.split(" | ") if name not in siblings(c)]
    assert not gone, f"{gone} stand in LAYERS, and are not there"


def test_imports_point_one_way() -> None:
    assert not [line for c in LAYERS for m in modules() for line in against_the_order(c, m)]


@pytest.mark.parametrize(
    "source",
    [
        "from holynb import run",
        "def f():\n    from holynb.run import Run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from holynb.run.plan import Plan",
        'from importlib import import_module\nimport_module("holynb.run")',
    ],
)
def test_the_rule_sees_an_import_that_points_up(source: str) -> None:
    (line,) = against_the_order("holynb", read("holynb.types", source))
    assert line.startswith(f"holynb.types:{source.count(chr(10)) + 1} imports holynb.run")
    assert f"test_layout.py:{line_of('holynb', 'types')}" in line
    assert f"test_layout.py:{line_of('holynb', 'run')}" in line


def test_the_rule_sees_an_import_of_what_stands_beside() -> None:
    assert against_the_order("holynb.scheduler", read("holynb.scheduler.breaker", "from holynb.scheduler import quota"))
    assert not against_the_order("holynb.scheduler", read("holynb.scheduler.limiter", "from holynb.scheduler import quota"))


def test_a_room_hands_out_what_others_use_and_nothing_else() -> None:
    """A name that `__init__` hands out is taken from there, and there is somebody who takes it."""
    handed = {
        m.name: {name for source, name in m.names if under(source, m.name) and not is_package(source)}
        for m in modules()
        if is_package(m.name) and m.name != "holynb"
    }
    taken = {(room, name) for m in modules() for room, name in m.names if not under(m.name, room)}
    assert not {(room, name) for room, names in handed.items() for name in names} - taken - used_of_packages()
    past = [
        f"{m.name} imports {name} of {source}, which {room} hands out"
        for m in modules()
        for source, name in m.names
        for room in [source.rpartition(".")[0]]
        if name in handed.get(room, ()) and not under(m.name, room) and not is_package(source)
    ]
    assert not past


def used_of_packages() -> set[tuple[str, str]]:
    """(room, name) wherever a module says `room.name` of a room that it imported: `pools.start`."""
    return {
        (f"holynb.{room}", name) for m in modules() for room, name in re.findall(r"\b(\w+)\.(\w+)\b", m.path.read_text(encoding="utf-8"))
    }


def test_libraries_stay_in_their_rooms() -> None:
    assert not [line for m in modules() for line in trespasses(m)]


@pytest.mark.parametrize(
    "line", ["import torch.nn", "def f():\n    import pandas", 'import importlib\nimportlib.import_module("holynb.pool.engine.scheduler")']
)
def test_the_rule_sees_a_library_outside_its_room(line: str) -> None:
    assert trespasses(read("holynb.scheduler.scheduler", line))


def test_what_decides_in_the_pool_needs_no_torch() -> None:
    """Not even through another module of the pool, as far as imports at module level go."""
    edges = eager_edges()
    for name in NO_TORCH:
        seen, ahead = {name}, [name]
        while ahead:
            ahead = [n for here in ahead for n in edges.get(here, set()) - seen if seen.add(n) is None]
        assert not [line for m in modules() if m.name in seen for line in m.reaches("torch", kinds=("eager",))], name


def test_the_pool_stands_on_the_ground() -> None:
    """Its processes share with the rest only the nouns and what starts them: everything else goes through a socket."""
    ground = ("bounded", "efforts", "errors", "no_proxy", "poolfields", "port_tokens", "port_usage", "thoughts", "types", "units")
    allowed = ("holynb.pool", "kernels_support", *(f"holynb.{name}" for name in ground))
    inside = [m for m in modules() if under(m.name, "holynb.pool")]
    assert not [
        f"{m.name}:{i.line} imports {i.name}" for m in inside for i in m.imports if under(i.name, "holynb") and not under(i.name, *allowed)
    ]


def test_kernels_support_knows_no_holynb_and_its_halves_not_each_other() -> None:
    names = [(one, "jupyter") for one in ("cpu", "gpu")]
    halves = [(f"kernels_support.{a}", f"kernels_support.{b}") for pair in names for a, b in (pair, pair[::-1])]
    inside = [m for m in modules() if under(m.name, "kernels_support")]
    assert not [line for m in inside for line in m.reaches("holynb")]
    assert not [line for half, other in halves for m in inside if under(m.name, half) for line in m.reaches(other)]
    assert not next(m for m in inside if m.name == "kernels_support").imports


def test_no_import_cycles() -> None:
    """Neither where modules load nor counting imports inside functions and for types, the one that is wanted apart."""
    assert cycles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert not cycles(eager_edges())
    assert not cycles({name: {o for o in others if (name, o) not in UPWARD} for name, others in imports_of_all_kinds().items()})


def eager_edges() -> dict[str, set[str]]:
    """Module → modules of ours that importing it imports."""
    names = {m.name for m in modules()}
    edges = {m.name: {i.name for i in m.imports if i.kind == "eager" and i.name in names and i.name != m.name} for m in modules()}
    for module in modules():  # importing a.b imports a
        edges[module.name] |= {p for i in edges[module.name] if (p := i.rpartition(".")[0]) in names and not under(module.name, p)}
    return edges


# -- how large -----------------------------------------------------------------------------------------------------------


def functions() -> list[tuple[Module, Function]]:
    return [(m, f) for m in modules() for f in m.functions]


def test_modules_stay_small() -> None:
    assert not {m.name: m.lines for m in modules() if m.lines > 300}


def test_modules_say_what_they_are_for() -> None:
    assert not [m.name for m in modules() if m.lines and not m.docstring]


def test_functions_stay_short() -> None:
    sizes = [f.lines for _, f in functions()]
    long = [f"{m.name}.{f.name}: {f.lines}" for m, f in functions() if f.lines > 40]
    assert statistics.median(sizes) <= 8
    assert len(long) <= 0.02 * len(sizes), long


def jitted(function: Function) -> bool:
    return any(d.rpartition(".")[2] == "jit" for d in function.decorators)


#: Functions with more than six parameters. Reason beside each.
WIDE = {
    "holynb.pool.engine.runner.Runner.__init__": "each setting is a word of a rank's command line, and all but the folder are keywords",
    "holynb.pool.fit.preflight.forecast": "the same settings",
    **{
        f"kernels_support.gpu.{name}": "what a kernel is given: each is a tensor or a number of its own"
        for few in ("experts_few", "experts_few_words")
        for name in (f"{few}.launch_gate_up", f"{few}.launch_down")
    },
    **{f"kernels_support.gpu.{name}._launch": "the same" for name in ("experts_grouped", "experts_grouped_words")},
}


def test_functions_take_few_parameters() -> None:
    """But for Triton's: a kernel gets each pointer, stride and block size as an argument of its own."""
    wide = {f"{m.name}.{f.name}": len(f.parameters) for m, f in functions() if len(f.parameters) > 6 and not jitted(f)}
    assert not {name: n for name, n in wide.items() if name not in WIDE}


def test_arguments_and_results_are_annotated() -> None:
    assert not [f"{m.name}.{f.name}: {', '.join(f.unannotated)}" for m, f in functions() if f.unannotated]


def test_nothing_is_left_to_do() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XXX", "NotImplementedError")
    assert not [f"{m.name}: {w}" for m in modules() for w in words if w in m.path.read_text(encoding="utf-8")]


# -- words ---------------------------------------------------------------------------------------------------------------

#: Public class names that occur twice. Reason beside each.
SHARED_CLASS_NAMES: dict[str, str] = {}


def test_no_two_public_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for m in modules():
        for node in statements(m.tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(m.name)
    assert len(SHARED_CLASS_NAMES) <= 10
    assert not {name: where for name, where in homes.items() if len(where) > 1 and name not in SHARED_CLASS_NAMES}


# -- words ---------------------------------------------------------------------------------------------------------------

#: Names that say what was done to a thing and not what it is. How many bindings of them both packages may have together.
VAGUE_NAMES, MAX_VAGUE_NAMES = frozenset({"said", "found", "told", "asked", "made"}), 30

MAX_LINE_CHARS = 140


def names_bound(tree: ast.AST) -> Iterator[str]:
    """Variables, parameters, attributes that are set, functions, and names of caught exceptions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (isinstance(node, ast.ExceptHandler) and node.name):
            yield str(node.name)


def lines_of_strings(tree: ast.AST) -> set[int]:
    """The lines on which a string literal stands: a message or a pattern must stay whole. Docstrings apart, which can be wrapped."""
    bodies = [n.body for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
    docstrings = {id(b[0].value) for b in bodies if b and isinstance(b[0], ast.Expr)}
    strings = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))]
    return {i for n in strings if id(n) not in docstrings for i in range(n.lineno, (n.end_lineno or n.lineno) + 1)}


def test_a_name_says_what_a_thing_is() -> None:
    assert list(names_bound(ast.parse("def f(told):\n    self.said = [made for made in told]"))) == ["f", "told", "said", "made"]
    vague = Counter(m.name for m in modules() for name in names_bound(m.tree) if name.strip("_") in VAGUE_NAMES)
    assert vague.total() <= MAX_VAGUE_NAMES, vague.most_common()


def test_sizes_have_one_unit() -> None:
    """A person reads MB and GB, powers of ten; the units of memory chips stand beside them in no message."""
    strings = ((m.name, n.value) for m in modules() for n in ast.walk(m.tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    assert not [name for name, text in strings if re.search(r"\b[KMG]iB\b", text)]


def test_lines_stay_short() -> None:
    long = [
        f"{m.name}:{number}: {len(line)}"
        for m in modules()
        for number, line in enumerate(m.path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MAX_LINE_CHARS and number not in lines_of_strings(m.tree)
    ]
    assert not long


# -- what importing costs ------------------------------------------------------------------------------------------------


def loaded_after(code: str) -> set[str]:
    """Modules in a fresh Python after `code`."""
    lines = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT, env=env)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_holynb_is_light() -> None:
    assert loaded_after("import holynb").isdisjoint({*HEAVY, "IPython", "ipywidgets", "anywidget"})


def test_loading_the_extension_is_light() -> None:
    code = "from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.instance().run_line_magic('load_ext', 'holynb')"
    assert loaded_after(code).isdisjoint({*HEAVY, "anywidget", "ipywidgets"})


def test_opening_a_live_view_loads_nothing_that_its_first_picture_has_no_use_for() -> None:
    names = ("quality.assessment", "ui.live.again", "ui.live.detail", "ui.live.export", "ui.output.markdown", "ui.output.static")
    later = {f"holynb.{name}" for name in names}
    assert loaded_after("import holynb.ui.live.widget").isdisjoint({*later, "pandas", "plotly"})


def test_importing_what_starts_processes_is_light() -> None:
    assert loaded_after("import kernels_support.jupyter.supervisor").isdisjoint({*HEAVY, "holynb"})


def test_at_most_twelve_public_names() -> None:
    import holynb

    assert 1 <= len(holynb.__all__) <= 12
    assert all(getattr(holynb, name, None) is not None or name == "last" for name in holynb.__all__)
