"""An answer as `--format` asks: text as it is, Markdown by an allow-list, the code in it, JSON indented. Pure.

What cannot be shown as asked (it is not JSON; its Markdown is too long) is shown as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from holynb.ui.output import markdown
from holynb.ui.output.html import safe
from holynb.ui.output.text import clean

__all__ = [
    "MAX_JSON_CHARS",
    "MAX_JSON_NESTING",
    "MAX_SWITCHED_CHARS",
    "STYLE",
    "TOO_MUCH",
    "as_html",
    "as_text",
    "indented",
    "looks_marked",
    "switched",
]

#: Of an answer that is there twice, as text and rendered.
MAX_SWITCHED_CHARS = 20_000

#: Each level is indented, so a deeper text would grow with the square of its length.
MAX_JSON_CHARS, MAX_JSON_NESTING = 400_000, 64
TOO_MUCH = "Shown as text: too long, or nested too deeply, to be rendered."

#: For what `as_html` writes; it stands beside it, where it is needed.
STYLE = """<style>
.holynb-other>summary{cursor:pointer;color:var(--jp-ui-font-color2,#808080);width:fit-content}
.holynb-other[open]+.holynb-shown{display:none}
.holynb-markdown{font-size:14px;line-height:1.5;max-width:70em;overflow-wrap:anywhere}
.holynb-markdown>:first-child{margin-top:2px}
.holynb-markdown :is(h3,h4,h5,h6){margin:.9em 0 .3em;font-size:14px;font-weight:600}
.holynb-markdown h3{font-size:18px}
.holynb-markdown h4{font-size:16px}
.holynb-markdown :is(p,ul,ol,blockquote){margin:.4em 0}
.holynb-markdown blockquote{padding:0 0 0 10px;border-inline-start:3px solid var(--jp-border-color2,#9e9e9e60);color:var(--jp-ui-font-color2,#808080)}
.holynb-markdown table{display:block;width:fit-content;max-width:100%;overflow:auto;border-collapse:collapse;margin:.5em 0;font-size:13px}
.holynb-markdown :is(th,td){padding:3px 10px;border:1px solid var(--jp-border-color2,#9e9e9e60);background:transparent;overflow-wrap:normal}
.holynb-markdown code,pre.holynb-code>code{font:13px/1.4 var(--jp-code-font-family,monospace);background:var(--jp-layout-color2,#80808018);color:inherit;padding:0 3px}
.holynb-markdown pre.holynb-code,pre.holynb-code{margin:.4em 0;padding:6px 10px;overflow:auto;white-space:pre;background:var(--jp-layout-color2,#80808018);color:inherit}
pre.holynb-code>code{background:none!important;padding:0!important;white-space:pre}
.holynb-markdown li>:is(ul,ol){margin:0}
.holynb-markdown a{color:var(--jp-content-link-color,#1976d2);text-decoration:underline}
.holynb-address,.holynb-markdown .holynb-note{color:var(--jp-ui-font-color2,#808080);font-size:12px;overflow-wrap:anywhere}
</style>"""

_TEXT_STYLE = "white-space:pre-wrap"
#: What a renderer would show in another way; cheap, and wrong only where it finds too much.
_MARKS = re.compile(r"^ {0,3}(?:#{1,6} |[-*+] |\d{1,9}[.)] |>|```|~~~|\|.*\|)|\*\*|__|`|\]\(|(?<!\w)[*_]\w|~~", re.MULTILINE)
_JSON_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_FENCED = re.compile(r"\s*```[^\n`]*\n(?P<inside>.*?)\n?```\s*", re.DOTALL)


def as_html(text: str, how: str) -> str:
    """`text`, shown as `how` says: text, markdown, code or json."""
    if how == "markdown":
        shown = markdown.as_html(text)
        return _text(text) + f'<div class="holynb-note">{TOO_MUCH}</div>' if shown is None else shown
    if how in ("code", "json") and (shown := as_text(text, how) if how == "code" else indented(text)) is not None:
        return f'<pre class="holynb-code"><code>{safe(shown)}</code></pre>'
    return _text(text)


def switched(text: str, how: str) -> str:
    """The same, with the other way of showing it folded above: opened without a script. Markdown is offered where there is some."""
    shown = as_html(text, how)
    if len(text) > MAX_SWITCHED_CHARS or (how == "text" and not looks_marked(text)):
        return (STYLE if how != "text" else "") + shown
    name, other = ("as Markdown", as_html(text, "markdown")) if how == "text" else ("as text", _text(text))
    if TOO_MUCH in other or shown == other:
        return shown
    fold = f'<details class="holynb-other"><summary>Show {name}</summary>{other}</details>'
    return f'{STYLE}{fold}<div class="holynb-shown">{shown}</div>'


def as_text(text: str, how: str) -> str:
    """The same for a terminal, where Markdown is text."""
    if how == "json":
        return clean(text) if (shown := indented(text)) is None else shown
    return clean("\n\n".join(markdown.fenced(text)) or text) if how == "code" else clean(text)


def looks_marked(text: str) -> bool:
    """Whether it may hold Markdown."""
    return _MARKS.search(text) is not None


def indented(text: str) -> str | None:
    """JSON with a value a line, each spelled as it was (digits, escapes, repeated names). None where it is not JSON, or is too much."""
    if len(text) > MAX_JSON_CHARS:
        return None
    text = clean(text)
    if (fence := _FENCED.fullmatch(text)) is not None:
        text = fence["inside"]
    try:
        json.loads(text, parse_int=str)  # Python refuses integers of very many digits
    except (ValueError, RecursionError):
        return None
    out = list(_lines(_JSON_PART.findall(text)))
    return None if "" in out else "".join(out)


def _lines(parts: list[str]) -> Iterator[str]:
    """The parts, with white space between them; an empty one where they are nested too deeply."""
    depth = 0
    for i, part in enumerate(parts):
        after = parts[i + 1] if i + 1 < len(parts) else ""
        if part in ("{", "["):
            depth += 1
            if depth > MAX_JSON_NESTING:
                yield ""
                return
            yield part if after in ("}", "]") else f"{part}\n{'  ' * depth}"
        elif part in ("}", "]"):
            depth -= 1
            yield part if parts[i - 1] in ("{", "[") else f"\n{'  ' * depth}{part}"
        elif part == ",":
            yield f",\n{'  ' * depth}"
        else:
            yield ": " if part == ":" else part


def _text(text: str) -> str:
    return f'<pre class="holynb-answer" dir="auto" style="{_TEXT_STYLE}">{safe(text)}</pre>'
