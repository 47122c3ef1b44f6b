"""Models that think, with a tokenizer of bytes: Qwen3's template, DeepSeek-R1's, Mistral's and gpt-oss', cut down to what matters for thinking.

Ids 0 to 255 are bytes, 256 ends an answer, and the tags come from 257 on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
from pool_fake import byte_model

TURNS = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"

QWEN3 = (
    "{%- for m in messages %}{%- set content = m.content %}"
    "{%- if m.role == 'assistant' and '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
R1 = TURNS + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
SWITCHED = (  # DeepSeek-V3.1's variable, off by default
    "{% if not thinking is defined %}{% set thinking = false %}{% endif %}" + TURNS + "{{- '<think>' if thinking else '</think>' }}"
)
MISTRAL = "{{ bos_token }}{%- for m in messages %}{{- '[INST]' + m.content + '[/INST]' }}{%- endfor %}{# [THINK]…[/THINK] #}"
HARMONY = (  # as gpt-oss has it: what is left out is set inside a macro, instructions are a developer's
    "{%- macro system_message() %}{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}{%- endif %}"
    "{{- 'Current date: ' + strftime_now('%Y-%m-%d') + '\nReasoning: ' + reasoning_effort }}"
    "{%- if builtin_tools %}{%- for tool in builtin_tools %}{{- '\n# ' + tool }}{%- endfor %}{%- endif %}{%- endmacro %}"
    "{{- '<|start|>system<|message|>' + system_message() + '<|end|>' }}"
    "{%- if messages[0].role in ('developer', 'system') %}"
    "{{- '<|start|>developer<|message|># Instructions\n\n' + messages[0].content + '<|end|>' }}{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- if '<|channel|>final<|message|>' in m.content %}{{- raise_exception('give analysis as thinking') }}{%- endif %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}"
    "{%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt -%}\n<|start|>assistant\n{%- endif -%}"
)
TURN_TOKENS = ("<|im_start|>", "<|im_end|>")
THINK_TOKENS = ("<think>", "</think>")
MISTRAL_TOKENS = ("[THINK]", "[/THINK]", "[INST]", "[/INST]")
HARMONY_TOKENS = ("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>", "<|return|>", "<|call|>")


def thinking_model(folder: Path, template: str = QWEN3, tokens: Sequence[str] = THINK_TOKENS, *, special: bool = False) -> Path:
    """A folder as of `byte_model`, with this template and further tokens. Qwen3's tags are no special tokens; Mistral's and harmony's are."""
    from tokenizers import AddedToken, Tokenizer

    byte_model(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(t, special=special, normalized=False) for t in tokens])
    if template in (QWEN3, R1, SWITCHED):
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in TURN_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<end>", "bos_token": "<end>"}))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512, "vocab_size": 320}))
    return folder


def harmony_of_gguf(folder: Path) -> Path:
    """The same of gpt-oss, its tokens and template as a GGUF file's header has them."""
    from tokenizers import Tokenizer

    from holynb.pool.models.gguf_facts import Facts
    from holynb.pool.models.gguf_vocabulary import Vocabulary

    thinking_model(folder, HARMONY, HARMONY_TOKENS, special=True)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    facts = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-4o",
        "tokenizer.ggml.tokens": sorted(ids, key=ids.__getitem__),
        "tokenizer.ggml.token_type": [1] * 256 + [3] * (len(ids) - 256),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": ids["<end>"],
        "tokenizer.ggml.eos_token_id": ids["<|return|>"],
        "tokenizer.chat_template": HARMONY,
    }
    vocabulary = Vocabulary(Facts(facts, "gpt-oss"))
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary.tokenizer()))
    (folder / "tokenizer_config.json").write_text(json.dumps(vocabulary.tokenizer_config()))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(vocabulary.ends)}))
    return folder


def random_thinker(folder: Path) -> Path:
    """A tiny random model of Qwen3's kind with Qwen3's template, whose tokens are bytes and tags."""
    words = thinking_model(folder / "words")
    tiny.make("qwen3", folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(words / file, folder / file)
    return folder


#: What makes a random model begin to think, and go on for a while: its logits of the two tags.
BEGINS = {"257": 25, "258": 20}


def asked_of_random(count: int) -> list[dict[str, Any]]:
    """So many chats: thinking as it comes, with thinking off, and with a budget of 9 tokens; tags more and less probable."""
    kinds: list[dict[str, Any]] = [{}, {"chat_template_kwargs": {"enable_thinking": False}}, {"thinking_budget": 9}]
    return [
        {
            "messages": [{"role": "user", "content": "One"}],
            "temperature": 1,
            "seed": i,
            "max_tokens": 40,
            "ignore_eos": True,
            "logit_bias": BEGINS if i % 2 else {"257": 5, "258": 5},
            **kinds[i % 3],
        }
        for i in range(count)
    ]
