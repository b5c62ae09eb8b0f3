"""Search sets: questions over an index, answered by the loop, written as conversations of its three parts.

Contract: question `n` is a pure function of (config, index, n); shard k answers questions [k * size, (k + 1) * size).
Samples are documents with `messages`: of the main agent one a context (what stands between two compressions), of each
sub-agent one a call; the agent's declare their tools in `extra.tools`. Parents are the documents whose text is in the
sample, the licence is all of theirs. A question that is not answered rightly drops its contexts with the reason
`search.CHECK`; sub-agents' samples are judged one by one (`search.PART_CHECK`). The record's facts hold the tokens the
agent read, with and without sub-agents (estimated), and the facts kept. Cost: without a model 40-120 ms a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from synth.cache import Request
from synth.client import Outcome, ask
from synth.completion import Completion
from synth.config import bound_endpoint
from synth.endpoint_set import RESPONSES, WRITER_DIGITS, Refused, backend
from synth.forecast import Answered, Forecast
from synth.licences import joined_licence
from synth.output import ShardWriter, merged_facts
from synth.requests_table import request_row
from synth.selection import shards_of
from synth.store import merge
from synth.subagents.config import SearchConfig
from synth.subagents.drawing import Drawn, questions_of
from synth.subagents.environment import TOOLS
from synth.subagents.forecast import forecast
from synth.subagents.index import SearchIndex
from synth.subagents.index_step import INDEX_FOLDER
from synth.subagents.outcome import Measure, Sample, Trajectory, spoken
from synth.subagents.questions import Question
from synth.subagents.trajectory import Loop, drive

MEASURES = "search"
DOMAIN = "search"


class SearchWork:
    """The work of a `synth.SET` step of kind `search`."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(task.config.questions, task.config.questions_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` for a missing recording or an endpoint that does not answer."""
        config: SearchConfig = task.config
        index = SearchIndex(task.inputs["index"].folder / INDEX_FOLDER)
        writer = ShardWriter(task, shard)
        first = shard * config.questions_per_shard
        numbers = range(first, min(first + config.questions_per_shard, config.questions))
        model = bound_endpoint(task.paths).model if config.endpoint else ""
        answers = backend(task, shard) if config.endpoint else None

        def answer(requests: list[Request]) -> list[Outcome]:
            assert answers is not None, "only an endpoint is asked"
            return ask(requests, answers)

        drawn = questions_of(index, config, numbers, model, answer)
        loops = [Loop(one.result, index, config, model) for one in drawn if isinstance(one.result, Question)]
        made = iter(drive(loops, answer))
        measures: dict[str, Measure] = {}
        for one in drawn:
            _note_written(writer, one)
            if isinstance(one.result, Refused):
                refusal = one.result
                key, reason = f"question/{one.draw.number}", f"search.{refusal.check}"
                writer.drop(key, reason, refusal.detail, refusal.text, bytes_in=0, lang=one.draw.language)
            else:
                trajectory = next(made)
                measures.setdefault(one.draw.language, Measure()).add(trajectory.measure)
                _write(writer, trajectory, config)
        index.close()
        result = writer.commit()
        counted = {language: asdict(one) for language, one in sorted(measures.items())}
        return replace(result, facts={**result.facts, MEASURES: counted})

    def forecast(self, task: StepTask, answered: Answered) -> Forecast:
        """What the whole set asks; answers are looked up where a run of it was stopped and has left its journals."""
        was_begun = any((task.store / RESPONSES).glob(f"{task.fingerprint[:WRITER_DIGITS]}-*.jsonl"))
        index = SearchIndex(task.inputs["index"].folder / INDEX_FOLDER)
        try:
            model = bound_endpoint(task.paths).model
            yield from forecast(index, task.config, model, answered if was_begun else None)
        finally:
            index.close()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        if task.config.endpoint:
            merge(task.store / RESPONSES, f"{task.fingerprint[:WRITER_DIGITS]}-*")
        total: dict[str, Measure] = {}
        for result in results:
            for language, part in result.facts[MEASURES].items():
                total.setdefault(language, Measure()).add(Measure(**part))
        funnels = [
            replace(one, facts={name: part for name, part in one.facts.items() if name != MEASURES}) for one in results
        ]
        return {**merged_facts(funnels), MEASURES: {name: asdict(one) for name, one in sorted(total.items())}}


def _note_written(writer: ShardWriter, drawn: Drawn) -> None:
    """The requests that asked for a question."""
    verdict = f"search.{drawn.result.check}" if isinstance(drawn.result, Refused) else "kept"
    for page, request, outcome in drawn.asked:
        row = {"id": page.document, "license": page.license, "lang": page.lang}
        writer.request(request_row(request, outcome, row, verdict))


def _write(writer: ShardWriter, trajectory: Trajectory, config: SearchConfig) -> None:
    counts = dict.fromkeys(("agent", "summariser", "compressor"), 0)
    seen: set[str] = set()
    for sample in trajectory.samples:
        counts[sample.part] += 1
        key = f"{trajectory.question.key}/{sample.part}/{counts[sample.part]}"
        text = "\n\n".join(spoken(message) for message in sample.messages)
        verdict = _verdict(sample, text in seen)
        seen.add(text)
        _note_requests(writer, sample, key, trajectory.question.language, verdict or "kept")
        if sample.part in config.write:
            _write_sample(writer, trajectory, sample, key, text, verdict)


def _verdict(sample: Sample, is_said_already: bool) -> str:
    """The drop reason of a sample, or an empty string."""
    if sample.refusal is not None:
        prefix = "" if sample.part == "agent" else f"{sample.part}_"
        return f"search.{prefix}{sample.refusal.check}"
    return "search.duplicate" if is_said_already else ""


def _write_sample(
    writer: ShardWriter, trajectory: Trajectory, sample: Sample, key: str, text: str, verdict: str
) -> None:
    question = trajectory.question
    bytes_in = len(text.encode("utf-8"))
    if verdict:
        detail = sample.refusal.detail if sample.refusal else "the same was said before in this search"
        shown = sample.refusal.text if sample.refusal and sample.refusal.text else text
        writer.drop(key, verdict, detail, shown, bytes_in=bytes_in, lang=question.language)
        return
    completions = [one for _, one in sample.requests if isinstance(one, Completion)]
    extra: dict[str, Any] = {
        "part": sample.part,
        "question": question.kind,
        "facts": len(question.facts),
        "answer": question.answer,
        "prompt": sample.prompt,
        "prompt_hash": sample.prompt_hash,
        "responses": [{"key": one.key, "usage": dict(one.usage)} for one in completions],
    }
    if sample.part == "agent":
        extra["tools"] = list(TOOLS)
    writer.keep(
        key,
        text,
        bytes_in=bytes_in,
        extra=extra,
        messages=[dict(message) for message in sample.messages],
        lang=question.language,
        domain=DOMAIN,
        license=joined_licence(page.license for page in sample.pages),
        parents=sorted({page.document for page in sample.pages}),
        maker=sample.maker,
    )


def _note_requests(writer: ShardWriter, sample: Sample, key: str, language: str, verdict: str) -> None:
    for request, outcome in sample.requests:
        row = request_row(request, outcome, {"id": key, "license": None, "lang": language}, verdict)
        licenses = sorted({page.license for page in sample.pages if page.license})
        parents = sorted({page.document for page in sample.pages})
        writer.request({**row, "parents": parents, "licenses": licenses})


WORK = SearchWork()
