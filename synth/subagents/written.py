"""`written` questions: an endpoint writes one about each of several pages, with the answer as it stands there.

Contract: pure functions. Which pages question `n` is about follows from (index, config, n). An endpoint's answer is
one JSON object of `SCHEMA` and becomes a `Fact` or a `Refused`: `question_no_answer`, `question_finish`,
`question_evidence` (no stretch of the page), `question_answer` (not in the evidence, too long, or in the question),
`question_language`, `question_leakage`. A question needs all of its facts. What the oracle searches for is the
question's own words: it has seen neither answer nor evidence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pipeline.core.rng import derive_seed
from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.endpoint_set import Refused
from synth.language import detect, leakage_pattern
from synth.prompts import prompt
from synth.subagents.config import SearchConfig
from synth.subagents.index import Page, SearchIndex
from synth.subagents.questions import Draw, Fact, Question, numbered
from synth.subagents.terms import query_terms
from synth.subagents.wording import wording

FIELDS = ("question", "answer", "evidence")
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string", "minLength": 1} for name in FIELDS},
    "required": list(FIELDS),
    "additionalProperties": False,
}
SHORTEST_PAGE = 300  # characters; shorter pages say too little to ask about; ours
SHORTEST_EVIDENCE = 8
LONGEST_ANSWER = 80
SPACE = re.compile(r"\s+")


def pages_asked_about(index: SearchIndex, config: SearchConfig, drawn: Draw) -> list[Page]:
    """As many different pages as the question needs facts, or fewer where the index has too few."""
    dice = Random(derive_seed("search written", config.seed, drawn.number))
    places = index.identities(drawn.language)
    found: list[Page] = []
    for place in dice.sample(places, min(len(places), 20 * drawn.hops)):
        page = index.page(*place)
        if len(page.text) >= SHORTEST_PAGE:
            found.append(page)
        if len(found) == drawn.hops:
            break
    return found


def question_request(page: Page, config: SearchConfig, model: str) -> Request:
    template = prompt("search.question", page.lang)
    parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    messages = template.messages(page=page.text)
    return Request(model, messages, parameters, template.identity, 0, page.document, template.hash, SCHEMA)


def fact_of(outcome: Outcome, page: Page, index: SearchIndex) -> Fact | Refused:
    """What an endpoint's answer comes to."""
    if isinstance(outcome, ContentError):
        return Refused("question_no_answer", str(outcome))
    if outcome.finish_reason != "stop":
        return Refused("question_finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
    question, answer, evidence = (SPACE.sub(" ", outcome.structured[name]).strip() for name in FIELDS)
    shown = f"{question}\n{answer}\n{evidence}"
    if len(evidence) < SHORTEST_EVIDENCE or evidence not in SPACE.sub(" ", page.text):
        return Refused("question_evidence", evidence[:200], shown)
    if answer not in evidence or len(answer) > LONGEST_ANSWER or answer.casefold() in question.casefold():
        return Refused("question_answer", answer[:200], shown)
    if detect(question) not in ("", page.lang):
        return Refused("question_language", f"asked for `{page.lang}`", shown)
    for language in dict.fromkeys((page.lang, "en")):
        if match := leakage_pattern(language).search(question):
            return Refused("question_leakage", match.group(), shown)
    terms = query_terms(question)
    rarest = sorted(terms, key=lambda term: (-index.weight(term), term))[: max(1, len(terms) // 2)]
    second = " ".join(term for term in terms if term in rarest)
    first = question.replace('"', " ")  # straight double quotes mean a phrase to the search
    return Fact("", answer, evidence, question, question, first, second, (question, evidence.replace(answer, " ")))


def written_question(drawn: Draw, facts: Sequence[Fact | Refused]) -> Question | Refused:
    """The question of one number, or why there is none."""
    refused = [fact for fact in facts if isinstance(fact, Refused)]
    if refused:
        return refused[0]
    good = [fact for fact in facts if isinstance(fact, Fact)]
    if len({fact.step for fact in good}) < drawn.hops:
        return Refused("no_question", f"{drawn.hops} pages to ask about wanted")
    text = wording(drawn.language).written.replace("{steps}", numbered([fact.step for fact in good]))
    return Question(drawn.number, "written", drawn.language, text, good, [fact.value for fact in good])
