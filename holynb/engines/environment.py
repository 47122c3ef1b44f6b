"""Proxies and certificates from the environment, which a transport called directly does not read. Opens no socket."""

from __future__ import annotations

import os
import ssl
import urllib.request
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from holynb.errors import Fault

__all__ = ["certificates", "named_certificates", "no_certificates", "proxy_for"]


def proxy_for(url: str) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY (or the system's settings) name for this address."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def named_certificates() -> tuple[str | None, str | None, float]:
    """SSL_CERT_FILE, SSL_CERT_DIR, and their modification time, so that a corrected file is read again. Raises Fault."""
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    path = file or folder
    try:
        return file, folder, Path(path).stat().st_mtime if path else 0.0
    except OSError as exc:
        name = "SSL_CERT_FILE" if file else "SSL_CERT_DIR"
        raise Fault("connection", f"{name} names {path}, which cannot be read: {exc.strerror}.", retry=False, stops=True) from exc


@lru_cache(maxsize=4)
def certificates(file: str | None, folder: str | None, changed: float) -> ssl.SSLContext:  # noqa: ARG001 - part of the cache's key
    """The certificates to trust: those named, else certifi's. Raises Fault."""
    import certifi

    _check_key_log()
    try:
        return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)
    except (OSError, ssl.SSLError) as exc:
        source = f"SSL_CERT_FILE names {file}" if file else f"SSL_CERT_DIR names {folder}"
        raise Fault("connection", f"{source}, which holds no certificates.", retry=False, stops=True) from exc


def _check_key_log() -> None:
    """Raise Fault where ssl cannot write the file of TLS secrets that the environment names: it makes no context then."""
    if path := os.environ.get("SSLKEYLOGFILE"):
        try:
            Path(path).open("ab").close()
        except OSError as exc:
            text = f"SSLKEYLOGFILE names {path}, which cannot be written: {exc.strerror}. Unset it, or name another file."
            raise Fault("connection", text, retry=False, stops=True) from exc


@lru_cache(maxsize=1)
def no_certificates() -> ssl.SSLContext:
    """A context without certificates, for transports that never open a TLS connection but require one."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
