"""Where holynb keeps everything: HOLYNB_HOME, else the platform's user data directory; and which of it is the user's own word."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from holynb.config import dotenv
from holynb.errors import BadSetting
from kernels_support.jupyter.files import private_folder

__all__ = ["config_file", "home", "is_own_config", "own_home"]


def home() -> Path:
    """The folder of everything holynb keeps: HOLYNB_HOME, else the platform's user data directory. Made 0700. Raises BadSetting."""
    folder = Path(_folder())
    try:
        private_folder(folder)
    except OSError as exc:
        raise BadSetting(f"{folder} cannot be used to keep runs and settings: {exc.strerror}. Set HOLYNB_HOME to another folder.") from exc
    return folder


def _folder() -> str:
    if folder := os.environ.get("HOLYNB_HOME"):
        return os.path.expanduser(folder)  # noqa: PTH111 - called with every price: ten times as quick as a Path
    return _default()


def _default() -> str:
    import platformdirs

    return platformdirs.user_data_dir("holynb", appauthor=False)


def own_home() -> Path:
    """Where the user's own word is kept: `home()`, or the platform's folder where a `.env` of the project names HOLYNB_HOME.

    holynb takes no HOLYNB_HOME from a `.env`, but an editor may have: then what lies there comes from the project.
    """
    return Path(_own_folder())


def _own_folder() -> str:
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # the working directory was removed
        return _folder()
    return _default() if _is_home_of_project(os.environ.get("HOLYNB_HOME"), here) else _folder()


@lru_cache(maxsize=8)
def _is_home_of_project(named: str | None, folder: str) -> bool:  # noqa: ARG001 - key of the cache: where a `.env` is looked for
    return bool(named) and dotenv.read_variable("HOLYNB_HOME")[1] is not None


def config_file() -> str:
    """The path of the user's configuration, whether there is one or not."""
    return os.path.join(_folder(), "config.toml")  # noqa: PTH118


def is_own_config(path: str) -> bool:
    """Whether this file is the user's own word."""
    return path == os.path.join(_own_folder(), "config.toml")  # noqa: PTH118
