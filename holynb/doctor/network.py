"""The way to hosted models: a proxy, and the certificates that a company's proxy needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from holynb import no_proxy
from holynb.doctor.check import Check

__all__ = ["certificates", "proxy"]

_SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy() -> Iterator[Check]:
    """The proxy that hosted models are asked through. Says nothing where there is none."""
    through = no_proxy.proxy_for("https://api.openai.com")
    if through is None:
        return
    parts = urlsplit(through)
    try:
        shown = f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
        usable = bool(parts.hostname) and parts.scheme in _SCHEMES
    except ValueError:
        shown, usable = "its port is no number", False
    if not usable:
        yield Check(
            "proxy", "broken", f"HTTPS_PROXY is no address of a proxy ({shown})", "export HTTPS_PROXY=http://HOST:PORT, or unset it"
        )
        return
    inside = no_proxy.proxy_for("http://127.0.0.1:8000")
    if inside is not None:
        yield Check("proxy", "broken", f"{shown}, also for servers on this machine", "export NO_PROXY=localhost,127.0.0.1")
        return
    yield Check(
        "proxy",
        "works",
        f"hosted models are asked through {shown}; NO_PROXY leaves out {os.environ.get('NO_PROXY') or os.environ.get('no_proxy') or 'none'}",
    )


def certificates() -> Iterator[Check]:
    """The files that variables name for TLS. Says nothing where none is named."""
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"):
        named = os.environ.get(variable)
        if named and not Path(named).exists():
            yield Check(
                "certificates",
                "broken",
                f"{variable} names {named}, which is not there",
                f"unset {variable}, or name your company's bundle",
            )
        elif named and variable == "SSL_CERT_FILE":
            yield Check("certificates", "works", f"{variable}={named}")
