"""Certificates from the environment, which a transport called directly does not read. Opens no socket."""

from __future__ import annotations

import os
import re
import ssl
from functools import lru_cache
from pathlib import Path

from holynb.errors import Fault

__all__ = ["certificates", "named_certificates", "no_certificates"]

#: How OpenSSL finds a certificate in a folder.
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")


def named_certificates() -> tuple[str | None, str | None, float]:
    """SSL_CERT_FILE, SSL_CERT_DIR, and their modification time, so that a corrected file is read again. Raises Fault."""
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    changed = 0.0
    for name, path, is_folder in [("SSL_CERT_FILE", file, False), *(("SSL_CERT_DIR", d, True) for d in (folder or "").split(os.pathsep))]:
        if path:
            try:
                changed = max(changed, Path(path).stat().st_mtime)
            except OSError as exc:
                raise _fault(f"{name} names {path}, which cannot be read: {exc.strerror}.") from exc
            if Path(path).is_dir() is not is_folder:
                raise _fault(f"{name} names {path}, which is {'not a folder' if is_folder else 'a folder, not a file'}.")
    return file, folder, changed


@lru_cache(maxsize=4)
def certificates(file: str | None, folder: str | None, changed: float) -> ssl.SSLContext:  # noqa: ARG001 - part of the cache's key
    """The certificates to trust: those named, else certifi's. Raises Fault."""
    import certifi

    _check_key_log()
    _check_folders(folder)
    cafile = file or (None if folder else certifi.where())
    source = f"SSL_CERT_FILE names {file}" if file else f"SSL_CERT_DIR names {folder}" if folder else f"The package certifi has {cafile}"
    try:
        return ssl.create_default_context(cafile=cafile, capath=folder)
    except ssl.SSLError as exc:
        raise _fault(f"{source}, which holds no certificates.") from exc
    except OSError as exc:
        raise _fault(f"{source}, which cannot be read: {exc.strerror}.") from exc


def _check_folders(folders: str | None) -> None:
    """Raise Fault where no certificate would be found: OpenSSL looks for them by the hash of their name, and says nothing of others."""
    if not folders:
        return
    try:
        names = [entry.name for folder in folders.split(os.pathsep) if folder for entry in os.scandir(folder)]
    except OSError as exc:
        raise _fault(f"SSL_CERT_DIR names {exc.filename}, which cannot be read: {exc.strerror}.") from exc
    if not any(map(_HASHED.fullmatch, names)):
        raise _fault(f"SSL_CERT_DIR names {folders}, which holds no certificate by its hash: openssl rehash {folders}")


def _fault(text: str) -> Fault:
    return Fault("connection", text, retry=False, stops=True)


def _check_key_log() -> None:
    """Raise Fault where ssl cannot write the file of TLS secrets that the environment names: it makes no context then."""
    if path := os.environ.get("SSLKEYLOGFILE"):
        try:
            Path(path).open("ab").close()
        except OSError as exc:
            raise _fault(f"SSLKEYLOGFILE names {path}, which cannot be written: {exc.strerror}. Unset it, or name another file.") from exc


@lru_cache(maxsize=1)
def no_certificates() -> ssl.SSLContext:
    """A context without certificates, for transports that never open a TLS connection but require one."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
