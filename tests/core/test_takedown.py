"""Takedown lists: what an entry fits, which steps it concerns, and that a list is only ever added to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.core.addresses import address_of
from pipeline.core.errors import InputError
from pipeline.core.takedown import Kind, Takedown, TakedownList, add_takedowns, read_takedowns

ADA, BEN, CHILD = "a" * 32, "b" * 32, "c" * 32


def entry(kind: Kind, pattern: str, **more: object) -> Takedown:
    return Takedown.model_validate({"kind": kind, "pattern": pattern, "asked": "2025-05-01", **more})


@pytest.mark.parametrize(
    ("kind", "pattern", "url", "fits"),
    [
        ("url", "https://e.example/a", "http://E.example/a/#x", True),
        ("url", "https://e.example/a", "https://e.example/a/b", False),
        ("url", "https://e.example/a?id=1", "https://e.example/a?id=1", True),
        ("url", "https://e.example/a?id=1", "https://e.example/aXid=1", False),
        ("url", "https://e.example/users/*", "https://e.example/users/ada/1?x=y", True),
        ("url", "https://e.example/users/*", "https://e.example/users", False),
        ("url", "*.e.example/x", "https://a.b.e.example/x", True),
        ("url", "*.e.example/x", "https://e.example/x", False),
        ("url", "https://e.example/[1]", "https://e.example/1", False),
        ("domain", "e.example", "https://www.e.example/", True),
        ("domain", "e.example", "https://e.example.org/", False),
        ("id", ADA, f"https://e.example/{ADA}", False),
    ],
)
def test_what_an_entry_fits(kind: Kind, pattern: str, url: str, fits: bool) -> None:
    address = address_of(url)
    assert address is not None
    assert entry(kind, pattern).fits(address) == fits
    assert (TakedownList((entry(kind, pattern),)).entry_of(url) is not None) == fits


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("id", "A" * 32),
        ("id", "a" * 31),
        ("domain", "e.example/x"),
        ("domain", "*.example"),
        ("url", "https://"),
        ("url", "/x"),
    ],
)
def test_patterns_that_do_not_fit_their_kind(kind: Kind, pattern: str) -> None:
    with pytest.raises(ValidationError):
        entry(kind, pattern)


def test_ids_are_those_asked_for_found_and_made() -> None:
    listed = TakedownList(
        (
            entry("id", ADA, documents={"web": (ADA,), "think": (CHILD,)}),
            entry("url", "e.example/x", documents={"web": (BEN,)}),
        )
    )
    assert listed.ids == {ADA, BEN, CHILD}


def test_an_entry_concerns_only_the_steps_that_may_hold_it() -> None:
    by_id = TakedownList((entry("id", ADA, documents={"web": (ADA,), "think": (CHILD,)}),))
    assert by_id.identity("web", "files")
    assert by_id.identity("think")
    assert by_id.identity("web", "files") != by_id.identity("think")
    assert by_id.identity("notes", "files") == ""
    by_url = TakedownList((entry("domain", "e.example", clear={"notes": "files"}),))
    assert by_url.identity("web", "files")
    assert by_url.identity("notes", "files") == ""
    assert by_url.identity("notes", "other files")  # a new crawl may hold it
    assert by_url.identity("think") == ""  # a synthetic set has no addresses


def test_identity_does_not_depend_on_order_or_on_why() -> None:
    one, two = entry("url", "e.example/x"), entry("domain", "f.example")
    assert TakedownList((one, two)).identity("w", "c") == TakedownList((two, one)).identity("w", "c")
    again = one.replaced(reason="asked twice", asked="2025-06-01")
    assert TakedownList((one, two, again)).identity("w", "c") == TakedownList((one, two)).identity("w", "c")


@settings(deadline=None, max_examples=50)
@example(reasons=["two\u2028lines", "\x85\r\n"])
@given(reasons=st.lists(st.text(max_size=20), max_size=5))
def test_a_list_reads_back(tmp_path_factory: pytest.TempPathFactory, reasons: list[str]) -> None:
    path = tmp_path_factory.mktemp("t") / "list.jsonl"
    entries = [entry("url", f"e.example/{n}", reason=why, documents={"web": (ADA,)}) for n, why in enumerate(reasons)]
    for one in entries:
        add_takedowns(path, [one])
    assert read_takedowns(path).entries == tuple(entries)


def test_a_broken_list_is_named_and_nothing_is_taken_for_empty(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    assert read_takedowns(path).entries == ()
    add_takedowns(path, [entry("id", ADA)])
    for line in ('{"kind": "id"', "[]", '{"kind": "id", "pattern": "x", "asked": "2025-05-01"}'):
        path.write_text(path.read_text().splitlines()[0] + "\n" + line + "\n")
        with pytest.raises(InputError, match=r"list\.jsonl:2: not a takedown"):
            read_takedowns(path)
