"""Our exercises answered by an endpoint: asked several times, the first answer that the verifier accepts stays.

Contract: item `index` is the exercise that an `instructions` set of the same seed would draw, with the form of the
answer always said; half of the instruction-following ones are open tasks. The form `reasoning` needs an answer with
thinking apart from content; in the form `plain` thinking is left away. Dropped as `answers.REASON`: no exercise,
`no_completion`, `finish` (cut off), `no_thinking`, `leakage` (the model talks about itself), then the form, language
and domain filters. Cost: the endpoint's; ours as in `instructions`, and a start of the sandbox for each program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.documents import document_id, text_hash
from pipeline.core.steps import StepTask
from synth.cache import Request
from synth.client import Outcome
from synth.completion import Completion, ContentError
from synth.config import AnswersConfig
from synth.endpoint_set import AsksOnce, EndpointWork, Made, Refused, Row
from synth.instructions import open_tasks
from synth.instructions.domains import exercises, verdicts
from synth.instructions.exercise import FREE_STEPS, Draw, Exercise, Unmade, say_in, written
from synth.instructions.logic import WORKED, answer_label
from synth.instructions.long_context import FAMILY_TASKS
from synth.instructions.work import LICENSE, draw_exercise
from synth.language import leakage_pattern
from synth.selection import shards_of

KIND = "answers"
PROMPT = "answers.exercise@1"  # the exercise itself is what is asked
STOPPED = "stop"


def asked(draws: Sequence[Draw]) -> list[Exercise | Unmade]:
    """The exercises as an endpoint is asked them."""
    computed = iter(exercises([draw for draw in draws if not _is_open(draw)]))
    return [open_tasks.make_exercise(draw) if _is_open(draw) else _as_asked(draw, next(computed)) for draw in draws]


def _is_open(draw: Draw) -> bool:
    return draw.domain == "instruction-following" and draw.seed % 2 == 0


def _as_asked(draw: Draw, one: Exercise | Unmade) -> Exercise | Unmade:
    """The exercise with the form of its answer said, and without what only our own solver's working keeps to."""
    if isinstance(one, Unmade):
        return one
    facts = {name: value for name, value in one.facts.items() if name != WORKED} | FREE_STEPS
    if "equations" in facts:
        facts["equations"] = 0
    wish = ""
    if draw.domain == "korean":
        wish = say_in("korean", "ko")("alone")
    elif draw.domain in ("mathematics", "logic") or one.family in FAMILY_TASKS:
        wish = say_in("mathematics", draw.language)("label", label=answer_label(draw.language))
    if facts.get("wish", "none") != "none" or wish in one.question:
        wish = ""
    if facts.get("wish") == "none":
        facts["wish"] = "label"
    return replace(one, facts=facts, question=f"{one.question}\n\n{wish}" if wish else one.question)


class AnswersMaker(AsksOnce):
    """What such sets ask and how they judge."""

    kind = KIND

    def targets(self, identity: str, language: str, config: AnswersConfig) -> Sequence[str]:
        del identity, language, config
        return ("",)

    def length_share(self, source: str, target: str) -> float:
        del source, target
        return 1.0

    def unfit(self, row: Row, config: AnswersConfig) -> Refused | None:
        del config
        one: Exercise | Unmade = row["exercise"]
        return Refused(one.reason, one.detail, one.text) if isinstance(one, Unmade) else None

    def requests(self, row: Row, config: AnswersConfig, model: str, sample: int) -> list[Request]:
        one: Exercise = row["exercise"]
        system = ({"role": "system", "content": one.system},) if row["draw"].has_system and one.system else ()
        messages = (*system, {"role": "user", "content": one.question})
        parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
        return [Request(model, messages, parameters, PROMPT, sample, document=row["id"])]

    def judged(
        self, row: Row, config: AnswersConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        del config, requests
        (outcome,) = outcomes
        if isinstance(outcome, ContentError):
            return Refused("no_completion", str(outcome))
        draw: Draw = row["draw"]
        said = _said(draw, outcome)
        if isinstance(said, Refused):
            return said
        one = replace(
            written(draw, row["exercise"]),
            reasoning=outcome.reasoning if draw.form == "reasoning" else "",
            content=said,
        )
        (verdict,) = verdicts([one])
        if not verdict.right:
            return Refused(verdict.reason, f"{one.domain}, {one.family}: {verdict.detail}", one.text())
        columns = {"lang": one.language, "domain": one.domain, "messages": one.messages()}
        return Made(
            one.text(), columns, {"family": one.family, "level": draw.level, "form": one.form, "facts": one.facts}
        )


def _said(draw: Draw, outcome: Completion) -> str | Refused:
    """The content, unless it is cut off, without the thinking that is wanted, or about the model itself."""
    if outcome.finish_reason != STOPPED:
        return Refused("finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
    if draw.form == "reasoning" and not outcome.reasoning:
        return Refused("no_thinking", "the answer has no thinking apart from its content", outcome.content)
    for language in dict.fromkeys((draw.language, "en")):
        if match := leakage_pattern(language).search(outcome.content):
            return Refused("leakage", match.group(), outcome.content)
    return outcome.content


class AnswersWork(EndpointWork):
    """The work of a `synth.SET` step of kind `answers`: its items are exercises, not documents."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(task.config.documents, task.config.documents_per_shard)

    def rows(self, task: StepTask, shard: int) -> list[Row]:
        """Raises `UserError` where programs are wanted and there is no sandbox."""
        config: AnswersConfig = task.config
        first = shard * config.documents_per_shard
        indices = range(first, min(first + config.documents_per_shard, config.documents))
        draws = [draw_exercise(config, config.seed, index, config.forms) for index in indices]
        return [_row(task.name, draw, one) for draw, one in zip(draws, asked(draws), strict=True)]


def _row(step: str, draw: Draw, one: Exercise | Unmade) -> dict[str, Any]:
    """An exercise in the shape of a document's row; `source` is empty, for it has none."""
    text = one.question if isinstance(one, Exercise) else one.text
    return {
        "id": document_id(step, str(draw.index)),
        "text": text,
        "text_hash": text_hash(text),
        "source": "",
        "title": None,
        "lang": draw.language,
        "lang_score": None,
        "domain": draw.domain,
        "license": LICENSE,
        "parallel_id": None,
        "target": "",
        "draw": draw,
        "exercise": one,
    }


WORK = AnswersWork(AnswersMaker())
