"""The providers table, and engines found by their wire."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib.metadata import EntryPoint
from urllib.parse import urlsplit

import pytest

from holynb import engines
from holynb.config import providers
from holynb.config.providers import Provider
from holynb.engines.sim import Sim
from holynb.errors import BadRoute
from holynb.types import Endpoint, Route


def test_every_provider_of_the_table_is_whole():
    for name, provider in providers.table().items():
        assert provider.name == name
        assert provider.wire in engines.WIRES
        if provider.wire in ("pool", "sim", "sagemaker"):  # found otherwise, and signed with the AWS chain's keys
            assert (provider.base, provider.key) == ("", "")
            continue
        assert provider.base == provider.base.rstrip("/")
        if provider.base:
            assert urlsplit(provider.base).scheme == ("http" if provider.key_optional else "https")
        assert provider.key.isupper()
        assert provider.page.startswith("https://")
        assert provider.max_tokens in ("max_tokens", "max_completion_tokens")
        assert all(length is None or length > 1000 for length in provider.models.values())


def test_holysheep_is_where_its_pages_say():
    assert providers.table()["holysheep"].base == "https://api.holysheep.ai/v1"
    assert providers.table()["holysheep"].key == "HOLYSHEEP_API_KEY"


def test_own_entries_lie_over_the_table_field_by_field():
    table = providers.merged(
        {
            "openai": {"base": "https://proxy.example.com/v1", "models": {"my-model": 0}, "options": {"a": 1}},
            "my-box": {"base": "http://box:8000/v1"},
        }
    )
    assert table["openai"].base == "https://proxy.example.com/v1"
    assert table["openai"].key == "OPENAI_API_KEY"
    assert table["openai"].models["my-model"] is None
    assert table["openai"].models["gpt-6-luna"] == 1050000
    assert table["my-box"] == Provider("my-box", base="http://box:8000/v1", key="MY_BOX_API_KEY", key_optional=True)
    assert providers.table()["openai"].base == "https://api.openai.com/v1", "the table itself is left alone"


def test_reading_the_table_loads_no_http():
    code = "import sys; from holynb.config import providers; providers.table(); print([m for m in ('httpx', 'aiohttp', 'asyncio') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "[]"


def test_a_wire_nobody_speaks_is_named_with_the_nearest():
    with pytest.raises(BadRoute, match=r"the wire that is set for x/y.*Did you mean openai"):
        engines.connect(Endpoint(Route("x", "y"), "opemai"), lambda: None)


def test_third_parties_add_a_wire_by_entry_point(monkeypatch: pytest.MonkeyPatch):
    entry_points = [EntryPoint("theirs", "holynb.engines.sim:Sim", engines.GROUP)]
    monkeypatch.setattr(engines, "entry_points", lambda group: entry_points if group == "holynb.engines" else [])
    endpoint = dataclasses.replace(Endpoint(Route("sim", "echo"), "theirs"))
    assert isinstance(engines.connect(endpoint, lambda: None), Sim)
