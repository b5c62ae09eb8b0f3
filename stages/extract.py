"""HTML to main text: headings, lists, tables and code kept as light Markdown, formulas as LaTeX in dollar signs.

trafilatura by default; `justext` for running text without structure; or a function of the user's own.

Contract: rows that `read` marked as HTML get their main text, title, date and declared language (and the canonical
address, in `extra`, where it differs from `url`); all others pass unchanged. A page without main text is dropped
(`extract.empty`), one that outlasts the time limit too (`extract.timeout`), one that the library cannot parse as well
(`extract.failed`), and one above `maximum_page_bytes` unread (`extract.too_large`). Results depend on the page and the
config only; the time limit is for pathological pages.
Cost: about 26 pages a second a core (trafilatura). Memory: the parsed page and its copies, in the process apart:
175 MiB and 50 bytes a byte of the page (measured), so that a worker with all blocks stays below 1 GiB at the default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pyarrow as pa
from pydantic import Field

from pipeline.core.config import Config
from stages.block import Dropped, Outcome, outcome, with_changed_texts, with_columns
from stages.config import MEBIBYTE
from stages.extract_worker import Worker
from stages.long_texts import decoded, views
from stages.mathml import has_formulas, with_latex
from stages.plugin import Plugin, load_plugin
from stages.read import CONTENT_TYPE, is_html

BYTES_A_BYTE = 50  # of memory for a byte of HTML, measured with trafilatura on real pages
LATEST_DATE = "2100-01-01"  # htmldate's own default is today, which would make the output depend on the day
_LANG = re.compile(r"<html\b[^>]{0,500}?\blang\s*=\s*[\"']?\s*([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*)", re.I)
_CANONICAL = re.compile(
    r"<link\b(?=[^>]{0,500}\brel\s*=\s*[\"']?canonical\b)[^>]{0,1000}?\bhref\s*=\s*[\"']?([^\s\"'>]+)", re.I
)
_JUSTEXT_LANGUAGES = {"en": "English", "de": "German", "es": "Spanish", "ko": "Korean", "vi": "Vietnamese"}
_ESCAPE = re.compile(r"\\(?!\|)")  # those of bars keep a table's cells apart
_BLANK_LINES = re.compile(r"\n{3,}")


class ExtractConfig(Config):
    """Options of the `extract` block."""

    extractor: Literal["trafilatura", "justext"] | Plugin = "trafilatura"  # (html, url, lang) -> text
    favour: Literal["precision", "balanced", "recall"] = "precision"  # this and the next two: of trafilatura
    form: Literal["markdown", "text"] = "markdown"
    tables: Literal["keep", "drop"] = "keep"
    maximum_page_bytes: int = Field(default=5 * MEBIBYTE, gt=0)  # of HTML in UTF-8; larger pages are dropped
    seconds_per_page: float = Field(default=20.0, ge=0.0)  # 0: no limit, in this process


@dataclass(frozen=True)
class Page:
    """What one HTML page holds."""

    text: str
    title: str | None = None
    date: str | None = None
    declared_lang: str | None = None
    canonical_url: str | None = None


def extract_page(html: str, url: str | None, config: ExtractConfig) -> Page:
    """The main content of a page; `text` is empty when there is none."""
    import trafilatura
    from trafilatura.utils import load_html

    declared = _LANG.search(html[:20_000])
    canonical = _CANONICAL.search(html[:200_000])
    common = {
        "declared_lang": declared.group(1).lower() if declared else None,
        "canonical_url": canonical.group(1) if canonical else None,
    }
    tree = load_html(html)
    if tree is None:
        return Page("", **common)
    if has_formulas(html):
        with_latex(tree)
    stand_in = _without_backslashes(tree, html)
    dates = {"original_date": True, "extensive_search": False, "max_date": LATEST_DATE}
    if config.extractor != "trafilatura":
        found = trafilatura.extract_metadata(tree, default_url=url, date_config=dates)
        text = _other_text(tree, url, common["declared_lang"], config.extractor)
    else:
        found = trafilatura.bare_extraction(
            tree,
            url=url,
            output_format="python",
            include_formatting=config.form == "markdown",
            include_comments=False,
            include_tables=config.tables == "keep",
            favor_precision=config.favour == "precision",
            favor_recall=config.favour == "recall",
            with_metadata=True,
            date_extraction_params=dates,
        )
        text = None if found is None or isinstance(found, dict) else found.text
    if found is None or isinstance(found, dict):
        return Page("", **common)
    if config.extractor == "trafilatura":
        text = _ESCAPE.sub("", text or "")
    tidy = _BLANK_LINES.sub("\n\n", (text or "").replace(stand_in, "\\").strip())
    return Page(tidy, title=found.title or None, date=found.date or None, **common)


def _without_backslashes(tree: Any, html: str) -> str:
    """Put a character that the page has not in place of its backslashes; returns that character.

    trafilatura's Markdown escapes marks that are plain text, such as the underscore of a name. With the page's own
    backslashes out of the way, every backslash that comes out is such an escape.
    """
    stand_in = next(chr(point) for point in range(0x12000, 0x123FF) if chr(point) not in html)  # letters, so they stay
    for element in tree.iter():
        if element.text and "\\" in element.text:
            element.text = element.text.replace("\\", stand_in)
        if element.tail and "\\" in element.tail:
            element.tail = element.tail.replace("\\", stand_in)
    return stand_in


def _other_text(tree: Any, url: str | None, lang: str | None, extractor: str | Plugin) -> str:
    from lxml.html import tostring

    html = tostring(tree, encoding="unicode")
    if isinstance(extractor, Plugin):
        return load_plugin(extractor)(html, url, lang)
    import justext

    # Its word lists are the difference between prose and menus; without one of the language, lengths and links decide.
    name = _JUSTEXT_LANGUAGES.get((lang or "").split("-")[0])
    words = justext.get_stoplist(name) if name else frozenset[str]()
    low, high = (justext.core.STOPWORDS_LOW_DEFAULT, justext.core.STOPWORDS_HIGH_DEFAULT) if words else (0.0, 0.0)
    paragraphs = justext.justext(html, words, stopwords_low=low, stopwords_high=high)
    return "\n\n".join(one.text for one in paragraphs if not one.is_boilerplate)


class Extract:
    """The block."""

    def __init__(self, config: ExtractConfig) -> None:
        self._config = config
        self._worker: Worker | None = None

    def apply(self, documents: pa.Table) -> Outcome:
        html = is_html(documents)
        rows = [row for row, page in enumerate(html) if page]
        if not rows:
            return outcome(documents)
        names = ("title", "date", "declared_lang", "extra", "url")
        columns: dict[str, list[Any]] = {name: documents[name].to_pylist() for name in names}
        texts, changed = views(documents["text"]), dict[int, str]()
        dropped: list[Dropped] = []
        counts: Counter[str] = Counter()
        for row in rows:
            counts["extract.pages"] += 1
            if len(texts[row]) > self._config.maximum_page_bytes:
                dropped.append(Dropped(row, "extract.too_large", self._too_large(len(texts[row]))))
                continue
            html = decoded(texts[row])
            page, rule = self._page(html, columns["url"][row])
            if not page.text.strip() and not rule:
                rule = "empty"
            if rule:
                detail = page.text if rule == "failed" else f"{len(html)} characters of HTML"
                dropped.append(Dropped(row, f"extract.{rule}", detail))
                continue
            changed[row] = page.text
            columns["title"][row] = page.title or columns["title"][row]
            columns["date"][row] = page.date or columns["date"][row]
            columns["declared_lang"][row] = page.declared_lang or columns["declared_lang"][row]
            columns["extra"][row] = _extracted_extra(columns["extra"][row], page, columns["url"][row])
        return outcome(with_changed_texts(with_columns(documents, columns), changed), dropped, counts=counts)

    def _too_large(self, size: int) -> str:
        return (
            f"a page of {size} bytes, `extract: maximum_page_bytes` is {self._config.maximum_page_bytes}; "
            f"{size} would take it, and about {size * BYTES_A_BYTE // MEBIBYTE} MiB of memory"
        )

    def close(self) -> None:
        """End the worker, if there is one; the block can still be used."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _page(self, html: str, url: str | None) -> tuple[Page, str]:
        """(page, rule that drops it or an empty string); for `failed` the text is the library's message."""
        if self._config.seconds_per_page == 0:
            try:
                return extract_page(html, url, self._config), ""
            except Exception as error:  # a page must not end the run; whatever the parser raised is the detail
                return Page(f"{type(error).__name__}: {error}"), "failed"
        if self._worker is None:
            self._worker = Worker("stages.extract:answer", self._config.model_dump())
        reply = self._worker.ask({"html": html, "url": url}, self._config.seconds_per_page)
        if reply is None:
            return Page(""), "timeout"
        if "failed" in reply:
            return Page(reply["failed"]), "failed"
        return Page(**reply), ""


def answer(config: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """One request of the worker process."""
    try:
        return vars(extract_page(request["html"], request["url"], ExtractConfig.model_validate(config))).copy()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def make(config: ExtractConfig, paths: Mapping[str, tuple[str, ...]]) -> Extract:
    """Catalog entry."""
    return Extract(config)


def _extracted_extra(extra: str | None, page: Page, url: str | None) -> str | None:
    values = orjson.loads(extra) if extra else {}
    values.pop(CONTENT_TYPE, None)
    if page.canonical_url and page.canonical_url != url:
        values["canonical_url"] = page.canonical_url
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode() if values else None
