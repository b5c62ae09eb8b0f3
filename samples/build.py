"""Builds the sample sources from the authored texts: `python samples/build.py [--into FOLDER]`.

Contract: reads `samples/texts`, `samples/bad`, `samples/forbidden/*.md` and `samples/pages`; writes `web/*.warc.gz`,
`articles/articles.jsonl.gz`, `notes/notes.parquet`, `forbidden/forbidden.jsonl.gz` and `expected.json`. The same texts
give the same bytes under the same library versions: no clock, fixed gzip times, sorted listings. A few seconds.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from crawl import BAD_FILE, CRAWLED, TRUNCATED_FILE, Capture, cut_last_member, not_a_page, warc_bytes, warcinfo
from expected import Expectation, expected_json, good
from forged import bad_captures
from render import HERE, Page, Text, body_html, load_chrome, page_html, read_text

LANGUAGES = ("ko", "en", "es", "de", "ja", "vi")
LINKS = 4  # related pages that a page names
TEMPLATE_OF_REGISTER = {"news": "portal", "minutes": "portal", "essay": "blog", "story": "blog", "letter": "blog"}
DOMAINS = {"code": "programming"}  # talk about programs; the pipeline's domain `code` means program text itself
BROKEN_LINE = '{"id": "broken-line", "title": "A record whose line was cut while it was being writ'
TEXTLESS = {"id": "without-text", "title": "A record that has a title and nothing else", "lang": "en"}
CUT_SLUGS = ("bread-in-a-cold-kitchen", "letter-from-the-lighthouse", "footpath-committee-minutes")


def texts_of(lang: str) -> list[Text]:
    """The authored texts of a language, sorted by name."""
    return [read_text(path) for path in sorted((HERE / "texts" / lang).glob("*.md"))]


def domain_of(text: Text) -> str:
    """The subject as records state it."""
    return DOMAINS.get(text.front["domain"], text.front["domain"])


def page_of(text: Text, lang: str, chrome: Mapping[str, Any], links: tuple[tuple[str, str], ...] = ()) -> Page:
    """Where an authored text appears on the invented web."""
    template = TEMPLATE_OF_REGISTER.get(text.front["register"], "magazine")
    host, site = chrome["hosts"][template]
    return Page(
        title=text.front["title"],
        lang=lang,
        url=f"https://{host}/{text.front['domain']}/{text.front['date'][:4]}/{text.slug}",
        site=site,
        date=text.front["date"],
        template=template,
        links=links,
    )


def web_pages(lang: str, chrome: Mapping[str, Any]) -> list[tuple[Text, Page]]:
    """The `carrier: web` texts of a language with their pages; each names the next few as related."""
    texts = [text for text in texts_of(lang) if text.front["carrier"] == "web"]
    bare = [page_of(text, lang, chrome) for text in texts]
    pairs = []
    for at, text in enumerate(texts):
        others = [bare[(at + step) % len(bare)] for step in range(1, min(LINKS, len(bare) - 1) + 1)]
        pairs.append((text, page_of(text, lang, chrome, tuple((page.url, page.title) for page in others))))
    return pairs


def build_web(into: Path) -> list[Expectation]:
    """Writes one WARC file a language, the bad pages and the cut file."""
    chrome = load_chrome()
    expectations: list[Expectation] = []
    good_pages: dict[str, tuple[Text, Page]] = {}
    for lang in LANGUAGES:
        captures = []
        for text, page in web_pages(lang, chrome[lang]):
            good_pages[f"{lang}/{text.slug}"] = (text, page)
            if lang == "en" and text.slug in CUT_SLUGS:
                continue  # these lie in the cut file
            captures.append(Capture(page.url, page_html(page, body_html(text.body), chrome[lang]).encode(), page.date))
            expectations.append(_good_page(text, page, chrome[lang]))
        _write(into / "web" / f"{lang}.warc.gz", warc_bytes([warcinfo(f"{lang}.warc.gz"), *captures]))
    expectations += _build_truncated(into, chrome, good_pages)
    captures, forged = bad_captures(good_pages, chrome)
    captures += [not_a_page("https://www.example.org/gone/away", "404 Not Found", "text/html")]
    captures += [not_a_page("https://www.example.org/assets/logo.png", "200 OK", "image/png")]
    forged.append(Expectation("web", captures[-2].url, "dropped", ("read.http_status",), None, "The server said 404."))
    forged.append(Expectation("web", captures[-1].url, "dropped", ("read.not_text",), None, "A picture, not a page."))
    _write(into / "web" / BAD_FILE, warc_bytes([warcinfo(BAD_FILE), *captures]))
    copied = {one.key for one in forged if one.group}
    return [one for one in expectations if one.key not in copied] + forged


def _good_page(text: Text, page: Page, chrome: Mapping[str, Any]) -> Expectation:
    return good("web", page.url, page.lang, text.body, lacks=(chrome["cookie"][:30], chrome["ads"][0][1][:20]))


def _build_truncated(
    into: Path, chrome: Mapping[str, Any], good_pages: Mapping[str, tuple[Text, Page]]
) -> list[Expectation]:
    """Three good pages, the last of them cut in the middle of its gzip member."""
    found = [good_pages[f"en/{slug}"] for slug in CUT_SLUGS]
    captures = [
        Capture(page.url, page_html(page, body_html(text.body), chrome["en"]).encode(), page.date)
        for text, page in found
    ]
    data, offset = cut_last_member(warc_bytes([warcinfo(TRUNCATED_FILE), *captures]))
    _write(into / "web" / TRUNCATED_FILE, data)
    cut = f"{TRUNCATED_FILE}@{offset}"
    return [
        *(_good_page(text, page, chrome["en"]) for text, page in found[:-1]),
        Expectation("web", cut, "dropped", ("read.truncated",), None, "The gzip member of this record is cut."),
    ]


def build_articles(into: Path) -> list[Expectation]:
    """Writes the JSONL source, with one broken line and one record without text among the good ones."""
    lines, expectations = [], []
    for lang in LANGUAGES:
        for text in texts_of(lang):
            if text.front["carrier"] != "jsonl":
                continue
            record = _article(text, lang)
            lines.append(json.dumps(record, ensure_ascii=False))
            expectations.append(good("articles", record["id"], lang, text.body))
    lines.insert(7, BROKEN_LINE)
    lines.insert(11, json.dumps(TEXTLESS))
    for place, why in ((7, "The line is not JSON."), (11, "The record has no text.")):
        key = f"articles.jsonl.gz@{sum(len(line.encode()) + 1 for line in lines[:place])}"
        expectations.append(Expectation("articles", key, "dropped", ("read.bad_record",), None, why))
    _write_jsonl_gz(into / "articles" / "articles.jsonl.gz", lines)
    return expectations


def _article(text: Text, lang: str) -> dict[str, str]:
    record = {
        "id": f"{lang}-{text.slug}",
        "title": text.front["title"],
        "text": text.body,
        "date": text.front["date"],
        "url": f"https://articles.example/{lang}/{text.slug}",
        "lang": lang,
        "domain": domain_of(text),
    }
    if text.front.get("parallel", "none") != "none":
        record["parallel_id"] = text.front["parallel"]
    return record


def build_notes(into: Path) -> list[Expectation]:
    """Writes the Parquet source, whose columns have names of their own."""
    rows, expectations = [], []
    for lang in LANGUAGES:
        for text in texts_of(lang):
            if text.front["carrier"] == "parquet":
                key = f"{lang}-{text.slug}"
                rows.append((key, text.front["title"], text.body, text.front["date"], domain_of(text)))
                expectations.append(good("notes", key, lang, text.body))
    names = ("id", "headline", "body", "written_on", "subject")
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    table = pa.table(columns, names=names)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    _write(into / "notes" / "notes.parquet", sink.getvalue())
    return expectations


def build_forbidden(into: Path) -> list[Expectation]:
    """Writes the source whose card refuses training."""
    why = "A good text, but the source card's training review is `refused`."
    lines, expectations = [], []
    for text in (read_text(path) for path in sorted((HERE / "forbidden").glob("*.md"))):
        record = {"id": text.slug, "text": text.body}
        record |= {key: text.front[key] for key in ("title", "date", "lang", "domain")}
        lines.append(json.dumps(record, ensure_ascii=False))
        expectations.append(Expectation("forbidden", text.slug, "dropped", ("compliance.training_refused",), None, why))
    _write_jsonl_gz(into / "forbidden" / "forbidden.jsonl.gz", lines)
    return expectations


def _write_jsonl_gz(path: Path, lines: Iterable[str]) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    _write(path, gzip.compress(data, compresslevel=9, mtime=0))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def build(into: Path) -> None:
    """Write every built file below `into`."""
    expectations = [*build_web(into), *build_articles(into), *build_notes(into), *build_forbidden(into)]
    _write(into / "expected.json", expected_json(expectations, CRAWLED).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the sample sources from the authored texts.")
    parser.add_argument("--into", type=Path, default=HERE, help="folder to write below (default: samples/)")
    build(parser.parse_args().into)
