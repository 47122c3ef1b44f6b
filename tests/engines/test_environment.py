"""What the environment says of certificates: a file that is at fault is named with what is wrong with it, and not another.

Looked at for the same kind of fault: SSL_CERT_FILE and SSL_CERT_DIR (missing, of the other kind, unreadable, empty, several folders),
certifi's own file; the context is made in one place for both clients. `test_http.py` shows the message of a request.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holynb.engines import environment
from holynb.errors import Fault


def test_a_key_log_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import certifi

    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "gone" / "keys.log"))
    for file in (certifi.where(), None):
        environment.certificates.cache_clear()
        with pytest.raises(Fault, match=r"SSLKEYLOGFILE names .*keys\.log, which cannot be written: No such file") as caught:
            environment.certificates(file, None, 0.0)
        assert caught.value.stops
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    environment.certificates.cache_clear()
    context = environment.certificates(None, None, 0.0)
    assert context.keylog_filename == str(tmp_path / "keys.log")
    environment.certificates.cache_clear()


def said(monkeypatch: pytest.MonkeyPatch, **names: str) -> str:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    environment.certificates.cache_clear()
    with pytest.raises(Fault) as caught:
        environment.certificates(*environment.named_certificates())
    assert caught.value.stops
    return caught.value.message


def test_each_fault_of_a_named_certificate_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    gone = tmp_path / "gone"
    assert said(monkeypatch, SSL_CERT_FILE=str(gone)) == f"SSL_CERT_FILE names {gone}, which cannot be read: No such file or directory."
    assert said(monkeypatch, SSL_CERT_FILE=str(tmp_path)) == f"SSL_CERT_FILE names {tmp_path}, which is a folder, not a file."
    assert said(monkeypatch, SSL_CERT_FILE=str(text)) == f"SSL_CERT_FILE names {text}, which holds no certificates."
    assert said(monkeypatch, SSL_CERT_DIR=str(gone)) == f"SSL_CERT_DIR names {gone}, which cannot be read: No such file or directory."
    assert said(monkeypatch, SSL_CERT_DIR=str(text)) == f"SSL_CERT_DIR names {text}, which is not a folder."
    assert "holds no certificate by its hash: openssl rehash" in said(monkeypatch, SSL_CERT_DIR=str(tmp_path))
    assert (
        said(monkeypatch, SSL_CERT_DIR=f"{tmp_path}:{gone}")
        == f"SSL_CERT_DIR names {gone}, which cannot be read: No such file or directory."
    )
    assert "SSLKEYLOGFILE" in said(monkeypatch, SSLKEYLOGFILE=str(tmp_path), SSL_CERT_FILE=str(text))
    (tmp_path / "0123abcd.0").write_text("")
    monkeypatch.delenv("SSLKEYLOGFILE")
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}:{tmp_path}")
    environment.certificates.cache_clear()
    assert environment.certificates(*environment.named_certificates()).verify_mode == 2


def test_a_file_that_may_not_be_read_does_not_hold_no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(environment.ssl, "create_default_context", denied)
    (tmp_path / "a.pem").write_text("")
    assert said(monkeypatch, SSL_CERT_FILE=str(tmp_path / "a.pem")).endswith("a.pem, which cannot be read: Permission denied.")
    assert said(monkeypatch).startswith("The package certifi has ")
    environment.certificates.cache_clear()
