"""Log probabilities, guides and penalties through a pool of the real model, by the fields that OpenAI's and vLLM's clients send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import holynb
from holynb import pools
from holynb.pool.models import embedded
from holynb.pools.info import PoolInfo

pytest.importorskip("llguidance")

MODEL = "smollm2-135m"
BOOK: Any = [{"role": "user", "content": "What is the best book?"}]
TEXT = "The capital of France is Paris, and that of Italy is"


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, PoolInfo]]:
    """A pool for the module, with its home: to start one takes several times as long as to ask it all of this."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "models").symlink_to(models, target_is_directory=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOLYNB_HOME", str(folder))
        info = pools.start(port=0, dtype="float32")
    yield folder, info
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOLYNB_HOME", str(folder))
        pools.stop("all")


@pytest.fixture
def client(home: Path, served: tuple[Path, PoolInfo], monkeypatch: pytest.MonkeyPatch) -> openai.OpenAI:
    folder, info = served
    monkeypatch.setenv("HOLYNB_HOME", str(folder))
    assert info.token is not None
    return openai.OpenAI(base_url=info.base_url, api_key=info.token.reveal(), max_retries=0, timeout=60)


def reference_logs(folder: Path, ids: list[int]) -> list[float]:
    """What transformers gives each token after the first."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [logs[i, token].item() for i, token in enumerate(ids[1:])]


def test_log_probabilities_of_prompts_and_answers(client: openai.OpenAI, home: Path) -> None:
    """As lm-evaluation-harness asks: ids in, one token more, and the prompt's log probabilities read from behind its context."""
    root = str(client.base_url).removesuffix("v1/")
    ids = client.post(f"{root}tokenize", body={"prompt": TEXT}, cast_to=dict[str, Any])["tokens"]
    asked: Any = {"model": MODEL, "prompt": [ids, ids[:4]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    answer = client.completions.create(**asked)
    whole = answer.choices[0].logprobs
    assert whole is not None
    assert whole.token_logprobs is not None
    assert whole.top_logprobs is not None
    assert (len(whole.token_logprobs), whole.token_logprobs[0], whole.top_logprobs[0]) == (len(ids) + 1, None, None)
    assert whole.token_logprobs[1:-1] == pytest.approx(reference_logs(embedded.ensure(home, kept=False), ids), abs=1e-3)
    assert "".join(whole.tokens or ()) == answer.choices[0].text
    assert answer.choices[0].text.startswith(TEXT)
    offsets = whole.text_offset or []
    assert [answer.choices[0].text[i:].startswith(t) for i, t in zip(offsets, whole.tokens or (), strict=True)] == [True] * len(offsets)
    for own, top in zip(whole.token_logprobs[1:], whole.top_logprobs[1:], strict=True):
        assert own is not None
        assert top is not None
        assert 1 <= len(top) <= 2
        assert (own == max(top.values())) == (len(top) == 1), "greedy or not: told by equality"
    assert len((answer.choices[1].logprobs or whole).tokens or ()) == 5
    none = client.completions.create(**asked | {"max_tokens": 0})
    assert none.choices[0].logprobs is not None
    assert (none.choices[0].text, len(none.choices[0].logprobs.tokens or ())) == (TEXT, len(ids))
    zero = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=4, logprobs=0, temperature=0).choices[0].logprobs
    assert zero is not None
    assert [len(top or ()) for top in zero.top_logprobs or ()] == [1] * 4


def test_log_probabilities_of_a_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": BOOK, "temperature": 0, "max_tokens": 8, "logprobs": True, "top_logprobs": 3}
    choice = client.chat.completions.create(**asked).choices[0]
    content = choice.logprobs.content if choice.logprobs else None
    assert content is not None
    assert bytes(b for t in content for b in t.bytes or ()).decode() == choice.message.content
    assert all(len(t.top_logprobs) == 3 and t.top_logprobs[0].token == t.token for t in content)
    chunks = [c.choices[0] for c in client.chat.completions.create(**asked, stream=True)]
    pieces = [t for c in chunks if c.logprobs for t in c.logprobs.content or ()]
    assert [t.token for t in pieces] == [t.token for t in content]
    assert [t.logprob for t in pieces] == pytest.approx([t.logprob for t in content], abs=1e-4)
    stopped = client.chat.completions.create(**asked | {"stop": content[3].token}).choices[0]
    assert stopped.logprobs is not None
    kept = stopped.logprobs.content or []
    assert "".join(t.token for t in kept) == stopped.message.content
    plain = client.chat.completions.create(**asked | {"logprobs": False, "top_logprobs": None}).choices[0]
    assert (plain.logprobs, plain.message.content) == (None, choice.message.content)


def test_guides_by_every_name(client: openai.OpenAI) -> None:
    def say(**more: Any) -> str:
        answer = client.chat.completions.create(model=MODEL, messages=BOOK, max_tokens=24, seed=1, extra_body=more)
        return str(answer.choices[0].message.content)

    choices = ["yes", 'no "never"', "안녕"]
    for name, spec in (("guided_choice", choices), ("structured_outputs", {"choice": choices})):
        assert say(**{name: spec}) in choices
    for name, spec in (("guided_regex", r"\d{3}-[ab]+x"), ("structured_outputs", {"regex": r"\d{3}-[ab]+x"})):
        assert re.match(r"\d{3}-[ab]+x?", say(**{name: spec}))
    for name, spec in (("guided_grammar", 'root ::= "a" | "b" "c"'), ("grammar", 'start: "a" | "bc"')):
        assert say(**{name: spec}) in ("a", "bc")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    for more in (
        {"guided_json": schema},
        {"guided_json": json.dumps(schema)},
        {"response_format": {"type": "json_object", "schema": schema}},
    ):
        assert set(json.loads(say(**more))) == {"ok"}
    for wrong in ({"guided_regex": "(?<=a)b"}, {"guided_grammar": "root ::= ((("}, {"guided_json": {"type": "hiccup"}}):
        with pytest.raises(openai.BadRequestError) as caught:
            say(**wrong)
        assert caught.value.param == next(iter(wrong))


def test_a_cell_passes_what_the_pool_does_and_no_more(client: openai.OpenAI) -> None:
    def text(**p: Any) -> str:
        frame = holynb.infer(["Name three colours."], f"pool/{MODEL}", max_tokens=8, temperature=0, p=p, cache=False).wait().frame()
        assert list(frame["status"]) == ["ok"]
        return str(frame["text"][0])

    plain = text()
    assert text(n=1, repetition_penalty=1.0, logit_bias={}) == plain
    assert text(guided_choice=["blue", "green"]) in ("blue", "green")
    assert text(repetition_penalty=1.9) != text(allowed_token_ids=[260]) == " the" * 8  # white space alone (198) would be no answer
    with pytest.raises(holynb.UserError, match="--samples 2"):
        text(n=2)
