"""The search index: pages in SQLite files with an FTS5 table over their terms, built once, then read only.

Contract: `write_index` makes one file whole or not at all (temporary name, fsync, rename); the same pages in the same
order give the same bytes under one version of SQLite. `SearchIndex` opens all files of a folder immutable. A search is
an OR of the query's terms, best BM25 first (titles weigh double), equal scores by page id; text between double quotes
must occur as it stands. FTS5's own tokenizers do not serve our languages: `unicode61` keeps a Korean or Japanese clause
as one word, `trigram` finds nothing shorter than three characters. So terms are made here (`terms.py`), stored between
spaces, and cut at spaces by FTS5's `ascii` tokenizer. With several files, BM25 weighs terms within each of them: pages
are spread at random, so that the weights agree but for chance. Cost: building 5 MB/s, a search 1 ms
in 600 pages.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, atomic_path
from synth.subagents.terms import index_terms, is_run, pairs, pieces

SUFFIX = ".sqlite"
TITLE_WEIGHT = 2.0  # ours
MOST_TERMS = 48  # of a query; further ones are left out
SCORE_DIGITS = 6  # scores that agree to here are equal: floating point sums differ between machines
QUOTED = re.compile(r'"([^"]+)"')  # straight ones only: typographic ones are a text's own
TABLES = """
CREATE TABLE pages(
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, url TEXT NOT NULL UNIQUE, title TEXT NOT NULL, lang TEXT NOT NULL,
    license TEXT, document TEXT NOT NULL, planted INTEGER NOT NULL, text TEXT NOT NULL);
CREATE VIRTUAL TABLE terms USING fts5(title, body, content='', tokenize='ascii');
"""


@dataclass(frozen=True)
class Page:
    """One page of the corpus."""

    id: str
    url: str
    title: str
    lang: str
    license: str | None
    document: str  # id of the document it is (a part of)
    text: str
    planted: bool = False  # whether a sentence of ours was put into it


COLUMNS = ", ".join(f"pages.{one}" for one in ("id", "url", "title", "lang", "license", "document", "text", "planted"))


def write_index(path: Path, pages: Iterable[Page]) -> int:
    """Write one file; gives the number of pages. Raises `InputError` for two pages of one address."""
    count = 0
    with atomic_path(path) as partial:
        partial.unlink(missing_ok=True)
        connection = sqlite3.connect(partial, isolation_level=None)
        try:
            connection.executescript("PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            connection.executescript(TABLES)
            connection.execute("BEGIN")
            for count, page in enumerate(pages, start=1):
                _insert(connection, count, page)
            connection.execute("INSERT INTO terms(terms) VALUES ('optimize')")
            connection.execute("COMMIT")
        finally:
            connection.close()
    return count


def _insert(connection: sqlite3.Connection, row: int, page: Page) -> None:
    values = (row, page.id, page.url, page.title, page.lang, page.license, page.document, int(page.planted), page.text)
    try:
        connection.execute("INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    except sqlite3.IntegrityError:
        raise InputError(f"two pages have the address `{page.url}`", fix="drop one of the documents") from None
    terms = (row, " ".join(index_terms(page.title)), " ".join(index_terms(page.text)))
    connection.execute("INSERT INTO terms(rowid, title, body) VALUES (?, ?, ?)", terms)


class SearchIndex:
    """All index files of a folder, for reading."""

    def __init__(self, folder: Path) -> None:
        """Raises `InputError` where there is no index."""
        paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(PARTIAL))
        if not paths:
            raise InputError("no search index", where=str(folder), fix="run the step that builds it")
        self._files = [sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True) for path in paths]
        self.languages: tuple[str, ...] = tuple(
            sorted({row[0] for one in self._files for row in one.execute("SELECT DISTINCT lang FROM pages")})
        )

        self._pages = sum(one.execute("SELECT count(*) FROM pages").fetchone()[0] for one in self._files)
        for one in self._files:
            one.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, terms, row)")
        self._weights: dict[str, float] = {}
        self._identities: dict[str, list[tuple[int, int]]] = {}

    def weight(self, term: str) -> float:
        """The logarithm of how rare a term is among all pages; 0 for one that no page has: it tells none apart."""
        if term not in self._weights:
            query = "SELECT doc FROM temp.vocabulary WHERE term = ?"
            rows = [one.execute(query, (term,)).fetchone() for one in self._files]
            count = sum(row[0] for row in rows if row)
            self._weights[term] = log(1 + self._pages / count) if count else 0.0
        return self._weights[term]

    def close(self) -> None:
        for one in self._files:
            one.close()

    def search(self, query: str, limit: int) -> list[Page]:
        """The best pages, best first; none for a query without terms."""
        expression = match_expression(query)
        if not expression:
            return []
        found: list[tuple[float, Page]] = []
        for one in self._files:
            rows = one.execute(
                f"SELECT round(bm25(terms, {TITLE_WEIGHT}, 1.0), {SCORE_DIGITS}) AS score, {COLUMNS} FROM terms "
                "JOIN pages ON pages.row = terms.rowid WHERE terms MATCH ? ORDER BY score, pages.id LIMIT ?",
                (expression, limit),
            )
            found += [(row[0], _page(row[1:])) for row in rows]
        return [page for _, page in sorted(found, key=lambda one: (one[0], one[1].id))[:limit]]

    def containing(self, phrase: str, limit: int) -> list[Page]:
        """Pages in whose body the phrase's terms stand in a row, by id."""
        expression = phrase_expression(phrase)
        if not expression:
            return []
        found = [
            _page(row)
            for one in self._files
            for row in one.execute(
                f"SELECT {COLUMNS} FROM terms JOIN pages ON pages.row = terms.rowid WHERE terms MATCH ? "
                "ORDER BY pages.id LIMIT ?",
                (f"body : {expression}", limit),
            )
        ]
        return sorted(found, key=lambda page: page.id)[:limit]

    def open(self, url: str) -> Page | None:
        for one in self._files:
            row = one.execute(f"SELECT {COLUMNS} FROM pages WHERE url = ?", (url,)).fetchone()
            if row is not None:
                return _page(row)
        return None

    def identities(self, language: str) -> list[tuple[int, int]]:
        """(file, row) of every page in a language without a planted sentence, in order."""
        if language not in self._identities:
            query = "SELECT row FROM pages WHERE lang = ? AND NOT planted ORDER BY row"
            self._identities[language] = [
                (number, row[0]) for number, one in enumerate(self._files) for row in one.execute(query, (language,))
            ]
        return self._identities[language]

    def longest(self) -> list[tuple[str, int, int, int]]:
        """(language, characters of its longest text, title and address); reads every page."""
        query = "SELECT lang, max(length(text)), max(length(title)), max(length(url)) FROM pages GROUP BY lang"
        return [row for one in self._files for row in one.execute(query)]

    def page(self, file: int, row: int) -> Page:
        return _page(self._files[file].execute(f"SELECT {COLUMNS} FROM pages WHERE row = ?", (row,)).fetchone())


def _page(row: Sequence[object]) -> Page:
    identity, url, title, lang, license_, document, text, planted = row
    return Page(
        str(identity), str(url), str(title), str(lang), None if license_ is None else str(license_), str(document),
        str(text), bool(planted),
    )  # fmt: skip


def match_expression(query: str) -> str:
    """FTS5's expression for a query: quoted phrases must occur, of the other terms any."""
    phrases = [one for quoted in QUOTED.findall(query) if (one := phrase_expression(quoted))]
    terms: list[str] = []
    for piece in pieces(QUOTED.sub(" ", query)):
        terms += [f'"{one}"' for one in pairs(piece)] if is_run(piece) else [f'"{piece}"']
    terms = list(dict.fromkeys(terms))[:MOST_TERMS]
    if not terms and not phrases:
        # One character of a run alone: as the beginning of a pair, or the last of its run.
        return " OR ".join(f'"{piece}" *' for piece in pieces(query))
    optional = " OR ".join(terms)
    if not phrases:
        return optional
    required = " AND ".join(phrases)
    # Terms beside phrases only rank: the phrases alone decide what is found.
    return f"{required} AND ({required} OR {optional})" if optional else required


def phrase_expression(text: str) -> str:
    """FTS5's expression for terms in a row; empty when there are none."""
    found: list[str] = []
    last = ""
    for piece in pieces(text):
        last = piece
        found += [*pairs(piece), piece[-1]] if is_run(piece) else [piece]
    if not found:
        return ""
    if not is_run(last):
        return f'"{" ".join(found)}"'
    # The text may go on after the last character of a run: that one is the beginning of a pair or alone.
    return f'"{" ".join(found)}" *'
