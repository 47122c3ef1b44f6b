"""Plans by name: shapes that are known, what a name tells of its files, and what to do where it tells nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from holynb.errors import UserError
from holynb.pool.advice import PlanRequest, advice, spec_of
from holynb.pool.fit import Device
from holynb.pool.fit.known import with_organisation
from holynb.pool.ray import config as ray_config
from holynb.pool.server import config as server_config

GB = 1e9


def size(name: str) -> float:
    spec = spec_of(name, Path("nowhere"))[0]
    (way, *_) = advice(name, spec, Device(1, 200 * 10**9), PlanRequest()).fits
    return way.weights / GB


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        *[("Qwen/Qwen3-0.6B", 0.6), ("Qwen/Qwen3-1.7B", 1.72), ("Qwen/Qwen3-4B-Instruct-2507", 4.02), ("Qwen/Qwen3-8B", 8.19)],
        *[("Qwen/Qwen3-14B", 14.8), ("Qwen/Qwen3-32B", 32.8), ("Qwen/Qwen3-30B-A3B-Instruct-2507", 30.5), ("openai/gpt-oss-20b", 20.9)],
        *[("openai/gpt-oss-120b", 116.8), ("meta-llama/Llama-3.1-8B-Instruct", 8.03), ("meta-llama/Llama-3.3-70B-Instruct", 70.6)],
        *[("google/gemma-3-12b-it", 11.8), ("google/gemma-3-27b-it", 27.0), ("mistralai/Mixtral-8x7B-v0.1", 46.7)],
        *[("mistralai/Mistral-7B-Instruct-v0.3", 7.25), ("microsoft/phi-4", 14.7)],
    ],
)
def test_known_models_have_the_numbers_that_their_pages_say(name: str, billions: float) -> None:
    spec, remark = spec_of(name, Path("nowhere"))
    assert spec.weights / GB == pytest.approx(billions, rel=0.01)
    assert "known shape of" in remark


def test_what_a_name_tells_of_its_files_counts() -> None:
    assert size("openai/gpt-oss-20b") == pytest.approx(13.8, rel=0.02)
    for name in ("Qwen/Qwen3-8B", "someone/Other-8B"):
        assert 7.5 < size(f"{name}-FP8") < 10
        assert 4 < size(f"{name}-AWQ") < 7
        assert size(f"{name}-GPTQ-Int4") == size(f"{name}-AWQ")
    assert size("someone/Qwen3-8B-AWQ") == size("Qwen/Qwen3-8B-AWQ")
    for name in ("mlx-community/Qwen3-8B-4bit", "Qwen/Qwen3-8B-GPTQ-Int8"):
        with pytest.raises(UserError, match=r"config\.json alone"):
            spec_of(name, Path("nowhere"))
    assert "a dense model of that size is assumed" in spec_of("someone/Other-8B", Path("nowhere"))[1]


@pytest.mark.parametrize(
    ("word", "whole"),
    [
        ("Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B"),
        ("qwen3-8b", "Qwen/Qwen3-8B"),
        ("Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
        *[(word, word) for word in ("someone/Qwen3-8B", "Qwen3-8B-AWQ", "8B", "Meta-Llama-3.1-8B", "smollm2-135m")],
        ("30B-A3B", "Qwen/Qwen3-30B-A3B"),
    ],
)
def test_a_known_name_is_taken_without_its_organisation(word: str, whole: str) -> None:
    assert with_organisation(word) == whole
    assert server_config.parse_args(["--name", "x", "--model", word, "--home", "."]).model == whole, "a start takes the same as a plan"
    assert ray_config.parse_args(["--name", "x", "--model", word, "--home", "."])[0].model == whole


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("Qwen/Qwne3-8B", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen-3-32B-Instruct-AWQ", "Qwen/Qwen3-32B"),
        ("openai/gpt-os-20b", "openai/gpt-oss-20b"),
        ("meta-llama/Lama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_a_name_that_is_nearly_known_is_asked_about(word: str, known: str) -> None:
    _, remark = spec_of(word, Path("nowhere"))
    assert f" Did you mean {known}? Judged by the " in remark


#: Deliberate ids that hold a known name.
OWN_NAMES = ["hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", "someone/Our-Llama-3.1-70B-AWQ", "someone/Qwen3-8B-support"]


def test_a_copy_of_llama_under_its_older_name_has_the_shape_of_llama() -> None:
    spec, remark = spec_of(OWN_NAMES[0], Path("nowhere"))
    assert "Judged by the known shape of meta-llama/Llama-3.1-70B" in remark
    assert (spec.layers, spec.hidden, spec.max_len) == (80, 8192, 131072)


@pytest.mark.parametrize("word", ["meta-llama/Llama-3-8B", "Qwen/Qwen2-7B", "someone/Model-8B-Instruct", "allenai/Tulu-3.1-8B", *OWN_NAMES])
def test_another_version_or_another_model_is_no_misspelling(word: str) -> None:
    assert "Did you mean" not in spec_of(word, Path("nowhere"))[1]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("31B-A3B", r"Did you mean Qwen/Qwen3-30B-A3B\?"),
        ("smollm2-135", r"Did you mean smollm2-135m\?"),
        ("Qwne3-8B", r"Did you mean Qwen/Qwen3-8B\?"),
        ("Qwen3-8B-AWQ", "Name whose files they are: ORGANISATION/Qwen3-8B-AWQ"),
        ("mistralai/Mixtral-8x6B", r"Did you mean mistralai/Mixtral-8x7B\?"),
        ("someone/model", "nor org/name"),
    ],
)
def test_what_is_not_known_says_what_to_do(word: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        spec_of(word, Path("nowhere"))
    assert "config.json alone is enough" in str(caught.value)
