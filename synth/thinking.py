"""Thinking-augmented documents: a model's thoughts about a document, joined with it into one sample.

Contract: every chosen document is asked about (or refused as too long), every answer passes `synth/checks.py` or the
document is dropped with the reason `thinking.CHECK`. Samples keep the document whole and unchanged. Layouts:

`doc-then-thought`   document, then thought (Thinking augmented Pre-Training, arXiv 2509.20186)
`thought-then-doc`   thought, then document
`interleaved`        before each passage of whole paragraphs the thoughts that lead to it (as in BoLT, arXiv 2503.18866)

Cost: the endpoint's; ours is about 5 milliseconds a document.
"""

from __future__ import annotations

from collections.abc import Sequence

from synth.cache import Request
from synth.checks import Failure, Thought, check_thought
from synth.client import Outcome
from synth.completion import Completion, ContentError
from synth.config import ThinkingConfig
from synth.endpoint_set import EndpointWork, Made, Refused, Row
from synth.language import primary
from synth.prompts import Prompt, prompt

JOINT = "\n\n"  # between document and thought: plain concatenation, as in TPT


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


def requests_for(
    text: str, language: str, config: ThinkingConfig, model: str, document: str = "", sample: int = 0
) -> list[Request]:
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
        Request(model, template.messages(**place), parameters, template.identity, sample, document, template.hash)
        for place in places
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


class ThinkingMaker:
    """What thinking sets ask and how they judge."""

    kind = "thinking"

    def unfit(self, row: Row, config: ThinkingConfig) -> Refused | None:
        length = len(row["text"])
        too_long = length > config.maximum_document_characters
        return Refused("document_too_long", f"{length} characters") if too_long else None

    def requests(self, row: Row, config: ThinkingConfig, model: str, sample: int) -> list[Request]:
        return requests_for(row["text"], primary(row["lang"]), config, model, _document_name(row), sample)

    def judged(
        self, row: Row, config: ThinkingConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        thoughts = [one.thought for one in outcomes if isinstance(one, Completion)]
        failure = judged(row["text"], primary(row["lang"]), outcomes, config)
        if failure is not None:
            return Refused(failure.check, failure.detail, JOINT.join(thoughts))
        return Made(joined(row["text"], thoughts, config), {}, {"layout": config.layout})


def _document_name(row: Row) -> str:
    """Source, id and title: what a message needs to point at a document."""
    return " ".join(filter(None, (row["source"], row["id"], row["title"])))


WORK = EndpointWork(ThinkingMaker())
