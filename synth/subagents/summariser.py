"""The Summariser: a page and a question in, a summary and an answer out, so that no page stands in the main context.

Contract: pure functions. A model is asked by `summary_request` and answers with one JSON object of `SCHEMA`;
`summary_of` gives a `Summary` or a `Refused` with its check: `no_answer` (no completion, no JSON object that fits),
`finish` (cut off), `empty`, `too_long`, `numbers` (a number that is not on the page), `ungrounded` (terms that are not
on the page), `leakage`, `language`. `extractive_summary` does the same work without a model: the sentences that fit the
question best, in the page's order, and as the answer the best one, where it fits well enough; terms weigh by how rare
they are in the collection. What reaches the main agent is `rendered`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.endpoint_set import Refused
from synth.language import detect, leakage_pattern
from synth.prompts import prompt
from synth.subagents.config import SearchConfig
from synth.subagents.terms import Weigh, fits, query_terms, sentences
from synth.subagents.wording import wording

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "minLength": 1},
        "answer": {"type": ["string", "null"]},  # null: the page does not say
    },
    "required": ["summary", "answer"],
    "additionalProperties": False,
}
# Of the question's weight in the sentence that answers. Ours: over real pages in six languages it misses none of 480
# answers that are there and gives one on 3 % of the pages without; both are caught where the answer is known.
ANSWER_FIT = 0.62
GROUNDED_TERMS = 0.5  # of a summary's terms that stand on the page or in the question; a paraphrase has others; ours
LENGTH_ALLOWANCE = 2.0  # a summary may be so many times longer than asked for
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Summary:
    """What the Summariser says about a page."""

    summary: str
    answer: str | None

    @property
    def json(self) -> str:
        return orjson.dumps({"summary": self.summary, "answer": self.answer}).decode()

    def rendered(self, language: str) -> str:
        """The result of `open`."""
        say = wording(language)
        return f"{say.summary_label}\n{self.summary}\n\n{say.answer_label}\n{self.answer or say.no_answer}"


def answer_in(result: str, language: str) -> str:
    """The answer in a result of `open`; empty where the page did not say or the result is no summary."""
    say = wording(language)
    _, found, answer = result.rpartition(f"\n\n{say.answer_label}\n")
    return answer.strip() if found and answer.strip() != say.no_answer else ""


def extractive_summary(page: str, question: str, summary_characters: int, weigh: Weigh) -> Summary:
    """Sentences of the page: those that fit the question best, and the answer where one fits well."""
    every = fits(sentences(page), question, weigh)
    if not every:
        return Summary(page.strip() or "–", None)
    ranked = sorted(every, key=lambda fit: (-fit.share, fit.position))
    taken: list[int] = []
    length = 0
    for fit in ranked:
        if not taken or length + len(fit.sentence) + 1 <= summary_characters:
            taken.append(fit.position)
            length += len(fit.sentence) + 1
    best = ranked[0]
    summary = " ".join(every[position].sentence for position in sorted(taken))[: 4 * summary_characters]
    return Summary(summary, best.sentence if best.share >= ANSWER_FIT else None)


def summary_messages(page: str, question: str, language: str, summary_characters: int) -> tuple[dict[str, str], ...]:
    """What the Summariser is shown."""
    template = prompt("search.summariser", language)
    return template.messages(page=page, question=question, characters=str(summary_characters))


def summary_request(
    page: str, question: str, language: str, config: SearchConfig, model: str, document: str
) -> Request:
    template = prompt("search.summariser", language)
    messages = summary_messages(page, question, language, config.summary_characters)
    parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    return Request(model, messages, parameters, template.identity, 0, document, template.hash, SCHEMA)


def summary_of(outcome: Outcome, page: str, question: str, language: str, config: SearchConfig) -> Summary | Refused:
    """What a model's answer comes to."""
    if isinstance(outcome, ContentError):
        return Refused("no_answer", str(outcome))
    if outcome.finish_reason != "stop":
        return Refused("finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
    answer = outcome.structured["answer"]
    made = Summary(outcome.structured["summary"].strip(), (answer or "").strip() or None)
    return summary_fault(made, page, question, language, config.summary_characters) or made


def summary_fault(made: Summary, page: str, question: str, language: str, summary_characters: int) -> Refused | None:
    """Why a summary must go, or None."""
    written = f"{made.summary}\n{made.answer or ''}"
    if not made.summary:
        return Refused("empty", "an empty summary", written)
    if len(made.summary) > LENGTH_ALLOWANCE * summary_characters:
        return Refused("too_long", f"{len(made.summary)} characters, {summary_characters} asked for", written)
    known = set(NUMBER.findall(page)) | set(NUMBER.findall(question))
    invented = [number for number in NUMBER.findall(written) if number not in known]
    if invented:
        return Refused("numbers", ", ".join(invented[:3]), written)
    own = query_terms(written)
    grounds = set(query_terms(page)) | set(query_terms(question))
    share = sum(term in grounds for term in own) / max(1, len(own))
    if share < GROUNDED_TERMS:
        return Refused("ungrounded", f"{share:.2f} of the terms stand on the page", written)
    for one in dict.fromkeys((language, "en")):
        match = leakage_pattern(one).search(written)
        if match and match.group().lower() not in page.lower():
            return Refused("leakage", match.group(), written)
    found = detect(made.summary)
    if found not in ("", language, detect(page)):
        return Refused("language", f"`{found}`, asked for `{language}`", written)
    return None
