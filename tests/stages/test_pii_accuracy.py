"""Precision and recall of the personal-data rules: the arithmetic, the labelled samples, the command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.commands.pii import labelled, show_accuracy
from pipeline.core.errors import InputError
from stages.pii import find
from stages.pii_accuracy import Accuracy, Labelled, LabelledSpan, accuracy

SAMPLES = Path(__file__).parents[2] / "samples" / "pii" / "labelled.jsonl"


def text(words: str, lang: str | None = "en") -> Labelled:
    """A labelled text from `{kind:value}` marks."""
    plain, spans = "", []
    for part in words.split("{"):
        marked, closed, rest = part.partition("}")
        if closed:
            kind, _, value = marked.partition(":")
            spans.append(LabelledSpan(start=len(plain), end=len(plain) + len(value), kind=kind))
            plain += value + rest
        else:
            plain += part
    return Labelled(text=plain, spans=tuple(spans), lang=lang)


def test_right_missed_false_and_kinds_that_no_rule_knows() -> None:
    found = accuracy(
        [
            text("Write to {email:ada@example.org} or {email:nobody at home}."),
            text("The host 198.51.100.23 and the {person:Ada 198.51.100.24} are named."),
            text("Karte {card:4111111111111111}", "de"),
            text("nothing at all", None),
        ]
    )
    assert found == [
        Accuracy("de", "card", 1, 1, 1, 1, (), ()),
        Accuracy("en", "email", 2, 1, 1, 1, ("nobody at home",), ()),
        Accuracy("en", "ip", 0, 0, 1, 0, (), ("198.51.100.23",)),
    ]
    assert [(row.precision, row.recall) for row in found] == [(1.0, 1.0), (1.0, 0.5), (0.0, None)]


def test_a_find_of_another_kind_is_wrong_and_leaves_the_label_missed() -> None:
    [card, iban] = accuracy([text("{iban:4111111111111111}")])
    assert (card.kind, card.found, card.right) == ("card", 1, 0)
    assert (iban.labelled, iban.hit) == (1, 0)


def test_names_of_a_plug_in_count_too() -> None:
    [row] = accuracy([text("{name:Ada} wrote to {name:Bea}")], lambda text, lang: [(0, 3)] if lang == "en" else [])
    assert (row.kind, row.labelled, row.hit, row.found, row.right, row.missed) == ("name", 2, 1, 1, 1, ("Bea",))


def test_our_labelled_samples_are_found_and_nothing_else() -> None:
    """Written for this: numbers that belong to nobody, and what is easily taken for one, in six languages."""
    texts = list(labelled(SAMPLES))
    assert {one.lang for one in texts} == {"ko", "en", "de", "es", "ja", "vi"}
    assert all(one.text[span.start : span.end].strip() for one in texts for span in one.spans)
    rows = accuracy(texts)
    assert sum(row.labelled for row in rows) == 34
    assert [(row.lang, row.kind, row.missed, row.false) for row in rows if row.missed or row.false] == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("バージョンは 2.10.4.1 です", []),
        ("버전은 2.10.4.1 이다", []),
        ("서버는 2.10.4.1 이다", ["ip"]),
        ("商品番号 4901234567894", []),  # EAN-13
        ("Visa 4222222222222", ["card"]),  # thirteen digits, no EAN
        ("El teléfono de la oficina es el 912 345 678.", ["phone"]),
        ("Llegaron 912 345 678 cajas.", []),
    ],
)
def test_what_the_samples_taught(text: str, kinds: list[str]) -> None:
    assert [kind for _, _, kind in find(text)] == kinds


def test_the_command_line(command_line: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = command_line("pii", str(SAMPLES), "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(row["precision"], row["recall"]) for row in rows} == {(1.0, 1.0)}
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": "b", "spans": [{"start": 0}]}\n')
    done = command_line("pii", str(tmp_path / "bad.jsonl"))
    assert done.returncode == 2
    assert "bad.jsonl:2" in done.stderr
    assert '"kind": "phone"' in done.stderr


def test_files_of_other_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "ada@example.org", "spans": [{"start": 0, "end": 15, "kind": "email"}]}]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    show_accuracy([tmp_path / "a.parquet"], "", as_json=True)
    assert [row["recall"] for row in json.loads(capsys.readouterr().out)] == [1.0]
    with pytest.raises(InputError, match="no such file"):
        list(labelled(tmp_path / "none.jsonl"))
    (tmp_path / "b.jsonl").write_text("{\n")
    with pytest.raises(InputError, match="b.jsonl:1: not JSON"):
        list(labelled(tmp_path / "b.jsonl"))
