"""`holynb doctor`: what works on this machine, and the command that fixes what does not. Read-only: starts and writes nothing. It
asks servers of this machine that the settings name for their models, and with `--ask` each provider whose key is there.
"""

from __future__ import annotations

from holynb.doctor.report import checks, text

__all__ = ["checks", "text"]
