"""What the environment says of certificates: a file that is at fault is named, and not another."""

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
