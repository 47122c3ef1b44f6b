"""What the environment says of going out: proxies and certificates. A transport called directly reads neither by itself. Opens nothing."""

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
    """SSL_CERT_FILE, SSL_CERT_DIR, and when they changed, so that a corrected file is read again."""
    file, folder = os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None
    named = file or folder
    try:
        return file, folder, Path(named).stat().st_mtime if named else 0.0
    except OSError as exc:
        name = "SSL_CERT_FILE" if file else "SSL_CERT_DIR"
        raise Fault("connection", f"{name} names {named}, which cannot be read: {exc.strerror}.", retry=False, stops=True) from exc


@lru_cache(maxsize=4)
def certificates(file: str | None, folder: str | None, changed: float) -> ssl.SSLContext:  # noqa: ARG001 - part of what is remembered
    """The certificates to trust: those named, else certifi's."""
    import certifi

    try:
        return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)
    except (OSError, ssl.SSLError) as exc:
        named = f"SSL_CERT_FILE names {file}" if file else f"SSL_CERT_DIR names {folder}"
        raise Fault("connection", f"{named}, which holds no certificates.", retry=False, stops=True) from exc


@lru_cache(maxsize=1)
def no_certificates() -> ssl.SSLContext:
    """Trusts nobody; for transports that never open a TLS connection but insist on a context."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
