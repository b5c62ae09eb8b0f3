"""What sets of questions and answers about documents share: what is asked, and which pairs stay.

Contract: the answer is a JSON object of `pairs_schema`; each pair quotes its evidence from the document, word for word.
Pairs that fail a check are left out; a sample with fewer than `minimum_pairs` left is dropped with the reason of the
first that failed, `KIND.CHECK`: `evidence` (not in the document), `language`, `leakage`, `numbers` (neither in the
document nor from a stated right calculation), `repeated`; with `too_few` where none failed. Cost: ours 1 ms a pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pipeline.core.verify.arithmetic import stated
from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.config import GroundedConfig, QuestionsConfig
from synth.endpoint_set import AsksOnce, Refused, Row
from synth.language import detect, facts, leakage_pattern, primary
from synth.parallel_checks import number_words_in, numbers_in
from synth.prompts import prompt
from synth.selection import other_languages

PairsSet = QuestionsConfig | GroundedConfig
Pair = Mapping[str, str]
SPACE = re.compile(r"\s+")
SHORTEST_EVIDENCE = 8  # characters


def pairs_schema(fields: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of an answer whose pairs have these fields, all of them texts."""
    pair = {
        "type": "object",
        "properties": {name: {"type": "string", "minLength": 1} for name in fields},
        "required": list(fields),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"pairs": {"type": "array", "minItems": 1, "items": pair}},
        "required": ["pairs"],
        "additionalProperties": False,
    }


class PairsMaker(AsksOnce):
    """The part of a `Maker` that such sets share."""

    kind: str
    schema: Mapping[str, Any]

    def targets(self, identity: str, language: str, config: PairsSet) -> Sequence[str]:
        others = other_languages(self.kind, config.seed, identity, language, config.into)
        return others[: config.targets_per_document]

    def length_share(self, source: str, target: str) -> float:
        """Questions and answers are about as long as half their document."""
        return 0.5 * facts(target).characters_relative_to_english / facts(source).characters_relative_to_english

    def unfit(self, row: Row, config: PairsSet) -> Refused | None:
        length = len(row["text"])
        too_long = length > config.maximum_document_characters
        return Refused("document_too_long", f"{length} characters") if too_long else None

    def requests(self, row: Row, config: PairsSet, model: str, sample: int) -> list[Request]:
        template = prompt(f"{self.kind}.document", row["target"])
        messages = template.messages(document=row["text"], count=str(config.pairs))
        parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
        document = f"{row['source']} {row['id']}"
        return [Request(model, messages, parameters, template.identity, sample, document, template.hash, self.schema)]


def good_pairs(row: Row, outcome: Outcome, config: PairsSet) -> list[Pair] | Refused:
    """The pairs of an answer that stay, at least `minimum_pairs`."""
    if isinstance(outcome, ContentError):
        return Refused("no_answer", str(outcome))
    good: list[Pair] = []
    first: Refused | None = None
    for pair in outcome.structured["pairs"]:
        failure = pair_failure(pair, row, [one["question"] for one in good])
        first = first or failure
        if failure is None:
            good.append(pair)
    if len(good) < config.minimum_pairs:
        return first or Refused("too_few", f"{len(good)} pairs, {config.minimum_pairs} wanted", outcome.content)
    return good


def pair_failure(pair: Pair, row: Row, earlier: Sequence[str]) -> Refused | None:
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
