"""Public data as conversations: CSV, JSONL and Parquet through a column mapping, filters with planted faults, tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.documents import read_documents, read_dropped, write_documents
from pipeline.core.errors import InputError
from pipeline.core.record import Record, write_record
from pipeline.core.steps import StepOutput, StepTask
from pipeline.core.verify.instructions import sentences
from stages.config import ReadConfig
from stages.read import read_parts
from stages.rows import Origin
from stages.sources import expand_paths, shard_parts
from synth.config import LANGUAGES, tuples
from synth.instructions import tables
from synth.instructions.config import IngestConfig
from synth.instructions.exercise import Conversation, conversation_of, say_in
from synth.instructions.ingest import WORK, verdict
from synth.language import facts

Make = Callable[..., StepTask]
TOWNS = [("Ulm", "126329", "478"), ("Bonn", "330579", "64"), ("Kiel", "246243", "5"), ("Jena", "110731", "155")]
FAQ = [
    {"q": "When does the library of the town close on Fridays?", "a": "at six in the evening", "text": "The library opens at nine. On Fridays it closes at six in the evening. Entry is free."},
    {"q": "How much does it cost to get into the town library?", "a": "Entry is free.", "text": "The library opens at nine. On Fridays it closes at six in the evening. Entry is free."},
    {"q": "Who leads the library of the town at the moment?", "a": "Nobody knows that.", "text": "The library opens at nine. On Fridays it closes at six in the evening. Entry is free."},
    {"q": "Who leads the library?", "a": "", "text": "The library opens at nine."},
    {"q": "When does the library of the town close on Fridays?", "a": "at six in the evening", "text": "The library opens at nine. On Fridays it closes at six in the evening. Entry is free."},
    {"q": "Wann schließt die Bibliothek der Stadt am Freitag eigentlich abends?", "a": "at six in the evening", "text": "The library opens at nine. On Fridays it closes at six in the evening. Entry is free."},
]  # fmt: skip


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., StepTask]:
    """The task of an ingest set on a file that was read as its source."""

    def make(path: Path, mapping: dict[str, Any], *, text_key: str, **options: Any) -> StepTask:
        kind = path.name.split(".")[1]
        read = ReadConfig.model_validate({"kind": kind, "paths": (str(path),), "text_key": text_key})
        folder = tmp_path / "clean.source"
        for shard, parts in enumerate(shard_parts(expand_paths(read, Path()), read.kind, read.shard_bytes)):
            tables_read = [
                batch.documents for batch in read_parts(parts, read, Origin("faq", "CC-BY-4.0", "general", None))
            ]
            write_documents(folder, shard, pa.concat_tables(tables_read))
        record = Record(
            "clean.source", "stages.clean", 1, "f" * 64, {"read": read.model_dump()}, {}, {}, {}, {}, {}, {}
        )
        write_record(folder, record, {})
        config = IngestConfig.model_validate(
            {"kind": "ingest", "from": "source", "mapping": tuples(mapping), **options}
        )
        inputs = {"documents": StepOutput("clean.source", folder)}
        return StepTask("synth.faq", "f" * 64, config, inputs, tmp_path / "synth.faq", tmp_path, {})

    return make


def made(task: StepTask) -> tuple[list[dict[str, Any]], Counter[str]]:
    results = [WORK.make_shard(task, shard) for shard in range(WORK.shard_count(task))]
    rows = [row for table in read_documents(task.folder) for row in table.to_pylist()]
    dropped = Counter(row["reason"] for table in read_dropped(task.folder) for row in table.to_pylist())
    assert sum(result.counts["documents_in"] for result in results) == len(rows) + dropped.total()
    assert all(verdict(conversation_of(row)).right for row in rows if row["lang"] != "mul")
    return rows, dropped


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def csv_of_towns(path: Path, rows: Sequence[Sequence[str]] = TOWNS) -> Path:
    path.write_text(
        "\n".join([";".join(("town", "people", "height")), *(";".join(row) for row in rows)]), encoding="utf-8"
    )
    return path


QA = {"task": "qa", "question": "q", "answer": "a", "context": "text", "answers_stand_in_context": True}


def test_questions_and_answers_from_jsonl(tmp_path: Path, ingest: Make) -> None:
    task = ingest(jsonl(tmp_path / "faq.jsonl", FAQ), QA, text_key="q", forms={"reasoning": 1.0, "plain": 0.0})
    rows, dropped = made(task)
    assert dropped == {"ingest.not_in_context": 1, "ingest.empty": 1, "ingest.duplicate": 1, "ingest.language": 1}
    first, second = rows
    assert first["messages"] == [
        {"role": "user", "reasoning": None, "content": f"{FAQ[0]['text']}\n\n{FAQ[0]['q']}", "tool_calls": None},
        {
            "role": "assistant",
            "reasoning": "The text says: “On Fridays it closes at six in the evening.”",
            "content": "at six in the evening",
            "tool_calls": None,
        },
    ]
    assert (first["license"], first["domain"], first["lang"]) == ("CC-BY-4.0", "world-knowledge", "en")
    assert len(first["parents"]) == 1
    assert second["messages"][1]["reasoning"] == "The text says: “Entry is free.”"


def test_without_evidence_there_is_no_thinking(tmp_path: Path, ingest: Make) -> None:
    mapping = {"task": "qa", "question": "q", "answer": "a"}
    task = ingest(
        jsonl(tmp_path / "faq.jsonl", FAQ[:3]), mapping, text_key="text", forms={"reasoning": 1.0, "plain": 0.0}
    )
    rows, _ = made(task)
    assert [row["messages"][-1]["reasoning"] for row in rows] == [None] * 3
    assert rows[0]["text"] == f"{FAQ[0]['q']}\n\n{FAQ[0]['a']}"


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_tables_from_every_kind_of_file(tmp_path: Path, ingest: Make, form: str) -> None:
    path = tmp_path / f"towns.{form}"
    if form == "csv":
        csv_of_towns(path)
    elif form == "jsonl":
        jsonl(path, [{"town": a, "people": int(b), "height": int(c)} for a, b, c in TOWNS])
    else:
        columns = dict(zip(("town", "people", "height"), zip(*TOWNS, strict=True), strict=True))
        pq.write_table(
            pa.table(
                {
                    "town": columns["town"],
                    "people": [int(n) for n in columns["people"]],
                    "height": [int(n) for n in columns["height"]],
                }
            ),
            path,
        )
    mapping = {"task": "table", "key": "town", "numbers": ["people", "height"], "labels": {"people": "Einwohner", "height": "Höhe", "town": "Stadt"}, "language": "de", "questions_per_table": 12}  # fmt: skip
    rows, dropped = made(ingest(path, mapping, text_key="town"))
    assert set(dropped) <= {"ingest.ambiguous"}
    assert len(rows) >= 6
    assert rows[0]["text"].startswith("| Stadt | Einwohner | Höhe |\n|---|---|---|\n| Ulm | 126329 | 478 |")
    asked = {json.loads(row["extra"])["family"] for row in rows}
    assert len(asked) >= 4
    for row in rows:
        told, answer = json.loads(row["extra"])["facts"], row["messages"][-1]["content"]
        values = {
            town: Fraction({"Einwohner": people, "Höhe": height}[told["column"]]) for town, people, height in TOWNS
        }
        expected = {
            "lookup": str(values[told["a"]]),
            "largest": max(values, key=values.__getitem__),
            "smallest": min(values, key=values.__getitem__),
            "above": str(sum(value > Fraction(told["threshold"]) for value in values.values())),
            "total": str(sum(values.values())),
            "difference": str(abs(values[told["a"]] - values[told["b"]])),
        }[told["kind"]]
        assert answer == expected
        assert len(row["parents"]) == 4


def test_tables_are_asked_about_in_every_language_in_its_own_notation() -> None:
    table = {
        "point": [["a", "1,200.5"], ["b", "-3.25"], ["c", "40"]],
        "comma": [["a", "1.200,5"], ["b", "-3,25"], ["c", "40"]],
    }
    for language in LANGUAGES:
        shown = tables.Table(["k", "n"], table[facts(language).style])
        kinds = set()
        for seed in range(60):
            asked = tables.ask(shown, ["n"], Random(seed), language)
            assert asked is not None
            kinds.add(asked.facts["kind"])
            question = say_in("ingest", language)("about_table", table=shown.markdown(), question=asked.question)
            one = Conversation(
                "world-knowledge", "table-x", language, "reasoning", question, asked.steps, asked.answer, asked.facts
            )
            assert verdict(one).right
            other = {"a": "c", "b": "a", "c": "b"}.get(asked.answer, asked.answer + "1")
            assert verdict(replace(one, content=other)).reason == "wrong_answer"
            assert verdict(replace(one, reasoning=asked.steps + "!")).reason == "wrong_step"
            assert verdict(replace(one, question=question.replace("40", "41"))).reason in (
                "question",
                "wrong_answer",
                "wrong_step",
                "",
            )
            if asked.facts["kind"] == "total":
                mark = "." if facts(language).style == "point" else ","
                assert asked.answer == f"1237{mark}25"
                assert asked.steps.endswith(f"= 1237{mark}25")
        assert kinds == set(tables.ASKED)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("Ulm", "1", "2"), ("Ulm", "3", "4"), ("Bonn", "5", "6")], "ambiguous"),
        *(
            ([("Ulm", "1", "2"), ("Bonn", cell, "4")], "not_a_number")
            for cell in ("many", "50%", "1/3", "1e5", "12 000", "1..2", "½", "9" * 5000, f"0.{'1' * 50}")
        ),
        ([("Ulm", "1", "2"), ("Bonn", "", "4")], "empty"),
        ([("Ulm", "1", "2")], "empty"),
    ],
)
def test_tables_that_have_no_sure_answer_are_dropped(
    tmp_path: Path, ingest: Make, rows: list[tuple[str, ...]], reason: str
) -> None:
    mapping = {"task": "table", "key": "town", "numbers": ["people"], "language": "en"}
    kept, dropped = made(ingest(csv_of_towns(tmp_path / "towns.csv", rows), mapping, text_key="town"))
    assert kept == []
    assert dropped == {f"ingest.{reason}": 1}


def test_tables_follow_a_column_or_runs_of_rows(tmp_path: Path, ingest: Make) -> None:
    rows = [(f"T{n}", str(n), "north" if n % 2 else "south") for n in range(16)]
    path = csv_of_towns(tmp_path / "towns.csv", rows)
    mapping = {
        "task": "table",
        "key": "town",
        "numbers": ["people"],
        "language": "en",
        "rows_per_table": 4,
        "questions_per_table": 1,
    }
    grouped, _ = made(ingest(path, {**mapping, "group_by": "height"}, text_key="town"))
    assert all(
        len({int(line.split(" | ")[1].strip(" |")) % 2 for line in row["text"].split("\n")[2:6]}) == 1
        for row in grouped
    )


def test_parallel_text_goes_both_ways(tmp_path: Path, ingest: Make, library: Any) -> None:
    slugs = library.slugs("en", "parallel-*")
    pairs = [{"ko": library.text("ko", slug), "en": library.text("en", slug)} for slug in slugs]
    bad = [
        {"ko": pairs[0]["ko"], "en": pairs[0]["en"].replace("1", "7").replace("2", "8").replace("3", "9")},
        {"ko": pairs[0]["ko"], "en": pairs[0]["en"][:40]},
        {"ko": pairs[0]["en"], "en": pairs[0]["en"]},
        {"ko": pairs[0]["ko"], "en": ""},
    ]
    mapping = {
        "task": "parallel",
        "source_text": "ko",
        "target_text": "en",
        "source_language": "ko",
        "target_language": "en",
    }
    rows, dropped = made(ingest(jsonl(tmp_path / "p.jsonl", [*pairs, *bad]), mapping, text_key="ko"))
    assert len(rows) == 2 * len(pairs)
    assert dropped.total() == 2 * len(bad)
    assert {"ingest.copied", "ingest.empty"} <= set(dropped)
    assert {row["messages"][-1]["content"] for row in rows} == {text for pair in pairs for text in pair.values()}
    assert {row["domain"] for row in rows} == {"multilingual"}
    assert {row["messages"][0]["content"].split("\n\n")[0] for row in rows} <= {
        "Translate this text into Korean.", "Translate this text into English.",
        "다음 글을 한국어로 옮겨 주세요.", "다음 글을 영어로 옮겨 주세요.",
    }  # fmt: skip


def test_good_rows_stay_and_planted_faults_go(
    tmp_path: Path, ingest: Make, library: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sentences of the sample texts as questions and answers, with faults planted in the answers."""
    dice = Random(4)
    good = []
    for language in LANGUAGES:
        for slug in library.slugs(language):
            text = library.text(language, slug)
            told = [one for one in sentences(text, language) if len(one) > 30 and "`" not in one]
            if len(told) > 3:
                question, answer = dice.sample(told, 2)
                good.append({"q": question, "a": answer, "text": text, "of": language})
    others = {row["of"]: row["a"] for row in good}
    faults: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "good": dict,
        "not_in_context": lambda row: {
            **row,
            "a": row["a"][: len(row["a"]) // 2] + "…" + row["a"][len(row["a"]) // 2 :],
        },
        "empty": lambda row: {**row, "a": " "},
        "copied": lambda row: {**row, "q": row["a"]},
        "language": lambda row: {**row, "q": others["de" if row["of"] != "de" else "en"]},
    }
    for name, plant in faults.items():
        folder = tmp_path / name
        folder.mkdir()
        rows = [{**plant(row), "id": f"{name}{n}"} for n, row in enumerate(good)]
        _, dropped = made(ingest(jsonl(folder / "faq.jsonl", rows), QA, text_key="q"))
        caught = dropped.total() - dropped["ingest.duplicate"]
        with capsys.disabled():
            print(f"\ningest, {name}: {caught} of {len(rows)} dropped, {dict(dropped)}")
        if name == "good":
            assert caught <= 0.05 * len(rows)
        else:
            assert dropped.total() >= 0.95 * len(rows)
            assert dropped[f"ingest.{name}"] + dropped["ingest.duplicate"] >= 0.95 * len(rows)


@pytest.mark.slow
def test_real_questions_and_answers_stay(
    tmp_path: Path, ingest: Make, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GSM8K's questions with the solutions that people wrote."""
    columns = pq.read_table(data_root / "math_gsm8k_train.parquet", columns=["text", "meta"]).slice(0, 2000).to_pydict()
    answers = [json.loads(meta)["answer"] for meta in columns["meta"]]
    pq.write_table(pa.table({"question": columns["text"], "answer": answers}), tmp_path / "gsm8k.parquet")
    mapping = {"task": "qa", "question": "question", "answer": "answer"}
    rows, dropped = made(ingest(tmp_path / "gsm8k.parquet", mapping, text_key="question", language="en"))
    with capsys.disabled():
        print(f"\ningest, GSM8K: {dropped.total()} of 2000 dropped, {dict(dropped)}")
    assert len(rows) >= 0.95 * 2000


def test_a_wrong_column_is_named_with_the_nearest(tmp_path: Path, ingest: Make) -> None:
    with pytest.raises(
        InputError, match=r"synth\.faq\.mapping\.answer: no record has a column `answr`\nhint: did you mean `answer`"
    ):
        WORK.shard_count(ingest(jsonl(tmp_path / "x.jsonl", [{"question": "a", "answer": "b"}]), {"task": "qa", "question": "question", "answer": "answr"}, text_key="question"))  # fmt: skip
    mapping = {"task": "table", "key": "town", "numbers": ["height", "peple"], "language": "de"}
    with pytest.raises(InputError, match=r"mapping\.numbers\.1.*`peple`(.|\n)*did you mean `people`"):
        WORK.shard_count(ingest(csv_of_towns(tmp_path / "towns.csv"), mapping, text_key="town"))


def test_a_column_named_twice_is_refused_with_file_and_column(tmp_path: Path, ingest: Make) -> None:
    path = tmp_path / "towns.csv"
    path.write_text("town;people;people\nUlm;1;2\n", encoding="utf-8")
    mapping = {"task": "table", "key": "town", "numbers": ["people"], "language": "de"}
    with pytest.raises(InputError, match=r"towns\.csv:1: the header names the column `people` twice"):
        ingest(path, mapping, text_key="town")
    path.write_text("town;people;;\nUlm;1;;\n", encoding="utf-8")  # nameless columns of a spreadsheet
    assert WORK.shard_count(ingest(path, mapping, text_key="town")) == 1


def test_mappings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="needs `context`"):
        IngestConfig.model_validate({"kind": "ingest", "from": "x", "mapping": {"task": "qa", "question": "q", "answer": "a", "answers_stand_in_context": True}})  # fmt: skip
    with pytest.raises(ValueError, match="are both `ko`"):
        IngestConfig.model_validate({"kind": "ingest", "from": "x", "mapping": {"task": "parallel", "source_text": "a", "target_text": "b", "source_language": "ko", "target_language": "ko"}})  # fmt: skip
    table = {"task": "table", "key": "town", "numbers": ("people",), "language": "de"}
    with pytest.raises(ValueError, match="name a column twice: people, people"):
        IngestConfig.model_validate({"kind": "ingest", "from": "x", "mapping": {**table, "key": "people"}})
    with pytest.raises(ValueError, match="two columns are called `town`"):
        IngestConfig.model_validate({"kind": "ingest", "from": "x", "mapping": {**table, "labels": {"people": "town"}}})
    with pytest.raises(ValueError, match="names `peple`, which is neither"):
        IngestConfig.model_validate({"kind": "ingest", "from": "x", "mapping": {**table, "labels": {"peple": "P"}}})


def test_a_table_has_the_licence_of_all_its_rows(tmp_path: Path, ingest: Make) -> None:
    licenses = ("MIT OR GPL-2.0-only", "CC0-1.0", "CC0-1.0", "CC0-1.0")
    records = [
        {"town": name, "people": people, "license": own} for (name, people, _), own in zip(TOWNS, licenses, strict=True)
    ]
    mapping = {"task": "table", "key": "town", "numbers": ["people"], "language": "de"}
    rows, _ = made(ingest(jsonl(tmp_path / "towns.jsonl", records), mapping, text_key="town"))
    assert {row["license"] for row in rows} == {"CC0-1.0 AND (MIT OR GPL-2.0-only)"}  # the choice is of one part only
