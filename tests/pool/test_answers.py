"""The whole way down, on the real model: answers of the pool's server equal transformers' greedy generation, token by token, in float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from servers.unix import chat

from holynb import pools
from holynb.pool.models import embedded
from holynb.pool.protocol import Job

PROMPTS = [
    "What is the capital of France?",
    "2 + 3 =",
    "Name three colours.",
    "Write one sentence about the sea.",
    "Translate to German: good morning",
    "List the days of the week.",
    "Who wrote Hamlet?",
    "def fibonacci(n):",
    "Why is the sky blue?",
    "Is a tomato a fruit? Answer yes or no.",
    "Summarise: The package parses TOML files and gives dictionaries.",
    "Label this review as positive or negative: I loved it.",
    "한국의 수도는 어디입니까?",
    "안녕하세요, 오늘 날씨가 어때요?",
    "다음 문장을 영어로 번역하세요: 나는 학생입니다.",
    "김치는 무엇입니까?",
    "서울에 대해 한 문장으로 말해 주세요.",
    "Explain 😀 in one line.",
    "a" * 80,
    "Count: 1 2 3 4 5 6",
]
NEW = 8


def is_greedy(tokenizer: Any, model: Any, prompt: str, answer: tuple[str, int]) -> bool:
    """Whether text and number of tokens are transformers' greedy ones.

    One pass over prompt and answer: they are where each token is the likeliest after those before it, and of an answer cut short or ended
    as many. Tokens of a character that was cut off stand in no text, and follow one by one. It is generated anew only where its text does
    not lead back to the tokens that it was made of.
    """
    import torch

    messages = [{"role": "user", "content": prompt}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    text, count = answer
    said = tokenizer(text.rstrip("\ufffd"), add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        passed = model(torch.cat((asked, torch.tensor([said], dtype=torch.long)), 1), use_cache=True)
        *likeliest, following = passed.logits[0, asked.shape[1] - 1 :].argmax(-1).tolist()
        if likeliest == said and len(said) <= count:
            while len(said) < count:
                said.append(following)
                passed = model(torch.tensor([[following]]), past_key_values=passed.past_key_values, use_cache=True)
                following = int(passed.logits[0, -1].argmax())
            if tokenizer.decode(said) == text and (count == NEW or following == tokenizer.eos_token_id):
                return True
        output = model.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=NEW, do_sample=False, temperature=None, top_p=None
        )
    new = [t for t in output[0, asked.shape[1] :].tolist() if t != tokenizer.eos_token_id]
    return (tokenizer.decode(new, skip_special_tokens=True), len(new)) == answer


def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, answer = chat(path, body)
    assert status == 200, answer
    return answer


def test_greedy_answers_of_a_full_batch_equal_transformers_one_at_a_time(home: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    info = pools.start(dtype="float32")
    assert info.socket is not None
    bodies = [{"messages": [{"role": "user", "content": p}], "temperature": 0, "max_tokens": NEW} for p in PROMPTS]
    with ThreadPoolExecutor(len(bodies)) as threads:
        answers = list(threads.map(lambda body: ask(str(info.socket), body), bodies))
    seeded = [ask(info.socket, {**bodies[3], "temperature": 1.0, "seed": 7})["choices"][0]["message"]["content"] for _ in range(2)]
    pools.stop("all")
    texts = [(s["choices"][0]["message"]["content"], s["usage"]["completion_tokens"]) for s in answers]
    folder = str(embedded.ensure(home, kept=False))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert [text for text, prompt in zip(texts, PROMPTS, strict=True) if not is_greedy(tokenizer, model, prompt, text)] == []
    assert seeded[0] == seeded[1]


def test_a_trained_model_says_nearly_the_same_from_a_cache_of_eight_bits(home: Path) -> None:
    """Each token of a fixed text, given those before: what is most probable, and how probable the text is. (1,022 tokens: NOTES-engine.md.)"""
    import torch
    from tokenizers import Tokenizer

    from holynb.pool.engine.eager import forward_batch
    from holynb.pool.engine.load import load, open_safetensors
    from holynb.pool.engine.model import Decoder
    from holynb.pool.engine.sequence import PrefillChunk, Seq
    from holynb.pool.fit import Mesh, plan, read_spec

    folder = home / "models" / "smollm2-135m"
    if not (folder / "model.safetensors").is_file():
        pools.start()
        pools.stop("all")
    text = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids[:160]
    spec = plan.with_kv(read_spec(folder), "fp8")
    with open_safetensors(folder) as source, torch.inference_mode():
        model = Decoder(spec, load(spec, Mesh().shard(spec), source, "cpu", torch.float32), 160)
        seq = Seq(Job(0, tuple(ids), 1))
        seq.blocks = list(range(10))
        seq.tables = [seq.blocks]
        batch = forward_batch([PrefillChunk(seq, 0, 160)], 16, spec.heads // spec.kv_heads, torch.float32)
        batch.last, shape = None, (spec.layers, 2, spec.kv_heads, 160, spec.head_dim)
        plain, eight = (model.forward(batch, torch.zeros(shape, dtype=dtype))[:-1] for dtype in (torch.float32, torch.float8_e4m3fn))
    lost = [torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item() for logits in (plain, eight)]
    assert (plain.argmax(-1) == eight.argmax(-1)).float().mean() > 0.85
    assert abs(lost[1] - lost[0]) < 0.05, "a perplexity within 5 %"
