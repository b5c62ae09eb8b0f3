"""`chain` questions: facts about invented names, each leading to the next, planted as sentences in real pages.

Contract: a pure function of (config, number, language, hops). Four kinds (person, town, workshop, ship) follow
each other in a circle, two relations lead from each to the next, and no relation is used twice, so that every step of a
question has a wording of its own; the last fact is a number. `planted` puts a sentence between two paragraphs of a
page, outside of code fences. Every name but the first stands on two pages, and a copy of the page without the
sentence is mostly in the index too: only the page that states the fact helps.
"""

from __future__ import annotations

from random import Random

from pipeline.core.rng import derive_seed
from synth.passages import JOINT
from synth.subagents.config import SearchCorpusConfig
from synth.subagents.questions import Draw, Fact, Question, numbered
from synth.subagents.wording import Wording, wording

# From each kind of thing to the next: person, town, workshop, ship, and round.
STEPS = (("herbarium", "bridge"), ("clock", "organ"), ("bell", "anchor"), ("captain", "cook"))
LAST = ("born", "inhabitants", "founded", "weight")
RANGES = ((1400, 1960), (1200, 98_000), (1400, 1960), (100, 9000))  # of the last fact's number
FENCE = "```"


def chain_question(config: SearchCorpusConfig, drawn: Draw) -> Question:
    """The question of one number."""
    dice = Random(derive_seed("search chain", config.seed, drawn.number))
    say = wording(drawn.language)
    kind = dice.randrange(len(STEPS))
    name = first = _name(dice, say)
    unused = {number: dice.sample(pair, len(pair)) for number, pair in enumerate(STEPS)}
    facts: list[Fact] = []
    for hop in range(drawn.hops - 1):
        following = _name(dice, say)
        facts.append(_fact(say, unused[kind].pop(), name, following, is_first=hop == 0))
        name, kind = following, (kind + 1) % len(STEPS)
    number = str(dice.randint(*RANGES[kind]))
    facts.append(_fact(say, LAST[kind], name, number, is_first=not facts))
    text = say.chain.format(start=first, steps=numbered([fact.step for fact in facts]))
    return Question(drawn.number, "chain", drawn.language, text, facts, (number,))


def _name(dice: Random, say: Wording) -> str:
    words = ["".join(dice.choice(say.syllables) for _ in range(count)) for count in (2, 3)]
    return say.joint.join(word.capitalize() for word in words)


def _fact(say: Wording, relation: str, subject: str, value: str, *, is_first: bool) -> Fact:
    phrases = say.relations[relation]
    ask = say.first_step.format(start=subject, step=phrases.step)
    sentence = phrases.sentence.format(a=subject, b=value)
    queries = (f"{subject} {phrases.query}", f'"{subject}" {phrases.query}')
    return Fact(subject, value, sentence, ask if is_first else phrases.step, ask, *queries)


def planted(text: str, sentence: str, seed: int) -> str:
    """The text with the sentence as a paragraph of its own at a seeded place, not within a code fence."""
    paragraphs = text.split(JOINT)
    places = [0]
    fences = 0
    for number, paragraph in enumerate(paragraphs, start=1):
        fences += paragraph.count(FENCE)
        if fences % 2 == 0:
            places.append(number)
    at = places[seed % len(places)]
    return JOINT.join([*paragraphs[:at], sentence, *paragraphs[at:]])
