"""The files of `ui/assets` as the page gets them, and which of them draw a run."""

from __future__ import annotations

import base64
import re
import zlib
from functools import cache
from importlib import resources

__all__ = ["DRAWING", "asset", "packed"]

#: Joined into one ES module, in this order. uPlot is Leon Sorokin's, MIT (assets/uplot.LICENSE).
DRAWING = (
    "uplot.js",
    "page.js",
    "connection.js",
    "protocol.js",
    "charts.js",
    "table.js",
    "formats.js",
    "detail.js",
    "head.js",
    "quality.js",
    "live.js",
)

#: A module that only takes another out of its text. Wherever anywidget draws, modules may be imported from a Blob: it does so itself.
#: What a widget needs beyond that, browsers have had since 2023.
UNPACK = """// holynb's live view, deflated; its source is in holynb/ui/assets. With uPlot by Leon Sorokin (MIT, uplot.LICENSE there).
const inflate = (text) => {
  const packed = atob(text), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new DecompressionStream("deflate"), writer = stream.writable.getWriter();
  writer.write(bytes);
  writer.close();
  return new Response(stream.readable).text();
};
if (!window.DecompressionStream) throw new Error("This browser is too old for holynb's live view: use one of 2023 or later.");
const address = URL.createObjectURL(new Blob([await inflate("PACKED")], { type: "text/javascript" }));
export default (await import(address).finally(() => URL.revokeObjectURL(address))).default;
"""


@cache
def asset(*names: str) -> str:
    """Files of `assets` as one text, without what only a reader of the source needs: it is sent for every view."""
    text = "\n".join((resources.files("holynb.ui") / "assets" / name).read_text(encoding="utf-8") for name in names)
    if all(name.endswith(".css") for name in names):
        flat = " ".join(line for row in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).splitlines() if (line := row.strip()))
        for loose, tight in ((" {", "{"), ("{ ", "{"), (" }", "}"), ("} ", "}"), ("; ", ";"), (", ", ","), (": ", ":"), (";}", "}")):
            flat = flat.replace(loose, tight)
        return flat.strip()
    lines = (line.strip() for line in text.splitlines())
    kept = (line for line in lines if line and not line.startswith(("//", "/** ")))
    # A comment at a line's end ends with the line; elsewhere what stands before says that it goes on.
    return "".join(line if line.endswith((";", "{", ",", "(", "[")) and "//" not in line else f"{line}\n" for line in kept)


def packed(script: str) -> str:
    """An ES module that is `script` deflated: half of its bytes. The page inflates it, and imports it as anywidget imports any module."""
    return UNPACK.replace("PACKED", base64.b64encode(zlib.compress(script.encode(), 5)).decode())
