"""The files of `ui/assets` as the page gets them. Knows none of them."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

__all__ = ["asset", "squeeze"]


@cache
def asset(*names: str) -> str:
    """Files of `assets` as one text, without what only a reader of the source needs: it is sent for every view."""
    text = "\n".join((resources.files("holynb.ui") / "assets" / name).read_text(encoding="utf-8") for name in names)
    if all(name.endswith(".css") for name in names):
        return re.sub(r"\s*([{};])\s*|(?<=[,:])\s+", r"\1", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)).replace(";}", "}").strip()
    lines = (line.strip() for line in text.splitlines())
    kept = (line for line in lines if line and not line.startswith(("//", "/** ")))
    # A comment at a line's end ends with the line; elsewhere what stands before says that it goes on.
    return "".join(line if line.endswith((";", "{", ",", "(", "[")) and "//" not in line else f"{line}\n" for line in kept)


#: What has its spaces for a reason, or, beginning with //, none at all: strings, templates (one in another), patterns, comments.
_INNER = r"`(?:\\.|[^`\\])*`"
_TOLD_APART = re.compile(
    r'"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])*'"
    rf"|`(?:\\.|\$\{{(?:[^{{}}`]|{_INNER}|\{{[^{{}}]*\}})*\}}|[^`\\])*`"
    r"|(?<=[(=,:!&|?\[ ])/(?![*/ ])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*"
    r"|[ ]*//[^\n]*"
)
_SPACED = re.compile(r" ?(=>|===|!==|&&|\|\||\?\?|[<>]=?|[=?:,{}()*;\[\]]) ?")


def squeeze(script: str) -> str:
    """A script without the spaces around its signs and without comments at the ends of lines: a tenth of its bytes."""
    out, at = [], 0
    for kept in _TOLD_APART.finditer(script):
        out += [_SPACED.sub(r"\1", script[at : kept.start()]), "" if kept[0].lstrip().startswith("//") else kept[0]]
        at = kept.end()
    return "".join([*out, _SPACED.sub(r"\1", script[at:])])
