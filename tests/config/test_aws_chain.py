"""The AWS chain: the region is the one that botocore finds, with botocore and without it, and nothing is asked over the network."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from botocore.session import get_session

from holynb.config import aws_chain

CONFIG = "[default]\nregion = us-west-1\n[profile work]\nregion=ap-south-1\n[profile none]\noutput = json\n"
CREDENTIALS = "[default]\naws_access_key_id = A\n[work]\nregion = sa-east-1\n"


@pytest.mark.parametrize(("config", "credentials"), list(product(("", CONFIG, "no ini [[[", "\xff"), ("", CREDENTIALS, "x"))))
def test_without_botocore_the_region_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, credentials: str) -> None:
    for name, text in (("AWS_CONFIG_FILE", config), ("AWS_SHARED_CREDENTIALS_FILE", credentials)):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        monkeypatch.setenv(name, str(tmp_path / name))
    for variable, profile in product((None, "AWS_PROFILE", "AWS_DEFAULT_PROFILE"), ("work", "none")):
        with monkeypatch.context() as patch:
            if variable:
                patch.setenv(variable, profile)
            try:
                theirs = get_session().get_config_variable("region")
            except Exception:  # noqa: BLE001 - a profile that is not there, a file that is none: botocore says so, and has no region
                continue
            assert aws_chain.region() == theirs, (variable, profile)
            patch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
            assert aws_chain.region() == get_session().get_config_variable("region") == "eu-north-1"
            assert aws_chain.region("eu-west-1") == "eu-west-1"


def test_a_dotenv_file_may_name_the_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("AWS_REGION=eu-west-3\n")
    assert aws_chain.region() == aws_chain.region("", get_session()) == "eu-west-3"


@pytest.mark.parametrize(
    ("model", "region"),
    [
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "us-east-1"),
        ("arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:inference-profile/x", "us-gov-west-1"),
        ("us.amazon.nova-2-lite-v1:0", ""),
        ("arn:x", ""),
        ("a:b:c:d:e:f", ""),
    ],
)
def test_the_region_of_an_arn(model: str, region: str) -> None:
    assert aws_chain.region_of_arn(model) == region
