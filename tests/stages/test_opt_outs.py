"""Hosts' own files: robots.txt, ai.txt and tdmrep.json, in each form they may be given in."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pipeline.core.documents import document_id, table_from_rows, text_hash
from pipeline.core.errors import InputError
from stages.block import verify
from stages.compliance import ComplianceConfig, make
from stages.opt_outs import OptOuts, read_tdm, read_texts

ROBOTS = "User-agent: *\nDisallow: /private/\n\nUser-agent: GPTBot\nDisallow: /\nAllow: /open/\n"


def hosts(robots: str = "", ai: str = "", tdm: object = None, agents: tuple[str, ...] = ("GPTBot", "CCBot")) -> OptOuts:
    def declared(text: object) -> dict[str, tuple[object, ...]]:
        return {"e.example": (text,)} if text else {}

    return OptOuts(declared(robots), declared(ai), declared(tdm), agents)


@pytest.mark.parametrize(
    ("url", "agents", "who"),
    [
        ("https://e.example/news", ("CCBot",), None),
        ("https://e.example/private/x", ("CCBot",), "CCBot"),
        ("https://e.example/news", ("CCBot", "GPTBot"), "GPTBot"),
        ("https://E.example:443/open/x", ("GPTBot",), None),
        ("e.example/private/x", ("CCBot",), "CCBot"),
        ("https://www.e.example/private/x", ("CCBot",), None),  # another host: robots.txt speaks for its own only
    ],
)
def test_robots_txt_is_read_for_each_agent(url: str, agents: tuple[str, ...], who: str | None) -> None:
    found = hosts(robots=ROBOTS, agents=agents).rule(url)
    assert found == (None if who is None else ("robots_txt", f"e.example: {who}"))


@pytest.mark.parametrize(
    ("ai", "url", "kept"),
    [
        ("User-Agent: *\nDisallow: *.html\n", "https://e.example/a.html", False),
        ("User-Agent: *\nDisallow: *.html\n", "https://e.example/a", False),
        ("User-Agent: *\nDisallow: *.html\n", "https://e.example/", False),
        ("User-Agent: *\nDisallow: *.png\n", "https://e.example/a", True),
        ("User-Agent: *\nDisallow: /\nAllow: /open\n", "https://e.example/open/x.html", True),
        ("User-Agent: *\nDisallow: /\n", "https://e.example/x?y=1", False),
    ],
)
def test_ai_txt_speaks_of_file_endings_too(ai: str, url: str, kept: bool) -> None:
    found = hosts(ai=ai).rule(url)
    assert found is None if kept else found is not None and found[0] == "ai_txt"


RULES = [
    {"location": "/", "tdm-reservation": 1},
    {"location": "/open/", "tdm-reservation": 0},
    {"location": "/open/*.pdf$", "tdm-reservation": 1, "tdm-policy": "https://e.example/p.json"},
]


@pytest.mark.parametrize(
    ("path", "location"),
    [("", "/"), ("/a", "/"), ("/open/a", None), ("/open/a.pdf", "/open/*.pdf$"), ("/open/a.pdf?x", None)],
)
def test_the_longest_location_of_a_tdmrep_decides(path: str, location: str | None) -> None:
    found = hosts(tdm=RULES).rule(f"https://e.example{path}")
    assert found == (None if location is None else ("tdm_reservation", f"e.example: {location}"))


def warc(path: Path, pages: dict[str, tuple[str, str]]) -> str:
    with path.open("wb") as handle:
        writer = WARCWriter(handle, gzip=True)
        for url, (status, body) in pages.items():
            head = StatusAndHeaders(status, [("Content-Type", "text/plain")], protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(url, "response", payload=io.BytesIO(body.encode()), http_headers=head)
            )
    return str(path)


def test_the_three_forms_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "e.example.txt").write_text(ROBOTS)
    line = json.dumps({"host": "https://E.example", "text": ROBOTS})
    (tmp_path / "many.jsonl").write_text(f"{line}\n")
    captured = warc(
        tmp_path / "robots.warc.gz",
        {
            "https://e.example/robots.txt": ("200 OK", ROBOTS),
            "https://gone.example/robots.txt": ("404 Not Found", "User-agent: *\nDisallow: /"),
            "https://e.example/page": ("200 OK", "User-agent: *\nDisallow: /"),
        },
    )
    for path in (tmp_path / "e.example.txt", tmp_path / "many.jsonl", captured):
        assert read_texts([str(path)], "robots.txt") == {"e.example": (ROBOTS,)}
    (tmp_path / "e.example.json").write_text(json.dumps(RULES))
    (tmp_path / "tdm.jsonl").write_text(json.dumps({"host": "e.example", "rules": RULES}))
    for name in ("e.example.json", "tdm.jsonl"):
        assert read_tdm([str(tmp_path / name)]) == {"e.example": (RULES,)}


def test_each_capture_of_a_host_may_forbid(tmp_path: Path) -> None:
    rows = [{"host": "e.example", "text": text} for text in ("", "User-agent: CCBot\nDisallow: /")]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = OptOuts(read_texts([str(tmp_path / "r.jsonl")], "robots.txt"), {}, {}, ("CCBot",))
    assert found.rule("https://e.example/x") == ("robots_txt", "e.example: CCBot")


@pytest.mark.parametrize(
    ("name", "body", "what"),
    [
        ("r.jsonl", '{"host": "e.example"}', r"r\.jsonl:1: not a host and its file"),
        ("r.jsonl", '{"host": "https://", "text": ""}', r"r\.jsonl:1: `https://` is no host name"),
        ("r.warc.gz", "\x1f\x8b\x08 cut", r"r\.warc\.gz at byte 0: a capture cannot be read"),
    ],
)
def test_a_list_that_cannot_be_read_whole_is_refused(tmp_path: Path, name: str, body: str, what: str) -> None:
    (tmp_path / name).write_bytes(body.encode("latin-1"))
    with pytest.raises(InputError, match=what):
        read_texts([str(tmp_path / name)], "robots.txt")


@pytest.mark.parametrize("body", ["{", "{}", '[{"location": "/"}]', '[{"location": "/", "tdm-reservation": 2}]'])
def test_a_tdmrep_that_is_none_is_refused(tmp_path: Path, body: str) -> None:
    (tmp_path / "e.example.json").write_text(body)
    with pytest.raises(InputError, match="not the rules of a tdmrep"):
        read_tdm([str(tmp_path / "e.example.json")])


def test_the_block_drops_by_files_and_lists_and_counts_unknown_hosts(tmp_path: Path) -> None:
    (tmp_path / "r.example.txt").write_text("User-agent: *\nDisallow: /")
    (tmp_path / "out.txt").write_text("o.example\nmixed.example/a\n")
    made = make(
        ComplianceConfig(),
        {"robots_txt": (str(tmp_path / "r.example.txt"),), "opt_out_lists": (str(tmp_path / "out.txt"),)},
    )
    urls = ["https://r.example/x", "https://w.o.example/", "https://mixed.example/a/b", "https://k.example/", None]
    rows = [
        {"id": document_id("w", str(n)), "text_hash": text_hash("x"), "text": "x", "source": "w", "url": url}
        for n, url in enumerate(urls)
    ]
    table = table_from_rows(rows)
    result = made.apply(table)
    verify(table, result)
    assert result.reasons == ["compliance.robots_txt", "compliance.opt_out_domain", "compliance.opt_out_url"]
    assert result.details[1:] == ["o.example", "mixed.example/a"]
    assert result.counts == {"compliance.robots_txt_unknown": 3}
