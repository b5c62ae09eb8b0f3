"""Decontamination: quoted items are found in every language, ordinary text is not, bad benchmark files are named."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.documents import document_id, table_from_rows, text_hash, write_table
from pipeline.core.errors import InputError
from stages.benchmark_files import BenchmarkFields, read_items
from stages.block import verify
from stages.decontaminate import Decontaminate, DecontaminateConfig, make
from stages.dedup.segment import segment, tables
from stages.quotation import folded_characters, keys_of, part_keys, search_keys, search_parts, token_starts

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


def evidence(made: Decontaminate, *texts: str) -> list[dict[str, object]]:
    table = made.apply(documents(*texts)).evidence.get("decontamination")
    return table.to_pylist() if table is not None else []


def test_every_item_a_document_quotes_is_in_the_evidence(tmp_path: Path) -> None:
    items = [{"qid": f"{lang}-1", "question": QUESTIONS[lang]} for lang in ("en", "de")]
    made = block(tmp_path, *items, mapping={"ben*": BenchmarkFields(id="qid", name="puzzles")})
    before, after = AROUND["en"]
    rows = evidence(made, before, f"{before} {QUESTIONS['en']} {after} {QUESTIONS['de']}")
    assert {(row["record"], row["method"]) for row in rows} == {
        (f"{lang}-1", how) for lang in ("en", "de") for how in ("ngram", "substring")
    }
    for row in rows:
        lang = str(row["record"])[:2]
        assert (row["id"], row["benchmark"], row["field"]) == (document_id("web", "1"), "puzzles", "question")
        assert row["quoted"] == row["of"] > 0
        assert str(row["excerpt"]).startswith(QUESTIONS[lang][:40])


def test_partly_quoted_items_say_how_much(tmp_path: Path) -> None:
    words = [f"w{c}" for c in "abcdefghijklmnopqrstuvwxyz"]
    made = block(tmp_path, {"text": " ".join(words)}, methods=("ngram",))
    (row,) = evidence(made, "so " + " ".join(words[5:20]))
    assert (row["quoted"], row["of"]) == (3, 14)
    assert str(row["excerpt"]).startswith("wf wg")


def test_items_that_share_their_text_are_all_named(tmp_path: Path) -> None:
    made = block(tmp_path, *({"question": QUESTIONS["es"]} for _ in range(3)))
    rows = evidence(made, QUESTIONS["es"])
    assert sorted({str(row["item"]) for row in rows}) == [f"bench.jsonl:{n}" for n in (1, 2, 3)]


def test_the_report_counts_each_item_and_what_cannot_be_found(tmp_path: Path) -> None:
    from stages.decontaminate import report

    paths = {"against": (benchmark(tmp_path / "b.jsonl", {"question": QUESTIONS["en"]}, {"question": "Why?"}),)}
    config = DecontaminateConfig()
    made = make(config, paths)
    for shard, texts in enumerate([(QUESTIONS["en"],), ("nothing",), (QUESTIONS["en"] * 2, QUESTIONS["en"])]):
        for table in made.apply(
            documents(
                *texts,
            )
        ).evidence.values():
            renamed = table.set_column(
                0, table.schema.field(0), [[f"{shard}{n}" for n in range(table.num_rows // 2) for _ in range(2)]]
            )
            write_table(tmp_path / "decontamination" / f"{shard:05d}.parquet", renamed)
    assert report(tmp_path, config, paths) == {"b": {"items": 2, "too_short": 1, "items_quoted": 1, "documents": 3}}
    rows = pq.read_table(tmp_path / "benchmarks" / "items.parquet").to_pylist()
    assert [(row["item"], row["searched"], row["documents"]) for row in rows] == [
        ("b.jsonl:1", "ngram+substring", 3),
        ("b.jsonl:2", "", 0),
    ]


def test_parquet_benchmarks_and_nested_fields_give_the_same_items(tmp_path: Path) -> None:
    records = [{"doc": {"stem": QUESTIONS["ko"]}, "choices": ["하나", "둘"], "uid": 7}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "set.parquet")
    jsonl = benchmark(tmp_path / "set.jsonl", *records)
    fields = BenchmarkFields(fields=("doc.stem", "choices"))
    of_parquet = read_items([str(tmp_path / "set.parquet")], fields, {})
    of_jsonl = read_items([jsonl], fields, {})
    assert [(i.text, i.record, i.field) for i in of_parquet] == [
        (QUESTIONS["ko"], "7", "doc.stem"),
        ("하나\n둘", "7", "choices"),
    ]
    assert [i.text for i in of_jsonl] == [i.text for i in of_parquet]
    assert [i.place for i in of_parquet] == ["set.parquet:1"] * 2
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_items([str(tmp_path / "bad.parquet")], fields, {})


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from("aB é\u0301한글のカ々漢。x9ไ\n-\u200d"), max_size=40))
def test_tokens_begin_where_the_segmenter_begins_them(text: str) -> None:
    data, known = np.frombuffer(text.encode(), np.uint8), tables()
    hashes, _ = segment(data, 0, data.shape[0], known.kind, known.fold)
    starts = token_starts(data, 0, data.shape[0], known.kind)
    assert starts.shape == hashes.shape
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < starts.shape[0] else data.shape[0]
        alone, _ = segment(data[start:end], 0, int(end - start), known.kind, known.fold)
        assert alone.tolist() == [hashes[number]]


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.sampled_from("ab c한の.é"), min_size=1, max_size=60),
    item=st.text(st.sampled_from("ab c한の.é"), min_size=10, max_size=40),
)
def test_the_rolling_search_finds_what_the_written_keys_find(text: str, item: str) -> None:
    known = tables()

    def keys(one: str) -> np.ndarray:
        data = np.frombuffer(one.encode(), np.uint8)
        return part_keys(folded_characters(data, 0, data.shape[0], known.kind, known.fold), 4)

    table = keys_of([np.unique(keys(item))])
    data = np.frombuffer(text.encode(), np.uint8)
    rolled = search_parts(data, 0, data.shape[0], known.kind, known.fold, 4, table.keys, table.items, table.filter)
    assert rolled == search_keys(table.keys, table.items, table.filter, keys(text))
    folded = "".join(c for c in text.casefold() if c.isalnum())
    wanted = "".join(c for c in item.casefold() if c.isalnum())
    assert (rolled >= 0) == any(wanted[at : at + 4] in folded for at in range(len(wanted) - 3))
