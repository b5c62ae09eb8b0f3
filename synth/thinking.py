"""Thinking-augmented documents: a model's thoughts about a document, joined with it into one sample.

Contract: every chosen document is asked about (or refused as too long), every answer passes `synth/checks.py` or the
document is dropped with the reason `thinking.CHECK`. Samples keep the document whole and unchanged. Layouts:

`doc-then-thought`   document, then thought (Thinking augmented Pre-Training, arXiv 2509.20186)
`thought-then-doc`   thought, then document
`interleaved`        before each passage of whole paragraphs the thoughts that lead to it (as in BoLT, arXiv 2503.18866)

Cost: the endpoint's; ours is about 5 milliseconds a document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.fingerprint import fingerprint
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from synth.cache import Replay, Request
from synth.checks import Failure, Thought, check_thought
from synth.client import EndpointClient, Outcome, ask
from synth.completion import Completion, ContentError
from synth.config import ReplayConfig, ThinkingConfig, bound_endpoint
from synth.language import primary
from synth.output import Facts, ShardWriter, merged_facts
from synth.prompts import Prompt, prompt
from synth.selection import choose, read_chosen, shards_of, slice_of
from synth.store import ResponseStore, merge

JOINT = "\n\n"  # between document and thought: plain concatenation, as in TPT
RESPONSES = "responses"  # folder of the store shared by all runs


def prompt_of(config: ThinkingConfig, language: str) -> Prompt:
    return prompt("thinking.passage" if config.layout == "interleaved" else "thinking.document", language)


def passages(text: str, passage_characters: int) -> list[str]:
    """Whole paragraphs gathered up to `passage_characters` (a longer one stands alone); joined they are `text`."""
    found: list[str] = []
    for paragraph in text.split(JOINT):
        if found and len(found[-1]) + len(JOINT) + len(paragraph) <= passage_characters:
            found[-1] += JOINT + paragraph
        else:
            found.append(paragraph)
    return found


def requests_for(text: str, language: str, config: ThinkingConfig, model: str, document: str = "") -> list[Request]:
    """What to ask about one document: one request, or one per passage when interleaved.

    The keys depend on text, language, config and model only; `document` names it in messages.
    """
    template = prompt_of(config, language)
    if config.layout == "interleaved":
        parts = passages(text, config.passage_characters)
        places = [{"before": JOINT.join(parts[:i]), "passage": part} for i, part in enumerate(parts)]
    else:
        places = [{"document": text}]
    parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    return [
        Request(model, template.messages(**place), parameters, template.identity, document=document) for place in places
    ]


def joined(text: str, thoughts: Sequence[str], config: ThinkingConfig) -> str:
    """The sample's text; `thoughts` has one entry per request."""
    if config.layout == "doc-then-thought":
        return text + JOINT + thoughts[0]
    if config.layout == "thought-then-doc":
        return thoughts[0] + JOINT + text
    parts = passages(text, config.passage_characters)
    return JOINT.join(JOINT.join(pair) for pair in zip(thoughts, parts, strict=True))


def judged(text: str, language: str, outcomes: Sequence[Outcome], config: ThinkingConfig) -> Failure | None:
    """The first failure among a document's answers."""
    for outcome in outcomes:
        if isinstance(outcome, ContentError):
            return Failure("no_answer", str(outcome))
        thought = Thought(outcome.thought, outcome.finish_reason, text, language)
        limits = config.checks
        if config.layout == "interleaved":  # a thought on a passage is short beside the whole document
            limits = limits.replaced(minimum_length_ratio=0.0)
        failure = check_thought(thought, limits)
        if failure is not None:
            return failure
    return None


class ThinkingWork:
    """The work of a `synth.SET` step of kind `thinking`."""

    def shard_count(self, task: StepTask) -> int:
        config: ThinkingConfig = task.config
        return shards_of(min(config.documents, len(choose(task))), config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` for a missing recording or an endpoint that does not answer."""
        config: ThinkingConfig = task.config
        chosen = list(slice_of(choose(task)[: config.documents], shard, config.documents_per_shard))
        rows = read_chosen(task.inputs["documents"].folder, chosen)
        fitting = [row for row in rows if len(row["text"]) <= config.maximum_document_characters]
        model = bound_endpoint(task.paths).model
        requests = [
            requests_for(row["text"], primary(row["lang"]), config, model, _document_name(row)) for row in fitting
        ]
        outcomes = iter(ask([request for part in requests for request in part], backend(task, shard)))
        answers = {
            row["id"]: (part, [next(outcomes) for _ in part]) for row, part in zip(fitting, requests, strict=True)
        }
        writer = ShardWriter(task, shard)
        for row in rows:
            if row["id"] in answers:
                _write(writer, row, *answers[row["id"]], config)
            else:
                detail = f"{len(row['text'])} characters"
                _refuse(writer, row, "thinking.document_too_long", detail, row["text"])
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        merge(task.store / RESPONSES, f"{task.fingerprint[:16]}-*")
        return merged_facts(results)


def _document_name(row: Mapping[str, Any]) -> str:
    """Source, id and title: what a message needs to point at a document."""
    return " ".join(filter(None, (row["source"], row["id"], row["title"])))


def backend(task: StepTask, shard: int) -> Replay | EndpointClient:
    """The recorded responses or the client the set's endpoint stands for."""
    endpoint = bound_endpoint(task.paths)
    if isinstance(endpoint, ReplayConfig):
        return Replay.open(endpoint.responses, step=task.name, endpoint=task.config.endpoint)
    store = ResponseStore(task.store / RESPONSES, f"{task.fingerprint[:16]}-{shard:05d}")
    return EndpointClient(endpoint, store, where=f"{task.name}.endpoint")


def _write(
    writer: ShardWriter,
    row: Mapping[str, Any],
    requests: Sequence[Request],
    outcomes: Sequence[Outcome],
    config: ThinkingConfig,
) -> None:
    text, language = row["text"], primary(row["lang"])
    completions = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
    shown = JOINT.join(completion.thought for completion in completions)
    failure = judged(text, language, outcomes, config)
    if failure is not None:
        _refuse(writer, row, f"thinking.{failure.check}", failure.detail, shown)
        return
    template = prompt_of(config, language)
    writer.keep(
        fingerprint([request.key for request in requests], row["id"]),
        joined(text, [completion.thought for completion in completions], config),
        bytes_in=len(text.encode("utf-8")),
        extra={
            "layout": config.layout,
            "prompt": template.identity,
            "prompt_hash": template.hash,
            "parameters": dict(requests[0].parameters),
            "responses": [{"key": c.key, "usage": dict(c.usage)} for c in completions],
            "source_text_hash": row["text_hash"],
        },
        title=row["title"],
        lang=row["lang"],
        lang_score=row["lang_score"],
        domain=row["domain"],
        license=row["license"],
        parallel_id=row["parallel_id"],
        parents=[row["id"]],
        maker=completions[0].model,
    )


def _refuse(writer: ShardWriter, row: Mapping[str, Any], reason: str, detail: str, text: str) -> None:
    writer.drop(row["id"], reason, detail, text, bytes_in=len(row["text"].encode("utf-8")), lang=row["lang"])


WORK = ThinkingWork()
