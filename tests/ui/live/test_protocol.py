"""The wire between kernel and page: both halves have the same fields, and what a page sends is checked."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest

from holynb.ui.live.again import AGAIN
from holynb.ui.live.assets import DRAWING, asset
from holynb.ui.live.protocol import (
    ROW_FIELDS,
    DeltaMessage,
    DetailMessage,
    DetailRequest,
    ExportedMessage,
    ExportRequest,
    Head,
    PageReady,
    Row,
    SnapshotMessage,
    StopRequest,
    VisibleRange,
    encode_row,
    parse_page_message,
)


def test_rows_are_encoded_and_decoded_in_the_same_order() -> None:
    """Ten thousand of them come as bare arrays: the page knows a value's field by its index alone."""
    listed = re.search(r"const ROW_FIELDS = (\[.*\]);", asset("protocol.js"))
    assert listed is not None
    assert json.loads(listed[1]) == list(ROW_FIELDS) == [f.name for f in fields(Row)]
    row = Row(3, "ok", cached=True, text="nothing", tokens_in="7", tokens_out="1", cost="$1", latency_s="2 s", attempts=4, score="5")
    assert encode_row(row) == [3, "ok", True, "nothing", "7", "1", "$1", "2 s", 4, "5"]
    assert Row(*json.loads(json.dumps(encode_row(row)))) == row


def test_the_page_reads_no_field_that_no_message_has() -> None:
    own = asset(*(name for name in (*DRAWING, *AGAIN) if name != "uplot.js"))
    assert set(re.findall(r"\bhead\.([a-z_]+)\b(?! *\()", own)) <= {*Head.__annotations__, "node"}
    sent = {name for kind in (SnapshotMessage, DeltaMessage, DetailMessage, ExportedMessage) for name in kind.__annotations__}
    assert set(re.findall(r"\bmessage\.([a-z_]+)\b", own)) <= sent


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"cmd": "stop"}, StopRequest()),
        ({"cmd": "ready", "page": "a", "seq": 3, "width": 560}, PageReady("a", 3, 560)),
        ({"cmd": "ready", "page": "a", "seq": 3, "width": 0}, PageReady("a", 3, None)),
        ({"cmd": "ready", "page": "a", "seq": 3}, PageReady("a", 3, None)),
        ({"cmd": "detail", "row": 7}, DetailRequest(7)),
        ({"cmd": "detail", "row": 7, "format": "markdown"}, DetailRequest(7, "markdown")),
        ({"cmd": "detail", "row": 7, "format": "html"}, DetailRequest(7)),
        ({"cmd": "detail", "row": 7, "format": ["markdown"]}, DetailRequest(7)),
        ({"cmd": "visible", "first": 2, "last": 9}, VisibleRange(2, 9)),
        ({"cmd": "visible", "first": 2}, None),
        ({"cmd": "detail", "row": "7"}, None),
        ({"cmd": "export", "what": "csv", "safe": True, "rows": []}, ExportRequest("csv", safe=True)),
        ({"cmd": "export", "what": "copy", "safe": "yes", "rows": [3, "4", True, 1]}, ExportRequest("copy", rows=(3, 1))),
        ({"cmd": "export", "what": "exe"}, None),
        ({"cmd": "format"}, None),
        ("stop", None),
        (None, None),
    ],
)
def test_messages_of_the_page_are_parsed_and_nonsense_is_none(content: Any, message: Any) -> None:
    assert parse_page_message(content) == message
