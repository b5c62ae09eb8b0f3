"""Sets that ask a model about documents: choose, ask, judge, write; what is asked and judged is the set's own.

Contract: every item (a document, or a document in a target language) is kept or dropped with a reason, in the order of
choice. It may be asked about several times (`samples`): the first sample that passes its checks is kept; when none
does, the first one's reason counts. A judge, where the set has one, sees a fixed share of what passed. Every request
leaves a row in `STEP/requests/` (prompt, model that answered, parameters, usage, latency, attempts, parents and
licences, reasoning and content apart), also those of refused samples. Cost: the endpoint's; ours a few milliseconds a
document, most of it judging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow.compute as pc

from pipeline.core.documents import read_documents
from pipeline.core.fingerprint import fingerprint
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from synth.cache import Replay, Request
from synth.client import EndpointClient, Outcome, ask
from synth.completion import Completion
from synth.config import AskingConfig, EndpointSetConfig, ReplayConfig, bound_endpoint
from synth.forecast import ANSWERS, JUDGE, NOTHING, WAY_BACK, Answered, AtMost, Bound, Forecast, follow_up
from synth.judge import judge_request, judged_worth, verdict_of
from synth.language import primary
from synth.output import Facts, ShardWriter, merged_facts
from synth.passages import JOINT
from synth.requests_table import request_row
from synth.selection import Chosen, choose, read_chosen, shards_of, slice_of
from synth.store import ResponseStore, merge

RESPONSES = "responses"  # folder of the store shared by all runs
WRITER_DIGITS = 16  # of a step's fingerprint, in the names of its journals
Row = Mapping[str, Any]  # a document's columns and `target`, the language to write in (empty: the document's)


@dataclass(frozen=True)
class Refused:
    """Why a document or sample does not stay, and what to show of it."""

    check: str
    detail: str
    text: str = ""


@dataclass(frozen=True)
class Made:
    """A sample: its text and what it says about itself."""

    text: str
    columns: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Item:
    """One thing to make: about a document, in a language."""

    document: Chosen
    target: str


class Maker(Protocol):
    """What a kind of set asks and how it judges. Pure functions of row and config."""

    kind: str  # prefix of its drop reasons

    def targets(self, identity: str, language: str, config: Any) -> Sequence[str]:
        """The languages to write in for a document; one empty entry where it is the document's own."""
        ...

    def length_share(self, source: str, target: str) -> float:
        """Characters a sample has for each of its document, for the native floor."""
        ...

    def unfit(self, row: Row, config: Any) -> Refused | None:
        """Why a document is not asked about."""
        ...

    def requests(self, row: Row, config: Any, model: str, sample: int) -> list[Request]:
        """What to ask about one item, at least one request."""
        ...

    def further(
        self, row: Row, config: Any, model: str, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> list[Request]:
        """What to ask once the first answers are there."""
        ...

    def further_at_most(self, row: Row, config: Any, requests: Sequence[Request]) -> Bound:
        """What that comes to before they are there."""
        ...

    def judged(self, row: Row, config: Any, requests: Sequence[Request], outcomes: Sequence[Outcome]) -> Made | Refused:
        """The sample that one item's answers make; `outcomes` are those of all its requests."""
        ...


class AsksOnce:
    """The part of a `Maker` that asks nothing after its first answers."""

    def further(
        self, row: Row, config: Any, model: str, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> list[Request]:
        del row, config, model, requests, outcomes
        return []

    def further_at_most(self, row: Row, config: Any, requests: Sequence[Request]) -> Bound:
        del row, config, requests
        return NOTHING


class EndpointWork:
    """The work of a `synth.SET` step that asks an endpoint."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker

    def shard_count(self, task: StepTask) -> int:
        return shards_of(len(self.items(task)), task.config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` for a missing recording or an endpoint that does not answer."""
        writer = ShardWriter(task, shard)
        model = bound_endpoint(task.paths).model
        make_samples(self.maker, self.rows(task, shard), task.config, model, backend(task, shard), writer)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        merge(task.store / RESPONSES, f"{task.fingerprint[:WRITER_DIGITS]}-*")
        return merged_facts(results)

    def items(self, task: StepTask) -> list[Item]:
        """Everything the set makes, by rank, the native floor kept."""
        config: EndpointSetConfig = task.config
        found = [
            Item(document, target)
            for document in choose(task)[: config.documents]
            for target in self.maker.targets(document.id, document.language, config)
        ]
        return self._above_native_floor(found, task) if config.native_floor > 0 else found

    def _above_native_floor(self, items: Sequence[Item], task: StepTask) -> list[Item]:
        """Items by rank while the text they make leaves each language its share of native text."""
        floor: float = task.config.native_floor
        native: dict[str, int] = {}
        lengths: dict[str, int] = {}
        for table in read_documents(task.inputs["documents"].folder, ["id", "lang", "text"]):
            characters = pc.call_function("utf8_length", [table["text"]]).to_pylist()
            for identity, tag, length in zip(
                table["id"].to_pylist(), table["lang"].to_pylist(), characters, strict=True
            ):
                lengths[identity] = length
                native[primary(tag)] = native.get(primary(tag), 0) + length
        room = {language: length * (1 - floor) / floor for language, length in native.items()}
        kept: list[Item] = []
        for item in items:
            language = item.target or item.document.language
            share = self.maker.length_share(item.document.language, language)
            made = lengths[item.document.id] * share
            if made <= room.get(language, 0.0):
                room[language] -= made
                kept.append(item)
        return kept

    def rows(self, task: StepTask, shard: int) -> list[Row]:
        """The items of one shard with their documents."""
        own = list(slice_of(self.items(task), shard, task.config.documents_per_shard))
        needed = list(dict.fromkeys(item.document for item in own))
        found = {row["id"]: row for row in read_chosen(task.inputs["documents"].folder, needed)}
        return [{**found[item.document.id], "target": item.target} for item in own]

    def forecast(self, task: StepTask, answered: Answered) -> Forecast:
        """What the whole set asks, as far as it is known."""
        model = bound_endpoint(task.paths).model
        for shard in range(self.shard_count(task)):
            for row in self.rows(task, shard):
                if self.maker.unfit(row, task.config) is None:
                    for sample in range(task.config.samples):
                        attempt = _Attempt(row, self.maker.requests(row, task.config, model, sample))
                        yield from _forecast(self.maker, attempt, task.config, model, answered)


def backend(task: StepTask, shard: int) -> Replay | EndpointClient:
    """The recorded responses or the client the set's endpoint stands for."""
    endpoint = bound_endpoint(task.paths)
    if isinstance(endpoint, ReplayConfig):
        return Replay.open(endpoint.responses, step=task.name, endpoint=task.config.endpoint)
    store = ResponseStore(task.store / RESPONSES, f"{task.fingerprint[:WRITER_DIGITS]}-{shard:05d}")
    return EndpointClient(endpoint, store, where=f"{task.name}.endpoint")


@dataclass
class _Attempt:
    """One sample of one item on its way."""

    row: Row
    requests: list[Request]
    result: Made | Refused | None = None

    @property
    def key(self) -> str:
        """What it was made from."""
        return fingerprint([request.key for request in self.requests], self.row["id"])


def _forecast(maker: Maker, attempt: _Attempt, config: AskingConfig, model: str, answered: Answered) -> Forecast:
    """What one sample asks: its requests, what follows from their answers, and the judge's grade of it."""
    row, first = attempt.row, list(attempt.requests)
    yield from ((ANSWERS, request) for request in first)
    outcomes = [one for request in first if (one := answered(request)) is not None]
    follows = NOTHING
    if len(outcomes) == len(first):
        attempt.requests += maker.further(row, config, model, first, outcomes)
        yield from ((WAY_BACK, request) for request in attempt.requests[len(first) :])
        outcomes += [one for request in attempt.requests[len(first) :] if (one := answered(request)) is not None]
    else:
        follows = maker.further_at_most(row, config, first)
        if follows.requests:
            yield WAY_BACK, AtMost(follows)
    # Which samples the judge sees follows from all requests: where some are unknown, any sample may be one of them.
    is_seen = config.judge.permille > 0 and judged_worth(attempt.key, config.judge.permille)
    if not is_seen and not (config.judge.permille and follows.requests):
        return
    if len(outcomes) < len(attempt.requests) or follows.requests:
        system = [one["content"] for one in first[0].messages if one["role"] == "system"]
        template = judge_request(maker.kind, row, JOINT.join([*system, row["text"]]), model)
        yield JUDGE, follow_up(template, first, is_likely=is_seen)
    elif isinstance(made := maker.judged(row, config, attempt.requests, outcomes), Made):
        yield JUDGE, judge_request(maker.kind, row, made.text, model)


def make_samples(
    maker: Maker,
    rows: Sequence[Row],
    config: AskingConfig,
    model: str,
    answers: Replay | EndpointClient,
    writer: ShardWriter,
) -> None:
    """Ask about all items at once, then judge and write them in order."""
    unfit = [maker.unfit(row, config) for row in rows]
    attempts = [
        [_Attempt(row, maker.requests(row, config, model, sample)) for sample in range(config.samples)]
        if refusal is None
        else []
        for row, refusal in zip(rows, unfit, strict=True)
    ]
    every = [one for part in attempts for one in part]
    found = _asked([request for one in every for request in one.requests], answers)
    for one in every:
        outcomes = [found[request.key] for request in one.requests]
        one.requests += maker.further(one.row, config, model, one.requests, outcomes)
    found |= _asked([request for one in every for request in one.requests if request.key not in found], answers)
    for one in every:
        one.result = maker.judged(one.row, config, one.requests, [found[request.key] for request in one.requests])
    _judge(maker, every, config, model, answers, found)
    for row, refusal, part in zip(rows, unfit, attempts, strict=True):
        _write(maker, row, refusal, part, found, writer)


def _asked(requests: Sequence[Request], answers: Replay | EndpointClient) -> dict[str, Outcome]:
    return dict(zip((one.key for one in requests), ask(requests, answers), strict=True)) if requests else {}


def _judge(
    maker: Maker,
    attempts: Sequence[_Attempt],
    config: AskingConfig,
    model: str,
    answers: Replay | EndpointClient,
    found: dict[str, Outcome],
) -> None:
    """Show the judge its share of what passed; what it finds below the minimum goes."""
    seen = {
        index: judge_request(maker.kind, one.row, one.result.text, model)
        for index, one in enumerate(attempts)
        if isinstance(one.result, Made) and judged_worth(one.key, config.judge.permille)
    }
    found |= _asked(list(seen.values()), answers)
    for index, request in seen.items():
        one = attempts[index]
        one.requests.append(request)
        trouble = verdict_of(found[request.key], config.judge.minimum)
        if trouble and isinstance(one.result, Made):
            one.result = Refused("judge", trouble, one.result.text)


def _write(
    maker: Maker,
    row: Row,
    refusal: Refused | None,
    attempts: Sequence[_Attempt],
    found: Mapping[str, Outcome],
    writer: ShardWriter,
) -> None:
    bytes_in = len(row["text"].encode("utf-8"))
    kept = next((one for one in attempts if isinstance(one.result, Made)), None)
    for one in attempts:
        verdict = f"{maker.kind}.{one.result.check}" if isinstance(one.result, Refused) else "kept"
        for request in one.requests:
            unused = verdict == "kept" and one is not kept
            told = "another sample is kept" if unused else verdict
            writer.request(request_row(request, found[request.key], row, told))
    if kept is None or not isinstance(kept.result, Made):
        reason = refusal or next(one.result for one in attempts if isinstance(one.result, Refused))
        key = f"{row['id']}\x1f{row['target']}" if row["target"] else row["id"]
        shown = reason.text or row["text"]
        lang = row["target"] or row["lang"]
        writer.drop(key, f"{maker.kind}.{reason.check}", reason.detail, shown, bytes_in=bytes_in, lang=lang)
        return
    completions = [one for request in kept.requests if isinstance(one := found[request.key], Completion)]
    made = kept.result
    parents = [row["id"]] if row["source"] else []  # an exercise of ours is no document
    writer.keep(
        kept.key,
        made.text,
        bytes_in=bytes_in,
        extra={**_provenance(row, kept.requests, completions), **made.extra},
        **{**_inherited(row), "parents": parents, **made.columns, "maker": completions[0].model},
    )


def _inherited(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("title", "lang", "lang_score", "domain", "license", "parallel_id")}


def _provenance(row: Row, requests: Sequence[Request], completions: Sequence[Completion]) -> dict[str, Any]:
    return {
        "prompt": requests[0].prompt,
        "prompt_hash": requests[0].prompt_hash,
        "parameters": dict(requests[0].parameters),
        "responses": [{"key": one.key, "usage": dict(one.usage)} for one in completions],
        "source_text_hash": row["text_hash"],
    }
