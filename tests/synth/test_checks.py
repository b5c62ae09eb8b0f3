"""Filters on thoughts: good ones stay, planted faults of each kind go."""

from __future__ import annotations

import re
from typing import Any

import pytest

from synth.checks import Thought, check_thought, repeated_share
from synth.config import LANGUAGES, ThoughtChecks
from synth.language import detect, facts

LIMITS = ThoughtChecks()
LEAKS = {
    "en": "The user asks me to think about this text.",
    "de": "Der Nutzer möchte, dass ich den Text durchdenke.",
    "es": "El usuario quiere que piense sobre el texto.",
    "ko": "사용자가 요청한 대로 글을 살펴본다.",
    "ja": "ユーザーは文章について考えるように求めている。",
    "vi": "Người dùng yêu cầu tôi suy nghĩ về văn bản.",
}
HESITATIONS = {
    "en": "Wait, that may be off. ",
    "de": "Moment, das stimmt so nicht. ",
    "es": "Espera, eso no puede ser. ",
    "ko": "잠깐, 그게 아닌 것 같다. ",
    "ja": "うーん、それは違うかもしれない。",
    "vi": "Khoan đã, có lẽ không đúng. ",
}


def reason(text: str, document: str, language: str, finish: str = "stop") -> str:
    failure = check_thought(Thought(text, finish, document, language), LIMITS)
    return failure.check if failure else ""


def first_of(library: Any, language: str) -> tuple[str, str]:
    """(document, thought) of the first written pair in a language."""
    slug = next(slug for lang, slug in library.recorded() if lang == language)
    return library.text(language, slug), library.thought(language, slug)


def test_every_written_thought_stays(library: Any) -> None:
    assert len(library.recorded()) >= 12
    for language, slug in library.recorded():
        assert reason(library.thought(language, slug), library.text(language, slug), language) == "", (language, slug)


@pytest.mark.parametrize("language", LANGUAGES)
def test_planted_faults_go(library: Any, language: str) -> None:
    document, thought = first_of(library, language)
    other = "en" if language != "en" else "de"
    _, foreign = first_of(library, other)
    half = len(thought) // 2
    paragraphs = thought.split("\n\n")
    assert reason(thought, document, language, "length") == "finish"
    assert reason(thought[:40], document, language) == "too_short"
    assert reason(thought[: len(document) // 8], document, language) == "length_ratio"
    assert reason(thought + f"\n\n{LEAKS[language]}", document, language) == "leakage"
    assert reason(f"{LEAKS['en']} {thought}", document, language) == "leakage"
    assert reason(thought + ("\n\n" + paragraphs[-1]) * 4 + thought[half:], document, language) == "loop"
    assert reason(HESITATIONS[language] * 12 + thought[:half], document, language) in ("hesitation", "loop")
    assert reason(document + "\n\n" + thought[:100], document, language) == "copy"
    assert reason(thought + "\n\n17 + 25 = 43", document, language) == "arithmetic"
    assert reason(foreign, document, language) in ("language", "ungrounded")
    assert reason(thought[:half] + "\n\n" + foreign, document, language) in ("language", "ungrounded")


@pytest.mark.parametrize("language", LANGUAGES)
def test_hesitation_alone_is_named(library: Any, language: str) -> None:
    document, thought = first_of(library, language)
    sentences = re.split(r"(?<=[.?!])\s+|(?<=。)", thought)
    doubting = "".join(HESITATIONS[language] + sentence + " " for sentence in sentences[:12])
    assert reason(doubting, document, language) == "hesitation"


def test_a_thought_on_another_document_is_ungrounded(library: Any) -> None:
    """Thoughts beside every other document of their language: at least 95 % are refused."""
    tried = caught = 0
    for language, slug in library.recorded():
        thought = library.thought(language, slug)
        for other in library.slugs(language):
            if other != slug:
                tried += 1
                caught += reason(thought, library.text(language, other), language) != ""
    assert tried > 100
    assert caught >= 0.95 * tried, (caught, tried)


def test_wrong_numbers_in_equations_of_written_thoughts_are_caught(library: Any) -> None:
    """Alter the last digit but one of the result of each calculation in each thought."""
    tried = caught = 0
    for language, slug in library.recorded():
        thought, document = library.thought(language, slug), library.text(language, slug)
        for match in re.finditer(r"(?<=\d )= (\d[\d.,]*\d)(?=[ .,;\n가-힣])", thought):
            line = thought[: match.start()].rsplit("\n", 1)[-1]
            if not re.search(r"\d [+−×·÷/] [\d.,  ]*\d $", line):
                continue  # `ln 2 = 0.69` states a value, no calculation
            digits = match[1]
            altered = digits[:-2] + str((int(digits[-2]) + 3) % 10 if digits[-2].isdigit() else digits[-2]) + digits[-1]
            if altered == digits:
                continue
            tried += 1
            caught += (
                reason(thought[: match.start(1)] + altered + thought[match.end(1) :], document, language)
                == "arithmetic"
            )
    assert tried >= 20
    assert caught >= 0.95 * tried, (caught, tried)


def test_phrases_of_the_document_are_no_leak() -> None:
    document = "The prompt was a novelty in 1970. " * 3 + "Terminals printed the prompt and waited for commands."
    thought = (
        "Terminals of 1970 waited for commands, and what they printed first was called the prompt. "
        "Commands were typed after it, so a novelty of terminals became a habit of everybody who typed."
    )
    assert reason(thought, document, "en") == ""


def test_repeated_share_exact() -> None:
    assert repeated_share(list("abcdef"), 3) == 0.0
    assert repeated_share(list("aaaaaa"), 3) == 0.75  # 4 grams, 1 distinct
    assert repeated_share(list("ab"), 3) == 0.0


@pytest.mark.parametrize("language", LANGUAGES)
def test_detect_on_written_paragraphs(library: Any, language: str) -> None:
    found = [detect(part) for slug in library.slugs(language) for part in library.text(language, slug).split("\n\n")]
    judged = [one for one in found if one]
    assert len(judged) > 30
    assert judged.count(language) >= 0.98 * len(judged)


def test_detect_leaves_formulas_and_fragments_alone() -> None:
    assert detect("$$B_n = 10{,}000 \\times 1.04^n .$$") == ""
    assert detect("`for i in range(10): print(i)`") == ""
    assert detect("OK") == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_files_are_complete(language: str) -> None:
    known = facts(language)
    assert len(known.leakage) >= 6
    assert len(known.number_words) > 20
    assert known.leakage_pattern().search(LEAKS[language])
