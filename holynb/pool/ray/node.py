"""What a node of the cluster has: a folder for models and logs, addresses, a model's files. Knows files and sockets; imports no Ray."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path

from kernels_support.jupyter.files import private_folder

__all__ = ["card", "free_port", "home", "interface", "pieces", "received", "write_piece"]

#: What of a model's folder is weights: everything else is its card, which the server reads.
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx")
#: The largest file of a card: a tokenizer of 256,000 words is 35 MB.
_CARD_BYTES = 128 * 1024 * 1024
#: A piece of a file on its way through the object store.
PIECE_BYTES = 8 * 1024 * 1024
#: ioctl: the address of an interface (linux/sockios.h).
_SIOCGIFADDR = 0x8915


def home(wanted: Path) -> Path:
    """Where this node keeps models and logs: its HOLYNB_HOME, the client's folder, or one of its own where neither can be made here."""
    for folder in (os.environ.get("HOLYNB_HOME"), str(wanted)):
        with contextlib.suppress(OSError):
            if folder:
                private_folder(Path(folder) / "logs")
                return Path(folder)
    own = Path(tempfile.gettempdir()) / f"holynb-{os.getuid()}"
    private_folder(own / "logs")
    return own


def free_port(address: str) -> int:
    """A port that is free now, for ranks to meet at."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


def interface(address: str) -> str | None:
    """The network interface that has this address, as Gloo and NCCL name it; None where the system does not tell."""
    if address.startswith("127."):
        return "lo" if sys.platform == "linux" else None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                packed = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
                if socket.inet_ntoa(packed[20:24]) == address:
                    return name
    return None


def card(folder: Path) -> dict[str, bytes]:
    """The files of a model's folder that are no weights, by their path in it."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix not in _WEIGHTS and p.stat().st_size <= _CARD_BYTES)
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    }


def pieces(folder: Path) -> list[tuple[str, int, int]]:
    """A folder's files in pieces: path in it, offset, bytes. A file that is empty is one piece of none."""
    out = []
    for path in sorted(
        p for p in folder.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ):
        size = path.stat().st_size
        out += [(str(path.relative_to(folder)), at, min(PIECE_BYTES, size - at)) for at in range(0, max(size, 1), PIECE_BYTES)]
    return out


def received(home_folder: Path, key: str) -> Path:
    """Where a model that is sent to this node lies, once it is whole. `key`: a digest of what it is."""
    if not key.isalnum():
        raise ValueError(f"{key!r} is no digest")
    return home_folder / "models" / f"sent-{key}"


def write_piece(folder: Path, name: str, offset: int, data: bytes) -> None:
    """Write a piece of a file that is being received. Raises ValueError where its path leads out of the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of the model's folder")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.seek(offset)
        file.write(data)
