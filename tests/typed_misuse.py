"""What a type checker refuses in somebody's own program, line by line. Never run: see typed_use.py. The comment names mypy's reason."""

from __future__ import annotations

import holynb

run = holynb.infer("What is a cache?", 5)  # refused: arg-type
run.wait("soon")  # refused: arg-type
run.frames()  # refused: attr-defined
rows: int = run.rows()  # refused: assignment
holynb.last.cancel()  # refused: union-attr
holynb.runs.append(run)  # refused: attr-defined
holynb.load_ipython_extension()  # refused: call-arg
holynb.infers("What is a cache?")  # refused: attr-defined
