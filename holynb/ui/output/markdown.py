"""Markdown of a model as HTML, by an allow-list: headings, lists, tables, code, emphasis, links to http and https. Pure; loads nothing.

A library reads it (markdown-it-py); what is written is said here, token by token, and a token that has no line here is escaped text. Raw
HTML is text, a picture is the link to it, and every link shows its address. Reading and writing are bounded in size, depth and time:
where a bound is met there is no HTML, and the caller shows the text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from holynb.ui.output.html import safe
from holynb.ui.output.text import clean, clip

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

__all__ = ["MAX_CHARS", "MAX_HTML_CHARS", "MAX_NESTING", "MAX_SECONDS", "as_html", "fenced"]

#: Of a text, of what is written for it, of lists and quotes inside each other, of this thread's time.
MAX_CHARS, MAX_HTML_CHARS, MAX_NESTING, MAX_SECONDS = 100_000, 400_000, 40, 0.5
#: A wider table is shown as its source; of an address behind its link.
MAX_TABLE_COLUMNS, MAX_ADDRESS_CHARS = 60, 200
#: Steps between two looks at the clock, which cost as much as a step.
STEPS_A_LOOK = 32

_AUTO = ' dir="auto"'
#: Tokens that are a tag, with the attributes that each has. A heading stands below those of the notebook.
_TAGS = {
    "paragraph": ("p", _AUTO),
    "blockquote": ("blockquote", _AUTO),
    "bullet_list": ("ul", ""),
    "list_item": ("li", _AUTO),
    "em": ("em", ""),
    "strong": ("strong", ""),
    "s": ("s", ""),
    "table": ("table", ""),
    "thead": ("thead", ""),
    "tbody": ("tbody", ""),
    "tr": ("tr", ""),
}
_HEADINGS = {"h1": "h3", "h2": "h4", "h3": "h5"}
_ALIGNED = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}
_CELL_END = re.compile(r"(?<!\\)\|")
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d+)?", re.ASCII)
#: Lists and quotes can hold each other: only these nest without an end.
_BLOCKS_THAT_END = ["paragraph", "blockquote", "list"]


class _TooMuchError(Exception):
    """A bound was met."""


def as_html(text: str) -> str | None:
    """`text` as HTML; None where it is too long, too deep, or takes too long."""
    tokens = _tokens(text)
    if tokens is None:
        return None
    lines, out, size = clean(text).split("\n"), list[str](), 0
    for piece in _blocks(tokens, lines):
        size += len(piece)
        if size > MAX_HTML_CHARS:
            return None
        out.append(piece)
    return f'<div class="holynb-markdown">{"".join(out)}</div>'


def fenced(text: str) -> list[str]:
    """The contents of its fenced blocks; none where it cannot be read."""
    return [t.content.removesuffix("\n") for t in _tokens(text) or () if t.type == "fence"]


# -- reading -----------------------------------------------------------------------------------------------------------
def _tokens(text: str) -> list[Token] | None:
    text = clean(text[: MAX_CHARS + 1])
    if len(text) > MAX_CHARS:
        return None
    try:
        return _reader().parse(text, {"until": time.thread_time() + MAX_SECONDS, "steps": 0})
    except (_TooMuchError, RecursionError):
        return None


@cache
def _reader() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # What is nested deeper in a line is text; blocks that are would be left out by the library, so they are refused below.
    reader = MarkdownIt("commonmark", {"html": False, "maxNesting": 2 * MAX_NESTING}).enable(["table", "strikethrough"])
    # A definition is text as well: what a reader of the page does not see is no part of an answer.
    reader.disable(["html_block", "html_inline", "reference"])
    reader.block.ruler.before("table", "bound", _bound_blocks, {"alt": _BLOCKS_THAT_END})
    reader.inline.ruler.before("text", "bound", _bound_line)
    reader.validateLink = lambda url: True  # type: ignore[method-assign] # told with its address; `_link` says which can be clicked
    return reader


def _bound_blocks(state: Any, _start: int, _end: int, _silent: bool) -> bool:
    if state.level >= MAX_NESTING:
        raise _TooMuchError
    return _bound_line(state, True)


def _bound_line(state: Any, _silent: bool) -> bool:
    state.env["steps"] += 1
    if state.env["steps"] % STEPS_A_LOOK == 0 and time.thread_time() > state.env["until"]:
        raise _TooMuchError
    return False


# -- writing -----------------------------------------------------------------------------------------------------------
def _blocks(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[str]:
    """The pieces of the document, in their order."""
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if token.type == "table_open" and not _fits(source := lines[slice(*(token.map or (0, 0)))], _columns(tokens, i)):
            yield _code("\n".join(source))
            i = next(k for k in range(i, len(tokens)) if tokens[k].type == "table_close")
        elif token.type == "inline":
            yield from _inline(token.children or ())
        elif not token.hidden:  # the paragraphs of a tight list
            yield _block(token)
        i += 1


def _columns(tokens: Sequence[Token], i: int) -> int:
    """Of the table that begins at `i`."""
    n = 0
    for token in tokens[i:]:
        if token.type == "tr_close":
            return n
        n += token.type == "th_open"
    return n


def _fits(source: Sequence[str], columns: int) -> bool:
    """Whether a table is not too wide, and no row has more cells than its head, which the library would leave out."""
    return columns <= MAX_TABLE_COLUMNS and all(len(_CELL_END.findall(line.strip().strip("|"))) < columns for line in source)


def _block(token: Token) -> str:
    kind, opens = token.type.removesuffix("_open").removesuffix("_close"), token.nesting > 0
    if token.nesting == 0:
        return "<hr>" if kind == "hr" else _code(token.content, token.info) if kind in ("fence", "code_block") else safe(token.content)
    if kind == "heading":
        tag = _HEADINGS.get(token.tag, "h6")
        return f"<{tag}{_AUTO}>" if opens else f"</{tag}>"
    if kind == "ordered_list":
        start = token.attrs.get("start", 1)
        return (f'<ol start="{start}">' if isinstance(start, int) and start != 1 else "<ol>") if opens else "</ol>"
    if kind in ("th", "td"):
        # On each cell: JupyterLab sets those that say nothing flush right.
        align = _ALIGNED.get(str(token.attrs.get("style", "")), "start")
        return f'<{kind}{_AUTO} style="text-align:{align}">' if opens else f"</{kind}>"
    return _tag(token, kind)


def _tag(token: Token, kind: str) -> str:
    if kind not in _TAGS:
        return safe(token.content or token.markup)
    tag, attributes = _TAGS[kind]
    return f"<{tag}{attributes}>" if token.nesting > 0 else f"</{tag}>"


def _inline(children: Sequence[Token]) -> Iterator[str]:
    link: Token | None = None  # links do not hold each other
    for i, token in enumerate(children):
        kind = token.type.removesuffix("_open").removesuffix("_close")
        if kind == "link":
            yield _link_start(token) if token.nesting > 0 else _link_end(link or token, _label(children, i))
            link = token if token.nesting > 0 else None
        elif kind in ("softbreak", "hardbreak"):
            yield "<br>"  # a line of a model's answer is a line
        elif kind == "code_inline":
            yield f"<code>{safe(token.content)}</code>"
        elif kind == "image":
            name = token.content or "picture"
            yield safe(name) if link is not None else f"{_link_start(token)}{safe(name)}{_link_end(token, name)}"
        else:
            yield _tag(token, kind) if token.nesting else safe(token.content)


def _code(text: str, language: str = "") -> str:
    name = language.strip()  # whole: what stands behind a fence may be the answer itself, on one line
    return (f'<div class="holynb-note">{safe(name)}</div>' if name else "") + f'<pre class="holynb-code"><code>{safe(text)}</code></pre>'


# -- links -------------------------------------------------------------------------------------------------------------
def _label(children: Sequence[Token], end: int) -> str:
    """The words of the link that is closed at `end`."""
    start = next(k for k in range(end, -1, -1) if children[k].type == "link_open")
    return "".join(t.content for t in children[start:end])


def _address(token: Token) -> str:
    return clean(str(token.attrs.get("href") or token.attrs.get("src") or ""))


def _is_web(address: str) -> bool:
    """Whether it is of http or https and has a host, without a user before it, who would look like one."""
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) is not None and address.isascii()
    except ValueError:
        return False


def _link_start(token: Token) -> str:
    address = _address(token)
    return f'<a href="{safe(address)}" rel="noopener noreferrer nofollow" target="_blank">' if _is_web(address) else ""


def _link_end(token: Token, label: str) -> str:
    """The end of a link, and its address and title in words."""
    address, title = _address(token), clean(str(token.attrs.get("title") or ""))
    bare = address.rstrip("/")
    told = label.strip().rstrip("/") in (bare, bare.partition("://")[2])
    words = " ".join(w for w in ("" if told else clip(address, MAX_ADDRESS_CHARS), f'"{title}"' if title else "") if w)
    end = "</a>" if _is_web(address) else ""
    return f'{end} <span class="holynb-address">({safe(words)})</span>' if words else end
