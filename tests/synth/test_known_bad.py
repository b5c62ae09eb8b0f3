"""The filters against known good and known bad sets: at least 95 % of what was planted is caught, at most 5 % of what is
good is refused. The table of both is printed (`pytest -s`)."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from planted import leaked, looped, miscalculated, renumbered

from synth.checks import Thought, check_thought
from synth.config import LANGUAGES, ThoughtChecks
from synth.parallel_checks import Side, check_pair

ROUNDS = 4  # faults planted in each good thought
CAUGHT, REFUSED = 0.95, 0.05
BAND = 1.6


def table(title: str, rows: dict[str, tuple[int, int]]) -> str:
    width = max(map(len, rows))
    lines = [
        f"  {name:<{width}}  {found:>5} of {tried:<5} {100 * found / tried:5.1f}%"
        for name, (found, tried) in rows.items()
    ]
    return "\n".join([f"\n{title}", *lines])


def test_thoughts(library: Any, capsys: pytest.CaptureFixture[str]) -> None:
    limits = ThoughtChecks()
    good = [(lang, slug, library.thought(lang, slug), library.text(lang, slug)) for lang, slug in library.recorded()]
    by_slug = {(lang, slug): thought for lang, slug, thought, _ in good}
    dice = Random(11)
    rows: dict[str, tuple[int, int]] = {}
    refused = sum(check_thought(Thought(t, "stop", d, lang), limits) is not None for lang, _, t, d in good)
    rows["good, refused"] = refused, len(good)
    plants = {"leakage": leaked, "loops": looped, "wrong arithmetic": miscalculated}
    for name, plant in plants.items():
        bad = [(plant(t, lang, dice), d, lang) for lang, _, t, d in good for _ in range(ROUNDS)]
        rows[name] = sum(check_thought(Thought(t, "stop", d, lang), limits) is not None for t, d, lang in bad), len(bad)
    others = [
        (by_slug[other, s], d, lang) for lang, slug, _, d in good for other, s in by_slug if s == slug and other != lang
    ]
    others += [(t, d, dice.choice([o for o in LANGUAGES if o != lang])) for lang, _, t, d in good]
    rows["wrong language"] = (
        sum(check_thought(Thought(t, "stop", d, lang), limits) is not None for t, d, lang in others),
        len(others),
    )
    cut = [(t[: len(t) // 2], d, lang) for lang, _, t, d in good]
    rows["cut off"] = (
        sum(check_thought(Thought(t, "length", d, lang), limits) is not None for t, d, lang in cut),
        len(cut),
    )
    with capsys.disabled():
        print(table("thoughts", rows))
    assert rows["good, refused"][0] <= REFUSED * rows["good, refused"][1]
    for name, (caught, tried) in rows.items():
        assert name == "good, refused" or caught >= CAUGHT * tried, (name, caught, tried)


def test_parallel_texts(library: Any, capsys: pytest.CaptureFixture[str]) -> None:
    dice = Random(12)
    counts: dict[str, Counter[bool]] = {
        name: Counter()
        for name in ("good, refused", "altered numbers", "wrong language", "leakage of links", "cut off")
    }
    for slug in library.slugs("en", "parallel-*"):
        for a, b in permutations(LANGUAGES, 2):
            first, second = (Side(library.text(lang, slug), lang) for lang in (a, b))
            counts["good, refused"][check_pair(first, second, BAND) is not None] += 1
            altered = renumbered(second.text, dice)
            if altered != second.text:
                counts["altered numbers"][check_pair(first, Side(altered, b), BAND) is not None] += 1
            other = dice.choice([lang for lang in LANGUAGES if lang not in (a, b)])
            counts["wrong language"][check_pair(first, Side(library.text(other, slug), b), BAND) is not None] += 1
            linked = Side(f"{second.text} https://example.org/{dice.randrange(99)}", b)
            counts["leakage of links"][check_pair(first, linked, BAND) is not None] += 1
            half = Side("\n\n".join(part[: len(part) // 2] for part in second.text.split("\n\n")), b)
            counts["cut off"][check_pair(first, half, BAND) is not None] += 1
    rows = {name: (found[True], found.total()) for name, found in counts.items()}
    with capsys.disabled():
        print(table("parallel texts", rows))
    assert rows["good, refused"][0] <= REFUSED * rows["good, refused"][1]
    for name, (caught, tried) in rows.items():
        assert name == "good, refused" or caught >= CAUGHT * tried, (name, caught, tried)


@pytest.mark.slow
def test_real_solutions_are_not_accused(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Worked solutions that people wrote for GSM8K: their arithmetic is right."""
    from pipeline.core.verify.arithmetic import stated

    texts = pl.read_parquet(data_root / "math_gsm8k_train.parquet")["text"].to_list()[:3000]
    plain = [text.replace("<<", " (").replace(">>", ") ") for text in texts]
    accused = sum(any(not one.right for one in stated(text, "rounded")) for text in plain)
    with capsys.disabled():
        print(table("GSM8K solutions", {"good, refused": (accused, len(plain))}))
    assert accused <= REFUSED * len(plain)
