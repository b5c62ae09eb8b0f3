"""Reasoning sets: every sample verified again from its written row alone, determinism, and planted mistakes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest

from pipeline.core.documents import read_documents, read_dropped, text_hash
from pipeline.core.steps import StepTask
from synth.config import FAMILY_NAMES, LANGUAGES, FamilyName, ReasoningConfig
from synth.families import FAMILIES
from synth.language import facts
from synth.reasoning import WORK, make_sample, verify


def settings(documents: int, families: Sequence[FamilyName] = FAMILY_NAMES, **more: int) -> ReasoningConfig:
    return ReasoningConfig(kind="reasoning", documents=documents, families=tuple(families), **more)  # pyright: ignore[reportArgumentType]


def rows(task: StepTask) -> list[dict[str, object]]:
    return [row for table in read_documents(task.folder) for row in table.to_pylist()]


def test_the_list_of_families_is_the_configurations() -> None:
    assert tuple(sorted(FAMILIES)) == tuple(sorted(FAMILY_NAMES))


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("level", [1, 3, 5])
def test_every_sample_of_every_family_verifies(family: FamilyName, level: int) -> None:
    config = settings(120, [family], minimum_level=level, maximum_level=level)
    texts, languages = set(), Counter()
    for index in range(120):
        sample = make_sample(config, index)
        verdict = verify(family, sample.language, sample.parameters, sample.text, sample.worked.equations)
        assert verdict.right, (verdict, sample.text)
        assert sample.worked.equations > 0 or family in ("brackets", "ledger", "signposts")
        assert family == "brackets" or "{" not in sample.text
        texts.add(sample.text)
        languages[sample.language] += 1
    assert set(languages) == set(LANGUAGES)
    assert len(texts) > 60


@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if name not in ("ledger", "signposts")])
def test_the_problem_states_its_numbers(family: FamilyName) -> None:
    """A solver that reads parameters the reader is not given would still verify: the statement must carry them."""
    config = settings(60, [family])
    for index in range(60):
        sample = make_sample(config, index)
        stated = {int(number) for number in re.findall(r"\d+", sample.worked.problem)}
        hidden = {"variant", "items", "who", "towns", "step", "kind"}
        numbers = {
            abs(value)
            for name, given in sample.parameters.items()
            if name not in hidden
            for value in _integers([road[2:] for road in given] if name == "roads" else given)
        }
        assert numbers - {0, 1} <= stated, (numbers - stated, sample.worked.problem)


def _integers(value: object) -> list[int]:
    if isinstance(value, list):
        return [number for item in value for number in _integers(item)]
    return [value] if isinstance(value, int) else []


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_planted_mistakes_are_caught(family: FamilyName) -> None:
    """Alter the answer, or one result of an equation: both must be refused."""
    config = settings(40, [family], minimum_level=2, maximum_level=4)
    dice = Random(5)
    for index in range(40):
        sample = make_sample(config, index)

        def verdict(text: str, sample=sample) -> bool:
            return verify(family, sample.language, sample.parameters, text, sample.worked.equations).right

        head, _, answer = sample.text.rpartition(" ")
        altered = answer[:-1] + str((int(answer[-1]) + 1 + dice.randrange(8)) % 10)
        assert not verdict(f"{head} {altered}"), (answer, altered)
        problem, steps, last = sample.text.split("\n\n")
        results = [m for m in re.finditer(r"= -?(\d+)(?! ?[×+/^\d-])", steps) if sample.worked.equations]
        if results and family != "linear_equation":
            spot = dice.choice(results)
            wrong = steps[: spot.start(1)] + str(int(spot[1]) + 1 + dice.randrange(9)) + steps[spot.end(1) :]
            if verdict(f"{problem}\n\n{wrong}\n\n{last}"):
                # Only a number in an equation with letters (`x = 5`) may go unseen; the answer covers that one.
                assert re.search(r"[a-z] = -?$", steps[: spot.start(1)]), (steps, wrong)


def test_ledger_evidence_is_spread_and_the_length_is_as_asked() -> None:
    config = settings(30, ["ledger"], minimum_tokens=4000, maximum_tokens=4000, minimum_level=5, maximum_level=5)
    for index in range(30):
        sample = make_sample(config, index)
        wanted = 4000 * facts(sample.language).characters_per_token
        assert wanted <= len(sample.worked.problem) <= wanted * 1.15 + 400
        lines = sample.worked.problem.split("\n")[1:]
        say_who = [n for n, line in enumerate(lines) if _who(sample) in line]
        assert len(say_who) == 7
        assert max(say_who) - min(say_who) > len(lines) // 2


@pytest.mark.parametrize("tokens", [8_000, 64_000])
def test_signs_are_spread_over_texts_of_the_length_asked(tokens: int) -> None:
    config = settings(6, ["signposts"], minimum_tokens=tokens, maximum_tokens=tokens, minimum_level=5, maximum_level=5)
    for index in range(6):
        sample = make_sample(config, index)
        wanted = tokens * facts(sample.language).characters_per_token
        assert 0.9 * wanted <= len(sample.worked.problem) <= 1.15 * wanted
        assert verify("signposts", sample.language, sample.parameters, sample.text, 0).right
        wrong = sample.worked.steps[3].replace(re.findall(r"\d+", sample.worked.steps[3])[-1], "11")
        text = sample.text.replace(sample.worked.steps[3], wrong)
        assert verify("signposts", sample.language, sample.parameters, text, 0).reason == "wrong_step"


def test_levels_follow_their_weights() -> None:
    config = settings(1, ["euclid"], minimum_level=2, maximum_level=4).replaced(level_weights=(3, 0, 1))
    levels = Counter(make_sample(config, index).level for index in range(400))
    assert set(levels) == {2, 4}
    assert 250 < levels[2] < 350
    with pytest.raises(ValueError, match="level_weights needs 3 whole numbers"):
        settings(1, minimum_level=2, maximum_level=4).replaced(level_weights=(1,))


def test_a_problem_comes_once_a_shard(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.reason", settings(3000, ["insertion_sort"], maximum_level=1, documents_per_shard=3000))
    small = settings(3000, ["committee"], maximum_level=1, documents_per_shard=3000)
    for config in (task.config, small):
        own = make_task(f"synth.{config.families[0]}", config)
        result = WORK.make_shard(own, 0)
        problems = [str(row["text"]).split("\n\n")[0] for row in rows(own)]
        assert len(set(problems)) == len(problems) == 3000 - sum(result.dropped.values())
        assert set(result.dropped) <= {"reasoning.duplicate"}


def _who(sample: object) -> str:
    from synth.families.base import phrases

    return phrases(sample.language, "ledger").things("names")[sample.parameters["who"]]  # pyright: ignore[reportAttributeAccessIssue]


def test_missing_evidence_is_caught() -> None:
    sample = make_sample(settings(1, ["ledger"]), 0)
    lines = sample.text.split("\n")
    without = "\n".join(line for n, line in enumerate(lines) if n == 0 or _who(sample) not in line)
    assert verify("ledger", sample.language, sample.parameters, without, sample.worked.equations).reason == "evidence"


def test_rows_verify_from_the_shard_alone(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.reason", settings(250, documents_per_shard=100))
    results = [WORK.make_shard(task, shard) for shard in range(WORK.shard_count(task))]
    assert [result.counts["documents_out"] for result in results] == [100, 100, 50]
    assert not any(table.num_rows for table in read_dropped(task.folder))
    for row in rows(task):
        extra = json.loads(str(row["extra"]))
        family, lang, text = extra["family"], str(row["lang"]), str(row["text"])
        assert verify(family, lang, extra["parameters"], text, extra["equations"]).right
        assert row["maker"] == f"seodang.reasoning.{family}@1"
        assert (row["license"], row["source"], row["domain"]) == ("Apache-2.0", "reason", FAMILIES[family].domain)
    merged = WORK.finish(task, results)
    assert merged["by_source"] == {"reason": {"in": 250, "out": 250, "dropped": {}}}
    assert sum(entry["out"] for entry in merged["by_language"].values()) == 250


def test_samples_do_not_depend_on_the_shards(make_task: Callable[..., StepTask]) -> None:
    found = []
    for name, size in (("synth.reason", 7), ("synth.reason", 200)):
        task = make_task(name, settings(60, documents_per_shard=size))
        made = {}
        for shard in reversed(range(WORK.shard_count(task))):
            WORK.make_shard(task, shard)
        for row in rows(task):
            made[row["id"]] = row["text"]
        found.append(made)
        for path in (task.folder / "documents").iterdir():
            path.unlink()
    assert found[0] == found[1]
    assert len(found[0]) == 60


def test_the_same_bytes_twice(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.reason", settings(50))
    path = task.folder / "documents" / "00000.parquet"
    WORK.make_shard(task, 0)
    first = path.read_bytes()
    WORK.make_shard(task, 0)
    assert path.read_bytes() == first


GOLDEN = """Find the greatest common divisor of 2937 and 1617.

Divide with remainder, 2937 = 1617 × 1 + 1320.
Divide with remainder, 1617 = 1320 × 1 + 297.
Divide with remainder, 1320 = 297 × 4 + 132.
Divide with remainder, 297 = 132 × 2 + 33.
Divide with remainder, 132 = 33 × 4 + 0.
The remainder is 0, so the greatest common divisor is 33.

Answer: 33"""
GOLDEN_HASH = "aaafe22e0202390aaef4f6a29e0aefcc"  # xxh3-128 of 200 samples of every family and language


def test_golden_samples() -> None:
    """Changes with the families, templates or the derivation of seeds: then `synth.config.VERSIONS` goes up."""
    config = ReasoningConfig(kind="reasoning", documents=1, families=("euclid",), languages=("en",), seed=3)
    assert make_sample(config, 0).text == GOLDEN
    assert text_hash("\n".join(make_sample(settings(200), index).text for index in range(200))) == GOLDEN_HASH
