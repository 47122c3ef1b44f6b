"""Keys of AWS for tests, as the environment gives them; nothing of the machine's own is read."""

from __future__ import annotations

import pytest
from servers.asking import KEY

ACCESS = "AKIA" + "TESTTESTTEST1234"


def set_keys(monkeypatch: pytest.MonkeyPatch, region: str | None = "eu-west-1") -> None:
    names = {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }
    for name, value in (names | ({"AWS_DEFAULT_REGION": region} if region else {})).items():
        monkeypatch.setenv(name, value)
