"""`seodang classifier train|apply|report`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.config import load_config
from pipeline.core.documents import document_files, read_documents
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.files import atomic_path
from stages.classifier.build import train_classifier
from stages.classifier.model import COLUMN_VERSION, REPORT_FILE, Classifier
from stages.classifier.spec import ClassifierSpec
from stages.config import Kind, ReadConfig
from stages.language import embedded, identify
from stages.read import read_parts
from stages.rows import Origin
from stages.sources import expand_paths, whole_files

_KINDS: Mapping[str, Kind] = {".parquet": "parquet", ".jsonl": "jsonl"}
_CURVE = " ▁▂▃▄▅▆▇█"


def train(spec: Path, folder: Path, overrides: Sequence[str], *, as_json: bool) -> None:
    """Train into `folder` and show the report. Paths in the file start at the working folder."""
    found = train_classifier(load_config(spec, ClassifierSpec, overrides), Path.cwd(), folder)
    _show(found, as_json=as_json)
    console.print(
        f"written to {folder}; as a block: classifier: {{model: [{folder}/*.bin, {folder}/classifier.json]}}",
        markup=False,
    )


def report(folder: Path, *, as_json: bool) -> None:
    """Show the report of a trained classifier."""
    path = folder / REPORT_FILE
    if not path.is_file():
        raise InputError("no report", where=str(path), fix="run `seodang classifier train`")
    _show(orjson.loads(path.read_bytes()), as_json=as_json)


def apply(folder: Path, inputs: Sequence[str], out: Path) -> None:
    """Score the documents of some inputs; ids and languages are theirs, identified where they have none."""
    classifier = Classifier.load(folder)
    parts: list[pa.Table] = []
    for documents in _documents(inputs):
        texts, langs = documents["text"].to_pylist(), documents["lang"].to_pylist()
        unknown = [row for row, lang in enumerate(langs) if lang is None]
        for row, found in zip(unknown, identify([texts[row] for row in unknown], embedded()), strict=True):
            langs[row] = found.whole.lang
        columns: dict[str, pa.Array | pa.ChunkedArray] = {"id": documents["id"], "lang": pa.array(langs, pa.string())}
        for name, values in classifier.signals(texts, langs).items():
            columns[f"{name}@{COLUMN_VERSION}"] = pa.array(values, pa.float64(), from_pandas=True)
        parts.append(pa.table(columns))
    if not parts:
        raise InputError("no documents in the inputs", where=", ".join(inputs), fix="name folders or files with some")
    scores = pa.concat_tables(parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as partial:
        pq.write_table(scores, partial, compression="zstd")
    console.print(f"{scores.num_rows} documents scored by `{classifier.spec.name}`: {out}")


def _documents(inputs: Sequence[str]) -> Iterator[pa.Table]:
    for one in inputs:
        if document_files(Path(one)):
            yield from read_documents(Path(one))
            continue
        kinds: list[Kind] = [kind for ending, kind in _KINDS.items() if ending in Path(one).name]
        if not kinds:
            raise ConfigError("neither a step's folder nor a Parquet or JSONL file", where=one)
        read = ReadConfig(kind=kinds[0], paths=(one,), lang_key="lang")
        files = expand_paths(read, Path.cwd(), where=one)
        for batch in read_parts(whole_files(files), read, Origin(one, None, None, None)):
            yield batch.documents


def _show(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (lang, label, sum(part.get(label, 0) for part in one["documents"].values()), f"{own['area']:.3f}",
         curve(own), f"{own['brier']:.3f}", f"{one['right']:.3f}")
        for lang, one in found["languages"].items()
        for label, own in one["labels"].items()
    ]  # fmt: skip
    columns = ("language", "label", "documents", "ROC area", "ROC", "Brier", "right")
    console.print(table(f"classifier {found['name']}, held-out documents", columns, rows))
    for lang, one in found["languages"].items():
        if one["buckets"]:
            body = [(row["bucket"], row["documents"], f"{row['positive']:.2f}") for row in one["buckets"]]
            console.print(table(f"{lang}: buckets", ("bucket", "held-out documents", "share positive"), body))
        body = [
            (row["kind"], row["taken_for"], row["is"], f"{row['chance']:.2f}", escape(row["text"]))
            for row in one["sheet"]
        ]
        console.print(table(f"{lang}: examples", ("", "taken for", "is", "chance", "text"), body))
    for reason, count in found["left_out"].items():
        console.print(f"left out: {count} ({reason})")


def curve(label: Mapping[str, Any], width: int = 20) -> str:
    """A ROC curve as a line of blocks: true positive rate at evenly spaced false positive rates."""
    rates = np.interp(np.linspace(0, 1, width), label["false_positive_rate"], label["true_positive_rate"])
    return "".join(_CURVE[int(round(rate * (len(_CURVE) - 1)))] for rate in rates)
