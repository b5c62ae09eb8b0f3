"""Signals: lines, paragraphs and C4's rules equal datatrove's arithmetic; batches, blanks and agreement of verdicts."""

from __future__ import annotations

import importlib.util
import random
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates
from datatrove.utils.text import TERMINAL_PUNCTUATION
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.documents import table_from_rows, text_hash
from stages.c4 import C4_FIELDS
from stages.presets import load_preset
from stages.rules import RulesConfig, judge
from stages.signals import SIGNALS, column, document_signals, signals_table

LANGS = ("en", "de", "es", "vi", "ja", "ko")
PEERS = {"en": "spacy", "de": "spacy", "es": "spacy", "vi": "pyvi", "ja": "sudachipy", "ko": "kiwipiepy"}
LINES = st.lists(
    st.sampled_from(
        ["one two three.", "one two", "- a", " • b", "c...", "d…", "  ", "", "Uses Cookies, they said.", "JavaScript is on!",
         "Lorem Ipsum dolor sit.", "a b {c}.", "cited here.[12]", "cited here. [edit]", "x" * 1001 + " a b.", "日本語の文です。",
         "terms of Use apply.", "he said \"so\"", "three words here...", "end\t", "\u3000wide\u3000", "'tis it'", "a b [12] c."]
    ),
    max_size=14,
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\n\n", "\r\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\n\n\n", "\x0b\n"])


def joined(lines: list[str], ends: list[str]) -> str:
    return "".join(line + ends[number % len(ends)] for number, line in enumerate(lines)) if ends else "".join(lines)


def table(texts: list[str], lang: str | None) -> Any:
    return table_from_rows(
        [
            {"id": str(n), "text": text, "text_hash": text_hash(text), "source": "s", "lang": lang}
            for n, text in enumerate(texts)
        ]
    )


@settings(deadline=None, max_examples=300)
@given(LINES, st.lists(ENDS, min_size=1, max_size=3))
@example(["a", "b"], ["\r\n"])
@example(["a", "", "a", ""], ["\x0b\n"])
def test_lines_and_paragraphs_are_pythons(lines: list[str], ends: list[str]) -> None:
    text = joined(lines, ends)
    found = document_signals(text, "en", None)
    if not text.strip():
        assert set(found.values()) == {None}
        return
    paragraphs, gopher = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    filled, split = [line for line in text.split("\n") if line.strip()], text.splitlines()
    assert found["dup_paragraph_fraction"] == find_duplicates(paragraphs)[0] / len(paragraphs)
    assert found["dup_paragraph_character_fraction"] == find_duplicates(paragraphs)[1] / len(text)
    assert found["dup_line_fraction"] == find_duplicates(gopher)[0] / len(gopher)
    assert found["dup_line_character_fraction"] == find_duplicates(gopher)[1] / len(text)
    assert found["bullet_line_ratio"] == sum(s.lstrip().startswith(("•", "-")) for s in split) / len(split)
    assert found["ellipsis_line_ratio"] == sum(s.rstrip().endswith(("...", "…")) for s in split) / len(split)
    assert found["line_punctuation_ratio"] == sum(s.endswith(tuple(TERMINAL_PUNCTUATION)) for s in filled) / len(filled)
    assert found["short_line_ratio"] == sum(len(s) <= 30 for s in filled) / len(filled)
    assert found["line_dup_character_ratio"] == find_duplicates(filled)[1] / len(text.replace("\n", ""))
    assert (found["longest_line"], found["mean_line_length"]) == (
        max(map(len, filled)),
        sum(map(len, filled)) / len(filled),
    )
    words = found["words"]
    assert words
    assert found["ellipsis_ratio"] == (text.count("...") + text.count("…")) / words
    assert found["new_line_ratio"] == text.count("\n") / words


@pytest.mark.parametrize(("any_end", "variant"), [(False, "c4"), (True, "c4_any_end")])
@settings(deadline=None, max_examples=200)
@given(lines=LINES, ends=st.lists(ENDS, min_size=1, max_size=2))
def test_c4_keeps_the_lines_that_datatrove_keeps(
    any_end: bool, variant: str, lines: list[str], ends: list[str]
) -> None:
    text = joined(lines, ends)
    found = document_signals(text, "en", None)
    peer = C4QualityFilter(min_num_sentences=-1, filter_no_terminal_punct=not any_end)
    document = Document(text=text, id="0")
    verdict = peer.filter(document)
    if not text.strip():
        return
    dropped = found[f"{variant}_lorem_ipsum"] or found[f"{variant}_curly_bracket"]
    assert (verdict is not True) == bool(dropped)
    if verdict is True:
        assert found[f"{variant}_lines_kept"] == len([line for line in document.text.split("\n") if line])


def test_japanese_lines_end_in_their_own_marks() -> None:
    text = "\n".join(["これは日本語の文です。"] * 10)
    found = document_signals(text, "ja", None)
    assert (found["c4_lines_kept"], found["c4_script_end_lines_kept"], found["c4_script_end_sentences"]) == (0, 10, 10)
    config = {name: RulesConfig(preset=name) for name in ("c4", "c4_scripts")}
    signals = signals_table(table([text], "ja"), {})
    assert [judge(signals, one)[0] is None for one in config.values()] == [False, True]


@given(st.lists(st.text(max_size=40), max_size=8))
@settings(deadline=None)
def test_a_batch_gives_the_signals_of_its_texts(texts: list[str]) -> None:
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    stop = frozenset({"a", "b"})
    rows = signals_table(table(["first", *clean], "en").slice(1), {"en": stop}).to_pylist()
    for text, row in zip(clean, rows, strict=True):
        assert {name: row[column(name)] for name in SIGNALS} == document_signals(text, "en", stop)


def test_parts_of_a_large_batch_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'word ' * number}end." for number in range(50)]
    whole = signals_table(table(texts, "en"), {})
    monkeypatch.setattr("stages.signals._PART_BYTES", 100)
    assert signals_table(table(texts, "en"), {}).equals(whole)


C4_CODES = {"en": "eng", "de": "deu", "es": "spa", "vi": "vie", "ja": "jpn", "ko": "kor"}
C4_SAMPLES = {"vi": 30, "ja": 30, "ko": 8}  # their segmenters are slow; of the others 40


@pytest.mark.parametrize(
    "lang", ["de", "es", "vi", "ja", *(pytest.param(one, marks=pytest.mark.slow) for one in ("en", "ko"))]
)
def test_with_datatroves_words_c4_is_datatroves(lang: str, data_root: Path) -> None:
    """With lines that end in an ASCII mark, as published, and with lines of any end, as FineWeb uses it."""
    if importlib.util.find_spec(PEERS[lang]) is None:
        pytest.skip(f"datatrove's sentences need {PEERS[lang]}")
    texts = sample(data_root, lang, C4_SAMPLES.get(lang, 40), 4000 if lang not in C4_SAMPLES else 1500)
    signals = signals_table(table(texts, lang), {}, "datatrove")
    for variant, strict in (("c4", True), ("c4_any_end", False)):
        values = {name: signals[column(f"{variant}_{name}")].to_numpy() for name in C4_FIELDS}
        ours = (values["lorem_ipsum"] == 0) & (values["curly_bracket"] == 0) & (values["sentences"] >= 5)
        peer = C4QualityFilter(language=C4_CODES[lang], filter_no_terminal_punct=strict)
        theirs = [peer.filter(Document(text=text, id="0")) is True for text in texts]
        assert ours.tolist() == theirs
        assert any(theirs) or (lang == "ja" and strict)  # no Japanese line ends in an ASCII mark
        if strict:
            assert [verdict is None for verdict in judge(signals, RulesConfig(preset="c4"))] == theirs


def sample(data_root: Path, lang: str, count: int, characters: int) -> list[str]:
    rows = pq.read_table(data_root / "html_gold.parquet", columns=["text", "lang"]).to_pylist()
    texts = [row["text"][:characters] for row in rows if row["lang"] == lang and row["text"].strip()]
    return random.Random(0).sample(texts, min(count, len(texts)))


@pytest.mark.slow
@pytest.mark.parametrize("lang", LANGS)
def test_verdicts_with_our_words_agree_with_those_of_datatroves_words(
    lang: str, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same thresholds over both segmenters' words; every difference is printed (`pytest -s`)."""
    if importlib.util.find_spec(PEERS[lang]) is None:
        pytest.skip(f"datatrove's words need {PEERS[lang]}")
    texts = sample(data_root, lang, 200 if lang != "ko" else 60, 5000)
    stop = {name: frozenset(words) for name, words in load_preset("fineweb2").stop_words.items()}
    ours, theirs = (
        judge(signals_table(table(texts, lang), stop, name), RulesConfig()) for name in ("seodang", "datatrove")
    )
    different = [pair for pair in zip(ours, theirs, strict=True) if (pair[0] is None) != (pair[1] is None)]
    with capsys.disabled():
        print(f"\n{lang}: {len(different)} of {len(texts)} differ; ours, datatrove's:", *different, sep="\n  ")
    assert len(different) / len(texts) <= 0.03
