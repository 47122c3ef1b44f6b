"""Which fields of a model's files the installed transformers reads: found in its source, and written to read_by_transformers.json.

    python tests/read_by_transformers.py

writes the table anew. It is held against holynb/pool/modelfields.toml by tests/pool/test_modelfields.py. Nothing of transformers is
imported: what its loaders of our families take from a file is seen in their syntax trees. tokenizer.json is read by a library in Rust;
its fields are those that the library itself writes for every kind of component.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_suffix(".json")

FAMILIES = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"),
    *("gemma2", "gemma3", "phi3", "olmo2", "olmo3", "granite", "smollm3", "gpt_oss"),
)

#: Kind of file → modules of transformers that read it, and the names that its content has in them.
READERS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "config.json": (
        (
            *(f"models/{family}/{kind}_{family}.py" for family in FAMILIES for kind in ("configuration", "modeling")),
            "configuration_utils.py",
            "modeling_rope_utils.py",
            "masking_utils.py",
            "modeling_layers.py",
            "integrations/sdpa_attention.py",
            "integrations/eager_paged.py",
            "cache_utils.py",
            "modeling_utils.py",
            "quantizers/auto.py",
            "models/auto/auto_factory.py",
        ),
        frozenset({"config", "text_config", "decoder_config", "rope_parameters", "rope_parameters_dict", "kwargs", "config_dict"}),
    ),
    "generation_config.json": (("generation/configuration_utils.py", "generation/utils.py"), frozenset({"generation_config"})),
    "tokenizer_config.json": (
        (
            "tokenization_utils_base.py",
            "tokenization_utils_tokenizers.py",
            "models/auto/tokenization_auto.py",
            "models/llama/tokenization_llama.py",
            "models/qwen2/tokenization_qwen2.py",
        ),
        frozenset({"init_kwargs", "kwargs", "local_kwargs", "tokenizer_config"}),
    ),
}


#: Configurations of transformers' own machinery, which stand in the same modules.
OTHER_CONFIGS = (
    "CompileConfig",
    "ContinuousBatchingConfig",
    "BaseWatermarkingConfig",
    "WatermarkingConfig",
    "SynthIDTextWatermarkingConfig",
)


def home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def last_name(node: ast.expr) -> str:
    """`config` of `config` and of `self.config`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def reads(tree: ast.AST, names: frozenset[str]) -> Iterator[str]:
    """`name.field`, `name["field"]`, `name.get("field")`, `.pop`, `.setdefault`, `getattr(name, "field")`, `hasattr`, `"field" in name`."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and last_name(node.value) in names - {"kwargs"} and id(node) not in called:
            yield node.attr
        elif isinstance(node, ast.Subscript) and last_name(node.value) in names and (key := text(node.slice)):
            yield key
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In) and last_name(node.comparators[0]) in names:
            yield from filter(None, [text(node.left)])
        elif isinstance(node, ast.Call) and node.args:
            of = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr in {"get", "pop", "setdefault"} else None
            if of is not None and last_name(of) in names and (key := text(node.args[0])):
                yield key
            if isinstance(node.func, ast.Name) and node.func.id in {"getattr", "hasattr"} and last_name(node.args[0]) in names:
                yield from filter(None, [text(node.args[1])])


def declared(tree: ast.AST) -> Iterator[str]:
    """The fields of configuration classes, and what the constructors of tokenizers take by name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            if (
                node.name.endswith("Config")
                and node.name not in OTHER_CONFIGS
                and isinstance(line, ast.AnnAssign)
                and "ClassVar" not in ast.unparse(line.annotation)
            ):
                yield ast.unparse(line.target)
            if isinstance(line, ast.FunctionDef) and line.name == "__init__" and "Token" in node.name:
                yield from (a.arg for a in line.args.args + line.args.kwonlyargs if a.arg != "self")


def constants(tree: ast.AST, name: str) -> list[str]:
    """The texts of a list that is bound to this name."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(last_name(t) == name for t in targets) and isinstance(getattr(node, "value", None), ast.List):
            return [word for item in node.value.elts if (word := text(item))]  # type: ignore[attr-defined,union-attr]
    return []


def template_names(tree: ast.AST) -> Iterator[str]:
    """What a chat template is given: tags, filters, functions and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript) and "jinja_env" in ast.unparse(node.targets[0]):
            kind = ast.unparse(node.targets[0].value).rpartition(".")[2]
            yield f"{kind.removesuffix('s')} {text(node.targets[0].slice)}"
        elif isinstance(node, ast.Assign) and last_name(node.targets[0]) == "tags" and isinstance(node.value, ast.Set):
            yield from (f"tag {text(tag)}" for tag in node.value.elts)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "compiled_template.render":
            yield from (f"variable {k.arg}" for k in node.keywords if k.arg)
        elif isinstance(node, ast.Attribute) and node.attr == "loopcontrols":
            yield from ("tag break", "tag continue")


def components() -> Iterator[str]:
    """The fields of tokenizer.json, as the library writes them for each kind of component."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([AddedToken("<a>")])
    tokenizer.enable_padding()
    tokenizer.enable_truncation(8)
    whole = json.loads(tokenizer.to_str())
    yield from whole
    yield from (f"added_tokens.{key}" for key in whole["added_tokens"][0])
    for kind, model in {
        "BPE": models.BPE(),
        "Unigram": models.Unigram(),
        "WordLevel": models.WordLevel(),
        "WordPiece": models.WordPiece(),
    }.items():
        yield from (f"model.{key}" for key in json.loads(Tokenizer(model).to_str())["model"])
        assert kind
    for slot, module in {
        "normalizer": normalizers,
        "pre_tokenizer": pre_tokenizers,
        "decoder": decoders,
        "post_processor": processors,
    }.items():
        yield from (f"{slot}.{name}" for name in vars(module) if name[0].isupper() and isinstance(getattr(module, name), type))


@cache
def extracted() -> dict[str, list[str]]:
    """Kind of file → its fields that transformers reads."""
    source = home("transformers")
    trees = {
        path: ast.parse((source / path).read_text(encoding="utf-8"))
        for modules, _ in READERS.values()
        for path in modules
        if (source / path).is_file()
    }
    table: dict[str, set[str]] = {}
    for file, (paths, names) in READERS.items():
        found = {name for path in paths if path in trees for name in (*reads(trees[path], names), *declared(trees[path]))}
        table[file] = {name for name in found if not name.startswith("__")}
    generation = trees["generation/configuration_utils.py"]
    table["generation_config.json"] |= set(reads(generation, frozenset({"kwargs"})))
    table["special_tokens_map.json"] = {
        *constants(trees["tokenization_utils_base.py"], "SPECIAL_TOKENS_ATTRIBUTES"),
        "extra_special_tokens",
        "additional_special_tokens",
    }
    table["tokenizer.json"] = set(components())
    table["chat_template.jinja"] = set(template_names(ast.parse((source / "utils/chat_template_utils.py").read_text(encoding="utf-8"))))
    return {file: sorted(found) for file, found in table.items()}


def written() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    TABLE.write_text(json.dumps(extracted(), indent=1) + "\n", encoding="utf-8")
