"""The pre-training phases select by domain and quality bucket: from a trained classifier to the rows of three mixes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from mixes.trace import documents_at
from pipeline.core.config import Located, load_config, read_yaml, validate
from pipeline.core.documents import document_id, read_documents
from pipeline.core.plans import read_plan
from pipeline.curriculum_file import Curriculum
from pipeline.executors import LocalExecutor
from pipeline.graph import Silent
from pipeline.recipe import Opened, open_curriculum
from stages.catalog import block_config
from stages.classifier.build import train_classifier
from stages.classifier.spec import ClassifierSpec

ROOT = Path(__file__).parents[2]
WORDS = {
    ("good", "science"): "the electron orbits its nucleus because charge attracts and energy stays quantised in levels",
    ("good", "dialogue"): "she asked him kindly whether he would walk home and he answered that he gladly would today",
    ("bad", "science"): "electron nucleus pills cheap energy buy quantised win charge click levels bonus offer now",
    ("bad", "dialogue"): "asked click answered cheap kindly bonus walk offer home win gladly buy today pills now",
}


def texts(kind: tuple[str, str], count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS[kind].split(), 30)) for _ in range(count)]


def train(folder: Path, name: str, labels: dict[str, list[tuple[str, str]]]) -> Path:
    """A classifier of the kinds of text that stand for each label."""
    for label, kinds in labels.items():
        rows = [{"text": text, "lang": "en"} for kind in kinds for text in texts(kind, 150, 7)]
        (folder / f"{name}.{label}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = {
        "name": name,
        "labels": {
            label: {"sources": [{"kind": "jsonl", "paths": [f"{name}.{label}.jsonl"], "lang_key": "lang"}]}
            for label in labels
        },
        "languages": ["en"],
        "train": {"epochs": 3},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    train_classifier(load_config(folder / f"{name}.yaml", ClassifierSpec), folder, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp("phases")
    good, bad = [("good", "science"), ("good", "dialogue")], [("bad", "science"), ("bad", "dialogue")]
    quality = train(folder, "quality", {"positive": good, "negative": bad})
    topic = train(folder, "topic", {one: [("good", one), ("bad", one)] for one in ("science", "dialogue")})
    rows = [
        {"id": f"{kind[0]}-{kind[1]}-{n}", "text": text} for kind in WORDS for n, text in enumerate(texts(kind, 60, 1))
    ]
    (folder / "web.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "card.yaml").write_text(
        "{origin: x, license: CC-BY-4.0, basis: own work, collected: '2025-01-01', opt_out: none, contact: x}"
    )
    conditions = {
        "foundation": "quality >= 1",
        "expertise": "quality >= 3",
        "reasoning": "quality >= 3 AND domain = 'science'",
    }
    written = yaml.safe_load((ROOT / "tests" / "golden.yaml").read_text())
    written |= {
        "store": str(folder / "store"),
        "sources": {"web": {"read": {"kind": "jsonl", "paths": [str(folder / "web.jsonl")], "lang": "en"},
                            "card": str(folder / "card.yaml")}},
        "clean": [
            {"classifier": {"model": [f"{quality}/*.bin", f"{quality}/classifier.json"]}},
            {"classifier": {"model": [f"{topic}/*.bin", f"{topic}/classifier.json"], "fill_domain": "missing"}},
            {"dedup.exact": {}},
            {"pii": {}},
        ],
        "split": {"heldout_permille": 0},
        "tokenizer": {"train": {"vocabulary": 400, "superword_share": 0.0}},
        "synth": {},
        "encode": {"quality_signal": "quality_bucket@1"},
        "mixes": {
            name: {"components": {"web": {"from": ["web"], "where": where, "weight": 1, "max_repeats": 9}}}
            for name, where in conditions.items()
        },
        "phases": [
            {"name": name, "mix": name, "context_tokens": 64, "budget_tokens": 12800, "rows_per_batch": 2,
             "learning_rate": {"peak": 0.001}}
            for name in conditions
        ],
    }  # fmt: skip
    (folder / "curriculum.yaml").write_text(yaml.safe_dump(written))
    one = open_curriculum(folder / "curriculum.yaml")
    one.graph.run(["mix.reasoning"], LocalExecutor(1), Silent())
    return one


def test_each_phase_serves_the_documents_it_asks_for(opened: Opened) -> None:
    store = opened.graph.store
    kept = [row for table in read_documents(opened.graph.node("clean-2").folder) for row in table.to_pylist()]
    assert {row["domain"] for row in kept} == {"science", "dialogue"}  # the card said `general` of all of them
    kinds = {document_id("web", f"{kind[0]}-{kind[1]}-{n}"): kind for kind in WORDS for n in range(60)}
    shards = (opened.graph.node("encode.clean").folder / "tokens").glob("*.docs.parquet")
    bucket = {row["id"]: row["quality"] for shard in shards for row in pq.read_table(shard).to_pylist()}
    served: dict[str, list[tuple[str, str]]] = {}
    least: dict[str, float] = {}
    for phase in ("foundation", "expertise", "reasoning"):
        plan = read_plan(store, opened.graph.node(f"mix.{phase}").folder)
        segment = plan.segments[-1]
        found = documents_at(plan, segment.first_row, segment.rows)
        served[phase] = [kinds[name] for name in found["id"].to_list()]
        least[phase] = min(bucket[name] for name in found["id"].to_list())
    assert least["foundation"] >= 1
    assert min(least["expertise"], least["reasoning"]) >= 3
    share = {phase: np.mean([good == "good" for good, _ in rows]) for phase, rows in served.items()}
    assert min(share["expertise"], share["foundation"]) > 0.9  # fastText's training differs a little from run to run
    assert {topic for _, topic in served["expertise"]} == {"science", "dialogue"}
    assert np.mean([kind == ("good", "science") for kind in served["reasoning"]]) > 0.95


def test_the_configurations_we_ship_are_valid() -> None:
    shipped = validate(Curriculum, read_yaml(ROOT / "configs" / "k-exaone-236b.yaml", []))
    assert shipped.encode.quality_signal == "quality_bucket@1"
    assert [bool(shipped.mixes[name].components["web"].where) for name in ("foundation", "expertise", "reasoning")] == [
        True
    ] * 3
    for item in shipped.clean:
        ((name, options),) = item.items()
        block_config(name, Located(options))
    found = {path.stem: load_config(path, ClassifierSpec) for path in (ROOT / "configs" / "classifiers").glob("*.yaml")}
    assert {name: sorted(one.labels) for name, one in found.items()} == {
        "quality": ["negative", "positive"],
        "toxicity": ["negative", "positive"],
        "domains": ["code", "dialogue", "general", "science"],
    }
