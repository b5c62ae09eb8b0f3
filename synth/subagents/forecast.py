"""What a search set will ask: bounds of each part that an endpoint plays, and what our scripts come to in its place.

Contract: pure functions. `bounds` holds for whatever the parts answer within `max_tokens`: an agent is asked once a
step and never after `maximum_steps`, its prompts grow by a call and a result a step until the next compression, each
opened page is one request to the Summariser, and a compression needs `compress_after_steps` steps. Results are as long
as the longest pages of the index allow. `played` has our scripts answer the first `PLAYED` of the set's questions and
counts what a model in the same parts would have been asked; one that thinks before it answers writes more. Both count
tokens from characters. Cost: one look at every page, the pages that are asked about, and a play of some seconds; along
stored answers as much as the run that stored them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import get_args

import orjson

from synth.cache import Request
from synth.client import Outcome
from synth.endpoint_set import Refused
from synth.forecast import NOTHING, Answered, AtMost, Bound, Forecast, completion_tokens, prompt_tokens
from synth.language import facts as language_facts
from synth.prompts import prompt
from synth.subagents.agent import MOST_QUERIES
from synth.subagents.config import Part, SearchConfig
from synth.subagents.drawing import question_of
from synth.subagents.environment import SNIPPET_CHARACTERS, TOOLS
from synth.subagents.gaps import LENGTHS, OTHER_LENGTHS
from synth.subagents.index import Page, SearchIndex
from synth.subagents.outcome import Trajectory, spoken
from synth.subagents.planted import chain_question
from synth.subagents.questions import Draw, Question, draw
from synth.subagents.trajectory import Loop, drive
from synth.subagents.wording import wording
from synth.subagents.written import fact_of, pages_asked_about, question_request, written_question

QUESTIONS = "questions"
PLAYED = 24
WRAPPING_TOKENS = 64  # of a message beside its content: tags, the call's JSON, labels of a result
TROUBLE_CHARACTERS = 200  # told of a call that cannot be made


@dataclass(frozen=True)
class Longest:
    """Tokens of the longest there are in an index."""

    page: int
    entry: int  # of a result list: title, address, snippet

    @classmethod
    def of(cls, index: SearchIndex) -> Longest:
        pages, entries = [0], [0]
        for language, text, title, url in index.longest():
            tokens = _Counter(language)
            pages.append(tokens(text))
            entries.append(tokens(title + url + SNIPPET_CHARACTERS) + WRAPPING_TOKENS)
        return cls(max(pages), max(entries))


class _Counter:
    """Tokens of so many characters in a language."""

    def __init__(self, language: str) -> None:
        self.density = language_facts(language).characters_per_token

    def __call__(self, characters: int) -> int:
        return ceil(characters / self.density)


def forecast(index: SearchIndex, config: SearchConfig, model: str, answered: Answered | None = None) -> Forecast:
    """The requests for written questions, then a bound for each part that the endpoint plays. Where a run was stopped,
    `answered` gives its answers: each question is followed along them, and bounded from there on."""
    longest = Longest.of(index)
    most: dict[Part, Bound] = {}
    open_questions = 0
    for number in range(config.questions):
        drawn = draw(config, number, index.languages)
        pages = pages_asked_about(index, config, drawn) if drawn.kind == "written" else []
        requests = [question_request(page, config, model) for page in pages]
        yield from ((QUESTIONS, request) for request in requests)
        parts = bounds(config, drawn, longest)
        if answered is not None and parts:
            question = _question(index, config, drawn, pages, list(map(answered, requests)))
            if isinstance(question, Refused):
                continue
            if question is not None:
                left = yield from followed(Loop(question, index, config, model), answered, parts)
                if left is None:
                    continue
                parts = left
        open_questions += 1
        for part, bound in parts.items():
            most[part] = most.get(part, NOTHING) + bound
    likely = played(index, config) if most else {}
    share = open_questions / config.questions
    for part, bound in most.items():
        yield part, AtMost(bound, likely.get(part, NOTHING).scaled(share).within(bound) if likely else None)


def _question(
    index: SearchIndex, config: SearchConfig, drawn: Draw, pages: Sequence[Page], outcomes: Sequence[Outcome | None]
) -> Question | Refused | None:
    """The question of one number, or why there is none; None where that is not known before more is answered."""
    if drawn.kind != "written":
        return question_of(index, config, drawn.number)
    known = [outcome for outcome in outcomes if outcome is not None]
    if len(known) < len(pages):
        return None
    return written_question(drawn, [fact_of(one, page, index) for one, page in zip(known, pages, strict=True)])


def followed(
    loop: Loop, answered: Answered, most: Mapping[Part, Bound]
) -> Generator[tuple[Part, Request], None, dict[Part, Bound] | None]:
    """Gives what one question asks along stored answers, and the first requests without one; returns what is left of
    the bounds behind them, None for a question that came to its end."""
    left = dict(most)
    coroutine = loop.run()
    try:
        requests = next(coroutine)
        while True:
            for request in requests:
                part = part_of(request)
                yield part, request
                left[part] = left[part].less(Bound(1, prompt_tokens(request.messages), completion_tokens(request)))
            outcomes = [outcome for request in requests if (outcome := answered(request)) is not None]
            if len(outcomes) < len(requests):
                return left
            requests = coroutine.send(outcomes)
    except StopIteration:
        return None


def part_of(request: Request) -> Part:
    """Who is asked: prompts are named after the parts."""
    return next(part for part in get_args(Part) if request.prompt.startswith(f"search.{part}@"))


def bounds(config: SearchConfig, drawn: Draw, longest: Longest) -> dict[Part, Bound]:
    """What one question asks at most of each part that is the endpoint's."""
    tokens, say, answer = _Counter(drawn.language), wording(drawn.language), config.max_tokens
    question, ask = _question_tokens(config, drawn, tokens)
    steps = opens = config.maximum_steps
    call = answer + WRAPPING_TOKENS
    if config.agent == "oracle":
        searches = MOST_QUERIES * drawn.hops
        opens = min(steps, searches * min(config.opens_per_search, config.results))
        steps = min(steps, searches + opens)
        call = ask + longest.entry + WRAPPING_TOKENS
    sentence = answer if config.summariser == "endpoint" else longest.page  # the answer in a result of `open`
    labels = tokens(len(say.summary_label) + len(say.answer_label) + len(say.no_answer) + len(say.unread))
    summary = min(longest.page, tokens(4 * config.summary_characters))
    opened = {"none": longest.page, "extractive": summary + sentence + labels, "endpoint": answer + labels}
    trouble = answer + tokens(TROUBLE_CHARACTERS + len(say.no_page) + len(say.bad_call))
    result = max(config.results * longest.entry, opened[config.summariser], trouble) + WRAPPING_TOKENS
    limit = config.compress_after_steps
    held = 2 * limit or steps  # steps between two compressions
    rules_record = question + opens * (sentence + longest.entry + WRAPPING_TOKENS)
    record = 0 if not limit else answer if config.compressor == "endpoint" else rules_record
    found: dict[Part, Bound] = {}
    if config.agent == "endpoint":
        head = _template_tokens("search.agent", drawn.language) + _template_tokens("search.calling", drawn.language)
        head += tokens(len(b"\n".join(map(orjson.dumps, TOOLS)))) + question + tokens(len(say.record)) + record
        full, rest = divmod(steps, held)
        kept = full * (held * (held - 1) // 2) + rest * (rest - 1) // 2  # steps in the contexts of all turns
        found["agent"] = Bound(steps, steps * head + kept * (call + result), steps * answer)
    if config.summariser == "endpoint":
        shown = _template_tokens("search.summariser", drawn.language) + longest.page + call
        found["summariser"] = Bound(opens, opens * shown, opens * answer)
    if config.compressor == "endpoint" and limit:
        times = min(steps, config.maximum_steps - 1) // limit
        shown = _template_tokens("search.compressor", drawn.language) + question + record
        shown += min(held, steps) * (call + result)
        found["compressor"] = Bound(times, times * shown, times * answer)
    return found


def _question_tokens(config: SearchConfig, drawn: Draw, tokens: _Counter) -> tuple[int, int]:
    """(tokens of a question, of the longest thing that the oracle asks or searches for it) at most."""
    say = wording(drawn.language)
    if drawn.kind == "chain":
        question = chain_question(config, drawn)
        asked = max(len(one) for fact in question.facts for one in (fact.ask, fact.query, fact.exact_query))
        return tokens(len(question.text)), tokens(asked)
    numbering = 8 * drawn.hops
    if drawn.kind == "gaps":
        _, longest = LENGTHS.get(drawn.language, OTHER_LENGTHS)
        steps = drawn.hops * (len(say.gap_step) + longest + 1)  # the gap's mark may be longer than its number
        return tokens(len(say.gaps) + steps + numbering), tokens(longest + 3)
    return tokens(len(say.written) + numbering) + drawn.hops * config.max_tokens, config.max_tokens


def _template_tokens(name: str, language: str) -> int:
    template = prompt(name, language)
    return _Counter(language)(len(template.system) + len(template.user))


def played(index: SearchIndex, config: SearchConfig) -> dict[Part, Bound]:
    """What the endpoint's parts come to when our scripts play them, of as many questions as the set has; nothing where
    a model writes all questions."""
    summariser = "extractive" if config.summariser == "endpoint" else config.summariser
    scripts = {"agent": "oracle", "summariser": summariser, "compressor": "rules"}
    scripted = config.model_copy(update=scripts)  # not validated: options of the parts that are not played stay
    drawn = (draw(config, number, index.languages) for number in range(config.questions))
    numbers = [one.number for one in islice((one for one in drawn if one.kind != "written"), PLAYED)]
    questions = [question_of(index, config, number) for number in numbers]
    loops = [Loop(one, index, scripted) for one in questions if isinstance(one, Question)]
    total: dict[Part, Bound] = {}
    for made in drive(loops, _nobody):
        for part, bound in _asked(made, config):
            total[part] = total.get(part, NOTHING) + bound
    return {part: bound.scaled(config.questions / len(numbers)) for part, bound in total.items()}


def _asked(made: Trajectory, config: SearchConfig) -> Iterator[tuple[Part, Bound]]:
    """What a model would have been asked along the way of one question."""
    tokens = _Counter(made.question.language)

    def size(messages: Sequence[Mapping[str, object]]) -> int:
        return tokens(sum(len(spoken(message)) for message in messages))

    for sample in made.samples:
        if sample.part != "agent" and getattr(config, sample.part) == "endpoint":
            yield sample.part, Bound(1, size(sample.messages[:-1]), size(sample.messages[-1:]))
        if sample.part == "agent" and config.agent == "endpoint":
            yield "agent", Bound(0, 0, size([one for one in sample.messages if one["role"] == "assistant"]))
    if config.agent == "endpoint":
        turns = made.measure.turns
        told = _template_tokens("search.calling", made.question.language) + tokens(len(orjson.dumps(TOOLS)))
        yield "agent", Bound(turns, made.measure.read_tokens + turns * told, 0)


def _nobody(requests: list[Request]) -> list[Outcome]:
    raise AssertionError(f"{len(requests)} requests of scripts")
