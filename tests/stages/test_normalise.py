"""Normalisation: what changes, what must not, each change counted."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import ftfy
import ftfy.badness
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import table_from_rows, text_hash
from stages.block import verify
from stages.normalise import CHANGES, Normalise, NormaliseConfig, normalise_text

WITHOUT_MOJIBAKE = tuple(change for change in CHANGES if change != "mojibake")


@pytest.mark.parametrize(
    ("text", "wanted", "counts"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd", {"line_endings": 3}),
        ("a\x00b\x1bc\td", "abc\td", {"controls": 2}),
        ("in\u00advisi\u200bble\ufeff", "invisible", {"zero_width": 3}),
        (
            unicodedata.normalize("NFD", "한국어 プログラム tiếng Việt"),
            "한국어 プログラム tiếng Việt",
            {"nfc_documents": 1},
        ),
        ("Ã¼ber den Wolken, schÃ¶n", "über den Wolken, schön", {"mojibake_lines": 1}),
        ("sauber\nÃ¼bel", "sauber\nübel", {"mojibake_lines": 1}),
        ("x² + y₃ = ½ ﬁ Ａ", "x² + y₃ = ½ ﬁ Ａ", {}),  # never NFKC
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم", {}),  # joiners carry meaning
        ("Ça va? Größe, señor, Đà Nẵng — ok", "Ça va? Größe, señor, Đà Nẵng — ok", {}),
        ("Â¿QuÃ© tal?", "¿Qué tal?", {"mojibake_lines": 1}),
    ],
)
def test_exact_changes(text: str, wanted: str, counts: dict[str, int]) -> None:
    assert normalise_text(text) == (wanted, counts)


@given(st.text())
def test_idempotent_nfc_and_nothing_but_known_characters_removed(text: str) -> None:
    once, _ = normalise_text(text, WITHOUT_MOJIBAKE)
    assert normalise_text(once, WITHOUT_MOJIBAKE) == (once, {})
    assert unicodedata.is_normalized("NFC", once)
    once.encode("utf-8")


@given(st.text(alphabet=st.characters(categories=("L", "N", "P"))))
def test_letters_and_marks_survive(text: str) -> None:
    assert normalise_text(text, WITHOUT_MOJIBAKE)[0] == unicodedata.normalize("NFC", text)


def test_block_counts_and_drops_what_becomes_empty() -> None:
    texts = ["gut", "a\r\nb", "\u200b\ufeff"]
    documents = table_from_rows(
        [{"id": str(n), "text": text, "text_hash": text_hash(text), "source": "s"} for n, text in enumerate(texts)]
    )
    result = Normalise(NormaliseConfig()).apply(documents)
    verify(documents, result)
    assert result.kept["text"].to_pylist() == ["gut", "a\nb"]
    assert result.kept["text_hash"][1].as_py() == text_hash("a\nb")
    assert result.reasons == ["normalise.empty"]
    assert result.counts == {
        "normalise.documents_changed": 2,
        "normalise.line_endings": 1,
        "normalise.zero_width": 2,
    }


SUSPICIOUS = sorted({char for char in ftfy.badness.BADNESS_RE.pattern if not char.isalnum() or ord(char) > 0x7F})


@settings(max_examples=2000)
@given(st.text(alphabet=st.sampled_from([*SUSPICIOUS, *"aZ .,\xa0한あü"]), min_size=1, max_size=6))
def test_no_line_that_ftfy_finds_bad_is_passed_over(line: str) -> None:
    if ftfy.badness.is_bad(line) and ftfy.fix_encoding(line) != line:
        assert normalise_text(line, ("mojibake",)) == (ftfy.fix_encoding(line), {"mojibake_lines": 1})


def test_every_line_of_real_text_is_treated_as_without_the_shortcut(data_root: Path) -> None:
    rows = pq.read_table(data_root / "html_gold.parquet", columns=["text"])["text"].to_pylist()[::8]
    for text in rows:
        broken = "\n".join(
            line.encode("utf-8").decode("cp1252", errors="ignore") if n % 2 else line
            for n, line in enumerate(text.split("\n"))
        )
        lines = [ftfy.fix_encoding(line) if ftfy.badness.is_bad(line) else line for line in broken.split("\n")]
        assert normalise_text(broken, ("mojibake",))[0] == "\n".join(lines)
