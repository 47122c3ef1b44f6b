"""What llama.cpp's loader reads of a GGUF file of our families, out of its sources: `python tests/llamacpp/extract.py SDIST`.

SDIST is the source distribution of xllamacpp, which holds the sources of the llama.cpp that its wheel is built of:

    pip download --no-deps --no-binary :all: xllamacpp

Writes `loader.json` beside this file: keys and tensors by family, pre-tokenizers, words that end an answer. `tests/pool/models/test_gguf_fields.py`
holds `holynb/pool/modelfields.toml` against it.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from pathlib import Path

#: GGUF's words for the families that we compute.
FAMILIES = ("llama", "qwen2", "qwen3", "qwen3moe", "gpt-oss")
#: Those whose sources have another name.
SOURCES = {"gpt-oss": "openai-moe"}


class Sources:
    """The C++ files of a source distribution."""

    def __init__(self, path: Path) -> None:
        self.version = re.fullmatch(r"(xllamacpp-[\d.]+)\.tar\.gz", path.name)[1]  # type: ignore[index]
        self._files: dict[str, str] = {}
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.partition("thirdparty/llama.cpp/")[2]
                if re.fullmatch(r"(src|src/models|common)/[\w.-]+\.(cpp|h)", name):
                    self._files[name] = archive.extractfile(member).read().decode()  # type: ignore[union-attr]

    def text(self, name: str) -> str:
        """A file without its comments."""
        return re.sub(r"(?<![:\"\\])//[^\n]*", "", self._files[name])

    def body(self, name: str, head: str) -> str:
        """A function of a file, from its head to the brace in the first column."""
        text = self.text(name)
        start = text.index(head)
        return text[start : text.index("\n}", start)]


def names(table: str, prefix: str) -> dict[str, str]:
    """Constants and the words that a file has for them."""
    return dict(re.findall(rf'\{{\s*({prefix}_\w+),\s*"([^"]*)"', table))


def general(body: str) -> str:
    """What of a function holds for every family: without the blocks that ask for another one."""
    return re.sub(r"if \(arch == LLM_ARCH_(?!LLAMA\b)\w+[^{]*\{.*?\n    \}", "", body, flags=re.DOTALL)


def keys(sources: Sources, family: str) -> list[str]:
    """Every key that loading a model of this family looks for."""
    read = [
        general(sources.body("src/llama-model.cpp", "void llama_model_base::load_hparams")),
        sources.body("src/llama-model.cpp", "void llama_prec_policy::load"),
        sources.body(f"src/models/{SOURCES.get(family, family)}.cpp", "::load_arch_hparams"),
        *([sources.body("src/llama-model.cpp", "void llama_model_base::load_swa_pattern")] if family == "gpt-oss" else []),
        sources.body("src/llama-vocab.cpp", "void llama_vocab::impl::load"),
        sources.text("src/llama-model-loader.cpp"),
        sources.body("src/llama-model.cpp", "const char * llama_model_chat_template"),
    ]
    known = names(sources.text("src/llama-arch.cpp"), "LLM_KV")
    found = {known[word].replace("%s", "{family}") for body in read for word in re.findall(r"\bLLM_KV_\w+", body) if word in known}
    sampling = set(re.findall(r'"(general\.sampling\.\w+)"', sources.text("src/llama-model.cpp")))
    return sorted(found | sampling | {"general.alignment", "tokenizer.chat_template.{name}"})


def tensors(sources: Sources, family: str) -> list[str]:
    """Every tensor that loading a model of this family looks for; others make llama.cpp refuse the file."""
    read = [
        sources.body(f"src/models/{SOURCES.get(family, family)}.cpp", "::load_arch_tensors"),
        sources.body("src/llama-model.cpp", "void llama_model_base::create_tensor_qkv"),
        sources.body("src/llama-model.cpp", "bool llama_model_base::load_tensors"),
    ]
    known = names(sources.text("src/llama-arch.cpp"), "LLM_TENSOR")
    found = {
        f"{known[word]}.{kind}".replace("%d", "{i}") for body in read for word, kind in re.findall(r'tn\((LLM_TENSOR_\w+),\s*"(\w+)"', body)
    }
    return sorted(name for name in found if not re.search(r"ssm_|nextn|attn_gate", name))


def pre_tokenizers(sources: Sources) -> dict[str, dict[str, object]]:
    """tokenizer.ggml.pre's words: the way that each stands for, and what it sets besides."""
    loading = sources.body("src/llama-vocab.cpp", "void llama_vocab::impl::load")
    loading = loading[loading.index("if (tokenizer_pre.empty())") : loading.index("unknown pre-tokenizer type")]
    out: dict[str, dict[str, object]] = {}
    for block in re.split(r"\} else if \(|if \(", loading):
        kind = re.search(r"pre_type = LLAMA_VOCAB_PRE_TYPE_(\w+)", block)
        for name in re.findall(r'tokenizer_pre == "([^"]+)"', block):
            sets = {flag: True for flag in ("ignore_merges", "add_bos") if f"{flag} = true" in block}
            out[name] = {"way": kind[1], **sets}  # type: ignore[index]
    return out


def ends(sources: Sources) -> list[str]:
    """Words that end an answer whatever the keys say."""
    text = sources.body("src/llama-vocab.cpp", "void llama_vocab::impl::load")
    start = text.index("special_eog_ids.clear()")
    return sorted(set(re.findall(r't\.first == "([^"]+)"', text[start : text.index("special_eog_ids.insert(t.second)", start)])))


def main() -> None:
    sources = Sources(Path(sys.argv[1]))
    found = {
        "version": sources.version,
        "keys": {family: keys(sources, family) for family in FAMILIES},
        "tensors": {family: tensors(sources, family) for family in FAMILIES},
        "pre_tokenizers": pre_tokenizers(sources),
        "ends": ends(sources),
    }
    Path(__file__).with_name("loader.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
