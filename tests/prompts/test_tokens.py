"""Token estimates against what four real tokenizers counted, and how quick they are."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.prompts import tokens

SAMPLES = {
    "english": "The parcel arrived two days late and the box was torn, but the support team answered within an hour, apologised and sent a replacement at no cost. I would still order here again, because the price was fair and the shoes fit perfectly.",
    "code": 'def mean(values: list[float]) -> float:\n    """The arithmetic mean; raises ValueError for an empty list."""\n    if not values:\n        raise ValueError("no values")\n    return sum(values) / len(values)\n',
    "json": '{"id": 17, "name": "user17", "score": 23.29, "tags": ["a", "b"], "joined": "2025-01-18", "active": true}',
    "korean": "배송이 너무 늦어서 실망했지만 고객센터의 친절한 응대 덕분에 기분이 풀렸어요! 가격은 조금 비싼 편이지만 품질은 정말 만족스럽습니다. 오늘 오후 세 시에 회의가 있으니 자료를 미리 준비해 주시기 바랍니다.",
    "japanese": "配送が遅くて残念でしたが、サポートの方がとても親切で助かりました。価格は少し高いですが、品質には満足しています。会議は午後三時から始まりますので、資料の準備をお願いします。",
    "chinese": "物流太慢让人失望,但是客服非常热情,帮我解决了问题。价格稍微有点贵,不过质量令人满意。会议将于下午三点开始,请提前准备好相关资料。",
    "russian": "Доставка была слишком долгой, но поддержка оказалась очень вежливой и помогла решить проблему. Цена немного высокая, однако качество меня полностью устраивает.",
    "german": "Die Lieferung dauerte zu lange, aber der Kundendienst war ausgesprochen freundlich und hilfsbereit. Der Preis ist etwas hoch, die Qualität überzeugt jedoch.",
}

#: What cl100k, o200k, Claude's published tokenizer and SmolLM2's counted.
COUNTED = {
    "english": (49, 49, 49, 49),
    "code": (44, 47, 49, 49),
    "json": (46, 46, 44, 54),
    "korean": (124, 67, 133, 238),
    "japanese": (89, 59, 86, 158),
    "chinese": (75, 47, 66, 119),
    "russian": (75, 34, 80, 110),
    "german": (41, 30, 47, 59),
}


@pytest.mark.parametrize("name", ["english", "code", "json"])
def test_english_code_and_json_are_within_a_fifth(name):
    assert all(0.79 <= tokens.count_typical(SAMPLES[name]) / counted <= 1.21 for counted in COUNTED[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_other_scripts_are_within_a_factor_of_two(name):
    hosted = COUNTED[name][:3]
    assert all(0.5 <= tokens.count_typical(SAMPLES[name]) / counted <= 2 for counted in hosted)


@pytest.mark.parametrize("name", SAMPLES)
def test_least_and_most_hold_the_tokenizers_of_hosted_models(name):
    hosted = COUNTED[name][:3]
    assert tokens.count_low(SAMPLES[name]) <= 1.05 * min(hosted)
    assert tokens.count_high(SAMPLES[name]) >= 0.99 * max(hosted)
    assert tokens.count_high(SAMPLES[name]) <= 3.5 * tokens.count_low(SAMPLES[name])


@given(st.text(max_size=300))
def test_least_typical_and_most_are_in_order_and_below_a_token_a_byte_and_a_half(text):
    assert (
        tokens.count_low(text)
        <= tokens.count_typical(text)
        <= tokens.count_high(text)
        <= 1.5 * len(text.encode("utf-8", "surrogatepass")) + 1
    )
    assert (tokens.count_typical(text) == 0) == (text == "")


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_text_never_has_fewer_tokens(a, b):
    assert tokens.count_high(a + b) >= tokens.count_high(a)
    assert tokens.count_typical(a + b) >= tokens.count_typical(a)


def test_a_run_without_spaces_is_dense():
    noise = base64.b64encode(bytes(range(256)) * 4).decode()
    assert tokens.count_high(noise) > 0.8 * len(noise)  # 1 / 1.24 to 1 / 1.46 characters a token were counted
    assert tokens.count_high(noise) > 2 * tokens.count_high("word " * (len(noise) // 5))


def test_two_megabytes_are_counted_at_once():
    start = time.process_time()
    assert tokens.count_typical("a" * 2_000_000) > tokens.count_typical("word " * 400_000) / 2
    assert time.process_time() - start < 2  # 0.02 s
