"""Questions and answers about a document, in another language than the document's: knowledge carried across languages.

Contract: a sample is the document followed by the pairs (`layout: after-document`) or the pairs alone (`pairs-only`).
The answer is a JSON object that fits `SCHEMA`; each pair quotes its evidence from the document, word for word. Pairs
that fail a check are left out; a sample with fewer than `minimum_pairs` left is dropped with the reason of the first
that failed, `questions.CHECK`: `evidence` (not in the document), `language`, `leakage`, `numbers` (neither in the
document nor from a stated right calculation), `repeated`. Cost: ours 1 ms a pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pipeline.core.languages import MULTILINGUAL
from pipeline.core.rng import derive_seed
from pipeline.core.verify.arithmetic import stated
from pipeline.core.written import WRITTEN, woven
from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.config import QuestionsConfig
from synth.endpoint_set import AsksOnce, EndpointWork, Made, Refused, Row
from synth.language import detect, facts, leakage_pattern, primary
from synth.parallel_checks import number_words_in, numbers_in
from synth.passages import JOINT
from synth.prompts import prompt

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "pairs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {name: {"type": "string", "minLength": 1} for name in ("question", "answer", "evidence")},
                "required": ["question", "answer", "evidence"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["pairs"],
    "additionalProperties": False,
}
SPACE = re.compile(r"\s+")
SHORTEST_EVIDENCE = 8  # characters


def half_of_document(source: str, target: str) -> float:
    """Characters of half a document said in `target`, for each of the document in `source`."""
    return 0.5 * facts(target).characters_relative_to_english / facts(source).characters_relative_to_english


def too_long(row: Row, maximum_characters: int) -> Refused | None:
    """Why a document is not asked about when it has more characters than a model should read at once."""
    length = len(row["text"])
    return Refused("document_too_long", f"{length} characters") if length > maximum_characters else None


class QuestionsMaker(AsksOnce):
    """What question sets ask and how they judge."""

    kind = "questions"

    def targets(self, identity: str, language: str, config: QuestionsConfig) -> Sequence[str]:
        others = [one for one in config.into if one != language]
        ordered = sorted(others, key=lambda one: derive_seed("questions", config.seed, identity, one))
        return ordered[: config.targets_per_document]

    def length_share(self, source: str, target: str) -> float:
        """Questions and answers are about as long as half their document."""
        return half_of_document(source, target)

    def unfit(self, row: Row, config: QuestionsConfig) -> Refused | None:
        return too_long(row, config.maximum_document_characters)

    def requests(self, row: Row, config: QuestionsConfig, model: str, sample: int) -> list[Request]:
        template = prompt("questions.document", row["target"])
        messages = template.messages(document=row["text"], count=str(config.pairs))
        parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
        document = f"{row['source']} {row['id']}"
        return [Request(model, messages, parameters, template.identity, sample, document, template.hash, SCHEMA)]

    def judged(
        self, row: Row, config: QuestionsConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        (outcome,) = outcomes
        if isinstance(outcome, ContentError):
            return Refused("no_answer", str(outcome))
        good: list[Mapping[str, str]] = []
        first: Refused | None = None
        for pair in outcome.structured["pairs"]:
            failure = pair_failure(pair, row, [one["question"] for one in good])
            first = first or failure
            if failure is None:
                good.append(pair)
        if len(good) < config.minimum_pairs:
            return first or Refused("too_few", f"{len(good)} pairs, {config.minimum_pairs} wanted", outcome.content)
        return _sample(row, good, config)


def pair_failure(pair: Mapping[str, str], row: Row, earlier: Sequence[str]) -> Refused | None:
    """Why a question with its answer (and thinking, where it has some) does not stay."""
    target, document = row["target"], row["text"]
    shown = "\n".join(pair[name] for name in ("question", "answer", "evidence"))
    evidence = SPACE.sub(" ", pair["evidence"]).strip()
    if len(evidence) < SHORTEST_EVIDENCE or evidence not in SPACE.sub(" ", document):
        return Refused("evidence", evidence[:200], shown)
    parts = [pair[name] for name in ("question", "reasoning", "answer") if name in pair]
    written = " ".join(parts)
    for part in parts:
        found = detect(part)
        if found not in ("", target):
            return Refused("language", f"`{found}`, asked for `{target}`", shown)
    for language in dict.fromkeys((target, "en")):
        if match := leakage_pattern(language).search(written):
            return Refused("leakage", match.group(), shown)
    missing = _numbers_from_nowhere(written, target, document, primary(row["lang"]))
    if missing:
        return Refused("numbers", ", ".join(map(str, missing[:3])), shown)
    if pair["question"] in earlier:
        return Refused("repeated", pair["question"][:200], shown)
    return None


def _numbers_from_nowhere(written: str, target: str, document: str, source: str) -> list[Fraction]:
    known = set(numbers_in(document, source)) | number_words_in(document, source)
    equations = stated(written, "rounded")
    if equations and all(one.right for one in equations):
        return []  # a right calculation brings numbers of its own
    return sorted(set(numbers_in(written, target)) - known - {Fraction(n) for n in range(4)})


def _sample(row: Row, pairs: Sequence[Mapping[str, str]], config: QuestionsConfig) -> Made:
    written = JOINT.join(f"{pair['question']}\n{pair['answer']}" for pair in pairs)
    messages = [
        message
        for pair in pairs
        for message in ({"role": "user", "content": pair["question"]}, {"role": "assistant", "content": pair["answer"]})
    ]
    extra = {
        "layout": config.layout,
        "languages": [primary(row["lang"]), row["target"]],
        "pairs": [dict(pair) for pair in pairs],
    }
    if config.layout == "pairs-only":
        return Made(written, {"lang": row["target"], "lang_score": None, "messages": messages}, extra)
    text, spans = woven([(row["text"], False), (written, True)], JOINT)
    return Made(text, {"lang": MULTILINGUAL, "lang_score": None}, {**extra, WRITTEN: spans})


WORK = EndpointWork(QuestionsMaker())
