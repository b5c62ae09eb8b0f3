"""Conditions on answers: each accepts what keeps it and refuses what does not, in each language."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.errors import ConfigError
from pipeline.core.verify.instructions import CHECKS, Constraint, check, check_all, sentences

# name, options, language, answers that keep it, answers that break it
CASES: list[tuple[str, dict[str, Any], str, list[str], list[str]]] = [
    ("words", {"minimum": 3, "maximum": 4}, "en", ["One two three.", "a b – c d"], ["One two.", "a b c d e"]),
    ("words", {"maximum": 2}, "ko", ["봄이 왔다."], ["긴 겨울이 갔다."]),
    ("words", {"minimum": 1}, "ja", [], ["春が来た。"]),
    ("characters", {"maximum": 6}, "ja", ["春が来た。", "春 が 来 た 。"], ["長い冬が終わった。"]),
    ("characters", {"minimum": 5}, "ko", ["봄이 왔구나"], ["봄이다"]),
    ("sentences", {"minimum": 2, "maximum": 2}, "en", ["Dr. Lee paid 3.5 euros. She left.", "One!\nTwo"], ["Just one.", "One. Two. Three."]),
    ("sentences", {"minimum": 2, "maximum": 2}, "de", ["Am 3. Mai kam er z.B. spät. Dann ging er."], ["Am 3. Mai kam er."]),
    ("sentences", {"minimum": 2, "maximum": 2}, "ja", ["「春だ。」と言った。皆が笑った。"], ["春が来た。", "春。夏。秋。"]),
    ("sentences", {"minimum": 2, "maximum": 2}, "ko", ["비가 온다. 우산을 편다."], ["비가 온다", "비가 온다. 우산을 편다. 걷는다."]),
    ("sentences", {"minimum": 1, "maximum": 1}, "es", ["El Sr. Paz llegó."], ["Llegó. Se fue."]),
    ("sentences", {"minimum": 2, "maximum": 2}, "vi", ["Trời mưa. Tôi ở nhà!"], ["Trời mưa."]),
    ("paragraphs", {"minimum": 2, "maximum": 2}, "en", ["a\nb\n\nc", "a\n \nb"], ["a\nb", "a\n\nb\n\nc"]),
    ("lines", {"minimum": 3, "maximum": 3}, "en", ["a\n\nb\nc"], ["a\nb"]),
    ("keywords", {"words": ["moss", "river"]}, "en", ["Moss by the river."], ["Mossy river."]),
    ("keywords", {"words": ["강"]}, "ko", ["강에서 놀았다."], ["산에서 놀았다."]),
    ("keyword_count", {"word": "río", "minimum": 2, "maximum": 2}, "es", ["El río y el Río."], ["El río.", "río río ríos río"]),
    ("keyword_order", {"words": ["b", "a"]}, "en", ["b a"], ["a b", "b"]),
    ("forbidden", {"words": ["und"]}, "de", ["Kind oder Hund"], ["Kind und Hund"]),
    ("forbidden_characters", {"characters": [",", "，"]}, "en", ["a; b"], ["a, b"]),
    ("no_digits", {}, "ja", ["三つ"], ["3つ", "３つ"]),
    ("starts_with", {"text": "Gut"}, "de", ["Gut so."], ["So gut."]),
    ("ends_with", {"text": "끝."}, "ko", ["이것이 끝."], ["끝. 아니다"]),
    ("bullets", {"minimum": 2, "maximum": 2}, "en", ["- a\n* b", "Here:\n- a\n- b"], ["- a", "-a\n-b", "1. a\n2. b"]),
    ("numbered", {"minimum": 2, "maximum": 2}, "en", ["1. a\n2) b"], ["1. a\n3. b", "1. a", "- a\n- b"]),
    ("headings", {"minimum": 1, "maximum": 1}, "en", ["# A\ntext"], ["#A\ntext", "# A\n## B"]),
    ("bold", {"minimum": 1}, "en", ["a **b** c"], ["a *b* c", "a ** b"]),
    ("placeholders", {"minimum": 2, "maximum": 2}, "en", ["Dear [name], [date]"], ["Dear [name]", "[ ] x"]),
    ("title", {}, "en", ["<<A>>\ntext"], ["<A>", "<<A>> <<B>>"]),
    ("quoted", {}, "en", ['"a b"', "„a“"], ['"a" b', '"', "a"]),
    ("quoted", {}, "ja", ["「春」"], ["「春」だ"]),
    ("json_object", {"keys": ["a", "b"]}, "en", ['{"a": 1, "b": 2}', '```json\n{"a": 1, "b": 2}\n```'], ['{"b": 1, "a": 2}', '{"a": 1}', 'Here: {"a": 1, "b": 2}', "[1]"]),
    ("json_array", {"minimum": 2, "maximum": 2}, "en", ['["a", "b"]'], ['["a"]', "a, b", "{}"]),
    ("table", {"columns": 2, "minimum": 1, "maximum": 1}, "en", ["| a | b |\n|---|---|\n| 1 | 2 |"], ["| a | b |\n| 1 | 2 |", "a,b\n1,2", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |", "| a |\n|---|\n| 1 |"]),
    ("code_block", {"language": "python"}, "en", ["```python\nx = 1\n```"], ["```\nx = 1\n```", "x = 1", "Look:\n```python\nx\n```"]),
    ("separated", {"mark": "***", "minimum": 2, "maximum": 2}, "en", ["a\n***\nb"], ["a", "a***b***c"]),
    ("postscript", {"mark": "P.S."}, "en", ["a\nP.S. b"], ["P.S. b\na", "a"]),
    ("repeats", {"text": "Name it."}, "en", ["Name it.\nMoss."], ["Moss.", "Name it."]),
    ("one_of", {"choices": ["yes", "no"]}, "en", ["yes", " no\n"], ["Yes", "yes and no"]),
    ("upper", {}, "de", ["GRÜN 3"], ["GRün", "3"]),
    ("lower", {}, "vi", ["trời xanh"], ["Trời xanh"]),
    ("language", {"language": "de"}, "en", ["Der Fluss fließt durch das alte Dorf und weiter bis zum Meer."], ["The river flows through the old village and on to the sea."]),
    ("language", {"language": "ko"}, "en", ["강은 오래된 마을을 지나 바다로 흐른다."], ["川は古い村を通って海まで流れていきます。"]),
    ("speech_level", {"level": "formal"}, "ko", ["비가 옵니다. 우산이 있습니까?", "같이 갑시다. 앉으십시오."], ["비가 와요.", "비가 옵니다. 춥다.", "사실이 아니다."]),
    ("speech_level", {"level": "polite"}, "ko", ["비가 와요. 그렇지요?"], ["비가 옵니다."]),
    ("speech_level", {"level": "plain"}, "ko", ["비가 온다.", "사실이 아니다. 눈이 부시다."], ["비가 옵니다.", "비가 와요.", "같이 갑시다."]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "language", "good", "bad"), CASES)
def test_each_condition(name: str, options: dict[str, Any], language: str, good: list[str], bad: list[str]) -> None:
    constraint = Constraint(name, options)
    assert Constraint.of(constraint.row()) == constraint
    for answer in good:
        assert check(answer, constraint, language).right, (answer, check(answer, constraint, language))
    for answer in bad:
        verdict = check(answer, constraint, language)
        assert (verdict.right, verdict.reason) == (False, name), answer
        assert verdict.detail


def test_every_condition_has_both_cases() -> None:
    assert {case[0] for case in CASES if case[3]} == {case[0] for case in CASES if case[4]} == set(CHECKS)


def test_the_first_broken_condition_is_named() -> None:
    both = [Constraint("no_digits", {}), Constraint("lines", {"maximum": 1})]
    assert check_all("a", both, "en").right
    assert check_all("1\n2", both, "en").reason == "no_digits"
    assert check_all("a\nb", both, "en").detail == "2 lines, 0 to 1 wanted"
    with pytest.raises(ConfigError, match="did you mean `lines`"):
        check("a", Constraint("line", {}), "en")


def test_empty_answers_keep_no_positive_condition() -> None:
    negative = {"forbidden", "forbidden_characters", "no_digits", "language", "characters", "words"}
    for name, options, language, *_ in CASES:
        if name not in negative:
            assert not check("", Constraint(name, options), language).right, name


def test_sentences_are_split_as_people_count_them() -> None:
    assert sentences("It cost 3.5 euros (e.g. Monday). Fine?", "en") == ["It cost 3.5 euros (e.g. Monday).", "Fine?"]
    assert sentences("- eins\n- zwei", "de") == ["- eins", "- zwei"]
