"""The classifier: calibration against what it must be, training without NaN, the folder, the block, the command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.documents import table_from_rows, text_hash, write_documents, write_table
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.steps import StepOutput, StepTask
from stages.block import verify
from stages.catalog import block_reports, resolve
from stages.classifier.block import ClassifierBlock, ClassifierConfig
from stages.classifier.build import train_classifier
from stages.classifier.calibrate import buckets, isotonic, roc
from stages.classifier.gather import gather
from stages.classifier.model import Classifier
from stages.classifier.spec import ClassifierSpec
from stages.classifier.train import TrainConfig, line, train_file
from stages.split import SplitConfig, SplitWork
from stages.toxicity import ToxicityConfig

GOOD = "the canal lock lifts a boat because water flows from the upper pound into the chamber until levels meet"
BAD = "click here buy cheap pills now best price free casino bonus win win limited offer subscribe today"
GUT = "die schleuse hebt ein boot weil wasser aus der oberen haltung in die kammer fließt bis beides gleich steht"
SCHLECHT = "jetzt klicken billig kaufen gratis bonus gewinnen angebot nur heute bestellen rabatt casino"


def rows(words: str, lang: str, count: int, seed: int) -> list[dict[str, str]]:
    random = np.random.default_rng(seed)
    return [{"text": " ".join(random.choice(words.split(), 12)), "lang": lang} for _ in range(count)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    parts = {
        "good.jsonl": rows(GOOD, "en", 300, 1) + rows(GUT, "de", 300, 2),
        "bad.jsonl": rows(BAD, "en", 300, 3) + rows(SCHLECHT, "de", 300, 4) + [{"text": "chat noir", "lang": "fr"}],
    }
    shared = {"text": "a text that both have and that must be left out", "lang": "en"}
    for name, own in parts.items():
        (folder / name).write_bytes(b"\n".join(orjson.dumps(row) for row in [*own, shared]))
    return folder


def spec(name: str = "quality", labels: tuple[str, str] = ("positive", "negative"), seed: int = 0) -> ClassifierSpec:
    first, second = labels
    return ClassifierSpec.model_validate(
        {
            "name": name,
            "labels": {
                first: {"sources": ({"kind": "jsonl", "paths": ("good.jsonl",), "lang_key": "lang"},)},
                second: {"sources": ({"kind": "jsonl", "paths": ("bad.jsonl",), "lang_key": "lang"},)},
            },
            "languages": ("en", "de"),
            "train": {"epochs": 3, "seed": seed},
        }
    )


@pytest.fixture(scope="module")
def quality(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "quality"
    train_classifier(spec(), sources, folder)
    return folder


def documents(rows: list[tuple[str, str | None, str | None]]) -> pa.Table:
    return table_from_rows(
        [
            {"id": str(n), "text": text, "text_hash": text_hash(text), "source": "s", "lang": lang, "domain": domain}
            for n, (text, lang, domain) in enumerate(rows)
        ]
    )


def test_roc_of_known_cases() -> None:
    truth = np.array([True, True, False, False])
    assert roc(np.array([0.9, 0.8, 0.2, 0.1]), truth).area == 1.0
    assert roc(np.array([0.1, 0.2, 0.8, 0.9]), truth).area == 0.0
    tied = roc(np.array([0.5, 0.5, 0.5, 0.5]), truth)
    assert (tied.area, tied.false_positive_rate, tied.true_positive_rate) == (0.5, [0.0, 1.0], [0.0, 1.0])


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60))
def test_roc_area_is_the_chance_that_a_positive_scores_higher(pairs: list[tuple[int, bool]]) -> None:
    positives = [score for score, hit in pairs if hit]
    negatives = [score for score, hit in pairs if not hit]
    if positives and negatives:
        wins = [(a > b) + 0.5 * (a == b) for a in positives for b in negatives]
        found = roc(np.array([score for score, _ in pairs], float), np.array([hit for _, hit in pairs]))
        assert found.area == pytest.approx(np.mean(wins))


def test_isotonic_pools_what_falls() -> None:
    found = isotonic(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True]))
    assert found.raw == pytest.approx([0.1, 0.25, 0.4])
    assert found.chance == pytest.approx([0.25, 0.5, 0.75])
    assert found(np.array([0.0, 0.25, 1.0])) == pytest.approx([0.25, 0.5, 0.75])
    assert np.isnan(found(np.array([np.nan]))).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_calibrated_chances_rise_and_stay_inside(pairs: list[tuple[float, bool]]) -> None:
    found = isotonic(np.array([score for score, _ in pairs]), np.array([hit for _, hit in pairs]))
    chances = found(np.linspace(0, 1, 30))
    assert (np.diff(chances) >= -1e-12).all()
    assert ((chances > 0) & (chances < 1)).all()


def test_buckets() -> None:
    assert buckets(np.array([0.0, 0.19, 0.2, 0.99, 1.0]), 5).tolist() == [0, 0, 1, 4, 4]
    assert np.isnan(buckets(np.array([np.nan]), 5)).all()


def test_a_line_is_one_line_and_unspaced_scripts_are_parted() -> None:
    assert line("A\n B\u3000__label__x") == "a b x"
    assert line("水は100度。") == "水 は 100 度 。"
    assert line("도서관은 크다") == "도서관은 크다"


def test_training_and_scoring_under_this_numpy(tmp_path: Path) -> None:
    import fasttext

    texts = [
        f"__label__{label} {row['text']}"
        for label, words in (("a", GOOD), ("b", BAD))
        for row in rows(words, "en", 200, 5)
    ]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    assert train_file(tmp_path / "lines.txt", tmp_path / "one.bin", TrainConfig()) >= 1
    model = fasttext.load_model(str(tmp_path / "one.bin"))
    labels, scores = model.predict([GOOD, BAD], k=1)
    assert [label[0] for label in labels] == ["__label__a", "__label__b"]
    assert np.isfinite([score[0] for score in scores]).all()
    with pytest.raises(ValueError, match="less than or equal to 0.1"):
        TrainConfig(learning_rate=0.5)


def test_the_same_lines_give_the_same_model_whatever_was_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library reads memory that it has not set: other trainings in this process must not reach it."""
    lines = [
        f"__label__{label} {row['text']}"
        for label, words in (("a", GOOD), ("b", BAD))
        for row in rows(words, "en", 60, 5)
    ]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    config = TrainConfig(buckets=1000, epochs=2)
    for name, perturb in (("one", "1"), ("two", "127")):
        monkeypatch.setenv("MALLOC_PERTURB_", perturb)
        assert train_file(tmp_path / "lines.txt", tmp_path / f"{name}.bin", config) == 1
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "two.bin").read_bytes()
    tiny = TrainConfig(buckets=1, minimum_piece=0, maximum_piece=0, word_grams=1)  # gave NaN nearly always
    assert [train_file(tmp_path / "lines.txt", tmp_path / "tiny.bin", tiny.replaced(seed=n)) for n in range(4)] == [
        1
    ] * 4


def test_nan_is_noticed_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fasttext

    from stages.classifier import train

    (tmp_path / "lines.txt").write_text("\n".join(f"__label__{'ab'[n % 2]} {BAD.split()[n % 9]}" for n in range(200)))
    real, seeds = train._attempt, []

    def broken_twice(lines: Path, target: Path, config: TrainConfig) -> bool:
        seeds.append(config.seed)
        if len(seeds) == 1:
            return False
        made = real(lines, target, config)
        if len(seeds) == 2:
            model = fasttext.load_model(str(target))
            model.set_matrices(model.get_input_matrix(), np.full_like(model.get_output_matrix(), np.nan))
            model.save_model(str(target))
        return made

    monkeypatch.setattr(train, "_attempt", broken_twice)
    assert train_file(tmp_path / "lines.txt", tmp_path / "model.bin", TrainConfig(seed=7)) == 3
    assert seeds == [7, 8, 9]
    monkeypatch.setattr(train, "_attempt", lambda *_: False)
    with pytest.raises(InputError, match="8 trainings gave NaN"):
        train_file(tmp_path / "lines.txt", tmp_path / "other.bin", TrainConfig())
    assert not (tmp_path / "other.bin").exists()
    with pytest.raises(RuntimeError, match="ended with status 1"):
        real(tmp_path / "none.txt", tmp_path / "other.bin", TrainConfig())


def test_gathering_parts_by_text_and_leaves_out_what_two_labels_share(sources: Path) -> None:
    examples, left_out = gather(spec(), sources)
    assert left_out == {"other language: fr": 1, "several labels": 1}
    assert len({one.text for one in examples}) == len(examples)
    parts = [one.part for one in examples]
    assert 0.7 < parts.count("train") / len(parts) < 0.9
    few = spec().replaced(minimum_documents=2000)
    with pytest.raises(InputError, match="at least 2000 are needed"):
        gather(few, sources)


def test_quality_scores_part_good_from_bad(quality: Path) -> None:
    found = Classifier.load(quality).signals([GOOD, BAD, GUT, GUT, ""], ["en", "en", "de", "fr", "en"])
    scores, numbers = found["quality"], found["quality_bucket"]
    assert scores[0] > 0.9 > 0.1 > scores[1]
    assert scores[2] > 0.9
    assert np.isnan(scores[3:]).all(), "no model for French, no words in the last"
    assert numbers[:3].tolist() == [4, 0, 4]
    report = json.loads((quality / "report.json").read_text())
    for lang in ("en", "de"):
        own = report["languages"][lang]
        assert own["labels"]["positive"]["area"] > 0.99
        assert sum(row["documents"] for row in own["buckets"]) == sum(own["documents"]["report"].values())
        assert {row["kind"] for row in own["sheet"]} >= {"right"}


def test_a_model_trained_again_at_the_same_path_is_noticed(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quality"
    train_classifier(spec(), sources, folder)
    config = ClassifierConfig(model=("quality/*.bin", "quality/classifier.json"))
    before = resolve("classifier", config, 0, tmp_path).content
    old = (folder / "en.bin").read_bytes()
    train_classifier(spec(seed=5), sources, folder)
    assert (folder / "en.bin").read_bytes() != old
    assert resolve("classifier", config, 0, tmp_path).content != before, "the step's fingerprint changes"
    assert Classifier.load(folder).spec.train.seed == 5
    (folder / "en.bin").write_bytes(old)
    with pytest.raises(InputError, match="not the one that was calibrated"):
        Classifier.load(folder)
    (folder / "en.bin").unlink()
    with pytest.raises(InputError, match="missing"):
        Classifier.load(folder)


def test_the_record_of_a_step_holds_the_classifiers_report(quality: Path) -> None:
    files = tuple(
        str(path) for path in sorted(quality.iterdir()) if path.suffix == ".bin" or path.name == "classifier.json"
    )
    specs = [
        resolve("classifier", ClassifierConfig(model=files), 0, Path()).spec,
        resolve("toxicity", ToxicityConfig(model=files), 1, Path()).spec,
    ]
    paths = {"0.classifier.model": files, "1.toxicity.model": files}
    found = block_reports(specs, quality, paths)
    assert found["classifier"] == found["toxicity"] == {"quality": orjson.loads((quality / "report.json").read_bytes())}
    assert block_reports(specs[1:], quality, {}) == {"toxicity": {}}


def test_the_block_gives_signals_and_drops_below_a_threshold(quality: Path) -> None:
    batch = documents([(GOOD, "en", None), (BAD, "en", None), (BAD, "fr", None)])
    block = ClassifierBlock(ClassifierConfig(minimum={"en": 0.5}), Classifier.load(quality))
    result = block.apply(batch)
    verify(batch, result)
    assert result.reasons == ["classifier.quality"]
    assert result.dropped_at.tolist() == [1]
    assert result.signals is not None
    assert result.signals.column_names == ["id", "quality@1", "quality_bucket@1"]
    assert result.signals.num_rows == 3
    assert result.signals["quality@1"][2].as_py() is None
    with pytest.raises(ConfigError, match="knows no domains"):
        ClassifierBlock(ClassifierConfig(fill_domain="always"), Classifier.load(quality))


def test_a_domain_classifier_fills_the_domain(sources: Path, tmp_path: Path) -> None:
    train_classifier(spec("topic", ("stem", "shop")), sources, tmp_path / "topic")
    classifier = Classifier.load(tmp_path / "topic")
    batch = documents([(GOOD, "en", None), (BAD, "en", "web"), ("??", "fr", None)])
    missing = ClassifierBlock(ClassifierConfig(fill_domain="missing"), classifier).apply(batch)
    assert missing.kept["domain"].to_pylist() == ["stem", "web", None]
    assert ClassifierBlock(ClassifierConfig(fill_domain="always"), classifier).apply(batch).kept[
        "domain"
    ].to_pylist() == ["stem", "shop", None]
    assert missing.signals is not None
    assert missing.signals.column_names == ["id", "topic_stem@1", "topic_shop@1"]
    with pytest.raises(ConfigError, match="no quality score"):
        ClassifierBlock(ClassifierConfig(minimum={"default": 0.5}), classifier)


def test_scores_reach_what_mixes_select_from(quality: Path, tmp_path: Path) -> None:
    batch = documents([(GOOD, "en", None), (BAD, "en", None), (GUT, "de", None)])
    result = ClassifierBlock(ClassifierConfig(), Classifier.load(quality)).apply(batch)
    assert result.signals is not None
    write_documents(tmp_path / "clean", 0, result.kept)
    write_table(tmp_path / "clean" / "signals" / "00000.parquet", result.signals)
    inputs = {"documents.clean": StepOutput("clean", tmp_path / "clean")}
    for permille, kept in ((0, 3), (500, 2)):
        task = StepTask(
            "split", "split", SplitConfig(heldout_permille=permille), inputs, tmp_path / str(permille), tmp_path, {}
        )
        SplitWork().make_shard(task, 0)
        rest = pq.read_table(task.folder / "documents" / "00000.parquet")
        signals = pq.read_table(task.folder / "signals" / "00000.parquet")
        assert rest.num_rows == kept
        assert signals["id"].to_pylist() == rest["id"].to_pylist()
        assert signals.column_names == ["id", "quality@1", "quality_bucket@1"]


def test_the_command_line(
    sources: Path, tmp_path: Path, command_line: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    text = orjson.loads(spec().model_dump_json())
    for own in text["labels"].values():
        own["sources"][0]["paths"] = [str(sources / path) for path in own["sources"][0]["paths"]]
    (tmp_path / "spec.yaml").write_text(json.dumps(text))
    folder, out = str(tmp_path / "model"), tmp_path / "scores.parquet"
    done = command_line("classifier", "train", str(tmp_path / "spec.yaml"), folder)
    assert done.returncode == 0, done.stderr
    assert "ROC area" in done.stderr
    done = command_line("classifier", "apply", folder, str(sources / "good.jsonl"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    scores = pq.read_table(out)
    assert scores.column_names == ["id", "lang", "quality@1", "quality_bucket@1"]
    assert scores.num_rows == 601
    assert np.mean(scores["quality@1"].to_numpy() > 0.5) > 0.95
    done = command_line("classifier", "report", folder, "--json")
    assert json.loads(done.stdout)["languages"]["de"]["labels"]["positive"]["area"] > 0.99
    done = command_line("classifier", "report", str(tmp_path))
    assert done.returncode == 2
    assert "no report" in done.stderr
