"""Tool environments as a set: invented by our domains or by a model, validated, judged, written.

Contract: item `index` is a pure function of (config, index) and, with `source: endpoint`, of the model's answer. A
document is the transcript of the reference solution (`messages`, tool declarations in `extra` under `tools`, a readable
`text`); the environment itself is a row of `STEP/environments/`, with the same id, that `Scenario.from_json` reads.
What fails is dropped as `tools.CHECK` (`synth/tools/validators.py`; `no_answer`, `duplicate`, `judge`). A judge sees a
share of what passed. Cost: about 6 ms an environment, nearly all of it validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from pipeline.core.documents import document_id, read_table, table_from_rows, write_table
from pipeline.core.fingerprint import fingerprint
from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from synth.cache import Replay, Request
from synth.client import EndpointClient, Outcome, ask
from synth.completion import Completion, ContentError
from synth.config import bound_endpoint
from synth.endpoint_set import RESPONSES, WRITER_DIGITS, backend
from synth.forecast import ANSWERS, JUDGE, Answered, Forecast, follow_up
from synth.judge import judge_request, judged_worth, verdict_of
from synth.output import Facts, ShardWriter, merged_facts, set_name
from synth.requests_table import request_row
from synth.selection import shards_of
from synth.store import merge
from synth.tools.authoring import scenario_request, written_scenario
from synth.tools.config import ToolsConfig
from synth.tools.environment import state_hash
from synth.tools.generator import make_scenario
from synth.tools.scenario import Scenario
from synth.tools.transcript import messages_of, readable
from synth.tools.validators import Fault, judged

ENVIRONMENTS = "environments"
LICENSE = "Apache-2.0"  # our own text, or a model's after our example
ENVIRONMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the document
        pa.field("domain", pa.string(), nullable=False),  # name@version
        pa.field("template", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("calls", pa.int32(), nullable=False),  # of the reference
        pa.field("scenario", pa.large_string(), nullable=False),  # JSON
    ]
)


@dataclass
class Attempt:
    """One scenario, or why there is none."""

    language: str
    scenario: Scenario | None
    fault: Fault | None
    answer: Completion | ContentError | None = None  # of the model that wrote it
    request: Request | None = None

    @property
    def shown(self) -> str:
        """What there is to read, also where the reference does not run."""
        if self.scenario is None:
            return self.answer.content if isinstance(self.answer, Completion) else ""
        calls = "\n".join(f"{call.name} {orjson.dumps(dict(call.arguments)).decode()}" for call in self.scenario.calls)
        return f"{self.scenario.task}\n\n{calls}\n\n{self.scenario.reply}"


class ToolsWork:
    """The work of a `synth.SET` step of kind `tools`."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(task.config.documents, task.config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` for a missing recording or an endpoint that does not answer."""
        config: ToolsConfig = task.config
        writer = ShardWriter(task, shard)
        answers = backend(task, shard) if config.endpoint else None
        model = bound_endpoint(task.paths).model if config.endpoint else ""
        items = {index: _attempts(config, index, model) for index in _indices(config, shard)}
        if answers is not None:
            _answer([one for attempts in items.values() for one in attempts], answers)
        chosen = _chosen(items)
        grades = _graded(chosen, config, model, answers, writer.source) if answers is not None else {}
        rows: list[dict[str, Any]] = []
        for index, attempts in items.items():
            made, grade = chosen.get(index), grades.get(index)
            if made is not None and grade is not None and (low := verdict_of(grade[1], config.judge.minimum)):
                made.fault = Fault("judge", low)
            _note_requests(writer, index, attempts, made, grade)
            rows += _write(writer, index, attempts, made, config)
        path = task.folder / ENVIRONMENTS / f"{shard:05d}.parquet"
        write_table(path, table_from_rows(rows, ENVIRONMENT_SCHEMA))
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        if task.config.endpoint:
            merge(task.store / RESPONSES, f"{task.fingerprint[:WRITER_DIGITS]}-*")
        return merged_facts(results)

    def forecast(self, task: StepTask, answered: Answered) -> Forecast:
        """What the whole set asks: scenarios, and the judge's grade of at most one for each item."""
        config: ToolsConfig = task.config
        model, source = bound_endpoint(task.paths).model, set_name(task.name)
        for shard in range(self.shard_count(task)):
            if config.source == "generator":
                for index in _indices(config, shard):
                    scenario = make_scenario(config, index)
                    if judged_worth(scenario.to_json(), config.judge.permille):
                        yield JUDGE, _judge_request(scenario, index, model, source)
            else:
                yield from _forecast_written(config, _indices(config, shard), model, source, answered)


def read_environments(folder: Path) -> Iterator[Scenario]:
    """The scenarios of a finished set, in the order of its documents."""
    for path in sorted((folder / ENVIRONMENTS).glob("[0-9]*.parquet")):
        for text in read_table(path, ENVIRONMENT_SCHEMA, ["scenario"])["scenario"].to_pylist():
            yield Scenario.from_json(text)


def _indices(config: ToolsConfig, shard: int) -> range:
    first = shard * config.documents_per_shard
    return range(first, min(first + config.documents_per_shard, config.documents))


def _attempts(config: ToolsConfig, index: int, model: str) -> list[Attempt]:
    """The scenario of our own, judged; or what to ask a model for, with ours as its example."""
    scenario = make_scenario(config, index)
    if config.source == "generator":
        return [Attempt(scenario.language, scenario, judged(scenario))]
    return [
        Attempt(scenario.language, scenario, None, request=scenario_request(scenario, config, model, sample))
        for sample in range(config.samples)
    ]


def _forecast_written(config: ToolsConfig, indices: range, model: str, source: str, answered: Answered) -> Forecast:
    """What one shard asks for scenarios of a model's."""
    stored: dict[int, list[Attempt]] = {}
    for index in indices:
        attempts = _attempts(config, index, model)
        requests = [one.request for one in attempts if one.request is not None]
        yield from ((ANSWERS, request) for request in requests)
        outcomes = [outcome for request in requests if (outcome := answered(request)) is not None]
        if not config.judge.permille:
            continue
        if len(outcomes) == len(attempts):
            stored[index] = attempts
            for one, outcome in zip(attempts, outcomes, strict=True):
                _take(one, outcome)
            continue
        example = attempts[0].scenario
        assert example is not None
        # The model's state, task and solution are told to the judge twice: as the environment and as the transcript.
        template = _judge_request(example, index, model, source)
        is_likely = judged_worth(example.to_json(), config.judge.permille)
        yield JUDGE, follow_up(template, [requests[0]] * 2, is_likely=is_likely)
    graded = _judge_requests(_chosen(stored), config, model, source)
    yield from ((JUDGE, request) for request in graded.values())


def _answer(attempts: Sequence[Attempt], answers: Replay | EndpointClient) -> None:
    """Ask for what is to be asked, all at once."""
    asked = [one for one in attempts if one.request is not None]
    requests = [one.request for one in asked if one.request is not None]
    for one, outcome in zip(asked, ask(requests, answers) if requests else [], strict=True):
        _take(one, outcome)


def _take(one: Attempt, outcome: Outcome) -> None:
    """Take a model's answer in: its scenario is validated like ours."""
    assert one.scenario is not None
    made = written_scenario(one.scenario, outcome)
    one.answer = outcome
    one.scenario, one.fault = (None, made) if isinstance(made, Fault) else (made, judged(made))


def _chosen(items: Mapping[int, Sequence[Attempt]]) -> dict[int, Attempt]:
    """For each item its first attempt without a fault; a scenario that stands earlier in the shard is one."""
    seen: set[str] = set()
    chosen: dict[int, Attempt] = {}
    for index, attempts in items.items():
        for one in attempts:
            if one.fault is None and one.scenario is not None:
                key = fingerprint(one.scenario.task, state_hash(one.scenario.state))
                if key not in seen:
                    seen.add(key)
                    chosen[index] = one
                    break
                one.fault = Fault("duplicate", "the same task on the same state stands earlier in the shard")
    return chosen


def _graded(
    chosen: Mapping[int, Attempt], config: ToolsConfig, model: str, answers: Replay | EndpointClient, source: str
) -> dict[int, tuple[Request, Outcome]]:
    """The judge's answers about its share of what was chosen."""
    requests = _judge_requests(chosen, config, model, source)
    outcomes = ask(list(requests.values()), answers) if requests else []
    return {index: (requests[index], outcome) for index, outcome in zip(requests, outcomes, strict=True)}


def _judge_requests(chosen: Mapping[int, Attempt], config: ToolsConfig, model: str, source: str) -> dict[int, Request]:
    """What the judge is asked about its share of what was chosen."""
    found: dict[int, Request] = {}
    for index, one in chosen.items():
        assert one.scenario is not None
        if judged_worth(one.scenario.to_json(), config.judge.permille):
            found[index] = _judge_request(one.scenario, index, model, source)
    return found


def _judge_request(scenario: Scenario, index: int, model: str, source: str) -> Request:
    row = {"text": told(scenario), "source": source, "id": document_id(source, str(index))}
    return judge_request("tools", row, readable(messages_of(scenario, reasoning=False)), model)


def told(scenario: Scenario) -> str:
    """The environment as a judge reads it."""
    parts = {"tools": scenario.declarations(), "state": scenario.state, "criteria": scenario.criteria}
    return f"{scenario.policy}\n\n{orjson.dumps(parts, option=orjson.OPT_INDENT_2).decode()}"


def _note_requests(
    writer: ShardWriter,
    index: int,
    attempts: Sequence[Attempt],
    made: Attempt | None,
    grade: tuple[Request, Outcome] | None,
) -> None:
    row = {"id": document_id(writer.source, str(index)), "license": LICENSE, "lang": attempts[0].language}
    for one in attempts:
        if one.request is not None and one.answer is not None:
            unused = "kept" if one is made else "another sample is kept"
            writer.request(request_row(one.request, one.answer, row, _verdict(one, unused)))
    if grade is not None and made is not None:
        writer.request(request_row(*grade, row, _verdict(made, "kept")))


def _verdict(one: Attempt, good: str) -> str:
    return f"tools.{one.fault.check}" if one.fault else good


def _write(
    writer: ShardWriter, index: int, attempts: Sequence[Attempt], made: Attempt | None, config: ToolsConfig
) -> list[dict[str, Any]]:
    """Keep or drop one item; the row of its environment."""
    shown = made or attempts[0]
    bytes_in = len(shown.shown.encode("utf-8"))
    if made is None or made.scenario is None or made.fault is not None:
        fault = shown.fault
        assert fault is not None
        told_why = {"reason": f"tools.{fault.check}", "detail": fault.detail, "text": shown.shown}
        writer.drop(str(index), **told_why, bytes_in=bytes_in, lang=shown.language)
        return []
    scenario = made.scenario
    thinks = derive_seed("tools.reasoning", config.seed, index) % 1000 < config.reasoning_permille
    messages = messages_of(scenario, reasoning=thinks)
    extra = {"domain": scenario.domain, "template": scenario.template, "tools": scenario.declarations()}
    name = scenario.domain.replace("@", f".{scenario.template}@")
    writer.keep(
        str(index),
        readable(messages),
        bytes_in=bytes_in,
        extra=orjson.dumps(extra).decode(),  # in the order in which servers declare tools too
        messages=messages,
        lang=scenario.language,
        domain="tools",
        license=LICENSE,
        maker=made.answer.model if isinstance(made.answer, Completion) else f"seodang.tools.{name}",
    )
    told_of = {"id": writer.rows[-1]["id"], "domain": scenario.domain, "template": scenario.template}
    found = {"lang": scenario.language, "calls": len(scenario.calls), "scenario": scenario.to_json()}
    return [{**told_of, **found}]


WORK = ToolsWork()
