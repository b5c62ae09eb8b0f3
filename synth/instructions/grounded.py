"""Conversations about a document: an endpoint writes questions, thinking, answers and evidence, and all is checked.

Contract: pairs are asked for and checked as `synth/pairs.py` says, thinking included; those that stay make the turns of
one conversation, with the document before the first question (`open-book`) or without it (`closed-book`: knowledge).
Asked in the document's language the domain is `world-knowledge` (`korean` for Korean), in another one `multilingual`.
The form is one for the conversation. Dropped as `grounded.REASON`, `finish` for an answer that was cut off. Cost: ours
1 ms a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pipeline.core.languages import MULTILINGUAL
from pipeline.core.rng import derive_seed
from pipeline.core.written import WRITTEN, woven
from synth.cache import Request
from synth.client import Outcome
from synth.completion import Completion
from synth.config import GroundedConfig
from synth.endpoint_set import EndpointWork, Made, Refused, Row
from synth.instructions.exercise import TURN
from synth.language import primary
from synth.pairs import Pair, PairsMaker, PairsSet, good_pairs, pairs_schema

KIND = "grounded"


class GroundedMaker(PairsMaker):
    """What such sets ask and how they judge."""

    kind = KIND
    schema = pairs_schema(("question", "reasoning", "answer", "evidence"))

    def targets(self, identity: str, language: str, config: PairsSet) -> Sequence[str]:
        in_its_own = isinstance(config, GroundedConfig) and config.asked_in == "same"
        return (language,) if in_its_own else super().targets(identity, language, config)

    def judged(
        self, row: Row, config: GroundedConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        del requests
        (outcome,) = outcomes
        if isinstance(outcome, Completion) and outcome.finish_reason != "stop":
            return Refused("finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
        good = good_pairs(row, outcome, config)
        return good if isinstance(good, Refused) else conversation(row, good, config)


def conversation(row: Row, pairs: Sequence[Pair], config: GroundedConfig) -> Made:
    """The sample of the pairs that stay."""
    forms = config.forms
    share = Random(derive_seed(KIND, config.seed, row["id"], row["target"])).random()
    thinks = share * (forms.reasoning + forms.plain) < forms.reasoning
    messages: list[dict[str, Any]] = []
    said: list[tuple[str, bool]] = [(row["text"], False)] if config.layout == "open-book" else []
    for pair in pairs:
        opening = [text for text, _ in said] if not messages else []
        messages.append({"role": "user", "content": TURN.join([*opening, pair["question"]])})
        reasoning = pair["reasoning"] if thinks else None
        messages.append({"role": "assistant", "reasoning": reasoning, "content": pair["answer"]})
        said += [(part, True) for part in (pair["question"], reasoning, pair["answer"]) if part]
    text, written = woven(said, TURN)
    source, target = primary(row["lang"]), row["target"]
    domain = "multilingual" if source != target else "korean" if target == "ko" else "world-knowledge"
    mixed = source != target and config.layout == "open-book"
    columns = {"lang": MULTILINGUAL if mixed else target, "lang_score": None, "domain": domain, "messages": messages}
    extra = {
        "family": config.layout,
        "form": "reasoning" if thinks else "plain",
        "languages": [source, target],
        "evidence": [pair["evidence"] for pair in pairs],
        WRITTEN: written,  # two conversations about one document are no copies
    }
    return Made(text, columns, extra)


WORK = EndpointWork(GroundedMaker())
