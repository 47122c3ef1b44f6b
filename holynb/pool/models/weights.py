"""The MODEL word of `pool start` → a folder of safetensors, config and tokenizer: embedded, folder, GGUF file or hub id. No torch.

`python -m holynb.pool.models.weights MODEL --home DIR` prints one JSON object a line: stage and share, and last the folder or an
error. With `--config PLACE` the folder holds config.json alone, and is null where that is not to be had without the rest. It is a process
of its own so that a fetch of minutes neither blocks the pool's server nor dies with a kernel.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holynb.no_proxy import spell_out
from holynb.pool.models import check, embedded
from kernels_support.jupyter.limits import limit_memory
from kernels_support.jupyter.lock import Lock
from kernels_support.jupyter.process import die_with_parent

__all__ = ["WeightsError", "config_folder", "local_folder", "main", "resolve_folder"]

Progress = Callable[[str, float | None], None]

#: What a converter may take beside three times its file: the interpreter, numpy and the largest header.
_CONVERTER_BYTES = 4 * 10**9

#: How GGUF files are read, widened and kept: another number makes another folder
#: of the same file, so that none stays that was read otherwise.
_READING, _KEEPING = 2, 4

#: Files of a hub repository that the pool can use; other formats of the same weights are not downloaded.
_HUB_PATTERNS = [
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
    "chat_template*",
]


class WeightsError(Exception):
    """This MODEL leads to no usable folder; one line that says what to do."""


def local_folder(model: str, home: Path, *, kept: bool = True) -> Path | None:
    """The folder, where it needs neither network nor work; None if `resolve_folder` must be called first.

    `kept`: matrices of a GGUF file stay quantized, which our own engine alone reads.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return _checked(path)
    return embedded.present(home, kept=kept) if model == embedded.NAME else None


def resolve_folder(model: str, home: Path, progress: Progress, *, kept: bool = True) -> Path:
    """The folder, fetched or converted where needed. Raises WeightsError, EmbeddedError."""
    folder = local_folder(model, home, kept=kept)
    if folder is not None:
        return folder
    path = Path(model).expanduser()
    if model == embedded.NAME:
        return embedded.ensure(home, progress, kept=kept)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _from_gguf(path, home, progress, kept=kept)
    if _is_hub_id(model):
        return _from_hub(model, home, progress)
    raise WeightsError(f"{model} is no folder, no .gguf file, no hub id (org/name) and not {embedded.NAME}, the embedded model.")


def config_folder(model: str, home: Path, place: Path) -> Path | None:
    """A folder with config.json, before gigabytes are fetched or converted; a new one is made in `place`. None where there is none.

    Raises WeightsError where the weights could not be had either.
    """
    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        from holynb.pool.models.convert import ConvertError, config_of

        if (converted := _gguf_folder(path, home, kept=True)).is_dir():
            return converted
        try:
            return _with_config(place / path.stem, config_of(path))
        except (ConvertError, OSError) as exc:
            raise WeightsError(f"{path.name} could not be converted: {exc}") from exc
    if not _is_hub_id(model):
        return None
    fetched = _hub_folder(model, home)
    return fetched if (fetched / "config.json").is_file() else _config_from_hub(model, place)


def _with_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _is_hub_id(model: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None and not Path(model).expanduser().exists()


def _hub_folder(model: str, home: Path) -> Path:
    return home / "models" / model.replace("/", "--")


def _checked(path: Path) -> Path:
    try:
        check.check(path)
    except check.BrokenModel as exc:
        raise WeightsError(str(exc)) from exc
    return path.resolve()


def _gguf_folder(path: Path, home: Path, *, kept: bool) -> Path:
    """Its name holds the file's size and time, so that a changed file is converted anew."""
    stat = path.stat()
    mark = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{_KEEPING if kept else _READING}".encode()).hexdigest()[:10]
    return home / "models" / f"{path.stem}-{mark}"


def _from_gguf(path: Path, home: Path, progress: Progress, *, kept: bool) -> Path:
    """Convert once."""
    from holynb.pool.models.convert import ConvertError, convert

    folder = _gguf_folder(path, home, kept=kept)
    with Lock(home / "models" / f".{folder.name}.lock"):
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf-", ignore_cleanup_errors=True) as place:
            new = Path(place) / "new"
            new.mkdir(mode=0o700)
            try:
                convert(path, new, lambda share: progress(f"converting {path.name}", share), kept=kept)
            except (ConvertError, OSError) as exc:
                raise WeightsError(f"{path.name} could not be converted: {exc}") from exc
            new.rename(folder)
    return folder


def _from_hub(model: str, home: Path, progress: Progress) -> Path:
    """Fetch from the hub into `home`. Raises WeightsError."""
    folder = _hub_folder(model, home)
    with _hub(model) as hub:
        progress(f"fetching {model} from the hub", None)
        hub.snapshot_download(model, local_dir=folder, allow_patterns=_HUB_PATTERNS)
    return _checked(folder)


def _config_from_hub(model: str, place: Path) -> Path | None:
    folder = place / model.replace("/", "--")
    with _hub(model) as hub:
        try:
            hub.hf_hub_download(model, "config.json", local_dir=folder)
        except hub.errors.EntryNotFoundError as exc:
            if isinstance(exc, hub.errors.LocalEntryNotFoundError):  # the hub did not answer
                raise
            return None
    return folder


@contextmanager
def _hub(model: str) -> Iterator[Any]:
    """The hub's own client, which honours HF_ENDPOINT, HF_TOKEN and proxies; its errors as WeightsError."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as exc:
        raise WeightsError(f"Fetching {model} needs huggingface_hub: pip install 'holynb[local]'.") from exc
    spell_out(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        yield huggingface_hub
    except HfHubHTTPError as exc:
        status = exc.response.status_code if exc.response is not None else "no answer"
        hint = " A gated model needs HF_TOKEN." if status in {401, 403} else ""
        raise WeightsError(f"The hub has no {model} for us ({status}).{hint} Check the name, or give a folder.") from exc
    except (LocalEntryNotFoundError, HFValidationError, OSError) as exc:
        raise WeightsError(
            f"{model} could not be fetched from the hub: {str(exc).splitlines()[0].rstrip('.')}. A folder of safetensors works without it."
        ) from exc


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m holynb.pool.models.weights", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--tag", default="holynb-pool")
    parser.add_argument("--widened", action="store_true", help="matrices of a GGUF file in float32, for other engines")
    parser.add_argument("--parent", type=int, help="end with this process")
    parser.add_argument("--config", type=Path, metavar="PLACE", help="config.json alone, for a plan")
    args = parser.parse_args(argv)
    if args.parent is not None:
        die_with_parent(args.parent)
    os.umask(0o077)
    path = Path(args.model).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        limit_memory(3 * path.stat().st_size + _CONVERTER_BYTES)

    def say(stage: str, share: float | None) -> None:
        print(json.dumps({"stage": stage, "share": share}), flush=True)

    try:
        if args.config is not None:
            folder = config_folder(args.model, args.home, args.config)
        else:
            folder = resolve_folder(args.model, args.home, say, kept=not args.widened)
    except (WeightsError, embedded.EmbeddedError) as exc:
        print(json.dumps({"error": str(exc)}), flush=True)
        return 1
    print(json.dumps({"folder": None if folder is None else str(folder)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
