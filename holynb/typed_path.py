"""A path as a person types it: what is there, and no when that cannot be known. Standard library only.

pathlib raises where a name is longer than any file's, lies in a folder that may not be looked into, or begins with the home of nobody.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_file", "is_folder", "is_there", "typed"]


def typed(text: str) -> Path:
    """The path that was typed; `~` is the home folder, and `~nobody` stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - see above


def is_there(path: Path) -> bool:
    """Whether there is a file or a folder."""
    return os.path.exists(path)  # noqa: PTH110 - see above


def is_file(path: Path) -> bool:
    """Whether there is a file."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def is_folder(path: Path) -> bool:
    """Whether there is a folder."""
    return os.path.isdir(path)  # noqa: PTH112 - see above
