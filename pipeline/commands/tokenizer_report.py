"""`seodang tokenizer report`: how a tokenizer fits held-out text, beside others, in the terminal, as JSON, in the page.

Given a curriculum, its tokenizer is measured on the documents that its split step set aside, and the result is kept
in the store for `seodang report`. Given a tokenizer.json, it is measured on the documents of `--documents`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.errors import InputError
from pipeline.core.files import open_input, write_json
from pipeline.core.tokenizer import FILE, Tokenizer
from pipeline.layout import SPLIT, TOKENIZER
from pipeline.recipe import open_curriculum
from pipeline.report.tokenizer_report import REPORT
from stages.split import heldout_documents
from stages.tokenizer.bundled import ALL, BUNDLED, bundled_counter
from stages.tokenizer.encoder import Encoder
from stages.tokenizer.report import Count, Sample, file_counter, tokenizer_report

COLUMNS = ("text", "lang", "domain")


def report_tokenizer(
    subject: Path, against: Sequence[str], documents: Sequence[Path], overrides: Sequence[str], *, as_json: bool
) -> None:
    """Measure, keep, and show."""
    if subject.suffix == ".json" or subject.is_dir():
        encoder, kept = Encoder.of(Tokenizer.load(subject)), None
        samples = _given(documents, subject)
    else:
        graph = open_curriculum(subject, overrides).graph
        encoder, kept = Encoder.of(Tokenizer.load(graph.node(TOKENIZER).folder)), graph.store / REPORT
        samples = _given(documents, subject) if documents else _held_out(graph.node(SPLIT).folder)
    others = _others(against)
    report = tokenizer_report("this tokenizer", encoder, others, samples)
    if kept is not None:
        write_json(kept, report)
    if as_json:
        print_json(report)
        return
    _show(report)
    if kept is not None:
        console.print(f"kept for `seodang report`: [bold]{kept}[/bold]", soft_wrap=True)


def _others(against: Sequence[str]) -> dict[str, Count]:
    """Files by a short name, bundled vocabularies by theirs; a file of such a name comes first."""
    files = [Path(given) for given in against if given not in (*BUNDLED, ALL) or Path(given).exists()]
    named = [name for name in BUNDLED if name in against or ALL in against]
    counters = {_name(path, files): file_counter(path) for path in files}
    return counters | {name: bundled_counter(name) for name in named if name not in counters}


def _name(path: Path, against: Sequence[Path]) -> str:
    """Short, but never the same for two of them."""
    short = path.parent.name if path.name == FILE else path.name
    same = [other for other in against if short in (other.name, other.parent.name)]
    return short if len(same) == 1 and short else str(path)


def _held_out(folder: Path) -> list[Sample]:
    held = heldout_documents(folder)
    if not held.num_rows:
        raise InputError(
            "the curriculum's split step has set no documents aside",
            where=str(folder),
            fix="run it (`seodang run CONFIG split`), raise `split.heldout_permille`, or give `--documents FILE`",
        )
    return list(_samples(held))


def _given(documents: Sequence[Path], subject: Path) -> Iterator[Sample]:
    if not documents:
        raise InputError(
            "no documents to measure on",
            where=str(subject),
            fix="give `--documents FILE`: Parquet or JSONL (also .zst) with `text`, also `lang`, `domain`",
        )
    for path in documents:
        if not path.is_file():
            raise InputError("no such file", where=str(path), fix="give a Parquet or JSONL file")
    return (sample for path in documents for sample in (_parquet(path) if path.suffix == ".parquet" else _lines(path)))


def _parquet(path: Path) -> Iterator[Sample]:
    file = pq.ParquetFile(path)
    if "text" not in file.schema_arrow.names:
        raise InputError("no column `text`", where=str(path), fix="give documents with their text in `text`")
    columns = [name for name in COLUMNS if name in file.schema_arrow.names]
    for batch in file.iter_batches(columns=columns):
        yield from _samples(pa.table(batch))


def _samples(documents: pa.Table) -> Iterator[Sample]:
    nothing = [None] * documents.num_rows
    columns = (documents[name].to_pylist() if name in documents.column_names else nothing for name in COLUMNS)
    for text, language, domain in zip(*columns, strict=True):
        if text:
            yield Sample(text, language or "", domain or "")


def _lines(path: Path) -> Iterator[Sample]:
    with open_input(str(path)) as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InputError(f"not JSON: {error}", where=f"{path}, line {number}") from None
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise InputError("no field `text`", where=f"{path}, line {number}", fix='write {"text": "…"}')
            yield Sample(row["text"], row.get("lang") or "", row.get("domain") or "")


def _show(report: Mapping[str, Any]) -> None:
    names = [report["tokenizer"], *report["others"]]
    for kind, title in (("groups", "By group"), ("languages", "By language"), ("domains", "By domain")):
        figures = (f"{name}: {what}" for name in names for what in ("B/token", "tokens/word"))
        rows = [
            (
                key,
                f"{row['documents']:,}",
                f"{row['bytes']:,}",
                *(_figure(row[what].get(name)) for name in names for what in ("bytes_per_token", "fertility")),
            )
            for key, row in report[kind].items()
        ]
        console.print(table(title, ("", "documents", "bytes", *figures), rows))
    frequent = [
        (language, "  ".join(f"{text.strip()} {count:,}" for text, count in found))
        for language, found in report["frequent_superwords"].items()
    ]
    if frequent:
        console.print(table("Most frequent superwords", ("language", "superword and times"), frequent))
    unused = report["unused"]
    superwords = f"{unused['superwords']:,} superwords among them"
    console.print(f"never used: {unused['tokens']:,} of {unused['of']:,} tokens, {superwords}")
    if report["encoded_by_tokenizers"]:
        console.print(f"encoded by tokenizers, not by our encoder: {report['encoded_by_tokenizers']}", markup=False)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
