"""The language block: six languages, masking, mixed documents, drops, fastText models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.documents import table_from_rows, text_hash
from pipeline.core.errors import InputError
from stages.block import verify
from stages.catalog import resolve
from stages.language import Language, LanguageConfig, embedded, fasttext_file, identify_document
from stages.lid.masking import mask
from stages.lid.models import language_of_label
from stages.lid.whole import paragraphs, split_lines

TEXTS = {
    "en": "The library closes early on Mondays, so please bring your books back before the weekend is over.",
    "de": "Die Bücherei schließt montags früher, bitte bringen Sie Ihre Bücher vor dem Wochenende zurück.",
    "es": "La biblioteca cierra temprano los lunes, así que devuelva los libros antes del fin de semana.",
    "vi": "Thư viện đóng cửa sớm vào thứ Hai, vì vậy xin hãy trả sách trước khi hết tuần này nhé các bạn.",
    "ko": "도서관은 월요일에 일찍 문을 닫으므로 주말이 지나기 전에 책을 반납해 주시기 바랍니다.",
    "ja": "図書館は月曜日に早く閉まりますので、週末が終わる前に本を返してください。",
}
FRENCH = "Le chat dort sur la chaise pendant que la pluie tombe doucement sur les toits de la vieille ville."


def documents(rows: list[tuple[str, str | None]]):
    return table_from_rows(
        [
            {"id": str(n), "text": text, "text_hash": text_hash(text), "source": "s", "domain": domain}
            for n, (text, domain) in enumerate(rows)
        ]
    )


def half_and_half() -> str:
    german, english = "\n\n".join([TEXTS["de"]] * 6), "\n\n".join([TEXTS["en"]] * 5)
    return f"# Titel\n\n{german}\n\n```\nx = 1\n\ny = 2\n```\n\n{english}\n"


@pytest.mark.parametrize("lang", sorted(TEXTS))
def test_six_languages(lang: str) -> None:
    found, score = identify_document(TEXTS[lang] + "\n\n" + TEXTS[lang], embedded())
    assert found == lang
    assert score > 0.8


def test_code_and_formulas_do_not_vote() -> None:
    code = "```python\n" + "for index in range(10): print(value, index)  # the value of the thing\n" * 20 + "```"
    text = f"{TEXTS['ko']}\n\n{code}\n\n$$\\int_a^b f(x) dx \\text{{ where the function is known}}$$\n"
    assert identify_document(text, embedded())[0] == "ko"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a `code` b", "a   b"),
        ("a ```\nx\n``` b", "a  \n\n b"),
        ("costs $5 and $6", "costs $5 and $6"),
        ("so $x + y$ is", "so   is"),
        (r"a \(x\) b \[y\] c", "a   b   c"),
        (r"\begin{align*}x\end{align*}.", " ."),
        ("see https://a.b/c now", "see   now"),
        ("mail a.b+c@d.org now", "mail   now"),
        ("if a < b and c > d", "if a < b and c > d"),
        ("<b>x</b>", " x "),
        ("plain", "plain"),
    ],
)
def test_masking(text: str, masked: str) -> None:
    assert mask(text) == masked


@given(st.text(alphabet="a `~$\\[](){}<>/:@.w\n", max_size=200))
def test_masking_keeps_line_numbers(text: str) -> None:
    assert mask(text).count("\n") == text.count("\n")


def test_most_letters_win_and_the_score_says_how_clearly() -> None:
    text = "\n\n".join([TEXTS["de"]] * 3 + [TEXTS["en"]])
    lang, score = identify_document(text, embedded())
    assert lang == "de"
    assert 0.5 < score < 0.85


def test_short_lines_are_judged_together() -> None:
    parts = paragraphs("ab\ncd\n\n" + "x" * 70 + "\nend")
    assert [(part.text, part.first, part.end) for part in parts] == [("ab cd " + "x" * 70 + " end", 0, 5)]
    assert paragraphs("  \n\n") == []


def test_block_drops_other_languages_and_low_scores_but_not_code() -> None:
    batch = documents([(TEXTS["ko"], None), (FRENCH, None), ("x = 1\nprint(x)\n", "code"), ("??? 123", None)])
    config = LanguageConfig(keep=("ko", "en"), minimum_score=0.5)
    result = Language(config, embedded()).apply(batch)
    verify(batch, result)
    assert result.kept["lang"].to_pylist() == ["ko", "en"]
    assert result.kept["lang_score"][1].as_py() == 1.0
    assert result.reasons == ["language.other", "language.other"]
    assert result.dropped_langs == ["fr", "und"]
    assert result.details[0].startswith("fr ")


def test_a_language_given_by_the_source_is_believed() -> None:
    batch = documents([(TEXTS["ko"], None)])
    place = batch.schema.get_field_index("lang")
    batch = batch.set_column(place, batch.schema.field("lang"), [["de"]])
    for mixed in ("main", "label", "split"):
        result = Language(LanguageConfig(mixed=mixed), embedded()).apply(batch)
        assert result.kept["lang"].to_pylist() == ["de"]


def test_a_mixed_document_is_labelled() -> None:
    batch = documents([(half_and_half(), None), (TEXTS["ko"], None)])
    result = Language(LanguageConfig(mixed="label", keep=("de", "en", "ko")), embedded()).apply(batch)
    verify(batch, result)
    assert result.kept["lang"].to_pylist() == ["mul", "ko"]
    assert orjson.loads(result.kept["extra"][0].as_py()) == {"languages": ["de", "en"]}
    assert result.kept["extra"][1].as_py() is None
    assert result.counts["language.mixed"] == 1
    # One of its languages is not wanted: it goes, unless `mul` itself is wanted.
    assert Language(LanguageConfig(mixed="label", keep=("de",)), embedded()).apply(batch).kept.num_rows == 0
    assert Language(LanguageConfig(mixed="label", keep=("mul",)), embedded()).apply(batch).kept.num_rows == 1


def test_a_mixed_document_is_split_without_losing_a_line() -> None:
    batch = documents([(TEXTS["ko"], None), (half_and_half(), None), (FRENCH, None)])
    result = Language(LanguageConfig(mixed="split", keep=("de", "en", "ko")), embedded()).apply(batch)
    verify(batch, result)
    rows = result.kept.to_pylist()
    assert [row["lang"] for row in rows] == ["ko", "de", "en"]
    assert result.counts["documents_split"] == 1
    assert [row["parents"] for row in rows] == [None, ["1"], ["1"]]
    assert len({row["id"] for row in rows}) == 3
    assert rows[1]["text"].startswith("# Titel\n\nDie Bücherei")
    assert "y = 2" in rows[1]["text"], "code stays with the text before it"
    assert rows[2]["text"] == "\n\n".join([TEXTS["en"]] * 5)
    assert rows[2]["text_hash"] == text_hash(rows[2]["text"])
    assert min(row["lang_score"] for row in rows) > 0.8
    cut = Language(LanguageConfig(mixed="split", keep=("en",)), embedded()).apply(batch)
    verify(batch, cut)
    assert cut.kept["lang"].to_pylist() == ["en"]
    assert cut.counts["language.characters_cut"] == len(rows[1]["text"])


@given(st.lists(st.sampled_from([*TEXTS.values(), "", "```", "x"]), max_size=12))
def test_splitting_keeps_every_line(lines: list[str]) -> None:
    text = "\n".join(lines)
    parts = paragraphs(text)
    found = [_fake(part.text) for part in parts]
    pieces = split_lines(text, [(part.first, part.end) for part in parts], found)
    kept = [line for _, piece in pieces for line in piece.split("\n") if line]
    assert sorted(kept) == sorted(line for line in lines if line)


def _fake(text: str):
    from stages.lid.second_look import Found

    lang = next((code for code, own in TEXTS.items() if own[:10] in text), "und")
    return Found(lang, 1.0, len(text), "model", lang, 1.0)


def test_batches_change_nothing() -> None:
    rows: list[tuple[str, str | None]] = [(text, None) for text in (*TEXTS.values(), half_and_half(), FRENCH, "", "12")]
    block = Language(LanguageConfig(minimum_score=0.0), embedded())
    together = block.apply(documents(rows)).kept
    for row in range(len(rows)):
        alone = block.apply(documents(rows).slice(row, 1)).kept
        assert alone["lang"].to_pylist() == [together["lang"][row].as_py()]
        assert alone["lang_score"][0].as_py() == pytest.approx(together["lang_score"][row].as_py(), abs=1e-6)


@pytest.mark.parametrize(
    ("label", "lang"),
    [
        ("__label__en", "en"), ("__label__eng_Latn", "en"), ("__label__cmn_Hans", "zh"), ("__label__nds", "nds"),
        ("__label__ast_Latn", "ast"), ("__label__lvs_Latn", "lv"), ("__label__zh", "zh"), ("__label__sco_Latn", "sco"),
    ],
)  # fmt: skip
def test_labels_of_lid176_glotlid_and_openlid(label: str, lang: str) -> None:
    assert language_of_label(label) == lang


def trained(folder: Path) -> Path:
    """A small two-language model with GlotLID's labels. The n-gram buckets make its matrices large: NaN in training
    was never seen with them."""
    from stages.classifier.train import TrainConfig, train_file

    random = np.random.default_rng(0)
    lines = []
    for _ in range(3000):
        for lang, label in (("de", "deu_Latn"), ("en", "eng_Latn")):
            words = random.choice(TEXTS[lang].lower().split(), 8)
            lines.append(f"__label__{label} {' '.join(words)}")
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    train_file(folder / "train.txt", folder / "model.bin", TrainConfig(epochs=3))
    return folder / "model.bin"


def test_a_fasttext_file_is_a_model(tmp_path: Path) -> None:
    identify = fasttext_file(str(trained(tmp_path)))
    found = identify(["die bücherei schließt\nmontags früher", "please bring your books back"])
    assert [lang for lang, _ in found] == ["de", "en"]
    assert identify([]) == []
    with pytest.raises(InputError, match="not a readable fastText model"):
        fasttext_file(str(tmp_path / "none.bin"))


def test_another_model_at_the_same_path_is_another_step(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"one")
    config = LanguageConfig(model=(str(tmp_path / "model.bin"),))
    before = resolve("language", config, 0, Path())
    (tmp_path / "model.bin").write_bytes(b"two")
    after = resolve("language", config, 0, Path())
    assert before.spec == after.spec
    assert before.paths == after.paths
    assert before.content != after.content
