"""Compliance: cards, opt-outs, block lists and labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.documents import document_id, table_from_rows, text_hash
from pipeline.core.errors import InputError
from pipeline.core.provenance import SourceCard
from stages.block import verify
from stages.compliance import ComplianceConfig, make

CARD = SourceCard(
    origin="invented", license="CC-BY-4.0", basis="licence", collected="2025-05-01", opt_out="robots", contact="x",
    domain="essays",
)  # fmt: skip


def documents(*rows: dict[str, object]):
    base = {"text_hash": text_hash("x"), "text": "x", "source": "web"}
    return table_from_rows([{**base, "id": document_id("web", str(i)), **row} for i, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"review_training": "refused"}, "compliance.training_refused"),
        ({"review_training": "pending"}, "compliance.training_pending"),
        ({"review_collection": "refused", "review_training": "refused"}, "compliance.collection_refused"),
    ],
)
def test_card_keeps_the_whole_source_out(change: dict[str, str], reason: str) -> None:
    table = documents({}, {"robots": "noai"}, {})
    result = make(ComplianceConfig(), {}, CARD.replaced(**change)).apply(table)
    verify(table, result)
    assert result.reasons == [reason] * 3
    assert result.kept.num_rows == 0


def test_release_review_does_not_matter_for_training() -> None:
    assert make(ComplianceConfig(), {}, CARD.replaced(review_release="refused")).apply(documents({})).kept.num_rows == 1


@pytest.mark.parametrize(
    ("robots", "kept"),
    [
        (None, True),
        ("follow, index", True),
        ("noimageai, index", True),
        ("follow, index, noai, noimageai", False),
        ("tdm-policy=https://x.example/noai.json, tdm-reservation=0", True),
        ("tdm-policy=https://x.example/p, tdm-reservation=1", False),
        ("NoAI", False),
    ],
)
def test_documents_opt_out(robots: str | None, kept: bool) -> None:
    result = make(ComplianceConfig(), {}, CARD).apply(documents({"robots": robots}))
    assert result.reasons == ([] if kept else ["compliance.opt_out"])


def test_block_lists(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# adult\nBad.Example  # why\nhttps://mixed.example/users/\n\n")
    made = make(ComplianceConfig(blocked=("worse.example",)), {"block_lists": (str(tmp_path / "list.txt"),)})
    urls = [
        "https://bad.example/a",
        "http://www.bad.example:8080/",
        "https://notbad.example/",
        "https://mixed.example/users/ada",
        "https://mixed.example/usersguide",
        "https://good.example/?u=https://bad.example/",
        "https://a.worse.example",
        None,
    ]
    result = made.apply(documents(*({"url": url} for url in urls)))
    found = dict(zip(result.dropped_at.tolist(), result.reasons, strict=True))
    domain, url = "compliance.blocked_domain", "compliance.blocked_url"
    assert found == {0: domain, 1: domain, 3: url, 6: domain}
    with pytest.raises(InputError, match="no such block list"):
        make(ComplianceConfig(), {"block_lists": (str(tmp_path / "none.txt"),)})


def test_labels_come_from_the_card_where_there_are_none() -> None:
    table = documents({"license": "MIT", "domain": "code"}, {})
    kept = make(ComplianceConfig(), {}, CARD).apply(table).kept
    assert kept["license"].to_pylist() == ["MIT", "CC-BY-4.0"]
    assert kept["domain"].to_pylist() == ["code", "essays"]
    assert make(ComplianceConfig(), {}).apply(table).kept["license"].to_pylist() == ["MIT", None]


def test_addresses_are_parsed_only_where_lists_name_some(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr("stages.compliance.address_of", lambda url: parsed.append(url))
    rows = documents({"url": "https://a.example/x", "robots": "noai"}, {"url": "https://b.example/y"})
    assert make(ComplianceConfig(), {}, CARD).apply(rows).reasons == ["compliance.opt_out"]
    assert parsed == []
    make(ComplianceConfig(blocked=("c.example",)), {}, CARD).apply(rows)
    assert parsed == ["https://b.example/y"]
