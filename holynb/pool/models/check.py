"""Whether a model's folder is complete, by the headers of its files; before a process is started for it. No torch."""

from __future__ import annotations

from pathlib import Path

from holynb.pool.headers import AGAIN, BrokenModel, read_header, weight_files
from holynb.pool.modelfiles import read_object

__all__ = ["BrokenModel", "check"]


def check(folder: Path) -> None:
    """Raises BrokenModel where the folder cannot be a model's, or a file of it is not whole."""
    if (folder / "adapter_config.json").is_file():
        raise BrokenModel(
            f"{folder} holds an adapter (adapter_config.json), which is not applied here. Merge it into its model, or move it away."
        )
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    files = sorted(folder.glob("*.safetensors"))
    if not missing and not files:
        missing = ["*.safetensors"]
    if missing:
        raise BrokenModel(f"{folder} lacks {' and '.join(missing)}; a model folder holds safetensors, config.json and tokenizer.json.")
    path = folder / "config.json"
    try:
        read_object(path)
    except ValueError as exc:
        raise BrokenModel(f"{path} is not readable JSON ({exc}). {AGAIN}, or fix the file.") from exc
    shards = weight_files(folder)
    if gone := [shard.name for shard in shards if not shard.is_file()]:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise BrokenModel(f"{folder} lacks {gone[0]}{more} of the {len(shards)} files that its index names. {AGAIN}.")
    for path in files:
        read_header(path)
