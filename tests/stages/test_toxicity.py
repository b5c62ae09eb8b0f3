"""Toxicity: word lists, spellings, negation and quotes, thresholds, and how far lists reach on HateCheck."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest

from pipeline.core.documents import table_from_rows, text_hash
from pipeline.core.errors import ConfigError, InputError
from stages.block import verify
from stages.classifier.build import train_classifier
from stages.classifier.calibrate import roc
from stages.classifier.model import Classifier, ClassifierRecord
from stages.classifier.spec import ClassifierSpec
from stages.classifier.train import TrainConfig
from stages.toxicity import COLUMNS, Toxicity, ToxicityConfig, WordList, compiled, load_lists, make, plain, scores

LANGUAGES = ("de", "en", "es", "ja", "ko", "vi")


def documents(rows: list[tuple[str, str | None]]) -> pa.Table:
    return table_from_rows(
        [
            {"id": str(n), "text": text, "text_hash": text_hash(text), "source": "s", "lang": lang}
            for n, (text, lang) in enumerate(rows)
        ]
    )


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("W o r d s apart", "words apart"),
        ("w.o.r.d here", "word here"),
        ("a b c", "a b c"),
        ("w0rd h3re p@y", "word here pay"),
        ("at 10:30 in 2024, H2O", "at 10:30 in 2024, h2o"),
        ("MP3", "mp3"),
    ],
)
def test_spellings_are_read_as_meant(text: str, read: str) -> None:
    assert plain(text) == read


def test_scores_of_a_small_list() -> None:
    lists = compiled(
        [WordList(profanity=("darn", "heck*"), slur=("blorg",), group=("martians",), derogatory=("filthy",),
                  negation=("not",))],
        "en",
    )  # fmt: skip
    found = scores("Darn it. The hecking thing is darned.", lists)
    assert found["toxic_profanity"] == pytest.approx(1000 * 2 / 7)
    assert found["toxic_hate"] == 0.0
    assert found["toxic_words"] == pytest.approx(1 - np.exp(-0.3 * 100 * 2 / 7))
    for text, share in (
        ("Martians are filthy.", 1.0),
        ("Martians are not filthy.", 0.0),
        ("Martians are here. The road is filthy.", 0.0),
        ("A blorg. Nice day.", 0.5),
        ('It is wrong to say "martians are filthy" to anyone.', 0.0),
        ('"Martians are filthy"', 1.0),
        ("", 0.0),
    ):
        assert scores(text, lists)["toxic_hate"] == share, text


def test_endings_follow_in_korean_and_japanese() -> None:
    lists = load_lists()
    assert scores("이 병신들아", lists["ko"])["toxic_profanity"] > 0
    assert scores("ふざけんなよ", lists["ja"])["toxic_profanity"] > 0
    assert scores("đồ chó chết", lists["vi"])["toxic_profanity"] > 0
    assert scores("địtt", lists["vi"])["toxic_profanity"] == 0, "whole words in Vietnamese"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_our_clean_samples_score_nothing(lang: str) -> None:
    lists = load_lists()[lang]
    pages = sorted(Path("samples/texts", lang).glob("*.md"))
    assert len(pages) >= 10
    for page in pages:
        assert scores(page.read_text(encoding="utf-8"), lists)["toxic_words"] < 0.05, page


def test_the_block_scores_and_drops_by_language() -> None:
    batch = documents(
        [("shit shit shit", "en"), ("A quiet day.", "en"), ("merde", "fr"), ("scheiße", "de"), ("x", None)]
    )
    result = Toxicity(ToxicityConfig(maximum_words={"en": 0.5}), load_lists()).apply(batch)
    verify(batch, result)
    assert result.reasons == ["toxicity.words"]
    assert result.dropped_at.tolist() == [0]
    assert result.signals is not None
    assert result.signals.column_names == ["id", *(f"{name}@1" for name in COLUMNS)]
    values = result.signals["toxic_words@1"].to_pylist()
    assert values[1:3] == [0.0, None]
    assert values[3] > 0.9
    assert values[4] is None
    everywhere = Toxicity(ToxicityConfig(maximum_words={"default": 0.5}), load_lists()).apply(batch)
    assert everywhere.dropped_at.tolist() == [0, 3]


def test_lists_of_the_user_are_added(tmp_path: Path) -> None:
    path = tmp_path / "en.mine.yaml"
    path.write_text("slur: [blorg*]\n")
    block = make(ToxicityConfig(), {"word_lists": (str(path),)})
    batch = documents([("those blorgs", "en"), ("shit", "en")])
    found = block.apply(batch).signals
    assert found is not None
    assert found["toxic_slur@1"][0].as_py() == 500.0
    assert found["toxic_profanity@1"][1].as_py() == 1000.0
    other = tmp_path / "list.txt"
    other.write_text("slur: [x]\n")
    with pytest.raises(InputError, match="named after its language"):
        load_lists((str(other),))


class _Says:
    """A fastText model that answers by one word."""

    def predict(self, texts: list[str], k: int) -> tuple[list[tuple[str, str]], list[tuple[float, float]]]:
        assert k == -1
        bad = [0.9 if "bad" in text else 0.1 for text in texts]
        return [("__label__positive", "__label__negative")] * len(texts), [(score, 1 - score) for score in bad]


def test_a_classifier_is_a_score_with_its_own_threshold() -> None:
    source = {"sources": ({"kind": "jsonl", "paths": ("x",)},)}
    labels = {"positive": source, "negative": source}
    spec = ClassifierSpec.model_validate({"name": "toxic", "labels": labels, "languages": ("en",)})
    knots = {label: {"raw": (0.0, 1.0), "chance": (0.0, 1.0)} for label in labels}
    record = ClassifierRecord.model_validate(
        {"spec": spec, "languages": {"en": {"content": "", "attempts": 1, "calibrations": knots}}}
    )
    block = Toxicity(
        ToxicityConfig(maximum_classifier={"default": 0.5}), load_lists(), Classifier(record, {"en": _Says()})
    )
    batch = documents([("a bad text", "en"), ("a text", "en"), ("bad", "de")])
    result = block.apply(batch)
    verify(batch, result)
    assert result.reasons == ["toxicity.classifier"]
    assert result.dropped_at.tolist() == [0]
    assert result.signals is not None
    assert result.signals["toxic_classifier@1"].to_pylist() == [pytest.approx(0.9), pytest.approx(0.1), None]
    with pytest.raises(ConfigError, match="no classifier"):
        Toxicity(ToxicityConfig(maximum_classifier={"en": 0.5}), load_lists())


def test_what_lists_find_on_hatecheck(data_root: Path) -> None:
    """HateCheck is written to fool lists: what they must do is find slurs and profanity, also in disguise, and leave
    sentences that merely name a group alone. Handling of quotes and negation was added after
    looking at its categories; no word entry was."""
    table = pl.read_parquet(data_root / "toxicity.parquet", columns=["text", "lang", "meta"])
    metas = [orjson.loads(meta) for meta in table["meta"].to_list()]
    lists = load_lists()
    for lang in ("de", "es"):
        rows = [
            (scores(text, lists[lang])["toxic_words"], meta)
            for text, own, meta in zip(table["text"].to_list(), table["lang"].to_list(), metas, strict=True)
            if own == lang
        ]

        def found(*functions: str, rows: list[tuple[float, dict[str, str]]] = rows) -> float:
            return float(np.mean([score > 0 for score, meta in rows if meta["functionality"] in functions]))

        values = np.array([score for score, _ in rows])
        hateful = np.array([meta["label"] == "hateful" for _, meta in rows])
        assert roc(values, hateful).area > 0.5
        assert hateful[values > 0].mean() > 0.75
        assert found("slur_h", "profanity_h") > 0.5
        assert found("spell_leet_h", "spell_space_add_h") > 0.5
        assert found("ident_neutral_nh", "ident_pos_nh") == 0.0


HELD_OUT = ("women", "trans people")  # groups of HateCheck whose sentences no classifier here was trained on


def test_a_trained_classifier_finds_what_lists_do_not_with_a_threshold_a_language(
    data_root: Path, tmp_path: Path
) -> None:
    """HateCheck's sentences are made from patterns: this shows that labels become scores, not how well a toxicity
    classifier does elsewhere."""
    table = pl.read_parquet(data_root / "toxicity.parquet", columns=["text", "lang", "meta"])
    metas = [orjson.loads(meta) for meta in table["meta"].to_list()]
    rows = [
        (text, lang, meta["label"] == "hateful", meta["target"] in HELD_OUT)
        for text, lang, meta in zip(table["text"], table["lang"], metas, strict=True)
    ]
    for name, wanted in (("toxic", True), ("fine", False)):
        lines = [
            orjson.dumps({"text": text, "lang": lang}) for text, lang, bad, held in rows if bad == wanted and not held
        ]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(lines))

    def source(name: str) -> dict[str, object]:
        return {"sources": ({"kind": "jsonl", "paths": (f"{name}.jsonl",), "lang_key": "lang"},)}

    spec = ClassifierSpec.model_validate(
        {
            "name": "toxic", "labels": {"positive": source("toxic"), "negative": source("fine")},
            "languages": ("de", "es"), "train": TrainConfig(epochs=40, maximum_piece=5, minimum_piece=3),
        }
    )  # fmt: skip
    train_classifier(spec, tmp_path, tmp_path / "model")
    limits = {"de": 0.9, "default": 0.6}
    model = tuple(str(path) for path in sorted((tmp_path / "model").iterdir()) if path.name != "report.json")
    block = make(ToxicityConfig(model=model, maximum_classifier=limits), {"model": model})
    held = [(text, lang, bad) for text, lang, bad, is_held in rows if is_held]
    batch = documents([(text, lang) for text, lang, _ in held])
    result = block.apply(batch)
    verify(batch, result)
    assert result.signals is not None
    chances = result.signals["toxic_classifier@1"].to_numpy()
    by_words = result.signals["toxic_words@1"].to_numpy()
    langs = np.array([lang for _, lang, _ in held])
    bad = np.array([label for _, _, label in held])
    over = chances > np.where(langs == "de", limits["de"], limits["default"])
    assert result.dropped_at.tolist() == np.flatnonzero(over).tolist()
    assert set(result.reasons) == {"toxicity.classifier"}
    for lang in ("de", "es"):
        here = langs == lang
        area = roc(chances[here], bad[here]).area
        assert area > 0.8, "measured: 0.94 in German, 0.88 in Spanish"
        assert area > roc(by_words[here], bad[here]).area + 0.2
        assert bad[here & over].mean() > 0.9
