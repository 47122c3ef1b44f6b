"""Jupyter and where it runs: what the front end can show, and what is different on hosted notebooks."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from holynb.doctor.check import Check, installed

__all__ = ["front_end", "jupyter", "place"]

#: The variable that a hosted notebook sets → its name and what is different there. What is said of VS Code, Colab and Kaggle is read in
#: their documentation, not tried.
PLACES: Mapping[str, tuple[str, str]] = {
    "COLAB_RELEASE_TAG": (
        "Google Colab",
        "the live table is drawn; a click on it waits for the end of the cell. A folder on Drive keeps HOLYNB_HOME",
    ),
    "KAGGLE_KERNEL_RUN_TYPE": (
        "Kaggle",
        "needs Internet switched on in the notebook's settings; HOLYNB_HOME=/kaggle/working/holynb is kept",
    ),
    "JUPYTERHUB_USER": (
        "JupyterHub",
        "your pools and your run log are your own; a pool's port serves others with: holynb pool token add NAME",
    ),
    "BINDER_SERVICE_HOST": ("Binder", "one or two cores and 1 to 2 GB; nothing is kept after it closes"),
    "CODESPACES": ("GitHub Codespaces", "keys belong in its secrets; ports are forwarded to you alone"),
    "VSCODE_PID": ("VS Code", "the live table is drawn; a click on it waits for the end of the cell"),
    "WSL_DISTRO_NAME": ("WSL", "as on Linux; keep HOLYNB_HOME off /mnt/c, where files are slow"),
}

#: Oldest majors whose pages our live table is drawn on.
_MAJORS = {"jupyterlab": 4, "notebook": 7, "ipywidgets": 8}


def jupyter() -> Iterator[Check]:
    kernel = installed("ipykernel")
    if kernel is None:
        yield Check("Jupyter", "absent", "no ipykernel: holynb works from IPython and scripts", "pip install 'holynb[lab]'")
        return
    if kernel.startswith("7.0."):
        yield Check("Jupyter", "broken", f"ipykernel {kernel} loses widget updates from threads", "pip install -U 'ipykernel!=7.0.*'")
        return
    lab = installed("jupyterlab")
    says = f"ipykernel {kernel}, {f'JupyterLab {lab}' if lab else 'no JupyterLab in this environment'}"
    handles_clicks = tuple(int(p) for p in kernel.split(".")[:2]) >= (7, 4)
    yield Check("Jupyter", "works", says + ("" if handles_clicks else "; buttons respond while a cell runs from ipykernel 7.4 on"))


def front_end() -> Iterator[Check]:
    """Versions that are too old for the live table."""
    for name, least in _MAJORS.items():
        found = installed(name)
        if found is not None and found.split(".")[0].isdigit() and int(found.split(".")[0]) < least:
            yield Check(name, "broken", f"{name} {found} is too old for the live table", f"pip install -U '{name}>={least}'")
    if installed("ipykernel") and importlib.util.find_spec("anywidget") is None:
        yield Check("anywidget", "broken", "not in this kernel's environment, so the live table cannot be drawn", "pip install -U holynb")
    server = os.environ.get("JPY_PARENT_PID") and os.environ.get("VIRTUAL_ENV")
    if server and not Path(sys.prefix).samefile(server):
        says = f"this kernel runs in {sys.prefix}, and its server was started in {server}"
        yield Check("environment", "works", f"{says}: holynb must be installed in the kernel's")


def place() -> Iterator[Check]:
    """Where this runs, where it is none of one's own machines."""
    for variable, (name, says) in PLACES.items():
        if os.environ.get(variable):
            yield Check("place", "works", f"{name}: {says}")
            return
    if platform.system() == "Windows":
        yield Check("place", "works", "Windows: hosted models work; local pools run in WSL")
