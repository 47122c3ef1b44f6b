"""What attachments count for, against the examples that the vendors publish."""

from __future__ import annotations

import pytest
from pictures import PDF, PNG, WAV, attached

from holynb.attached import Attachment
from holynb.attachments import tokens


def picture(width: int, height: int, longest: int | None = None) -> Attachment:
    return Attachment("image/png", "d", "n", pixels=(width, height), longest=longest)


@pytest.mark.parametrize(
    ("model", "size", "count"),
    [
        # platform.openai.com/docs/guides/images-vision
        ("gpt-4o", (1024, 1024), 765),
        ("gpt-4o-2024-08-06", (2048, 4096), 1105),
        ("gpt-4.1-mini", (1024, 1024), 1659),  # 1024 patches × 1.62
        ("gpt-4o-mini", (512, 512), 2833 + 5667),
        ("o1", (1024, 1024), 75 + 4 * 150),
        # docs.claude.com/en/docs/vision: 200 × 200 is about 54, 1000 × 1000 about 1,334
        ("claude-haiku-4-5", (200, 200), 54),
        ("anthropic/claude-sonnet-4.5", (1000, 1000), 1334),
        ("us.anthropic.claude-opus-4-6-v1", (8000, 8000), 1600),
        # ai.google.dev/gemini-api/docs/tokens
        ("gemini-2.5-flash", (384, 384), 258),
    ],
)
def test_a_picture_counts_as_its_vendor_says(model: str, size: tuple[int, int], count: int):
    low, high = tokens(model, picture(*size))
    assert low <= count <= high
    assert high == count


def test_a_newer_model_of_anthropic_sees_more_of_a_large_picture():
    assert tokens("claude-opus-5-5", picture(8000, 8000)) == (1600, 4784)
    assert tokens("claude-opus-5-5", picture(1000, 1000)) == (1334, 1334)


def test_scaling_down_counts_less_and_a_size_that_is_not_known_counts_as_the_largest():
    assert tokens("gpt-4o", picture(4000, 4000, longest=512)) == tokens("gpt-4o", picture(512, 512))
    unknown = Attachment("", "d", "https://example.com/a.png")
    for model in ("gpt-4o", "claude-opus-5-5", "gemini-3.8-flash", "gpt-6-luna", "qwen"):
        low, high = tokens(model, unknown)
        assert 0 < low <= tokens(model, picture(300, 200))[0]
        assert high >= tokens(model, picture(8000, 8000))[1]


def test_pages_and_seconds():
    assert tokens("claude-haiku-4-5", attached(PDF))[0] == 3 * 1500
    assert tokens("gemini-2.5-flash", attached(PDF)) == (774, 774)
    assert tokens("gemini-3.8-flash", attached(WAV))[1] == 65  # two seconds and a header, 32 a second
    assert tokens("gpt-4o", attached(b"no picture")) == (0, 0)
    assert tokens("gpt-4o", attached(PNG)) == (255, 255)


def test_what_was_billed_above_what_is_published_is_within_the_range():
    for model in ("gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano", "gpt-5.2"):
        low, high = tokens(model, Attachment("image/png", "x", "x", size=1, pixels=(1600, 1600)))
        assert low <= 2500 * 1.2 <= high, model
