"""Extraction: main content only, structure kept, metadata in columns, pathological pages cut off."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.core.documents import table_from_rows, text_hash
from stages.block import verify
from stages.charset import decode_page
from stages.extract import Extract, ExtractConfig, extract_page
from stages.extract_worker import Worker

PAGE = """<html lang="de-AT"><head><title>Brot backen</title><link rel="canonical" href="https://brot.example/backen">
<meta name="date" content="2024-01-02"></head><body><nav><a href="/">Start</a> <a href="/shop">Laden</a></nav>
<div class="cookie-banner">Wir verwenden Cookies. Alle annehmen</div><article><h1>Brot backen</h1>
<p>Ein gutes Brot braucht vor allem Zeit, und wer am Abend beginnt, kann am nächsten Morgen schon backen.</p>
<h2>Zutaten</h2><ul><li>500 g Mehl</li><li>350 ml Wasser</li></ul>
<pre><code>def rest(hours):
    return hours * 60
</code></pre><p>Danach ruht der Teig noch einmal, bevor er in den heißen Ofen kommt und eine Stunde backt.</p></article>
<footer>Impressum</footer></body></html>"""


def row(text: str, html: bool = True, **columns: Any) -> dict[str, Any]:
    extra = '{"charset":"utf-8","content_type":"text/html"}' if html else None
    return {"id": text_hash(text), "text": text, "text_hash": text_hash(text), "source": "s", "extra": extra, **columns}


def test_main_content_keeps_headings_lists_and_code_and_loses_the_frame() -> None:
    page = extract_page(PAGE, "https://brot.example/b?ref=1", ExtractConfig())
    assert "# Brot backen" in page.text
    assert "- 500 g Mehl\n- 350 ml Wasser" in page.text
    assert "def rest(hours):\n    return hours * 60" in page.text
    for noise in ("Cookies", "Laden", "Impressum"):
        assert noise not in page.text
    assert (page.title, page.date, page.declared_lang) == ("Brot backen", "2024-01-02", "de-at")
    assert page.canonical_url == "https://brot.example/backen"


def test_block_fills_columns_passes_plain_text_and_drops_the_empty() -> None:
    rows = [row(PAGE, url="https://brot.example/x"), row("plain <b>text</b>", html=False), row("<html></html>")]
    documents = table_from_rows(rows)
    result = Extract(ExtractConfig(seconds_per_page=0)).apply(documents)
    verify(documents, result)
    kept = result.kept.to_pylist()
    assert [one["title"] for one in kept] == ["Brot backen", None]
    assert kept[0]["text_hash"] == text_hash(kept[0]["text"])
    assert json.loads(kept[0]["extra"]) == {"canonical_url": "https://brot.example/backen", "charset": "utf-8"}
    assert kept[1]["text"] == "plain <b>text</b>"
    assert (result.dropped_at.tolist(), result.reasons) == ([2], ["extract.empty"])


def test_the_worker_gives_what_this_process_gives() -> None:
    documents = table_from_rows([row(PAGE), row("<p>")])
    inside = Extract(ExtractConfig(seconds_per_page=0)).apply(documents)
    outside = Extract(ExtractConfig(seconds_per_page=60.0)).apply(documents)
    assert outside.kept.equals(inside.kept)
    assert outside.reasons == inside.reasons


def slow(config: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A function of the worker process that hangs or dies on request."""
    if request["html"] == "hang":
        time.sleep(600)
    if request["html"] == "die":
        raise SystemExit(1)
    return {"echo": request["html"]}


def test_a_request_over_its_limit_is_killed_and_the_next_one_is_served(monkeypatch: Any) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    worker = Worker("test_extract:slow", {})
    assert worker.ask({"html": "hang"}, 0.3) is None
    assert worker.ask({"html": "die"}, 30) is None
    assert worker.ask({"html": "again"}, 30) == {"echo": "again"}
    worker.close()


def test_real_pages_agree_with_their_hand_made_main_text(data_root: Path) -> None:
    rows = pq.read_table(data_root / "html_gold.parquet", columns=["html", "text", "url", "lang"]).to_pylist()
    for lang in ("en", "ko", "de", "vi"):
        precision, recall = [], []
        for one in [r for r in rows if r["lang"] == lang][:8]:
            page = decode_page(one["html"])
            assert page is not None
            ours = set(extract_page(page.text, one["url"], ExtractConfig()).text.split())
            gold = set(one["text"].split())
            precision.append(len(ours & gold) / max(1, len(ours)))
            recall.append(len(ours & gold) / max(1, len(gold)))
        assert sum(precision) / len(precision) > 0.88, lang
        assert sum(recall) / len(recall) > 0.85, lang
