"""NO_PROXY, entry by entry. Looked at for the same kind of fault: both clients of `engines/http.py` (they take what `proxy_for` says), the hub's
own client (it knows names alone, so ranges are spelt out for it), botocore's sign-in (AWS is asked by name), a pool's sockets (no proxy).
"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holynb.no_proxy import bypasses, proxy_for, spell_out

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@pytest.mark.parametrize(
    ("entries", "url", "direct"),
    [
        ("localhost,127.0.0.0/8,::1/128", "http://127.0.0.1:8000/v1", True),
        ("localhost,127.0.0.0/8,::1/128", "http://[::1]:8000/v1", True),
        ("localhost,127.0.0.0/8", "http://128.0.0.1/v1", False),
        ("10.0.0.0/8", "https://10.1.2.3/v1", True),
        ("10.1.2.3/8", "https://10.200.0.1/v1", True),
        ("fd00::/8", "https://[fd12::1]/v1", True),
        ("[fd00::]/8", "https://[fd12::1]/v1", True),
        ("10.0.0.0/8", "https://[::ffff:10.1.2.3]/v1", True),
        ("10.0.0.0/8", "https://10.example.com/v1", False),
        ("10.0.0.0/99,10.0.0.0/x", "https://10.1.2.3/v1", False),
        ("10.1.2.3", "https://10.1.2.3:8443/v1", True),
        ("10.1.2.3:8443", "https://10.1.2.3:8443/v1", True),
        ("10.1.2.3:8443", "https://10.1.2.3/v1", False),
        ("10.1.2.3:443", "https://10.1.2.3/v1", True),
        ("[::1]:80", "http://[::1]/v1", True),
        ("[::1]:80", "http://[::1]:81/v1", False),
        ("[::1]", "http://[::1]:81/v1", True),
        ("::1", "http://[::1]:81/v1", True),
        ("0:0:0:0:0:0:0:1", "http://[::1]/v1", True),
        ("2.3", "http://10.1.2.3/v1", False),
        ("example.com", "https://example.com/v1", True),
        ("example.com", "https://api.example.com/v1", True),
        ("example.com", "https://notexample.com/v1", False),
        (".example.com", "https://example.com/v1", True),
        (".example.com", "https://a.b.example.com/v1", True),
        ("*.example.com", "https://a.example.com/v1", True),
        ("*.example.com", "https://example.com/v1", False),
        ("EXAMPLE.com", "https://api.Example.COM/v1", True),
        ("example.com.", "https://example.com/v1", True),
        ("example.com", "https://example.com./v1", True),
        ("example.com:8443", "https://example.com:8443/v1", True),
        ("example.com:8443", "https://example.com/v1", False),
        ("example.com:x", "https://example.com/v1", False),
        ("bücher.example", "https://xn--bcher-kva.example/v1", True),
        (" a.com , example.com\t", "https://example.com/v1", True),
        ("a.com example.com", "https://example.com/v1", True),
        ("http://example.com", "https://example.com/v1", True),
        ("https://example.com:443/", "https://example.com/v1", True),
        ("https://example.com:8443/", "https://example.com/v1", False),
        ("http://[::1]:80/,http://10.0.0.1/", "http://10.0.0.1:81/v1", True),
        ("*", "https://example.com/v1", True),
        ("a.com,*", "https://10.1.2.3/v1", True),
        ("", "https://example.com/v1", False),
        (",,.,:,/,[],*.", "https://example.com/v1", False),
    ],
)
def test_an_entry_says_which_addresses_are_asked_directly(entries: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", entries)
    assert proxy_for(url) == (None if direct else "http://proxy.example:3128")


def test_the_small_letters_come_first_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    monkeypatch.setenv("no_proxy", "192.168.0.0/16")
    assert proxy_for("https://10.1.2.3") == "http://proxy.example:1"
    assert proxy_for("https://192.168.1.1") is None


@given(st.one_of(V4, V6), st.data())
def test_a_range_holds_what_ipaddress_says(address: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject) -> None:
    network = ipaddress.ip_network((address, data.draw(st.integers(0, address.max_prefixlen))), strict=False)
    other = data.draw(V4 if address.version == 4 else V6)
    assert bypasses(f"x.example,{network}", str(address), 443)
    if getattr(other, "ipv4_mapped", None) is None:
        assert bypasses(str(network), str(other), 443) == (other in network)


@given(st.text(alphabet="a.*:/[]%1 ,-é", max_size=12), st.sampled_from(["a.example", "1.1.1.1", "::1"]))
def test_no_entry_is_too_odd_to_be_read(entries: str, host: str) -> None:
    assert bypasses(entries, host, 443) in (True, False)


def test_a_range_is_spelt_out_for_who_knows_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    spell_out("https://huggingface.co")
    assert os.environ["NO_PROXY"] == "10.0.0.0/8"
    spell_out("https://10.1.2.3:8443/hub")
    assert os.environ["NO_PROXY"] == "10.0.0.0/8,10.1.2.3"
