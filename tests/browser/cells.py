"""What the browser's tests type, and the wait for the live view."""

from __future__ import annotations

from typing import Any

ROWS = 'import pandas as pd\ndf = pd.DataFrame({"x": [f"review {i}" for i in range(%d)]}, index=[f"r{i}" for i in range(%d)])'
STREAM = "%%infer sim/stream --df df --stream --no-cache"
ASK = "\nSay what you think of {{ x }}"


def live(page: Any) -> None:
    page.until(lambda: page.there(".hn .hn-sizer .hn-row"), 20, "the live view")
