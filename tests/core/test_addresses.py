"""Addresses and lists of them: what differs in writing only is the same, and a list blocks exactly what lies below."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.addresses import AddressList, address_of, beginnings, parent_domains

LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)
HOST = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
PATH = st.lists(LABEL, max_size=4).map(lambda parts: "".join(f"/{part}" for part in parts))


@pytest.mark.parametrize(
    "url",
    [
        "https://Example.org/Users/Ada/",
        "http://user:pw@example.org:8080/users/ada#top",
        "example.org./users/ada",
        "//EXAMPLE.ORG/users/ada/",
        "  https://example.org/users/ada\n",
    ],
)
def test_writings_of_one_address(url: str) -> None:
    found = address_of(url)
    assert found is not None
    assert found.text == "example.org/users/ada"


@pytest.mark.parametrize("url", ["", "https://", "http://[::1", "/only/a/path", "   ", "0\f:"])
def test_what_has_no_host_is_no_address(url: str) -> None:
    assert address_of(url) is None


def test_international_names_compare_in_ascii() -> None:
    assert address_of("https://Bücher.example/x") == address_of("https://xn--bcher-kva.example/x")
    listed = AddressList.of(["한국.example"])
    address = address_of("https://www.xn--3e0b707e.example/")
    assert address is not None
    assert listed.domain_of(address) == "xn--3e0b707e.example"


@settings(deadline=None)
@given(url=st.text(max_size=80))
def test_no_text_breaks_it(url: str) -> None:
    found = address_of(url)
    if found is not None:
        assert address_of(found.text) == found or not found.host.isascii()


@settings(deadline=None)
@given(host=HOST, path=PATH, sub=LABEL, below=LABEL, scheme=st.sampled_from(["https://", "http://", ""]))
def test_an_entry_blocks_what_lies_below_it_and_nothing_beside(
    host: str, path: str, sub: str, below: str, scheme: str
) -> None:
    listed = AddressList.of([f"{scheme}{host.upper()}{path}/  # asked"])

    def blocked(url: str) -> bool:
        address = address_of(url)
        assert address is not None
        return (listed.domain_of(address) or listed.prefix_of(address)) is not None

    assert blocked(f"https://{host}{path}")
    assert blocked(f"https://{host}{path}/{below}")
    assert blocked(f"https://{host}{path}?page=2")
    assert blocked(f"https://{sub}.{host}{path}") == (not path)
    assert not blocked(f"https://x{host}{path}")
    if path:
        assert not blocked(f"https://{host}{path}x")
        assert not blocked(f"https://{host}/")


@settings(max_examples=40, deadline=None)
@given(entries=st.lists(st.tuples(HOST, PATH), max_size=6), url=st.tuples(HOST, PATH))
def test_a_list_agrees_with_asking_each_entry(entries: list[tuple[str, str]], url: tuple[str, str]) -> None:
    listed = AddressList.of(host + path for host, path in entries)
    host, path = url
    address = address_of(host + path)
    assert address is not None
    by_domain = any((host == h or host.endswith(f".{h}")) and not p for h, p in entries)
    by_prefix = any(host == h and p and (path == p or path.startswith(f"{p}/")) for h, p in entries)
    assert (listed.domain_of(address) is not None) == by_domain
    assert (listed.prefix_of(address) is not None) == by_prefix


def test_parts_of_an_address() -> None:
    assert list(parent_domains("a.b.example")) == ["a.b.example", "b.example", "example"]
    assert list(beginnings("/a/b?q=/c")) == ["/a/b?q=/c", "/a/b?q=", "/a/b", "/a"]
    assert list(beginnings("")) == []
