"""moto: AWS as others wrote it down, with a real check of every signature. https://docs.getmoto.org"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.session import get_session
from servers.process import serving

ALLOWED = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*"}]}


@dataclass(frozen=True)
class Moto:
    base: str
    access: str
    secret: str

    def answer(self, *bodies: str) -> None:
        """What the next invocations return."""
        results = [{"Body": body, "ContentType": "application/json"} for body in bodies]
        body = json.dumps({"region": "eu-west-1", "results": results}).encode()
        request = urllib.request.Request(
            f"{self.base}/moto-api/static/sagemaker/endpoint-results", body, {"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def running(folder: Path) -> Iterator[Moto]:
    """A server that, after the three calls that make a user, lets in nobody whose signature is wrong."""
    env = {"INITIAL_NO_AUTH_ACTION_COUNT": "3", "PYTHONWARNINGS": "ignore"}
    argv: Sequence[str] = [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"]
    with serving(argv, folder / "moto.log", r"Running on (http://127\.0\.0\.1:\d+)", env) as base:
        iam: Any = get_session().create_client(
            "iam",
            region_name="us-east-1",
            endpoint_url=base,
            aws_access_key_id="AKIA" + "FIRSTFIRSTFIRST1",
            aws_secret_access_key="first-first-first",
        )
        iam.create_user(UserName="u")
        access_key = iam.create_access_key(UserName="u")["AccessKey"]
        iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=json.dumps(ALLOWED))
        iam.close()
        yield Moto(base, access_key["AccessKeyId"], access_key["SecretAccessKey"])
