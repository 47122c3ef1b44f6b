"""What a request will count for: real tokenizers' counts, and what a server says."""

from __future__ import annotations

import pytest

from holynb.scheduler.token_estimate import TokenEstimate
from holynb.types import Message, Request, Route, Sampling, Usage

#: Texts, and what o200k (GPT-4o and later) and cl100k (GPT-4) make of each, counted with js-tiktoken 1.0.
COUNTED: dict[str, list[tuple[str, int, int]]] = {
    "korean": [
        (
            "배송이 너무 늦어서 실망했지만 고객센터의 친절한 응대 덕분에 기분이 풀렸어요! 가격은 조금 비싼 편이지만 품질은 정말 만족스럽습니다.",
            46,
            89,
        ),
        ("다음 리뷰가 긍정적인지 부정적인지 한 단어로 답하세요: 포장이 엉망이라 상자가 찌그러져 왔어요. 제품은 멀쩡합니다.", 44, 61),
        (
            "대한민국의 수도는 서울이며, 인구는 약 940만 명이다. 한강이 도시를 동서로 가로지르고 있으며 조선 시대부터 정치와 경제의 중심지였다.",
            43,
            73,
        ),
        ("어제 친구랑 홍대에서 떡볶이 먹고 노래방 갔다가 막차 놓쳐서 택시 탔는데 요금이 너무 많이 나왔어 ㅠㅠ 다음엔 일찍 가야지.", 50, 81),
        (
            "본 계약의 당사자는 계약 내용을 성실히 이행하여야 하며, 이를 위반하여 상대방에게 손해가 발생한 경우 그 손해를 배상할 책임을 진다.",
            43,
            69,
        ),
    ],
    "chinese": [
        ("物流太慢让人失望,但是客服非常热情,帮我解决了问题。价格稍微有点贵,不过质量令人满意。", 32, 54),
        ("请判断以下评论是正面还是负面,只回答一个词:包装太差,盒子都压扁了,不过产品没有问题。", 33, 45),
        ("北京是中华人民共和国的首都,位于华北平原北部,常住人口约两千一百万,是全国政治、文化和国际交往中心。", 36, 54),
        ("昨天和朋友去吃火锅,排队排了两个小时,味道还可以就是有点辣,回家的时候地铁已经停运了只能打车。", 37, 53),
        ("合同双方应当按照约定全面履行自己的义务,任何一方违反合同约定造成对方损失的,应当承担赔偿责任。", 35, 57),
    ],
    "japanese": [
        ("配送が遅くて残念でしたが、サポートの方がとても親切で助かりました。価格は少し高いですが、品質には満足しています。", 40, 57),
        ("次のレビューが肯定的か否定的かを一語で答えてください。箱がつぶれて届きましたが、商品は問題ありませんでした。", 36, 52),
        ("東京は日本の首都であり、人口は約千四百万人である。江戸時代から政治と経済の中心として発展してきた世界有数の都市である。", 44, 64),
        ("昨日友達とラーメン食べに行ったらめっちゃ並んでて、結局一時間待ったけど美味しかったからまた行きたいな。", 41, 55),
        (
            "本契約の当事者は、契約の内容を誠実に履行しなければならず、これに違反して相手方に損害を与えた場合はその損害を賠償する責任を負う。",
            61,
            79,
        ),
    ],
    "english": [
        (
            "The parcel arrived two days late and the box was torn, but the support team answered within an hour and sent a replacement at no cost.",
            28,
            28,
        ),
        (
            "Is this review positive, negative or mixed? Answer with one word. Battery died after a week. The shop says it is my fault. Never again.",
            31,
            31,
        ),
        (
            "Seoul is the capital of South Korea and has about 9.4 million inhabitants; the river Han runs through it from east to west.",
            29,
            29,
        ),
        (
            "so yesterday me and my friend went for hotpot, waited two hours in line lol, then missed the last train and had to grab a cab home",
            30,
            30,
        ),
        (
            "The parties shall perform this agreement in good faith, and a party in breach shall compensate the other for any damage that results from it.",
            27,
            27,
        ),
    ],
}


def asked(text: str, system: str = "") -> Request:
    turns = (Message("system", system), Message("user", text)) if system else (Message("user", text),)
    return Request(0, turns, Route("openai", "m"), Sampling(max_tokens=1))


@pytest.mark.parametrize(("script", "text", "counted"), [(k, t, n) for k, texts in COUNTED.items() for t, n, _ in texts])
def test_a_prompt_is_within_thirty_per_cent_of_what_a_tokenizer_of_today_counts(script: str, text: str, counted: int):
    estimate = TokenEstimate().of(asked(text * 20)) - 9  # the chat's own marks, and one token of an answer
    assert 0.7 <= estimate / (20 * counted) <= 1.3


@pytest.mark.parametrize("script", COUNTED)
@pytest.mark.parametrize("tokenizer", [1, 2])
def test_after_a_few_answers_it_is_the_servers_own_count(script: str, tokenizer: int):
    """Whichever tokenizer that has, and whatever it adds to a prompt."""
    learned = TokenEstimate()
    for text in COUNTED[script]:
        learned.record(Usage(text[tokenizer] + 12, 1), asked(text[0]))
    for text in COUNTED[script]:
        assert 0.7 <= (learned.of(asked(text[0])) - 1) / (text[tokenizer] + 12) <= 1.35


def test_what_no_server_says_is_not_learned_and_nonsense_has_a_bound():
    learned = TokenEstimate()
    for _ in range(20):
        learned.record(Usage(None, None), asked("word " * 100))
        learned.record(Usage(0, None), asked("word " * 100))
    assert learned.of(asked("word " * 100)) == TokenEstimate().of(asked("word " * 100))
    for _ in range(20):
        learned.record(Usage(10**12, 1), asked("word " * 100))
    assert learned.of(asked("word " * 100)) <= 501
    while learned.wants_prompts:
        learned.record(Usage(5, 1), asked(""))
    assert learned.of(asked("\ud800 한")) > 0


def test_a_prompt_without_text_and_a_long_one_cost_no_time():
    assert TokenEstimate().of(asked("")) == 9
    assert TokenEstimate().of(asked("한" * 1_000_000, "system")) > 600_000
