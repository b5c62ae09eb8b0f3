"""Conversations about a document: an endpoint writes questions, thinking, answers and evidence, and all is checked.

Contract: as in `synth/questions.py` each pair quotes its evidence from the document and passes that module's checks,
thinking included (`evidence`, `language`, `leakage`, `numbers`, `repeated`); the pairs that do make the turns of one
conversation, with the document before the first question (`open-book`) or without it (`closed-book`: knowledge). Asked
in the document's language the domain is `world-knowledge` (`korean` for Korean), in another one `multilingual`. The
form is one for the conversation. Dropped as `grounded.REASON`. Cost: ours 1 ms a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pipeline.core.languages import MULTILINGUAL
from pipeline.core.rng import derive_seed
from pipeline.core.written import WRITTEN, woven
from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.config import GroundedConfig
from synth.endpoint_set import AsksOnce, EndpointWork, Made, Refused, Row
from synth.instructions.exercise import TURN
from synth.language import primary
from synth.prompts import prompt
from synth.questions import half_of_document, pair_failure, too_long

KIND = "grounded"
FIELDS = ("question", "reasoning", "answer", "evidence")
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "pairs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {name: {"type": "string", "minLength": 1} for name in FIELDS},
                "required": list(FIELDS),
                "additionalProperties": False,
            },
        }
    },
    "required": ["pairs"],
    "additionalProperties": False,
}


class GroundedMaker(AsksOnce):
    """What such sets ask and how they judge."""

    kind = KIND

    def targets(self, identity: str, language: str, config: GroundedConfig) -> Sequence[str]:
        if config.asked_in == "same":
            return (language,)
        others = [one for one in config.into if one != language]
        ordered = sorted(others, key=lambda one: derive_seed(KIND, config.seed, identity, one))
        return ordered[: config.targets_per_document]

    def length_share(self, source: str, target: str) -> float:
        """A conversation is about as long as half its document."""
        return half_of_document(source, target)

    def unfit(self, row: Row, config: GroundedConfig) -> Refused | None:
        return too_long(row, config.maximum_document_characters)

    def requests(self, row: Row, config: GroundedConfig, model: str, sample: int) -> list[Request]:
        template = prompt("grounded.document", row["target"])
        messages = template.messages(document=row["text"], count=str(config.pairs))
        parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
        document = f"{row['source']} {row['id']}"
        return [Request(model, messages, parameters, template.identity, sample, document, template.hash, SCHEMA)]

    def judged(
        self, row: Row, config: GroundedConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        del requests
        (outcome,) = outcomes
        if isinstance(outcome, ContentError):
            return Refused("no_answer", str(outcome))
        if outcome.finish_reason != "stop":
            return Refused("finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
        good: list[Mapping[str, str]] = []
        first: Refused | None = None
        for pair in outcome.structured["pairs"]:
            failure = pair_failure(pair, row, [one["question"] for one in good])
            first = first or failure
            if failure is None:
                good.append(pair)
        if len(good) < config.minimum_pairs:
            return first or Refused("too_few", f"{len(good)} pairs, {config.minimum_pairs} wanted", outcome.content)
        return conversation(row, good, config)


def conversation(row: Row, pairs: Sequence[Mapping[str, str]], config: GroundedConfig) -> Made:
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
