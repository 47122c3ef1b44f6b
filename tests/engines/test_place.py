"""A model's name in an address: it leads nowhere else, and what cannot stand there is said."""

from __future__ import annotations

import pytest
from servers.asking import endpoint, refuse, request
from servers.exact import Exact, reply

from holynb.engines.place import in_path
from holynb.errors import Fault


@pytest.mark.parametrize("name", [".", "..", "\ud800", "x\udfff"])
@pytest.mark.parametrize(
    ("wire", "options"), [("azure", {"api_version": "2024-10-21"}), ("bedrock", {}), ("sagemaker", {}), ("gemini", {})]
)
def test_a_name_that_would_lead_elsewhere_is_refused(
    wire: str, options: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA" + "TESTTESTTEST1234")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "0123456789" * 4)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with Exact([reply({})]) as server:
        fault = refuse(endpoint(server.base, wire, model=name, options=options), request(model=name))
        assert server.asked == []
    assert (fault.kind, fault.retry, fault.stops) == ("bad_request", False, True)
    assert "cannot be a model's name in an address" in fault.message
    fault.message.encode()


def test_a_folder_up_is_refused_where_names_have_folders_and_is_text_where_they_have_none() -> None:
    assert in_path("a/../b") == "a%2F..%2Fb"
    assert in_path("a/b..", "/") == "a/b.."
    for name in ("a/../b", "../b", "a/..", "a/./b"):
        with pytest.raises(Fault):
            in_path(name, "/")
