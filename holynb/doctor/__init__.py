"""`holynb doctor`: what works on this machine, and the command that fixes what does not. Read-only: starts and writes nothing, and sends
nothing but with `--ask`, which asks each provider whose key is there for its list of models.
"""

from __future__ import annotations

from holynb.doctor.report import checks, text

__all__ = ["checks", "text"]
