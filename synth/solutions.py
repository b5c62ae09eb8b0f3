"""Solutions by a model to problems of our parametric families: asked several times, kept when the verifier accepts one.

Contract: problem `index` is the one that a `reasoning` set with the same options has; a shard's problems that come
twice are asked once. Of a problem's `samples` answers the first stays whose last line gives the answer of the worked
solution (itself verified by an independent solver) and whose stated equations are all right; when none does, the first
one's reason counts (`solutions.CHECK`): rejection sampling against a verifier. The sample is the problem, the model's
reasoning where it is told apart, and its solution. Cost: the endpoint's; ours about a millisecond a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.core.documents import document_id, text_hash
from pipeline.core.steps import StepTask
from pipeline.core.verify.math import verify_solution
from pipeline.core.written import WRITTEN, woven
from synth.cache import Request
from synth.checks import repeated_share
from synth.client import Outcome
from synth.completion import ContentError
from synth.config import SolutionsConfig
from synth.endpoint_set import AsksOnce, EndpointWork, Made, Refused, Row
from synth.families.base import phrases
from synth.language import foreign_share, leakage_pattern
from synth.output import set_name
from synth.passages import JOINT
from synth.prompts import prompt
from synth.reasoning import LICENSE, Sample, make_sample, verify
from synth.selection import shards_of

LOOP_GRAM = 10  # units, as for thoughts
MOST_REPEATED = 0.25
MOST_FOREIGN = 0.25


class SolutionsMaker(AsksOnce):
    """What these sets ask and how they judge."""

    kind = "solutions"

    def targets(self, identity: str, language: str, config: SolutionsConfig) -> Sequence[str]:
        return ("",)

    def length_share(self, source: str, target: str) -> float:
        return 1.0

    def unfit(self, row: Row, config: SolutionsConfig) -> Refused | None:
        return Refused("duplicate", "the same problem stands earlier in the shard") if row["again"] else None

    def requests(self, row: Row, config: SolutionsConfig, model: str, sample: int) -> list[Request]:
        template = prompt("solutions.problem", row["lang"])
        messages = template.messages(problem=row["text"], label=row["label"])
        parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
        document = f"{row['source']} {row['id']}"
        return [Request(model, messages, parameters, template.identity, sample, document, template.hash)]

    def judged(
        self, row: Row, config: SolutionsConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        (outcome,) = outcomes
        if isinstance(outcome, ContentError):
            return Refused("no_answer", str(outcome))
        parts = [part for part in (outcome.reasoning, outcome.content) if part]
        written = JOINT.join(parts)
        if outcome.finish_reason != "stop":
            return Refused("finish", f"finish_reason `{outcome.finish_reason}`", written)
        trouble = _trouble(written, row)
        if trouble is not None:
            return trouble
        verdict = verify_solution(outcome.content, row["label"], row["answer"], 0)
        if not verdict.right:
            return Refused(verdict.reason, verdict.detail, written)
        text, spans = woven([(row["text"], False), *((part, True) for part in parts)], JOINT)
        return Made(text, {"parents": []}, {**row["facts"], WRITTEN: spans})


def _trouble(written: str, row: Row) -> Refused | None:
    """What is wrong with the words, whatever the answer is."""
    for language in dict.fromkeys((row["lang"], "en")):
        for match in leakage_pattern(language).finditer(written):
            if match.group().lower() not in row["text"].lower():
                return Refused("leakage", match.group(), written)
    units = list(written.replace(" ", "")) if row["lang"] == "ja" else written.lower().split()
    looped = repeated_share(units, LOOP_GRAM * (2 if row["lang"] == "ja" else 1))
    if looped > MOST_REPEATED:
        return Refused("loop", f"{looped:.2f} of the text is said again", written)
    foreign = foreign_share(written, row["lang"])
    return Refused("language", f"{foreign:.2f} is not in `{row['lang']}`", written) if foreign > MOST_FOREIGN else None


class SolutionsWork(EndpointWork):
    """The work of a `synth.SET` step of kind `solutions`: its items are problems, not documents."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(task.config.documents, task.config.documents_per_shard)

    def rows(self, task: StepTask, shard: int) -> list[Row]:
        config: SolutionsConfig = task.config
        first = shard * config.documents_per_shard
        indices = range(first, min(first + config.documents_per_shard, config.documents))
        seen: set[str] = set()
        found: list[Row] = []
        for index in indices:
            row = _row(make_sample(config, index), index, set_name(task.name))
            found.append({**row, "again": row["text"] in seen})
            seen.add(row["text"])
        return found


def _row(sample: Sample, index: int, source: str) -> dict[str, Any]:
    name, language, worked = sample.family.name, sample.language, sample.worked
    verdict = verify(name, language, sample.parameters, sample.text, worked.equations)
    assert verdict.right, (name, index, verdict)  # an independent solver gets the answer that model's are held to
    problem = worked.problem
    row: dict[str, Any] = {"id": document_id(source, str(index)), "text": problem, "text_hash": text_hash(problem)}
    row |= {"source": source, "lang": language, "lang_score": None, "target": "", "domain": sample.family.domain}
    row |= {"license": LICENSE, "title": None, "parallel_id": None, "answer": worked.answer}
    row["label"] = phrases(language, name).answer_label
    row["facts"] = {"family": name, "level": sample.level, "problem": sample.parameters, "answer": worked.answer}
    return row


WORK = SolutionsWork(SolutionsMaker())
