"""Main text of HTML pages: ours in this process and in the killable worker, against bare trafilatura and justext.

Contract: the peers get decoded pages; so does ours, which keeps formulas and undoes Markdown escapes besides. All find
title and date too, trafilatura with the options that ours gives it. CPU time of the worker process counts.
The quality is word F1 against hand-made main text, where the pages are real.
"""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.inputs import parquet_rows
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.documents import document_id, table_from_rows, text_hash
from stages.extract import LATEST_DATE, Extract, ExtractConfig, extract_page

NAME = "extract"
_WORDS = re.compile(r"\w+")
Texts = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Load:
    step: int  # every so many of the real pages
    pages: int  # of generated ones, where there are no real ones
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(6, 150, 3), "quick": Load(150, 6, 1)}
DATES = {"original_date": True, "extensive_search": False, "max_date": LATEST_DATE}
PLAIN = ExtractConfig(seconds_per_page=0)


def run(settings: Settings) -> Iterator[Found]:
    """Three comparisons: with trafilatura itself, with justext, and of the worker with this process."""
    load = LOADS[settings.size]
    pages, gold, label = _pages(load)
    sides: list[tuple[str, tuple[str, ...], Texts, Texts]] = [
        ("trafilatura, bare", (), _inside, _trafilatura),
        ("justext", (), _inside, _justext),
        ("the same without a time limit", (), _in_worker, _inside),
    ]
    for peer_name, modules, ours, peer in sides:
        yield from against(
            peer_name, modules, partial(_compared, pages, gold, label, load.rounds, peer_name, ours, peer)
        )


def _compared(
    pages: Sequence[str], gold: Sequence[str], label: str, rounds: int, peer_name: str, ours: Texts, peer: Texts
) -> Comparison:
    megabytes = sum(len(page.encode()) for page in pages) / 1e6
    found = [ours(pages), peer(pages)]  # the warm-up
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for side, times in zip((ours, peer), seconds, strict=True):
            started = _cpu_seconds()
            side(pages)
            times.append(_cpu_seconds() - started)
    return Comparison(
        NAME,
        "main text of HTML pages",
        "MB/s",
        Spread.rate(megabytes, seconds[0]),
        Spread.rate(megabytes, seconds[1]),
        peer_name,
        label,
        quality_ours=_f1(found[0], gold),
        quality_peer=_f1(found[1], gold),
        quality="word F1, main text",
        notes={"pages": len(pages)},
    )


def _cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _inside(pages: Sequence[str]) -> list[str]:
    return [extract_page(page, None, PLAIN).text for page in pages]


def _in_worker(pages: Sequence[str]) -> list[str]:
    rows = [
        {"id": document_id("b", str(n)), "text": page, "text_hash": text_hash(page), "source": "b",
         "extra": '{"content_type":"text/html"}'}
        for n, page in enumerate(pages)
    ]  # fmt: skip
    block = Extract(ExtractConfig(seconds_per_page=60.0))
    kept = block.apply(table_from_rows(rows)).kept
    texts = dict(zip(kept["id"].to_pylist(), kept["text"].to_pylist(), strict=True))
    block.close()
    return [texts.get(str(row["id"]), "") for row in rows]


def _trafilatura(pages: Sequence[str]) -> list[str]:
    import trafilatura

    options: dict[str, Any] = {
        "favor_precision": True,
        "include_comments": False,
        "include_formatting": True,
        "with_metadata": True,
    }
    found = (trafilatura.bare_extraction(page, date_extraction_params=DATES, **options) for page in pages)
    return [one.text or "" if one is not None and not isinstance(one, dict) else "" for one in found]


def _justext(pages: Sequence[str]) -> list[str]:
    config = ExtractConfig(extractor="justext", seconds_per_page=0)
    return [extract_page(page, None, config).text for page in pages]


def _f1(found: Sequence[str], gold: Sequence[str]) -> float:
    scores = []
    for text, wanted in zip(found, gold, strict=True):
        a, b = set(_WORDS.findall(text)), set(_WORDS.findall(wanted))
        scores.append(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)
    return sum(scores) / len(scores)


def _pages(load: Load) -> tuple[list[str], list[str], str]:
    rows = parquet_rows("html_gold.parquet", ("html", "text"))
    if rows is not None:
        chosen = rows[:: load.step]
        return [row["html"].decode("utf-8") for row in chosen], [row["text"] for row in chosen], "html_gold pages"
    texts = [
        f"This is sentence {n} of a page about mills, rivers and the people who live there. " * 6 for n in range(8)
    ]
    body = "".join(f"<p>{text}</p>" for text in texts)
    page = f"<html><body><nav><a href='/'>Home</a></nav><article>{body}</article><footer>Imprint</footer></body></html>"
    return [page] * load.pages, ["\n".join(texts)] * load.pages, "generated pages"
