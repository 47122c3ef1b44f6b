"""`python -m holynb` is the console command."""

from __future__ import annotations

import sys

from holynb.cli import main

if __name__ == "__main__":
    sys.exit(main())
