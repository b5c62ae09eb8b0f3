"""Sets that ask a model about documents: choose, ask, judge, write; what is asked and judged is the set's own.

Contract: every chosen document is kept or dropped with a reason, in the order of choice. A document may be asked about
several times (`samples`): the first sample that passes its checks is kept; when none does, the first one's reason
counts. Every request leaves a row in `STEP/requests/` (prompt, model that answered, parameters, usage, latency,
attempts, parents and licences, reasoning and content apart), also those of refused samples. Cost: the endpoint's; ours
a few milliseconds a document, most of it judging.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.core.fingerprint import fingerprint
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from synth.cache import Replay, Request
from synth.client import EndpointClient, Outcome, ask
from synth.completion import Completion
from synth.config import EndpointSetConfig, ReplayConfig, bound_endpoint
from synth.output import Facts, ShardWriter, merged_facts
from synth.requests_table import request_row
from synth.selection import choose, read_chosen, shards_of, slice_of
from synth.store import ResponseStore, merge

RESPONSES = "responses"  # folder of the store shared by all runs
WRITER_DIGITS = 16  # of a step's fingerprint, in the names of its journals
Row = Mapping[str, Any]


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


class Maker(Protocol):
    """What a kind of set asks and how it judges. Pure functions of row and config."""

    kind: str  # prefix of its drop reasons

    def unfit(self, row: Row, config: Any) -> Refused | None:
        """Why a document is not asked about."""
        ...

    def requests(self, row: Row, config: Any, model: str, sample: int) -> list[Request]:
        """What to ask about one document, at least one request."""
        ...

    def judged(self, row: Row, config: Any, requests: Sequence[Request], outcomes: Sequence[Outcome]) -> Made | Refused:
        """The sample that one document's answers make."""
        ...


class EndpointWork:
    """The work of a `synth.SET` step that asks an endpoint."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker

    def shard_count(self, task: StepTask) -> int:
        config: EndpointSetConfig = task.config
        return shards_of(min(config.documents, len(choose(task))), config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` for a missing recording or an endpoint that does not answer."""
        writer = ShardWriter(task, shard)
        rows = self.rows(task, shard)
        make_samples(self.maker, rows, task.config, bound_endpoint(task.paths).model, backend(task, shard), writer)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        merge(task.store / RESPONSES, f"{task.fingerprint[:WRITER_DIGITS]}-*")
        return merged_facts(results)

    def rows(self, task: StepTask, shard: int) -> list[Row]:
        """The documents of one shard."""
        config: EndpointSetConfig = task.config
        chosen = list(slice_of(choose(task)[: config.documents], shard, config.documents_per_shard))
        return read_chosen(task.inputs["documents"].folder, chosen)

    def first_requests(self, task: StepTask, shard: int) -> Iterable[Request]:
        """What one shard asks at least (further samples are asked together with the first)."""
        model = bound_endpoint(task.paths).model
        for row in self.rows(task, shard):
            if self.maker.unfit(row, task.config) is None:
                for sample in range(task.config.samples):
                    yield from self.maker.requests(row, task.config, model, sample)


def backend(task: StepTask, shard: int) -> Replay | EndpointClient:
    """The recorded responses or the client the set's endpoint stands for."""
    endpoint = bound_endpoint(task.paths)
    if isinstance(endpoint, ReplayConfig):
        return Replay.open(endpoint.responses, step=task.name, endpoint=task.config.endpoint)
    store = ResponseStore(task.store / RESPONSES, f"{task.fingerprint[:WRITER_DIGITS]}-{shard:05d}")
    return EndpointClient(endpoint, store, where=f"{task.name}.endpoint")


def make_samples(
    maker: Maker,
    rows: Sequence[Row],
    config: EndpointSetConfig,
    model: str,
    answers: Replay | EndpointClient,
    writer: ShardWriter,
) -> None:
    """Ask about all documents at once, then judge and write them in order."""
    unfit = {row["id"]: maker.unfit(row, config) for row in rows}
    asked = {
        row["id"]: [maker.requests(row, config, model, sample) for sample in range(config.samples)]
        for row in rows
        if unfit[row["id"]] is None
    }
    requests = [one for samples in asked.values() for sample in samples for one in sample]
    found = dict(zip((one.key for one in requests), ask(requests, answers), strict=True))
    for row in rows:
        bytes_in = len(row["text"].encode("utf-8"))
        refusal = unfit[row["id"]]
        if refusal is None:
            made, requests_used = _first_passing(maker, row, config, asked[row["id"]], found, writer)
        else:
            made, requests_used = refusal, ()
        if isinstance(made, Refused):
            reason = f"{maker.kind}.{made.check}"
            writer.drop(row["id"], reason, made.detail, made.text or row["text"], bytes_in=bytes_in, lang=row["lang"])
            continue
        completions = [one for request in requests_used if isinstance(one := found[request.key], Completion)]
        writer.keep(
            sample_key(requests_used, row),
            made.text,
            bytes_in=bytes_in,
            extra={**_provenance(row, requests_used, completions), **made.extra},
            **{**_inherited(row), **made.columns, "parents": [row["id"]], "maker": completions[0].model},
        )


def sample_key(requests: Sequence[Request], row: Row) -> str:
    """What a sample was made from."""
    return fingerprint([request.key for request in requests], row["id"])


def _first_passing(
    maker: Maker,
    row: Row,
    config: Any,
    samples: Sequence[Sequence[Request]],
    found: Mapping[str, Outcome],
    writer: ShardWriter,
) -> tuple[Made | Refused, Sequence[Request]]:
    kept: tuple[Made | Refused, Sequence[Request]] | None = None
    first: tuple[Made | Refused, Sequence[Request]] | None = None
    for requests in samples:
        outcomes = [found[request.key] for request in requests]
        made = maker.judged(row, config, requests, outcomes)
        first = first or (made, requests)
        if kept is None and isinstance(made, Made):
            kept = made, requests
            verdict = "kept"
        else:
            verdict = f"{maker.kind}.{made.check}" if isinstance(made, Refused) else "another sample is kept"
        for request, outcome in zip(requests, outcomes, strict=True):
            writer.request(request_row(request, outcome, row, verdict))
    assert first is not None
    return kept or first


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
