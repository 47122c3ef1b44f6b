"""Text in any language survives any cutting into tokens; stop strings survive any cutting into pieces; templates run in a sandbox."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fake import byte_model

from holynb.pool.server.tokenizer import ChatTokenizer, Detokenizer, StopStrings, TemplateError, TokenizerFileError

TRICKY = "안녕하세요 👩‍👩‍👧 naïve\u0301 日本語\n\ttabs — “quotes” \U0001f1f0\U0001f1f7"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(byte_model(tmp_path_factory.mktemp("model")))


@given(text=st.text(st.characters(exclude_categories=["Cs"])), sizes=st.lists(st.integers(1, 7), min_size=1))
def test_pieces_join_to_the_whole_and_hold_no_broken_character(words: ChatTokenizer, text: str, sizes: list[int]) -> None:
    ids = words.encode(text + TRICKY)
    detokenizer, pieces, at = Detokenizer(words), [], 0
    while at < len(ids):
        size = sizes[at % len(sizes)]
        pieces.append(detokenizer.push(ids[at : at + size]))
        at += size
    pieces.append(detokenizer.finish())
    assert "".join(pieces) == text + TRICKY
    if "\ufffd" not in text:
        assert not any("\ufffd" in p for p in pieces)


def test_bytes_that_never_become_a_character_are_shown_at_the_end(words: ChatTokenizer) -> None:
    detokenizer = Detokenizer(words)
    half = list("한".encode())[:2]
    assert detokenizer.push([65, *half]) == ""
    assert detokenizer.finish().startswith("A\ufffd")
    assert detokenizer.finish() == ""


def test_broken_bytes_in_the_middle_do_not_hold_the_rest_back(words: ChatTokenizer) -> None:
    detokenizer = Detokenizer(words)
    text = detokenizer.push([0xED]) + detokenizer.push(list(b"abc")) + detokenizer.finish()
    assert text == "\ufffdabc"


def test_special_tokens_are_not_shown(words: ChatTokenizer) -> None:
    assert words.decode([104, 105, 256]) == "hi"
    assert words.eos == (256,)


@given(
    text=st.text("abEND", max_size=40),
    cuts=st.lists(st.integers(1, 5), min_size=1),
    stops=st.lists(st.text("abEND", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_is_found_wherever_it_is_cut(text: str, cuts: list[int], stops: list[str]) -> None:
    cutter, output, at, turn = StopStrings(stops), "", 0, 0
    while at < len(text):
        size = cuts[turn % len(cuts)]
        output += cutter.push(text[at : at + size])
        at, turn = at + size, turn + 1
        if cutter.hit:
            break
    output += cutter.push("", last=True)
    # The first stop that is complete ends the text, whatever the pieces: it is the one whose end comes first.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    if not ends:
        assert output == text
        assert not cutter.hit
    else:
        assert cutter.hit
        assert output in {text[:start] for _, start in ends}


def test_what_may_begin_a_stop_is_held_back() -> None:
    cutter = StopStrings(["</end>"])
    assert cutter.push("text </e") == "text "
    assert cutter.push("m>") == "</em>"
    assert cutter.push("<") == ""
    assert cutter.push("", last=True) == "<"


def folder(tmp_path: Path, **config: object) -> Path:
    place = byte_model(tmp_path / "m")
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    return place


MESSAGES = [{"role": "user", "content": "hi"}]


def test_templates_of_all_three_places(tmp_path: Path) -> None:
    place = folder(
        tmp_path, chat_template=[{"name": "tool", "template": "no"}, {"name": "default", "template": "list {{ messages[0].content }}"}]
    )
    assert ChatTokenizer(place).chat(MESSAGES) == "list hi"
    (place / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert ChatTokenizer(place).chat(MESSAGES) == "list hi"
    (place / "tokenizer_config.json").write_text("{}")
    assert ChatTokenizer(place).chat(MESSAGES) == "json"
    (place / "chat_template.jinja").write_text(
        "{% for m in messages %}\n  {% if true %}\n{{ m | tojson }}{{ bos_token }}{% break %}{% endif %}{% endfor %}"
    )
    assert ChatTokenizer(place).chat(MESSAGES).strip() == '{"role": "user", "content": "hi"}'


def test_special_tokens_reach_the_template_in_both_spellings(tmp_path: Path) -> None:
    place = folder(tmp_path, bos_token={"content": "<s>"}, eos_token="</s>", chat_template="{{ bos_token }}x{{ eos_token }}{{ pad_token }}")
    assert ChatTokenizer(place).chat(MESSAGES) == "<s>x</s>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ raise_exception('only user turns') }}",
        "{{ messages[0].content + 1 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
    ],
)
def test_a_template_that_reaches_out_or_refuses_is_an_error(tmp_path: Path, template: str) -> None:
    with pytest.raises(TemplateError, match="refuses"):
        ChatTokenizer(folder(tmp_path, chat_template=template)).chat(MESSAGES)


def test_a_model_without_a_template_names_the_other_way(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="/v1/completions"):
        ChatTokenizer(folder(tmp_path)).chat(MESSAGES)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", "{", r"tokenizer.json is not a readable tokenizer .*Fetch the model again"),
        ("tokenizer_config.json", "{", r"tokenizer_config.json is not readable JSON .*Fetch the model again"),
        ("chat_template.jinja", "x\n{% for m in messages %}{{ m", r"chat template is not valid Jinja \(line 2: .*Fetch the model again"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, says: str) -> None:
    place = folder(tmp_path)
    (place / name).write_text(content)
    with pytest.raises(TokenizerFileError, match=says) as caught:
        ChatTokenizer(place)
    assert "\n" not in str(caught.value)


def test_ends_and_sampling_come_from_the_models_own_files(tmp_path: Path) -> None:
    place = folder(tmp_path, eos_token="<end>")
    (place / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9], "do_sample": True, "temperature": 0.2, "top_k": 5}))
    text = ChatTokenizer(place)
    assert text.eos == (7, 9, 256)
    assert text.defaults.sampling == {"temperature": 0.2, "top_k": 5}
    (place / "generation_config.json").write_text(json.dumps({"temperature": 0.2}))
    assert ChatTokenizer(place).defaults.sampling == {}, "greedy models keep their defaults to themselves"
