"""The loop: a question, an agent, its tools and sub-agents, from the first search to the answer.

Contract: `Loop.run` is a coroutine over requests: it yields what is to be asked of a model and is sent the outcomes, so
that any number of questions go on side by side; with the oracle, the extractive summariser and the rules it yields
nothing and is a pure function of (question, index, config). After `compress_after_steps` tool calls, once the last of
them has opened a page (or after twice as many), the history is replaced by one record and the loop goes on. Everything
said is kept: the agent's contexts and what its sub-agents were shown and gave, each with its own verdict; where the
question says which facts a page holds, a summary that misses one (`missed`) or answers without one (`invented`) is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from synth.cache import Request
from synth.client import Outcome
from synth.endpoint_set import Refused
from synth.language import facts as language_facts
from synth.prompts import prompt
from synth.subagents.agent import Asking, Context, Model, Oracle, Player, Turn
from synth.subagents.compressor import (
    EMPTY,
    Record,
    compression_messages,
    compression_request,
    grounded,
    record_of,
    rule_record,
)
from synth.subagents.config import Part, SearchConfig
from synth.subagents.environment import Call, Message, assistant, call_fault, rendered, search_result, tool_result
from synth.subagents.index import Page, SearchIndex
from synth.subagents.outcome import Sample, Trajectory, is_right, maker_of, spoken, thoughts_of
from synth.subagents.questions import Question
from synth.subagents.summariser import (
    Summary,
    extractive_summary,
    summary_fault,
    summary_messages,
    summary_of,
    summary_request,
)
from synth.subagents.wording import wording

MOST_BAD_CALLS = 3

CountTokens = Callable[[str], int]


class Loop:
    """One question on its way."""

    def __init__(
        self,
        question: Question,
        index: SearchIndex,
        config: SearchConfig,
        model: str = "",
        count_tokens: CountTokens | None = None,
    ) -> None:
        """`model` is the endpoint's; tokens are estimated from characters where no counter is given."""
        self.question = question
        self.index = index
        self.config = config
        self.model = model
        self.language = question.language
        density = language_facts(self.language).characters_per_token
        self.count = count_tokens or (lambda text: round(len(text) / density))
        system = prompt("search.agent", self.language).system
        self.context = Context(question, system, EMPTY, [])
        self.player: Player = Oracle(question, config) if config.agent == "oracle" else Model(question, config, model)
        self.made = Trajectory(question)
        self.pages: dict[str, Page] = {}  # seen in this context, by address
        self.sources: dict[str, Page] = {}  # every page seen, by address
        self.asked: list[tuple[Request, Outcome]] = []  # by the agent, in this context
        self.segments: list[Sample] = []
        self.steps_since = 0
        self.bad_calls = 0
        self._tokens = 0  # of the messages since the last compression
        self._plain_tokens = 0  # of all messages, with whole pages

    def run(self) -> Asking[Trajectory]:
        self.made.measure.questions = 1
        self.made.measure.facts = len(self.question.facts)
        failure: Refused | None = None
        while failure is None:
            self._measure_turn()
            turn = yield from self._turn()
            if isinstance(turn, Refused):
                failure = turn
            elif turn.call is None and not turn.trouble:
                self._say(assistant(turn.reasoning, turn.content))
                failure = self._answered(turn.content)
                break
            else:
                failure = yield from self._step(turn)
        self._close_segment()
        self.made.failure = failure
        self.made.measure.facts_kept = sum(self.context.told(fact) is not None for fact in self.question.facts)
        if failure is None:
            self.made.measure.right = 1
        self.made.samples += [replace(sample, refusal=failure) for sample in self.segments]
        return self.made

    def _turn(self) -> Asking[Turn | Refused]:
        """The player's turn, with what it asked noted."""
        coroutine = self.player.turn(self.context)
        try:
            requests = next(coroutine)
            while True:
                outcomes = yield requests
                self.asked += zip(requests, outcomes, strict=True)
                requests = coroutine.send(outcomes)
        except StopIteration as stop:
            return stop.value

    def _step(self, turn: Turn) -> Asking[Refused | None]:
        """A call and its result, and the compression when it is due."""
        trouble = turn.trouble or (call_fault(turn.call) if turn.call else "")
        if trouble:
            self.bad_calls += 1
            self._say(assistant(turn.reasoning, turn.content, turn.call))
            self._say(tool_result(wording(self.language).bad_call.format(trouble=trouble[:200])))
            if self.bad_calls > MOST_BAD_CALLS:
                return Refused("tool_call", trouble)
        assert turn.call is not None or trouble
        self.made.measure.steps += 1
        self.steps_since += 1
        if turn.call is not None and not trouble:
            self._say(assistant(turn.reasoning, turn.content, turn.call))
            yield from self._called(turn.call)
        if self.made.measure.steps >= self.config.maximum_steps:
            return Refused("steps", f"no answer after {self.config.maximum_steps} steps")
        if self._is_time_to_compress(turn.call if not trouble else None):
            return (yield from self._compress())
        return None

    def _is_time_to_compress(self, last: Call | None) -> bool:
        """After the steps, once a page was opened: a result list is looked at first. Twice as many are enough."""
        limit = self.config.compress_after_steps
        has_opened = last is not None and last.name == "open"
        return 0 < limit <= self.steps_since and (has_opened or self.steps_since >= 2 * limit)

    def _say(self, message: Message, plain: str | None = None) -> None:
        """Put a message into the context; `plain` is its content without sub-agents."""
        self.context.messages.append(message)
        tokens = self.count(spoken(message))
        self._tokens += tokens
        self._plain_tokens += tokens if plain is None else self.count(plain)

    def _measure_turn(self) -> None:
        measure = self.made.measure
        head = sum(self.count(spoken(one)) for one in self.context.head)
        bare = Context(self.question, self.context.system, EMPTY, []).head
        plain = sum(self.count(spoken(one)) for one in bare) + self._plain_tokens
        measure.turns += 1
        measure.peak_tokens = max(measure.peak_tokens, head + self._tokens)
        measure.peak_tokens_plain = max(measure.peak_tokens_plain, plain)
        measure.read_tokens += head + self._tokens
        measure.read_tokens_plain += plain

    def _called(self, call: Call) -> Asking[None]:
        if call.name == "search":
            query = str(call.arguments["query"])
            for page in self.index.search(query, self.config.results):
                self._see(page)
            self._say(tool_result(search_result(self.index, query, self.config.results, self.language)))
            return
        url, pattern = str(call.arguments["url"]), str(call.arguments["pattern"])
        page = self.index.open(url)
        if page is None:
            self._say(tool_result(wording(self.language).no_page.format(url=url)))
            return
        self._see(page)
        if self.config.summariser == "none":
            self._say(tool_result(page.text))
            return
        summary = yield from self._summary(page, pattern)
        result = summary.rendered(self.language) if summary else wording(self.language).unread
        self._say(tool_result(result), page.text)

    def _see(self, page: Page) -> None:
        self.pages[page.url] = self.sources[page.url] = page
        self.context.documents = tuple(sorted({one.document for one in self.pages.values()}))

    def _summary(self, page: Page, asked: str) -> Asking[Summary | None]:
        config = self.config
        requests: list[tuple[Request, Outcome]] = []
        if config.summariser == "endpoint":
            name = f"{page.document} {page.url}"
            request = summary_request(page.text, asked, self.language, config, self.model, name)
            (outcome,) = yield [request]
            requests = [(request, outcome)]
            made = summary_of(outcome, page.text, asked, self.language, config)
        else:
            made = extractive_summary(page.text, asked, config.summary_characters, self.index.weight)
        shown = summary_messages(page.text, asked, self.language, config.summary_characters)
        refusal = made if isinstance(made, Refused) else self._wrong_answer(page, asked, made)
        if not requests and isinstance(made, Summary):
            # Sentences of the page are used as they are; they make no good sample where they are in another language.
            refusal = refusal or summary_fault(made, page.text, asked, self.language, 4 * config.summary_characters)
        said = made.text if isinstance(made, Refused) else made.json
        self._sub_agent("summariser", config.summariser, shown, said, [page], requests, refusal)
        return None if isinstance(made, Refused) else made

    def _wrong_answer(self, page: Page, asked: str, made: Summary) -> Refused | None:
        """Whether the answer is not what the page says, where the question tells what it says."""
        fact = next((one for one in self.question.facts if one.ask == asked), None)
        if fact is None:
            return None
        is_told = made.answer is not None and fact.told(made.answer)
        is_there = " ".join(fact.sentence.split()) in " ".join(page.text.split())
        if is_there and not is_told:
            return Refused("missed", f"the page says: {fact.sentence}", made.json)
        if not is_there and made.answer is not None and not is_told:
            return Refused("invented", f"the page does not say: {asked}", made.json)
        return None

    def _compress(self) -> Asking[Refused | None]:
        config, context = self.config, self.context
        history = rendered(context.messages)
        requests: list[tuple[Request, Outcome]] = []
        if config.compressor == "endpoint":
            about = " ".join([self.question.key, *context.documents])
            request = compression_request(
                self.question.text, history, context.record, self.language, config, self.model, about
            )
            (outcome,) = yield [request]
            requests = [(request, outcome)]
            made = record_of(outcome)
        else:
            made = rule_record(self.question.text, context.messages, context.record, self.language, self.index.weight)
        shown = compression_messages(self.question.text, history, context.record, self.language)
        pages = list(self.pages.values())
        if isinstance(made, Refused):
            failure = Refused(f"record_{made.check}", made.detail, made.text)
            self._sub_agent("compressor", config.compressor, shown, made.text, pages, requests, failure)
            return failure
        record, faulty = grounded(made, context.messages, context.record)
        for _, fault in faulty:
            name = f"dropped_{fault}"
            setattr(self.made.measure, name, getattr(self.made.measure, name) + 1)
        refusal = self._bad_record(record, faulty)
        self._sub_agent("compressor", config.compressor, shown, made.json, pages, requests, refusal)
        self._close_segment()
        self.context.record, self.context.messages = record, []
        self.made.measure.compressions += 1
        self.steps_since, self._tokens = 0, 0
        self.pages = {}
        self.context.documents = ()
        for one in record.key_facts:
            if one.source_url in self.sources:
                self._see(self.sources[one.source_url])
        return None

    def _bad_record(self, record: Record, faulty: Sequence[Any]) -> Refused | None:
        """Why the Compressor's sample must go; the loop goes on with the facts that hold."""
        if faulty:
            fact, fault = faulty[0]
            return Refused(f"fact_{fault}", f"{fact.fact} ({fact.source_url})", record.json)
        after = Context(self.question, self.context.system, record, [])
        lost = [fact for fact in self.question.facts if self.context.told(fact) and not after.told(fact)]
        if lost:
            return Refused("fact_lost", lost[0].sentence, record.json)
        if self.config.compressor == "rules":  # a model words its questions itself
            right = [fact.step for fact in self.question.facts if not after.told(fact)]
            if list(record.open_questions) != right:
                return Refused("open_questions", f"{len(right)} steps are open", record.json)
        return None

    def _sub_agent(
        self,
        part: Part,
        played_by: str,
        shown: Sequence[Message],
        said: str,
        pages: Sequence[Page],
        requests: Sequence[tuple[Request, Outcome]],
        refusal: Refused | None,
    ) -> None:
        self.made.measure.subagent_tokens += sum(self.count(spoken(one)) for one in shown) + self.count(said)
        messages = [*shown, assistant(thoughts_of(requests), said)]
        template = prompt(f"search.{part}", self.language)
        maker = maker_of(played_by, requests)
        self.made.samples.append(
            Sample(part, messages, pages, maker, requests, refusal, template.identity, template.hash)
        )

    def _close_segment(self) -> None:
        """The agent's context as it was, as one sample."""
        template = prompt("search.agent", self.language)
        messages = [*self.context.head, *self.context.messages]
        maker = maker_of(self.config.agent, self.asked)
        self.segments.append(
            Sample(
                "agent", messages, list(self.pages.values()), maker, self.asked, None, template.identity, template.hash
            )
        )
        self.asked = []

    def _answered(self, content: str) -> Refused | None:
        """Whether the answer is right."""
        _, found, answer = content.rpartition(wording(self.language).answer_line)
        self.made.answer = answer.strip()
        if not found:
            return Refused("wrong_answer", f"no line `{wording(self.language).answer_line} …`", content)
        if not is_right(self.made.answer, self.question.values):
            return Refused("wrong_answer", f"{self.made.answer}; right: {self.question.answer}", content)
        return None


def drive(loops: Sequence[Loop], answer: Callable[[list[Request]], list[Outcome]]) -> list[Trajectory]:
    """Run all loops to their end, a round of requests of all of them at a time."""
    coroutines = [loop.run() for loop in loops]
    done: list[Trajectory | None] = [None] * len(loops)
    sent: list[list[Outcome] | None] = [None] * len(loops)
    while True:
        waiting: dict[int, list[Request]] = {}
        for number, coroutine in enumerate(coroutines):
            if done[number] is None:
                try:
                    outcomes = sent[number]
                    waiting[number] = next(coroutine) if outcomes is None else coroutine.send(outcomes)
                except StopIteration as stop:
                    done[number] = stop.value
        if not waiting:
            return [one for one in done if one is not None]
        outcomes = iter(answer([request for requests in waiting.values() for request in requests]))
        for number, requests in waiting.items():
            sent[number] = [next(outcomes) for _ in requests]
