"""Pairs of parallel documents: real ones stay, altered ones go, the choice is a pure function."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from random import Random
from typing import Any

import pytest

from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.errors import InputError
from pipeline.core.steps import StepTask
from synth.config import LANGUAGES, CrossLingualConfig, GroundedConfig, QuestionsConfig
from synth.crosslingual import WORK
from synth.parallel_checks import Side, check_pair, number_words_in, numbers_in

BAND = 1.6


def config(**more: Any) -> CrossLingualConfig:
    return CrossLingualConfig.model_validate({"kind": "crosslingual", "from": "articles", **more})


def shards(library: Any) -> list[list[dict[str, Any]]]:
    slugs = library.slugs("en", "parallel-*")
    return [[library.row(lang, slug, parallel_id=slug) for lang in LANGUAGES] for slug in slugs]


def check(first: Side, second: Side) -> str:
    failure = check_pair(first, second, BAND)
    return failure.check if failure else ""


def test_all_real_pairs_stay(library: Any) -> None:
    for slug in library.slugs("en", "parallel-*"):
        for a, b in permutations(LANGUAGES, 2):
            sides = [Side(library.text(lang, slug), lang) for lang in (a, b)]
            assert check(*sides) == "", (slug, a, b, check_pair(*sides, BAND))


def test_altered_numbers_are_caught(library: Any) -> None:
    """One number of one side changed in its first digit: at least 95 % are refused."""
    dice = Random(1)
    tried = caught = 0
    for slug in ("parallel-compound-interest", "parallel-water-cycle"):
        for a, b in permutations(LANGUAGES, 2):
            text, other = library.text(a, slug), Side(library.text(b, slug), b)
            for match in dice.sample(list(re.finditer(r"(?<![\d.,{}])\d[\d.,]*\d", text)), 4):
                digit = str(int(match[0][0]) % 9 + 1)
                altered = text[: match.start()] + digit + text[match.start() + 1 :]
                tried += 1
                caught += check(Side(altered, a), other) == "numbers"
    assert tried == 240
    assert caught >= 0.95 * tried, (caught, tried)


@pytest.mark.parametrize(("a", "b"), [("en", "ko"), ("de", "ja"), ("vi", "es")])
def test_planted_faults_go(library: Any, a: str, b: str) -> None:
    first, second = (Side(library.text(lang, "parallel-bicycle-repair"), lang) for lang in (a, b))
    paragraphs = second.text.split("\n\n")
    assert check(first, Side("\n\n".join(paragraphs[: len(paragraphs) // 2]), b)) == "structure"
    assert check(first, Side("\n\n".join(part[: len(part) // 3] for part in paragraphs), b)) == "length"
    assert check(first, Side(second.text + " https://example.org/extra", b)) == "placeholders"
    # The whole text of a language of similar length, passed off as the other one.
    stand_in = {"ko": "ja", "ja": "ko", "es": "en"}[b]
    assert check(first, Side(library.text(stand_in, "parallel-bicycle-repair"), b)) in ("language", "numbers")


@pytest.mark.parametrize(
    ("language", "text", "values"),
    [
        ("ko", "1만 400원과 42만, 1억 2,000만 그리고 1만 3천", [10400, 420000, 120000000, 13000]),
        ("ja", "2万2,000ユーロと1万400、3億5千", [22000, 10400, 300005000]),
        ("de", "11.248,64 und 2,5 Millionen und 420 000", [Fraction(1124864, 100), 2500000, 420000]),
        ("en", "$10{,}000$ and 2.5 million and 1.04", [10000, 2500000, Fraction(26, 25)]),
        ("vi", "3 triệu và 1.234", [3000000, 1234]),
        ("es", "14\u202f802,44 y 3 mil", [Fraction(1480244, 100), 3000]),
    ],
)
def test_numbers_are_read_in_each_notation(language: str, text: str, values: list[object]) -> None:
    assert list(numbers_in(text, language)) == values


def test_number_words() -> None:
    assert {Fraction(30), Fraction(1, 2)} <= number_words_in("thirty and a half", "en")
    assert Fraction(12) in number_words_in("mười hai tháng", "vi")
    assert Fraction(30) not in number_words_in("drei", "de")


def test_samples_of_parallel_documents(library: Any, make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.pairs", config(pairs_per_group=4), shards(library))
    result = WORK.make_shard(task, 0)
    assert result.counts["documents_in"] == result.counts["documents_out"] == 16
    (table,) = read_documents(task.folder)
    for row in table.to_pylist():
        languages = json.loads(row["extra"])["languages"]
        texts = [library.text(lang, row["parallel_id"]) for lang in languages]
        assert row["text"] == "\n\n".join(texts)
        assert (row["lang"], row["source"], row["license"]) == ("mul", "pairs", "CC0-1.0")
        assert len(set(languages)) == len(row["parents"]) == 2
    assert max(Counter(table["parallel_id"].to_pylist()).values()) == 4


def test_paragraph_layout_alternates(library: Any, make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.pairs", config(layout="paragraphs", pairs_per_group=1), shards(library)[:1])
    WORK.make_shard(task, 0)
    (table,) = read_documents(task.folder)
    (row,) = table.to_pylist()
    first, second = (library.text(lang, row["parallel_id"]) for lang in json.loads(row["extra"])["languages"])
    assert row["text"].split("\n\n")[::2] == first.split("\n\n")
    assert row["text"].split("\n\n")[1::2] == second.split("\n\n")


@pytest.mark.parametrize("permille", [1, 400, 999])
def test_switched_texts_have_paragraphs_of_both_in_their_places(
    library: Any, make_task: Callable[..., StepTask], permille: int
) -> None:
    settings = config(layout="switched", switched_permille=permille, pairs_per_group=1)
    task = make_task("synth.pairs", settings, shards(library))
    WORK.make_shard(task, 0)
    (table,) = read_documents(task.folder)
    shares = []
    for row in table.to_pylist():
        sides = [library.text(lang, row["parallel_id"]).split("\n\n") for lang in json.loads(row["extra"])["languages"]]
        made = row["text"].split("\n\n")
        assert all(part in pair for part, pair in zip(made, zip(*sides, strict=True), strict=True))
        switched = sum(part == other for part, other in zip(made, sides[1], strict=True))
        assert 1 <= switched < len(made)
        shares.append(switched / len(made))
    assert shares
    assert abs(sum(shares) / len(shares) - permille / 1000) < 0.25


def test_a_refused_pair_is_counted_with_its_text(library: Any, make_task: Callable[..., StepTask]) -> None:
    rows = shards(library)[0][:2]
    rows[1] = library.row(rows[1]["lang"], "x", text=rows[1]["text"][:300], parallel_id=rows[0]["parallel_id"])
    task = make_task("synth.pairs", config(), [rows])
    result = WORK.make_shard(task, 0)
    assert (result.counts["documents_in"], result.counts["documents_out"]) == (1, 0)
    assert sum(result.dropped.values()) == 1
    (dropped,) = read_dropped(task.folder)
    assert dropped["text"][0].as_py().endswith(rows[1]["text"]) or dropped["text"][0].as_py().startswith(
        rows[1]["text"]
    )


def test_shards_and_input_shards_do_not_change_the_samples(library: Any, make_task: Callable[..., StepTask]) -> None:
    found = []
    every = [row for shard in shards(library) for row in shard]
    for name, size, cut in (("synth.pairs", 3, [every[:5], every[5:]]), ("synth.pairs", 100, [every])):
        task = make_task(name, config(documents_per_shard=size), cut if len(cut) == 2 else [cut[0], []])
        for shard in range(WORK.shard_count(task)):
            WORK.make_shard(task, shard)
        made = {row["id"]: row["text"] for table in read_documents(task.folder) for row in table.to_pylist()}
        found.append(made)
        for path in (task.folder / "documents").iterdir():
            path.unlink()
    assert found[0] == found[1]


def test_more_pairs_wanted_than_asked_for_are_refused() -> None:
    for kind in (QuestionsConfig, GroundedConfig):
        name = kind.__name__.removesuffix("Config").lower()
        with pytest.raises(ValueError, match="minimum_pairs 5 is above pairs 4"):
            kind.model_validate({"kind": name, "from": "x", "pairs": 4, "minimum_pairs": 5})
        with pytest.raises(ValueError, match="minimum_pairs 9 is above pairs"):
            kind.model_validate({"kind": name, "from": "x", "minimum_pairs": 9})
        assert kind.model_validate({"kind": name, "from": "x", "pairs": 5, "minimum_pairs": 5}).minimum_pairs == 5


def test_no_pair_is_an_error_naming_the_option(library: Any, make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.pairs", config(), [[library.row("en", "parallel-water-cycle")]])
    with pytest.raises(InputError, match="parallel_id"):
        WORK.shard_count(task)
    with pytest.raises(InputError, match="no source matches `web-\\*`"):
        WORK.shard_count(
            make_task("synth.pairs", config(**{"from": "web-*"}), [[library.row("en", "parallel-water-cycle")]])
        )
