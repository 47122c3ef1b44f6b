"""How many tokens an attachment counts for, by each vendor's published rule: the fewest and the most. Pure; knows no price.

Where a vendor publishes several rules, or a model's is not known, the range spans them. The figures of Gemini 3 and of GPT-5.4 and later
are as others report them, not read on the vendor's own page. The pages, 2026-11-29:

OpenAI     tiles of 512 px (gpt-4o and kin, o1, o3, gpt-5) or patches of 32 px times a factor, at most so many a picture:
           https://platform.openai.com/docs/guides/images-vision (openai-hd4n6.mintlify.app/docs/guides/images; newer models as reported)
Anthropic  width × height / 750 after scaling to 1,568 px; newer models to 2,576 px and 4,784 tokens; a PDF's page 1,500 to 3,000 of text,
           and its picture: https://platform.claude.com/docs/en/build-with-claude/vision, …/pdf-support
Gemini     2.x: 258 up to 384 px, else 258 a tile; 3 and later: 1,120 a picture, 560 a page; sound 32 a second:
           https://ai.google.dev/gemini-api/docs/media-resolution, …/tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache

from holynb.attached import Attachment

__all__ = ["tokens"]

#: Tokens of a picture by its width and height: the fewest and the most.
Rule = Callable[[int, int], tuple[int, int]]

#: A picture whose size is not known, in pixels; and pages of a PDF, and seconds of a sound, where their number is not known.
_LARGE = (8000, 8000)
_PAGES, _SECONDS_PER_BYTE = (1, 100), (1 / 40_000, 1 / 4_000)
#: Tokens of text on a page, as Anthropic says; others are not told apart.
_TEXT_OF_PAGE = (0, 3000)
#: A page as a picture, where its vendor does not say what it costs.
_PAGE_PIXELS = (1700, 2200)
#: Tokens a second of sound: Gemini's, and ten a second of OpenAI's audio models.
_SOUND = (10, 32)


def tokens(model: str, attachment: Attachment) -> tuple[int, int]:
    """The fewest and the most input tokens of an attachment that is sent to this model; `model` may have a vendor's name before a slash."""
    if attachment.problem is not None:
        return 0, 0
    name = model.rpartition("/")[2].lower()
    return _counted(name, attachment.group, _scaled(attachment), attachment.pages, _seconds(attachment))


@lru_cache(maxsize=4096)
def _counted(name: str, group: str, pixels: tuple[int, int] | None, pages: int | None, seconds: tuple[float, float]) -> tuple[int, int]:
    if group == "pdf":
        low, high = _page(name)
        return low * (pages or _PAGES[0]), high * (pages or _PAGES[1])
    if group == "audio":
        return int(seconds[0] * _SOUND[0]), math.ceil(seconds[1] * _SOUND[1])
    rule = _rule(name)
    return rule(*pixels) if pixels is not None else (rule(32, 32)[0], rule(*_LARGE)[1])


def _scaled(attachment: Attachment) -> tuple[int, int] | None:
    """Width and height as they are sent."""
    if attachment.pixels is None or attachment.longest is None:
        return attachment.pixels
    factor = min(1.0, attachment.longest / max(attachment.pixels))
    return max(1, round(attachment.pixels[0] * factor)), max(1, round(attachment.pixels[1] * factor))


def _seconds(attachment: Attachment) -> tuple[float, float]:
    if attachment.group != "audio":
        return 0.0, 0.0
    if attachment.seconds is not None:
        return attachment.seconds, attachment.seconds
    size = attachment.size or 0
    return size * _SECONDS_PER_BYTE[0], size * _SECONDS_PER_BYTE[1]


# -- rules ---------------------------------------------------------------------------------------------------------------
def _tiles(base: int, tile: int) -> Rule:
    """OpenAI's tiles: fitted into 2,048 px, the shorter side brought down to 768, and divided into squares of 512."""

    def rule(width: int, height: int) -> tuple[int, int]:
        factor = min(1.0, 2048 / max(width, height))
        width, height = width * factor, height * factor  # type: ignore[assignment]
        factor = min(1.0, 768 / min(width, height))
        count = math.ceil(round(width * factor, 3) / 512) * math.ceil(round(height * factor, 3) / 512)
        return base + tile * count, base + tile * count

    return rule


def _patches(factor: float, most: int) -> Rule:
    """OpenAI's patches of 32 px, at most `most`: a larger picture is scaled down until as many cover it."""

    def rule(width: int, height: int) -> tuple[int, int]:
        count = math.ceil(min(math.ceil(width / 32) * math.ceil(height / 32), most) * factor)
        return count, count

    return rule


def _between(fewest: Rule, most: Rule) -> Rule:
    """Two rules, where what is published and what was billed differ."""
    return lambda width, height: (fewest(width, height)[0], most(width, height)[1])


def _anthropic(side: int, most: int) -> Rule:
    def rule(width: int, height: int) -> tuple[int, int]:
        def area(side: int, most: int) -> int:
            factor = min(1.0, side / max(width, height))
            return min(most, max(1, math.ceil(width * factor * height * factor / 750)))

        return area(1568, 1600), area(side, most)

    return rule


def _gemini_tiles(width: int, height: int) -> tuple[int, int]:
    if max(width, height) <= 384:
        return 258, 258
    unit = min(768, max(256, math.floor(min(width, height) / 1.5)))
    count = math.ceil(width / unit) * math.ceil(height / unit)
    return 258, 258 * min(count, 100)


def _unknown(width: int, height: int) -> tuple[int, int]:
    """A model whose rule is not known, as those that people serve themselves: from one small tile to a token for each 28 × 28 px."""
    count = math.ceil(width / 28) * math.ceil(height / 28)
    return min(64, count), min(max(1600, count), 16_384)


#: Patterns of models, the first that fits → their rule.
_RULES: tuple[tuple[str, Rule], ...] = (
    ("echo", lambda width, height: (258, 258)),
    ("gpt-4o-mini*", _tiles(2833, 5667)),
    ("gpt-4.1-mini*", _patches(1.62, 1536)),
    ("gpt-4.1-nano*", _patches(2.46, 1536)),
    ("gpt-5-mini*", _patches(1.62, 1536)),
    ("gpt-5-nano*", _patches(2.46, 1536)),
    # The vendor's page says 1.62 and 2.46 of 1,536 patches; 1.2 of 2,500 was billed (community.openai.com/t/1377015, March 2026).
    ("gpt-5.4-mini*", _between(_patches(1.2, 1536), _patches(1.62, 2500))),
    ("gpt-5.4-nano*", _between(_patches(1.2, 1536), _patches(2.46, 2500))),
    ("o4-mini*", _patches(1.72, 1536)),
    ("gpt-4o*", _tiles(85, 170)),
    ("gpt-4.1*", _tiles(85, 170)),
    ("gpt-5", _tiles(70, 140)),
    ("gpt-5-20*", _tiles(70, 140)),
    ("gpt-5.1*", _tiles(70, 140)),
    ("o[13]*", _tiles(75, 150)),
    ("gpt-*", _between(_patches(1.0, 1536), _patches(1.2, 10_000))),  # 1.2 was billed for gpt-5.2 to 5.4 (as above), and is on no page
    ("*claude-opus-4-[7-9]*", _anthropic(2576, 4784)),
    ("*claude-opus-5*", _anthropic(2576, 4784)),
    ("*claude-sonnet-5*", _anthropic(2576, 4784)),
    ("*claude-haiku-5*", _anthropic(2576, 4784)),
    ("*claude*", _anthropic(1568, 1600)),
    ("*gemini-[12]*", _gemini_tiles),
    ("*gemini*", lambda width, height: (258, 1120)),
)


@lru_cache(maxsize=256)
def _rule(name: str) -> Rule:
    return next((rule for pattern, rule in _RULES if fnmatchcase(name, pattern)), _unknown)


def _page(name: str) -> tuple[int, int]:
    """Tokens of a PDF's page: the page as a picture, and its text."""
    if "gemini" in name:
        return (258, 258) if fnmatchcase(name, "*gemini-[12]*") else (258, 560)
    low, high = _rule(name)(*_PAGE_PIXELS)
    return (1500 if "claude" in name else min(low, 300)), high + _TEXT_OF_PAGE[1]
