"""The task domains whose exercises we can make and judge: the visible list, and how both are done for a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.core.verify.math import Verdict
from synth.instructions.checks import check_form
from synth.instructions.code import CODE_DOMAIN
from synth.instructions.exercise import Conversation, Domain, Draw, Exercise, Unmade
from synth.instructions.following import FOLLOWING
from synth.instructions.korean import KOREAN
from synth.instructions.logic import LOGIC
from synth.instructions.long_context import LONG_CONTEXT
from synth.instructions.mathematics import MATHEMATICS

DOMAINS: Mapping[str, Domain] = {
    "mathematics": MATHEMATICS,
    "code": CODE_DOMAIN,
    "logic": LOGIC,
    "long-context": LONG_CONTEXT,
    "instruction-following": FOLLOWING,
    "korean": KOREAN,
}


def exercises(draws: Sequence[Draw]) -> list[Exercise | Unmade]:
    """One for each draw, in their order."""
    made: dict[int, Exercise | Unmade] = {}
    for name in dict.fromkeys(draw.domain for draw in draws):
        own = [(place, draw) for place, draw in enumerate(draws) if draw.domain == name]
        found = DOMAINS[name].make([draw for _, draw in own])
        made.update((place, one) for (place, _), one in zip(own, found, strict=True))
    return [made[place] for place in range(len(draws))]


def verdicts(conversations: Sequence[Conversation]) -> list[Verdict]:
    """One for each conversation, in their order: what all are checked for first, then the domain's own filter."""
    found: dict[int, Verdict] = {place: check_form(one) for place, one in enumerate(conversations)}
    for name in dict.fromkeys(one.domain for one in conversations):
        own = [(place, one) for place, one in enumerate(conversations) if one.domain == name and found[place].right]
        judged = DOMAINS[name].verify([one for _, one in own])
        found.update((place, verdict) for (place, _), verdict in zip(own, judged, strict=True))
    return [found[place] for place in range(len(conversations))]
