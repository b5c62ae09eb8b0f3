"""The search index: what it finds is what a plain scan of the texts finds, in six languages, in a fixed order."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import document_id
from pipeline.core.errors import InputError
from pipeline.core.files import hash_file, list_files, open_input
from pipeline.core.tokenizer import nfc
from synth.subagents.index import Page, SearchIndex, write_index
from synth.subagents.index_step import pages_of
from synth.subagents.terms import index_terms, sentences

LANGUAGES = ("de", "en", "es", "ja", "ko", "vi")
CJK_BESIDE_OTHER = re.compile(
    r"(?<=[가-힣ぁ-ヿ一-鿿々])(?=[^\W가-힣ぁ-ヿ一-鿿々])|(?<=[^\W가-힣ぁ-ヿ一-鿿々])(?=[가-힣ぁ-ヿ一-鿿々])"
)


def page(number: int, text: str, lang: str = "en", title: str = "", **more: Any) -> Page:
    identity = document_id("pages", str(number))
    return Page(identity, f"https://page.invalid/{number}", title, lang, "CC0-1.0", identity, text, **more)


def built(folder: Path, *files: list[Page]) -> SearchIndex:
    for number, pages in enumerate(files):
        write_index(folder / f"{number:05d}.sqlite", pages)
    return SearchIndex(folder)


@pytest.fixture(scope="module")
def sample_pages(library: Any) -> list[Page]:
    texts = [(lang, library.text(lang, slug)) for lang in LANGUAGES for slug in library.slugs(lang)]
    return [page(number, text, lang) for number, (lang, text) in enumerate(texts)]


@pytest.fixture(scope="module")
def sample_index(sample_pages: list[Page], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchIndex]:
    index = built(tmp_path_factory.mktemp("index"), sample_pages[::2], sample_pages[1::2])
    yield index
    index.close()


def plain(text: str) -> str:
    """Words with one space between them; a border between scripts is one too. Written apart from the index's own."""
    apart = CJK_BESIDE_OTHER.sub(" ", text.casefold())
    return " " + re.sub(r"[\W_]+", " ", apart).strip() + " "


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_phrase_is_found_where_a_scan_of_the_texts_finds_it(
    sample_index: SearchIndex, sample_pages: list[Page], language: str
) -> None:
    dice = Random(language)
    scanned = {one.id: plain(one.text) for one in sample_pages}
    own = [one for one in sample_pages if one.lang == language]
    tried = 0
    while tried < 60:
        words = scanned[dice.choice(own).id].split()
        at = dice.randrange(len(words))
        chosen = words[at : at + dice.randint(1, 4)]
        if language in ("ja", "ko"):
            if not all(re.fullmatch(r"[가-힣ぁ-ヿ一-鿿々]+", word) for word in chosen):
                continue
            # Any stretch of characters is a phrase: cut into the first word and the last.
            phrase = " ".join(chosen)[dice.randrange(2) :].strip() or chosen[0]
            phrase = phrase[: dice.randint(1, len(phrase))].strip()
            wanted = {identity for identity, text in scanned.items() if phrase in text}
        else:
            if any(re.search(r"[가-힣ぁ-ヿ一-鿿々]", word) for word in chosen):
                continue
            phrase = " ".join(chosen)
            wanted = {identity for identity, text in scanned.items() if f" {phrase} " in text}
        found = {one.id for one in sample_index.containing(phrase, 1000)}
        assert found == wanted, phrase
        tried += 1


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abß9 .,-가나다漢字カナ\n\"'*():^"))
def test_any_text_can_be_searched_for(sample_index: SearchIndex, text: str) -> None:
    for one in (text, f'"{text}"'):
        assert len(sample_index.search(one, 3)) <= 3
        sample_index.containing(one, 3)


def test_short_words_without_spaces_around_them_are_found_and_fts5s_own_tokenizers_do_not(tmp_path: Path) -> None:
    texts = ["서울은 대한민국의 수도이다.", "東京は日本の首都です。", "The alder grows by the lake."]
    index = built(tmp_path, [page(number, text) for number, text in enumerate(texts)])
    connection = sqlite3.connect(":memory:")
    for name in ("unicode61", "trigram"):
        connection.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(body, tokenize='{name}')")
        connection.executemany(f"INSERT INTO {name} VALUES (?)", [(text,) for text in texts])
    for query, at in (("수도", 0), ("首都", 1), ("日本", 1), ("都", 1)):
        assert [one.text for one in index.search(query, 5)] == [texts[at]]
        for name in ("unicode61", "trigram"):
            assert not connection.execute(f"SELECT rowid FROM {name} WHERE {name} MATCH ?", (f'"{query}"',)).fetchall()


def test_quoted_words_must_occur_and_others_rank(tmp_path: Path) -> None:
    texts = ["red lamp on a green door", "green lamp on a red door", "a red lamp and a blue key"]
    index = built(tmp_path, [page(number, text) for number, text in enumerate(texts)])
    assert {one.text for one in index.search('"red lamp"', 5)} == {texts[0], texts[2]}
    assert [one.text for one in index.search('"red lamp" blue key', 5)] == [texts[2], texts[0]]
    assert index.search('"lamp red" lamp', 5) == []
    assert index.search("?!", 5) == []


def test_equal_scores_are_ordered_by_id_whatever_file_they_are_in(tmp_path: Path) -> None:
    pages = [page(number, "one and the same text about a heron") for number in range(9)]
    expected = sorted(one.id for one in pages)
    for name, files in (("one", [pages]), ("turned", [pages[::-1]]), ("three", [pages[::3], pages[1::3], pages[2::3]])):
        index = built(tmp_path / name, *files)
        assert [one.id for one in index.search("heron", 9)] == expected
        assert [one.id for one in index.search("heron", 4)] == expected[:4]


def test_a_title_weighs_more_than_the_body(tmp_path: Path) -> None:
    index = built(tmp_path, [page(0, "a heron stood there"), page(1, "a bird stood there", title="heron")])
    assert index.search("heron", 2)[0].title == "heron"


def test_the_same_pages_give_the_same_bytes_and_the_index_cannot_be_written(
    tmp_path: Path, sample_pages: list[Page]
) -> None:
    for name in ("a", "b"):
        write_index(tmp_path / name / "00000.sqlite", sample_pages)
    assert hash_file(tmp_path / "a" / "00000.sqlite") == hash_file(tmp_path / "b" / "00000.sqlite")
    index = SearchIndex(tmp_path / "a")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        index._files[0].execute("DELETE FROM pages")


def test_a_build_that_stops_leaves_nothing(tmp_path: Path) -> None:
    def stopping() -> Iterator[Page]:
        yield page(0, "a text")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_index(tmp_path / "00000.sqlite", stopping())
    with pytest.raises(InputError, match="two pages have the address"):
        write_index(tmp_path / "00000.sqlite", [page(0, "a"), page(0, "b")])
    assert list_files(tmp_path) == []
    with pytest.raises(InputError, match="no search index"):
        SearchIndex(tmp_path)


def test_a_long_document_is_several_pages_that_hold_all_of_it() -> None:
    text = "\n\n".join(f"Paragraph {number} " + "x" * 80 for number in range(20))
    row = {"id": "d" * 32, "url": None, "title": None, "text": text, "lang": "en-GB", "license": "MIT", "source": "s"}
    pages = pages_of(row, 300)
    assert "\n\n".join(one.text for one in pages) == text
    assert len(pages) == len({one.id for one in pages}) == len({one.url for one in pages}) == 7
    assert {(one.document, one.lang, one.license) for one in pages} == {("d" * 32, "en", "MIT")}
    doubled = pages_of({**row, "url": "https://a.example/x"}, 300, frozenset({"https://a.example/x"}))
    assert doubled[0].url == pages[0].url
    assert pages_of({**row, "url": "https://a.example/x"}, 300)[1].url == "https://a.example/x#part-2"


@pytest.mark.parametrize("language", LANGUAGES)
def test_real_pages_are_found_by_a_sentence_of_theirs(data_root: Path, tmp_path: Path, language: str) -> None:
    pages: list[Page] = []
    with open_input(str(data_root / "docs_parallel.jsonl.zst")) as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            if row["lang"] == language and len(row["text"]) > 400 and len(pages) < 250:
                pages.append(page(number, nfc(row["text"]), language))
    index = built(tmp_path, pages)
    dice = Random(language)
    found = tried = 0
    for one in dice.sample(pages, min(60, len(pages))):
        able = [part for part in sentences(one.text) if len(index_terms(part)) >= 8]
        if able:
            sentence = dice.choice(able)
            words = sentence.split()
            query = " ".join(dice.sample(words, max(1, 2 * len(words) // 3)))  # two thirds of it, in any order
            same = {other.id for other in pages if sentence in other.text}
            tried += 1
            found += bool(same & {hit.id for hit in index.search(query, 5)})
    assert tried >= 40
    assert found >= 0.85 * tried, (language, found, tried)
