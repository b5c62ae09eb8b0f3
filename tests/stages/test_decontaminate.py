"""Decontamination: quoted items are found in every language, ordinary text is not, bad benchmark files are named."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import document_id, table_from_rows, text_hash
from pipeline.core.errors import InputError
from stages.block import verify
from stages.decontaminate import Decontaminate, DecontaminateConfig, content, make

QUESTIONS = {
    "en": "A baker fills nineteen baskets with seven loaves each and sells eleven of the baskets. How many are left?",
    "ko": "다음 중 대한민국 헌법상 대통령의 권한으로 옳지 않은 것은?",
    "es": "Un pastor cuenta ciento doce ovejas al amanecer y pierde nueve en la niebla. ¿Cuántas ovejas le quedan?",
    "de": "Ein Gärtner pflanzt achtzehn Reihen mit je vierzehn Tulpen und verschenkt ein Drittel. Wie viele bleiben übrig?",
    "ja": "八十四個のりんごを七つの箱に同じ数ずつ分けると、一つの箱には何個入りますか。",
    "vi": "Một người thợ xếp mười hai chồng gạch, mỗi chồng có ba mươi viên. Hỏi người thợ có tất cả bao nhiêu viên gạch?",
}
AROUND = {
    "en": ("We had been driving since dawn when my uncle asked us this.", "Nobody answered for four miles."),
    "ko": ("할머니가 저녁을 드시고 문제를 하나 내셨다.", "우리는 한참 동안 대답하지 못했다."),
    "es": ("Mi abuelo dejó el pan sobre la mesa y preguntó.", "Nadie supo contestar hasta la cena."),
    "de": ("Beim Frühstück las der Lehrer eine Aufgabe vor.", "Danach war es lange still."),
    "ja": ("祖父は縁側でこんな問題を出した。", "しばらく誰も答えなかった。"),
    "vi": ("Ông tôi đặt chén trà xuống rồi đố cả nhà.", "Không ai trả lời được ngay."),
}


def documents(*texts: str):
    rows = [
        {
            "id": document_id("web", str(i)),
            "text_hash": text_hash(t),
            "text": unicodedata.normalize("NFC", t),
            "source": "web",
        }
        for i, t in enumerate(texts)
    ]
    return table_from_rows(rows)


def benchmark(path: Path, *items: object) -> str:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return str(path)


def block(tmp_path: Path, *items: object, **options: object) -> Decontaminate:
    return make(DecontaminateConfig(**options), {"against": (benchmark(tmp_path / "bench.jsonl", *items),)})


@pytest.mark.parametrize("lang", sorted(QUESTIONS))
def test_quoted_question_is_found_and_placed(tmp_path: Path, lang: str) -> None:
    made = block(tmp_path, *({"question": text} for _, text in sorted(QUESTIONS.items())))
    before, after = AROUND[lang]
    table = documents(f"{before} {QUESTIONS[lang]}\n{after}", f"{before}\n{after}", QUESTIONS[lang].upper())
    result = made.apply(table)
    verify(table, result)
    assert result.dropped_at.tolist() == [0, 2]
    assert result.reasons == ["decontaminate.ngram"] * 2
    assert result.details == [f"bench.jsonl:{sorted(QUESTIONS).index(lang) + 1}"] * 2


@pytest.mark.parametrize("lang", sorted(QUESTIONS))
def test_marks_are_part_of_the_text(tmp_path: Path, lang: str) -> None:
    stripped = "".join(c for c in unicodedata.normalize("NFD", QUESTIONS[lang]) if not unicodedata.combining(c))
    result = block(tmp_path, {"question": QUESTIONS[lang]}).apply(documents(QUESTIONS[lang], stripped))
    changed = unicodedata.normalize("NFC", stripped) != QUESTIONS[lang]
    if lang in ("ja", "vi", "de", "es"):
        assert changed
    dropped = set(result.dropped_at.tolist())
    assert 0 in dropped
    if lang in ("vi",):
        assert dropped == {0}


def test_substring_sees_through_punctuation_and_spacing(tmp_path: Path) -> None:
    text = QUESTIONS["en"]
    changed = text.replace("seven loaves", "seven-loaves").replace(" ", "\n  ").replace(".", " —")
    glued = "".join(c for c in text if c.isalnum())
    made = block(tmp_path, {"question": text}, methods=("substring",))
    result = made.apply(documents(changed, f"see {glued}", text[:48]))
    assert result.dropped_at.tolist() == [0, 1]
    assert result.reasons == ["decontaminate.substring"] * 2


def test_sampled_positions_find_long_quotes_and_are_repeatable(tmp_path: Path) -> None:
    text = " ".join(f"word{i} river{i}" for i in range(100))
    made = block(tmp_path, {"text": text}, methods=("substring",), positions="sampled")
    table = documents(text, text + " " + "other " * 3000)
    first = made.apply(table)
    assert 0 in first.dropped_at
    assert first.dropped_at.tolist() == made.apply(table).dropped_at.tolist()
    assert block(tmp_path, {"text": text}, methods=("substring",)).apply(table).dropped_at.tolist() == [0, 1]


def test_short_items_are_searched_whole_or_counted(tmp_path: Path) -> None:
    eight = "Which of these eight rivers is the longest"
    made = block(tmp_path, {"question": eight}, {"question": "다음 중 옳지 않은 것은?"})
    assert made.index.too_short == 1
    result = made.apply(documents(f"Well: {eight}?", "Which of these eight rivers", "다음 중 옳지 않은 것은? 글쎄요."))
    assert result.dropped_at.tolist() == [0]


def test_thirteen_words_are_needed(tmp_path: Path) -> None:
    words = [f"w{c}" for c in "abcdefghijklmnopqrstuvwxyz"]
    made = block(tmp_path, {"text": " ".join(words)}, methods=("ngram",))
    result = made.apply(documents(" ".join(words[5:18]), " ".join(words[5:17]), " ".join([*words[5:17], "x"])))
    assert result.dropped_at.tolist() == [0]


def test_messages_are_searched(tmp_path: Path) -> None:
    row = {"id": "0" * 32, "text_hash": "0" * 32, "text": "", "source": "synth"}
    row["messages"] = [{"role": "user", "content": QUESTIONS["en"]}]
    result = block(tmp_path, {"question": QUESTIONS["en"]}).apply(table_from_rows([row]))
    assert result.reasons == ["decontaminate.ngram"]


@settings(max_examples=60, deadline=None)
@given(before=st.text(max_size=60), after=st.text(max_size=60))
def test_a_quote_is_found_whatever_stands_around_it(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str
) -> None:
    made = block(tmp_path_factory.mktemp("b"), {"question": QUESTIONS["de"]})
    result = made.apply(documents(f"{before}\n{QUESTIONS['de']}\n{after}"))
    assert result.dropped_at.tolist() == [0]


def test_bad_benchmark_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bench\.jsonl:2.*no text in any of the fields"):
        block(tmp_path, {"question": "fine"}, {"stem": "?"})
    (tmp_path / "broken.jsonl").write_text('{"question": "a"}\n{"question": \n')
    with pytest.raises(InputError, match=r"broken\.jsonl:2.*not JSON"):
        make(DecontaminateConfig(), {"against": (str(tmp_path / "broken.jsonl"),)})
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="empty"):
        make(DecontaminateConfig(), {"against": (str(tmp_path / "empty.jsonl"),)})
    with pytest.raises(InputError, match="no such benchmark file"):
        make(DecontaminateConfig(), {"against": (str(tmp_path / "none.jsonl"),)})
    with pytest.raises(InputError, match="no benchmark files"):
        make(DecontaminateConfig(), {})


def test_content_is_identity(tmp_path: Path) -> None:
    one = benchmark(tmp_path / "one.jsonl", {"question": "a"})
    two = benchmark(tmp_path / "two.jsonl", {"question": "b"})
    assert content([one, two]) == content([two, one])
    before = content([one])
    benchmark(tmp_path / "one.jsonl", {"question": "c"})
    assert content([one]) != before
