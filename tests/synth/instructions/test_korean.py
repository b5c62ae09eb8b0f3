"""Korean numerals, particles and dates against values written by hand, and both ways round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.verify.instructions import Constraint, check
from synth.instructions.exercise import say_in
from synth.instructions.korean_words import (
    counted,
    from_reading,
    from_scaled,
    native_value,
    particle,
    reading,
    scaled,
)


@pytest.mark.parametrize(
    ("number", "written", "read"),
    [
        (5, "5", "오"),
        (10, "10", "십"),
        (10_000, "1만", "만"),
        (12_345, "1만 2,345", "만 이천삼백사십오"),
        (110_000, "11만", "십일만"),
        (100_010_000, "1억 1만", "일억 일만"),
        (1_0203_0405, "1억 203만 405", "일억 이백삼만 사백오"),
        (2_0000_0000_0001, "2조 1", "이조 일"),
    ],
)
def test_numbers(number: int, written: str, read: str) -> None:
    assert (scaled(number), reading(number)) == (written, read)
    assert (from_scaled(written), from_reading(read)) == (number, number)


@given(st.integers(min_value=1, max_value=10**20 - 1))
def test_numbers_both_ways(number: int) -> None:
    assert from_scaled(scaled(number)) == number
    assert from_reading(reading(number)) == number


def test_native_numerals() -> None:
    assert [counted(n) for n in (1, 2, 3, 4, 5, 11, 20, 21, 34, 99)] == [
        "한", "두", "세", "네", "다섯", "열한", "스무", "스물한", "서른네", "아흔아홉",
    ]  # fmt: skip
    assert [native_value(counted(n)) for n in range(1, 100)] == list(range(1, 100))


@pytest.mark.parametrize(
    ("word", "all_kinds"),
    [
        ("책", "은이을과으로"),
        ("나무", "는가를와로"),
        ("물", "은이을과로"),
        ("서울", "은이을과로"),
        ("꽃", "은이을과으로"),
    ],
)
def test_particles(word: str, all_kinds: str) -> None:
    assert "".join(particle(word, kind) for kind in ("topic", "subject", "object", "with", "direction")) == all_kinds


def test_the_table_of_sentences_is_of_the_levels_it_says() -> None:
    for forms in say_in("korean", "ko").own["sentences"]:
        for level, sentence in forms.items():
            assert check(sentence, Constraint("speech_level", {"level": level}), "ko").right, sentence
