"""What generation_config.json asks for is what transformers' generate does with it, and what a request says goes before it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from holynb.pool.engine.runner import Runner
from holynb.pool.modelfields import FieldRefused, ModelField, fields_of
from holynb.pool.server.api import parse_request
from holynb.pool.server.generation import GenerationDefaults, read_defaults
from holynb.pool.server.jobs import completed, jobs_of
from holynb.pool.server.tokenizer import ChatTokenizer

PROMPT = (72, 105, 33, 72, 105)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model that talks in bytes, and transformers' own of it."""
    pytest.importorskip("transformers")
    from pool_fake import byte_model

    folder = byte_model(tmp_path_factory.mktemp("model"))
    (folder / "model.safetensors").unlink()
    return folder, tiny.make("llama", folder)


def answered(folder: Path, generation: dict[str, Any], body: dict[str, Any]) -> list[int]:
    """The tokens of a greedy answer of the pool to PROMPT, with this generation_config.json."""
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = ChatTokenizer(folder)
    request = completed(
        parse_request({"messages": [{"role": "user", "content": "x"}], "temperature": 0, **body}, chat=True), tokenizer.defaults
    )
    (job,) = jobs_of(request, tokenizer, PROMPT, 24, grammar=None, numbers=zip(itertools.count(), itertools.count(), strict=False))
    runner, tokens = Runner(folder), list[int]()
    runner.add(job)
    while not runner.idle:
        for emit in runner.step():
            tokens += emit.tokens
    return tokens


def theirs(folder: Path, model: Any, generation: dict[str, Any]) -> list[int]:
    import torch
    from transformers import GenerationConfig

    (folder / "generation_config.json").write_text(json.dumps(generation))
    model.generation_config = GenerationConfig.from_pretrained(folder)
    if not {"max_new_tokens", "max_length"} & set(generation):
        model.generation_config.max_new_tokens = 24
    made: list[int] = model.generate(torch.tensor([PROMPT]), attention_mask=torch.ones(1, len(PROMPT)), do_sample=False, pad_token_id=0)[
        0, len(PROMPT) :
    ].tolist()
    return made[:-1] if made[-1] in _ends(generation) else made


def _ends(generation: dict[str, Any]) -> list[int]:
    ends = generation.get("eos_token_id", [])
    return ends if isinstance(ends, list) else [ends]


@pytest.mark.parametrize(
    "generation",
    [
        {},
        {"repetition_penalty": 1.8},
        {"suppress_tokens": "first"},
        {"max_new_tokens": 3},
        {"max_length": 9},
        {"max_length": 9, "max_new_tokens": 6},
        {"eos_token_id": "third"},
        {"eos_token_id": "third", "min_new_tokens": 12},
        {"eos_token_id": "third", "repetition_penalty": 1.5, "suppress_tokens": "first"},
        {"num_beams": 1, "typical_p": 1.0, "no_repeat_ngram_size": 0, "temperature": 0.5, "top_k": 3, "epsilon_cutoff": 0.5},
    ],
    ids=json.dumps,
)
def test_a_greedy_answer_is_that_of_generate(place: tuple[Path, Any], generation: dict[str, Any]) -> None:
    folder, model = place
    plain = theirs(folder, model, {})
    ends = [plain[2], 299]
    said = {k: ends if v == "third" else [plain[0], plain[1]] if v == "first" else v for k, v in generation.items()}
    want = theirs(folder, model, said)
    assert answered(folder, said, {}) == want
    if generation and len(generation) < 3:
        assert want != plain, "the field does nothing here"


def test_what_a_request_says_goes_before_the_file(place: tuple[Path, Any]) -> None:
    folder, model = place
    plain = theirs(folder, model, {})
    own = {"repetition_penalty": 1.0, "max_tokens": 24, "min_tokens": 0}
    assert answered(folder, {"repetition_penalty": 1.8, "max_new_tokens": 3, "min_new_tokens": 9}, own) == plain
    defaults = GenerationDefaults({"temperature": 0.3, "top_k": 7}, {"min_p": 0.2, "repetition_penalty": 1.2}, stop=("END",))
    asked = {"messages": [{"role": "user", "content": "x"}]}
    filled = completed(parse_request(asked, chat=True), defaults)
    assert (filled.temperature, filled.top_k, filled.top_p, filled.stop) == (0.3, 7, None, ("END",))
    assert filled.rules is not None
    assert (filled.rules.min_p, filled.rules.repetition_penalty) == (0.2, 1.2)
    said = completed(
        parse_request({**asked, "temperature": 0, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "stop": ["X", "END"]}, chat=True),
        defaults,
    )
    assert (said.temperature, said.top_k, said.rules, said.stop) == (0, 0, None, ("X", "END"))


def test_a_request_to_a_model_without_defaults_stays_plain() -> None:
    request = parse_request({"messages": [{"role": "user", "content": "x"}]}, chat=True)
    assert completed(request, GenerationDefaults()) == request


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"do_sample": True, "temperature": 0.2, "top_k": 5, "top_p": 0.9}, {"temperature": 0.2, "top_k": 5, "top_p": 0.9}),
        ({"do_sample": False, "temperature": 0.2, "min_p": 0.1}, {}),
        ({"temperature": 0.2}, {}),
    ],
)
def test_a_file_that_does_not_sample_keeps_its_sampling_to_itself(said: dict[str, Any], read: dict[str, float]) -> None:
    assert read_defaults(said, 100).sampling == read
    assert read_defaults(said, 100).rules == {}
    assert read_defaults({"do_sample": True, "min_p": 0.1}, 100).rules == {"min_p": 0.1}


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({"eos_token_id": 9}, {"eos_token_id": [7, 9]}, (7, 9, 256)),
        ({}, {}, (256,)),
        ({"architectures": ["LlamaForCausalLM"]}, {}, (256,)),
        # Gemma: <eos>, and the <end_of_turn> that generation_config.json alone names.
        (
            {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"eos_token_id": 1}},
            {"eos_token_id": [1, 106]},
            (1, 106, 256),
        ),
        ({"architectures": ["LlamaForCausalLM"], "eos_token_id": None}, {"eos_token_id": -1}, (256,)),
    ],
)
def test_an_answer_ends_where_any_file_says_so(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any], ends: tuple[int, ...]
) -> None:
    from pool_fake import byte_model

    folder = byte_model(tmp_path)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    assert ChatTokenizer(folder).eos == ends
    (folder / "tokenizer_config.json").write_text("{}")
    family = (2,) if "architectures" in config else ()
    assert ChatTokenizer(folder).eos == (ends[:-1] or family), "where no file says one, the family does"


def test_a_stop_string_of_the_file_ends_an_answer_as_a_requests_own() -> None:
    assert read_defaults({"stop_strings": "END"}, 9).stop == ("END",)
    assert read_defaults({"stop_strings": ["a", "b"]}, 9).stop == ("a", "b")
    assert read_defaults({"suppress_tokens": [3, 8, 9, 3]}, 9).suppressed == (3, 8), "a model of nine tokens has no ninth"


@pytest.mark.parametrize("row", [row for row in fields_of("generation_config.json") if row.use == "refused"], ids=lambda row: row.name)
def test_what_is_not_done_is_refused_by_name(row: ModelField) -> None:
    for value in row.unless:
        read_defaults({row.name: value, "do_sample": True}, 100)
    strange = next(value for value in ([3], 0.25, True) if value not in row.unless)
    with pytest.raises(FieldRefused, match=row.name):
        read_defaults({row.name: strange, "do_sample": True}, 100)
    if row.when:
        read_defaults({row.name: strange}, 100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop_strings": [""]},
        {"stop_strings": {"a": 1}},
        {"suppress_tokens": 5},
        {"suppress_tokens": [-1]},
        {"max_new_tokens": 0},
        {"repetition_penalty": 0},
        {"repetition_penalty": "1.1"},
        {"do_sample": "yes"},
    ],
    ids=json.dumps,
)
def test_what_is_no_value_of_a_field_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        read_defaults(wrong, 100)


def test_a_pool_answers_as_the_file_says_where_a_request_says_nothing(tmp_path: Path) -> None:
    from pool_fake import Pools, byte_model

    said = {"max_new_tokens": 5, "stop_strings": ["END"], "suppress_tokens": [7], "repetition_penalty": 1.2, "mood": "good"}
    (byte_model(tmp_path / "bytes") / "generation_config.json").write_text(json.dumps(said))
    pools = Pools(tmp_path)
    try:
        pool = pools.start()
        for text, more, want in (
            ("abcdefgh", {}, ("abcde", "length")),
            ("abcdefgh", {"max_tokens": 7}, ("abcdefg", "length")),
            ("abENDcd", {"max_tokens": 20}, ("ab", "stop")),
        ):
            _, answer = pool.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **more})
            assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == want
        assert "generation_config.json says mood, which the pool does not know" in pool.log()
    finally:
        pools.end()
