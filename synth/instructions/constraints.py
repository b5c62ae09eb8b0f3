"""Conditions on answers as people write them, and drawing them.

Contract: `wording` says a `Constraint` in a language; numbers stand after a colon, so that no word has to agree with
them. `open_constraints` draws some for a free text that a model is to write: they do not contradict each other, and
each can be kept in the language. Whether an answer keeps them says `pipeline.core.verify.instructions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pipeline.core.verify.instructions import Constraint
from synth.families.base import Phrases
from synth.instructions.exercise import say_in

LATIN = ("en", "es", "de", "vi")
COUNTED = frozenset({
    "words", "characters", "sentences", "paragraphs", "lines", "keyword_count", "bullets", "numbered", "headings",
    "bold", "placeholders", "json_array", "table", "separated",
})  # fmt: skip
# Conditions of one group speak of the same thing: at most one of a group is drawn.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("words", "characters", "sentences"),
    ("paragraphs", "bullets", "numbered", "separated"),
    ("keywords", "keyword_count", "keyword_order"),
    ("forbidden", "forbidden_characters", "no_digits"),
    ("starts_with", "title", "headings"),
    ("ends_with", "postscript"),
    ("bold", "placeholders"),
    ("upper", "lower"),
    ("speech_level",),
)
CLASHES = (
    {"numbered", "no_digits"}, {"upper", "keywords"}, {"sentences", "bullets"}, {"sentences", "numbered"},
    {"sentences", "title"}, {"sentences", "headings"}, {"sentences", "postscript"}, {"sentences", "separated"},
    {"speech_level", "bullets"}, {"speech_level", "numbered"}, {"speech_level", "title"}, {"speech_level", "headings"},
    {"speech_level", "postscript"}, {"speech_level", "ends_with"}, {"upper", "starts_with"}, {"upper", "ends_with"},
    {"lower", "starts_with"}, {"lower", "ends_with"}, {"upper", "postscript"}, {"lower", "postscript"},
)  # fmt: skip


def wording(constraint: Constraint, language: str) -> str:
    """The condition in words."""
    say, options = say_in("constraints", language), dict(constraint.options)
    if constraint.name in COUNTED:
        options["amount"] = amount(options, say)
    for name in ("words", "characters", "keys", "choices"):
        if isinstance(options.get(name), list | tuple):
            options[name] = ", ".join(map(str, options[name]))
    if constraint.name == "language":
        options["name"] = say.own["names"][options["language"]]
    if constraint.name == "speech_level":
        options["name"] = say.own["levels"][options["level"]]
    return say(constraint.name, **options)


def amount(options: Mapping[str, Any], say: Phrases) -> str:
    """`exactly 3`, `at least 3`, `at most 3` or `3 to 5`."""
    low, high = options.get("minimum"), options.get("maximum")
    if low == high:
        return say("exactly", n=low)
    if high is None:
        return say("at_least", n=low)
    return say("at_most", n=high) if low is None else say("between", low=low, high=high)


def open_constraints(dice: Random, language: str, count: int) -> list[Constraint]:
    """`count` conditions (fewer where they would clash) for a free text in the language."""
    found: list[Constraint] = []
    for group in dice.sample(GROUPS, len(GROUPS)):
        if len(found) == count:
            break
        able = [name for name in group if _possible(name, language, found)]
        if able:
            name = dice.choice(able)
            found.append(Constraint(name, _options(dice, name, say_in("constraints", language))))
    return found


def _possible(name: str, language: str, others: Sequence[Constraint]) -> bool:
    if (name in ("upper", "lower") and language not in LATIN) or (name == "words" and language == "ja"):
        return False
    if name == "speech_level" and language != "ko":
        return False
    return not any({name, other.name} in CLASHES for other in others)


def _options(dice: Random, name: str, say: Phrases) -> dict[str, Any]:
    scale = {"words": (30, 120, 10), "characters": (100, 400, 50), "sentences": (2, 7, 1)}.get(name, (2, 5, 1))
    if name in COUNTED:
        low = dice.randrange(scale[0], scale[1] + 1, scale[2])
        bounds = dice.choice(({"minimum": low}, {"maximum": 2 * low}, {"minimum": low, "maximum": 2 * low}))
        exact = {"minimum": low, "maximum": low}
        options = bounds if name in ("words", "characters", "bold", "placeholders", "sentences") else exact
        return options | {
            "keyword_count": {"word": dice.choice(say.things("things"))},
            "separated": {"mark": "***"},
        }.get(name, {})
    return {
        "keywords": {"words": dice.sample(say.things("things"), 2)},
        "keyword_order": {"words": dice.sample(say.things("things"), 2)},
        "forbidden": {"words": list(dice.choice(say.own["usual_words"]))},
        "forbidden_characters": {"characters": [",", "，", "、"]},
        "starts_with": {"text": dice.choice(say.things("openings"))},
        "ends_with": {"text": dice.choice(say.things("closings"))},
        "postscript": {"mark": "P.S."},
        "speech_level": {"level": dice.choice(("formal", "polite", "plain"))},
    }.get(name, {})
