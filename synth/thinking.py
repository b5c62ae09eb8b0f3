"""Thinking-augmented documents: a model's thoughts about a document, joined with it into one sample.

Contract: every chosen document is asked about (or refused as too long), every answer passes `synth/checks.py` or the
document is dropped with the reason `thinking.CHECK`. Samples keep the document whole and unchanged; of a long one the
model reads the passages with the densest reasoning (`long_documents: passages`). Layouts:

`doc-then-thought`   document, then thought (Thinking augmented Pre-Training, arXiv 2509.20186)
`thought-then-doc`   thought, then document
`interleaved`        before each passage of whole paragraphs the thoughts that lead to it (as in BoLT, arXiv 2503.18866)

With `thoughts_in` the thoughts are in another language than the document: the prompt is that language's, so that its
ways of reasoning meet knowledge written in others. Such samples have the language `mul`; terms of two languages cannot
be compared, so grounding is not checked.

Cost: the endpoint's; ours is about 5 milliseconds a document.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.languages import MULTILINGUAL
from pipeline.core.written import WRITTEN, woven
from synth.cache import Request
from synth.checks import Failure, Thought, check_thought
from synth.client import Outcome
from synth.completion import Completion, ContentError
from synth.config import ThinkingConfig
from synth.endpoint_set import AsksOnce, EndpointWork, Made, Refused, Row
from synth.language import primary
from synth.passages import JOINT, chosen, passages
from synth.prompts import Prompt, prompt
from synth.selection import other_languages


def prompt_of(config: ThinkingConfig, language: str) -> Prompt:
    return prompt("thinking.passage" if config.layout == "interleaved" else "thinking.document", language)


def asked_about(text: str, config: ThinkingConfig) -> list[str]:
    """What the model reads for each thought: the document, or its choice of passages when it is long; interleaved, one
    entry per passage, empty where a long document's passage gets no thought."""
    fits = len(text) <= config.maximum_document_characters
    if config.layout != "interleaved" and fits:
        return [text]
    parts = passages(text, config.passage_characters)
    taken = range(len(parts)) if fits else chosen(parts, config.maximum_document_characters)
    if config.layout != "interleaved":
        return [JOINT.join(parts[index] for index in taken)]
    return [part if index in taken else "" for index, part in enumerate(parts)]


def requests_for(
    text: str, language: str, config: ThinkingConfig, model: str, document: str = "", sample: int = 0
) -> list[Request]:
    """What to ask about one document: one request, or one per passage when interleaved.

    The keys depend on text, language, config and model only; `document` names it in messages.
    """
    template = prompt_of(config, language)
    asked = asked_about(text, config)
    if config.layout == "interleaved":
        parts = passages(text, config.passage_characters)
        most = config.maximum_document_characters
        places = [
            {"before": JOINT.join(parts[:i])[-most:], "passage": passage} for i, passage in enumerate(asked) if passage
        ]
    else:
        places = [{"document": asked[0]}]
    parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    return [
        Request(model, template.messages(**place), parameters, template.identity, sample, document, template.hash)
        for place in places
    ]


def parts_of(text: str, thoughts: Sequence[str], config: ThinkingConfig) -> list[tuple[str, bool]]:
    """The sample's parts, and which of them are thoughts; `thoughts` has one entry per request."""
    if config.layout == "doc-then-thought":
        return [(text, False), (thoughts[0], True)]
    if config.layout == "thought-then-doc":
        return [(thoughts[0], True), (text, False)]
    given = iter(thoughts)
    parts: list[tuple[str, bool]] = []
    for part, asked in zip(passages(text, config.passage_characters), asked_about(text, config), strict=True):
        parts += [(next(given), True), (part, False)] if asked else [(part, False)]
    return parts


def joined(text: str, thoughts: Sequence[str], config: ThinkingConfig) -> str:
    """The sample's text."""
    return woven(parts_of(text, thoughts, config), JOINT)[0]


def judged(
    text: str, language: str, outcomes: Sequence[Outcome], config: ThinkingConfig, document_language: str = ""
) -> Failure | None:
    """The first failure among a document's answers, thoughts in `language`."""
    read = JOINT.join(filter(None, asked_about(text, config)))
    for outcome in outcomes:
        if isinstance(outcome, ContentError):
            return Failure("no_answer", str(outcome))
        thought = Thought(outcome.thought, outcome.finish_reason, read, language, document_language)
        limits = config.checks
        if config.layout == "interleaved":  # a thought on a passage is short beside the whole document
            limits = limits.replaced(minimum_length_ratio=0.0)
        failure = check_thought(thought, limits)
        if failure is not None:
            return failure
    return None


class ThinkingMaker(AsksOnce):
    """What thinking sets ask and how they judge."""

    kind = "thinking"

    def targets(self, identity: str, language: str, config: ThinkingConfig) -> Sequence[str]:
        """The language of the thoughts, in a seeded order of the document's own."""
        return other_languages("thoughts", config.seed, identity, language, config.thoughts_in)[:1] or ("",)

    def length_share(self, source: str, target: str) -> float:
        """The document and a thought of about three times its length (TPT)."""
        return 4.0

    def unfit(self, row: Row, config: ThinkingConfig) -> Refused | None:
        length = len(row["text"])
        too_long = config.long_documents == "refuse" and length > config.maximum_document_characters
        return Refused("document_too_long", f"{length} characters") if too_long else None

    def requests(self, row: Row, config: ThinkingConfig, model: str, sample: int) -> list[Request]:
        return requests_for(row["text"], _thought_language(row), config, model, _document_name(row), sample)

    def judged(
        self, row: Row, config: ThinkingConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        thoughts = [one.thought for one in outcomes if isinstance(one, Completion)]
        failure = judged(row["text"], _thought_language(row), outcomes, config, primary(row["lang"]))
        if failure is not None:
            return Refused(failure.check, failure.detail, JOINT.join(thoughts))
        made, written = woven(parts_of(row["text"], thoughts, config), JOINT)
        extra = {"layout": config.layout, WRITTEN: written}
        if not row["target"]:
            return Made(made, {}, extra)
        languages = [primary(row["lang"]), row["target"]]
        return Made(made, {"lang": MULTILINGUAL, "lang_score": None}, {**extra, "languages": languages})


def _thought_language(row: Row) -> str:
    return row["target"] or primary(row["lang"])


def _document_name(row: Row) -> str:
    """Source, id and title: what a message needs to point at a document."""
    return " ".join(filter(None, (row["source"], row["id"], row["title"])))


WORK = EndpointWork(ThinkingMaker())
