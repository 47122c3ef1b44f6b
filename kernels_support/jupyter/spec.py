"""A kernelspec: a kernel in Jupyter's launcher that starts with an extension loaded."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KernelSpec", "install", "installed", "uninstall"]


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """`name` is its folder, `title` what the launcher shows, `extension` the module that `--ext` loads."""

    name: str
    title: str
    extension: str

    def as_json(self) -> dict[str, object]:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", f"--ext={self.extension}"]
        return {"argv": argv, "display_name": self.title, "language": "python", "interrupt_mode": "signal", "metadata": {"debugger": True}}


def install(spec: KernelSpec, prefix: Path | None = None) -> Path:
    """Install it under `prefix` (default: this Python's sys.prefix), replacing an older one. Returns its folder. Raises OSError."""
    from jupyter_client.kernelspec import KernelSpecManager

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.json").write_text(json.dumps(spec.as_json(), indent=1), encoding="utf-8")
        place = KernelSpecManager().install_kernel_spec(folder, spec.name, prefix=str(prefix or sys.prefix))
    return Path(place)


def installed(name: str) -> Path | None:
    """The folder in which Jupyter finds it; None where it does not."""
    from jupyter_client.kernelspec import KernelSpecManager

    place = KernelSpecManager().find_kernel_specs().get(name)
    return None if place is None else Path(place)


def uninstall(name: str) -> Path | None:
    """Remove the one that Jupyter finds. Returns the removed folder; None where there was none."""
    import shutil

    place = installed(name)
    if place is not None:
        shutil.rmtree(place)
    return place
