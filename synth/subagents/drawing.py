"""The questions of a set, by number: planted ones, gaps of the pages, and those that an endpoint writes.

Contract: one `Drawn` a number, in order; what it holds is a question or why there is none. Requests for all written
questions are asked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synth.cache import Request
from synth.client import Outcome
from synth.endpoint_set import Refused
from synth.subagents.config import SearchConfig
from synth.subagents.gaps import gaps_question
from synth.subagents.index import Page, SearchIndex
from synth.subagents.planted import chain_question
from synth.subagents.questions import Draw, Question, draw
from synth.subagents.written import fact_of, pages_asked_about, question_request, written_question

Answer = Callable[[list[Request]], list[Outcome]]


@dataclass(frozen=True)
class Drawn:
    """What became of one number."""

    draw: Draw
    result: Question | Refused
    asked: Sequence[tuple[Page, Request, Outcome]] = ()


def questions_of(
    index: SearchIndex, config: SearchConfig, numbers: Sequence[int], model: str, answer: Answer
) -> list[Drawn]:
    """The questions of these numbers."""
    draws = [draw(config, number, index.languages) for number in numbers]
    pages = {one.number: pages_asked_about(index, config, one) for one in draws if one.kind == "written"}
    requests = [question_request(page, config, model) for part in pages.values() for page in part]
    outcomes = iter(answer(requests) if requests else [])
    found: list[Drawn] = []
    for one in draws:
        if one.kind == "written":
            asked = [(page, question_request(page, config, model), next(outcomes)) for page in pages[one.number]]
            facts = [fact_of(outcome, page, index) for page, _, outcome in asked]
            found.append(Drawn(one, written_question(one, facts), asked))
        else:
            found.append(Drawn(one, question_of(index, config, one.number)))
    return found


def question_of(index: SearchIndex, config: SearchConfig, number: int) -> Question | Refused:
    """A question that no endpoint writes."""
    drawn = draw(config, number, index.languages)
    assert drawn.kind != "written"
    if drawn.kind == "chain":
        return chain_question(config, drawn)
    return gaps_question(index, config, drawn) or Refused("no_question", f"{drawn.hops} sentences with a number wanted")
