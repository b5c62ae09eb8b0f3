"""Long texts in pieces: every block gives the same for a text in pieces as for the whole."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import table_from_rows, text_hash
from stages import long_texts
from stages.block import Outcome, verify, with_changed_texts
from stages.language import Language, LanguageConfig, embedded
from stages.lid.masking import mask, masked_pieces
from stages.lid.whole import paragraphs, read_paragraphs
from stages.long_texts import any_line_feed, beginnings, decoded, pieces, text_array, views
from stages.normalise import Normalise, NormaliseConfig, normalise_text
from stages.pii import Pii, PiiConfig, mask_pieces
from stages.pii import mask as mask_data
from stages.toxicity import WordList, compiled, scores

SMALL = 24  # bytes of a piece: many borders in a short text
# What a border may fall into: marks that span lines, numbers, secrets, combining marks, phrases, line ends.
STRETCHES = (
    "\n", "\n\n", "\r\n", " ", "word", "Der Hund bellt.", "도서관은 쉽니다. ", "図書館は休みです。", "```", "~~~", "`x`", "$$", "$",
    "a+b", "\\[", "\\]", "\\(", "\\)", "\\begin{align}", "\\end{align}", "<b>", "https://a.b/c", "me@x.org", "e\u0301", "\u0301",
    "1\u1100\u1161", "\u200b", "\x07", "Ã¤Ã¶", "â€œ", "\ufeff", "\x85", "010-1234-5678", "02)\n123-4567", "Tel: 12 -34 56 78",
    "call me at", "\n030 1234567", "-----BEGIN PRIVATE KEY-----\n" + "QUJD\n" * 12, "-----END PRIVATE KEY-----", "password",
    " = ", "\n'", "Zx81kQ0pLm44Tt9v'", "v1.2.3.4", "8.8.8.8", "version\n", "900101-1234567", "filthy", "big\nbad", "wolf",
    "“", "”", "d a r n", "not", "martians", "...", "!",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(STRETCHES), max_size=40).map("".join)
LISTS = compiled(
    [WordList(profanity=("darn", "heck*"), slur=("big bad wolf",), group=("martians",), derogatory=("filthy",),
              negation=("not",))],
    "en",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "PIECE_BYTES", SMALL)


def utf8(text: str) -> memoryview:
    return memoryview(text.encode())


def documents(texts: list[str]) -> pa.Table:
    rows = [{"id": str(n), "text": text, "text_hash": text_hash(text), "source": "s"} for n, text in enumerate(texts)]
    return table_from_rows(rows)


@given(st.text("aé한\U0001f600\n", max_size=200))
def test_pieces_are_the_text_in_whole_lines(text: str) -> None:
    data = utf8(text)
    parts = [bytes(data[start:end]) for start, end in pieces(data)]
    assert b"".join(parts) == text.encode()
    assert all(part.endswith(b"\n") for part in parts[:-1])
    assert all(len(part) >= SMALL for part in parts[:-1])
    assert list(pieces(data, lambda text, place: False)) == ([(0, len(data))] if text else [])


@given(st.lists(st.text("aé한\U0001f600\n", max_size=30), max_size=6), st.data())
def test_columns_are_seen_and_made_without_strings(texts: list[str], data: st.DataObject) -> None:
    array = text_array([[utf8(part)[:0], utf8(part)] if n % 2 else part for n, part in enumerate(texts)])
    array.validate(full=True)
    assert array.to_pylist() == texts
    cut = data.draw(st.integers(0, len(texts)))
    column = pa.chunked_array([array.slice(cut), array.slice(0, cut)], pa.large_string())
    assert [decoded(view) for view in views(column)] == texts[cut:] + texts[:cut]
    assert [one[:3] for one in beginnings(array, 3)] == [text[:3] for text in texts]


def test_large_new_texts_stand_beside_the_old_ones_uncopied(monkeypatch: pytest.MonkeyPatch) -> None:
    table = documents(["a", "b", "c", "d"])
    plain = with_changed_texts(table, {1: "new", 3: [b"ne", b"wer"]})
    monkeypatch.setattr("stages.block.LARGE_BYTES", 0)
    spliced = with_changed_texts(table, {1: "new", 3: [b"ne", b"wer"]})
    assert spliced["text"].to_pylist() == plain["text"].to_pylist() == ["a", "new", "c", "newer"]
    assert spliced["text_hash"].to_pylist() == [text_hash(text) for text in plain["text"].to_pylist()]
    assert spliced["text"].num_chunks == 4
    assert spliced.slice(1, 2)["text"].to_pylist() == ["new", "c"]


@given(TEXTS)
def test_normalising_in_pieces(text: str) -> None:
    new, made = normalise_text(text)
    found = Normalise(NormaliseConfig()).apply(documents([text]))
    assert found.kept.num_rows == (0 if not new or new.isspace() else 1)
    if found.kept.num_rows:
        assert found.kept["text"].to_pylist() == [new]
        assert found.kept["text_hash"].to_pylist() == [text_hash(new)]
    wanted = {f"normalise.{name}": count for name, count in made.items()} if new != text else {}
    assert {name: n for name, n in found.counts.items() if name != "normalise.documents_changed"} == wanted


@given(TEXTS)
@settings(max_examples=120)
def test_personal_data_in_pieces(text: str) -> None:
    masked, counts = mask_data(text)
    parts, found = mask_pieces(utf8(text))
    assert b"".join(parts).decode() == masked
    assert found == counts


@given(TEXTS)
@settings(max_examples=120)
def test_masking_and_paragraphs_in_pieces(text: str) -> None:
    import unicodedata

    whole = unicodedata.normalize("NFC", text)
    # An open block of code that lasts to the end may become blanks and line feeds in another number of blanks.
    assert [line.strip() for line in "".join(masked_pieces(utf8(text))).split("\n")] == [
        line.strip() for line in mask(whole).split("\n")
    ]
    assert list(read_paragraphs(masked_pieces(utf8(text)))) == paragraphs(whole)


@given(TEXTS)
@settings(max_examples=120)
def test_toxic_words_in_pieces(text: str) -> None:
    found = scores(text, LISTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_texts, "PIECE_BYTES", 1 << 20)
        assert scores(text, LISTS) == found


def outcome_rows(result: Outcome) -> list[object]:
    return [result.kept.to_pylist(), result.reasons, result.details, dict(result.counts)]


def test_languages_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(STRETCHES, 400).tolist()) for _ in range(20)]
    for mixed in ("main", "label", "split"):
        block = Language(LanguageConfig(minimum_score=0.0, mixed=mixed, mixed_letters=1), embedded())
        monkeypatch.setattr(long_texts, "PIECE_BYTES", SMALL)
        small = block.apply(documents(texts))
        monkeypatch.setattr(long_texts, "PIECE_BYTES", 1 << 20)
        whole = block.apply(documents(texts))
        verify(documents(texts), whole)
        assert outcome_rows(small) == outcome_rows(whole)


def test_a_plug_in_for_names_reads_the_whole_text() -> None:
    seen: list[str] = []

    def names(text: str, lang: str | None) -> list[tuple[int, int]]:
        seen.append(text)
        return [(text.index("Ada"), text.index("Ada") + 3)]

    block = Pii(PiiConfig())
    monkey = pytest.MonkeyPatch()
    monkey.setattr(block, "_names", names)
    text = "line\n" * 40 + "Ada wrote from ada@example.org.\n"
    found = block.apply(documents([text])).kept["text"].to_pylist()
    monkey.undo()
    assert found == ["line\n" * 40 + "<NAME> wrote from <EMAIL>.\n"]
    assert seen == [text]


def test_borders_are_where_a_block_wants_them() -> None:
    text = utf8("x" * SMALL + "\n1 a\nb\n" + "y" * SMALL + "\n")
    assert [end for _, end in pieces(text, any_line_feed)] == [SMALL + 1, len(text)]
    assert [end for _, end in pieces(text, lambda data, place: data[place] != ord("1"))] == [SMALL + 5, len(text)]
