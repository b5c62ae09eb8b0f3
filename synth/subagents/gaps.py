"""`gaps` questions: sentences of real pages with a number left out, to be found and filled.

Contract: a pure function of (index, config, draw). A sentence serves when it is neither short nor long, has one number
of at least two digits, enough different terms to be searched for, and no page of the index says the same with another
number. Where `TRIES` pages drawn at random give fewer sentences than wanted, there is no question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

from pipeline.core.rng import derive_seed
from synth.language import detect
from synth.subagents.config import SearchCorpusConfig
from synth.subagents.index import Page, SearchIndex
from synth.subagents.questions import GAP, Draw, Fact, Question, numbered
from synth.subagents.terms import index_terms, query_terms, sentences
from synth.subagents.wording import wording

NUMBER = re.compile(r"\d+")
WHOLE_NUMBER = re.compile(r"(?<![\w.,:/\-])\d{2,7}(?![.,:/\-]?\d|[-/_%])")
MARKUP = re.compile(r"[{}\[\]<>|`\\#*_=$]|https?:")
WHOLE = re.compile(r"[^\W_].*[.!?。！？]$")  # begins with a word and ends as a sentence does
LENGTHS: Mapping[str, tuple[int, int]] = {"ko": (20, 140), "ja": (20, 120)}  # characters; ours
OTHER_LENGTHS = (40, 260)
FEWEST_TERMS = 6
TRIES = 200  # pages looked at for one question
CANDIDATES = 50  # pages with the same words that are compared


def gaps_question(index: SearchIndex, config: SearchCorpusConfig, drawn: Draw) -> Question | None:
    """The question of one number, or None where too few sentences serve."""
    dice = Random(derive_seed("search gaps", config.seed, drawn.number))
    say = wording(drawn.language)
    pages = index.identities(drawn.language)
    facts: list[Fact] = []
    seen: set[tuple[int, int]] = set()
    for _ in range(TRIES if pages else 0):
        place = pages[dice.randrange(len(pages))]
        if place in seen:
            continue
        seen.add(place)
        found = _sentence(index, index.page(*place), dice, facts)
        if found is not None:
            facts.append(_fact(found[0], found[1], say.gap_step))
        if len(facts) == drawn.hops:
            text = say.gaps.format(steps=numbered([fact.step for fact in facts]))
            return Question(drawn.number, "gaps", drawn.language, text, facts, [fact.value for fact in facts])
    return None


def _sentence(index: SearchIndex, page: Page, dice: Random, taken: Sequence[Fact]) -> tuple[str, str] | None:
    """(sentence, its number) from a page."""
    serving = [(one, value) for one in sentences(page.text) if (value := _number_of(one, page.lang))]
    for sentence, value in dice.sample(serving, min(3, len(serving))):
        known = {fact.sentence for fact in taken}
        if sentence not in known and not _is_ambiguous(index, sentence, value):
            return sentence, value
    return None


def _number_of(sentence: str, language: str) -> str:
    """The number that can be left out, or an empty string where the sentence does not serve."""
    shortest, longest = LENGTHS.get(language, OTHER_LENGTHS)
    if not shortest <= len(sentence) <= longest or MARKUP.search(sentence):
        return ""
    numbers = NUMBER.findall(sentence)
    match = WHOLE_NUMBER.search(sentence)
    if len(numbers) != 1 or match is None or not WHOLE.match(sentence) or len(query_terms(sentence)) < FEWEST_TERMS:
        return ""
    return match.group() if detect(sentence) in ("", language) else ""


def _is_ambiguous(index: SearchIndex, sentence: str, value: str) -> bool:
    """Whether some page says the same with another number."""
    before, _, after = sentence.partition(value)
    longer = max(before, after, key=lambda part: len(index_terms(part)))
    pattern = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    return any(
        match[1] != value for page in index.containing(longer, CANDIDATES) for match in pattern.finditer(page.text)
    )


def _fact(sentence: str, value: str, step_wording: str) -> Fact:
    before, _, after = sentence.partition(value)
    masked = f"{before}{GAP}{after}"
    step = step_wording.replace("{sentence}", masked)
    longer = max(before, after, key=len).strip()
    # Straight double quotes mean a phrase to the search: the sentence's own do not.
    plain = masked.replace(GAP, " ").replace('"', " ")
    phrase = longer.replace('"', " ")
    return Fact("", value, sentence, step, masked, plain, f'"{phrase}"')
