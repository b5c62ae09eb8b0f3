"""The main agent: one turn at a time, from what it can see; played by a script that knows what to look for, or a model.

Contract: a player's `turn` sees the context alone and gives a `Turn` or a `Refused`; where it needs a model, it yields
requests and is sent their outcomes. The oracle knows the question's steps, how to search for them, and, when a result
shows a value, that it is the right one; names and values it takes from what the tools said, so that its transcripts can
be learnt from: what a compression loses it does not know any more (`lost_fact`). The model's calls are read from
`<tool_call>` in its text, which any server gives; a call that is no JSON is told back to it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import orjson

from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.endpoint_set import Refused
from synth.prompts import prompt
from synth.subagents.compressor import EMPTY, KeyFact, Record
from synth.subagents.config import SearchConfig
from synth.subagents.environment import TOOLS, Call, Message, calls_with_results, listed_addresses
from synth.subagents.questions import Fact, Question
from synth.subagents.summariser import answer_in
from synth.subagents.terms import sentences
from synth.subagents.wording import wording

T = TypeVar("T")
Asking = Generator[list[Request], list[Outcome], T]  # yields requests, is sent their outcomes, gives a T
CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.S)
MOST_QUERIES = 2  # the oracle's for one fact


@dataclass(frozen=True)
class Turn:
    """What the agent says: a call, a call that is none (`trouble`), or the answer."""

    reasoning: str
    content: str
    call: Call | None = None
    trouble: str = ""


@dataclass
class Context:
    """What the agent sees."""

    question: Question
    system: str
    record: Record
    messages: list[Message]  # since the last compression
    documents: tuple[
        str, ...
    ] = ()  # ids of those whose text is in it: for the record of what was asked, not to be seen

    @property
    def head(self) -> list[Message]:
        """The first messages: instructions, then the question with the record so far."""
        text = self.question.text
        if self.record is not EMPTY:
            text += f"\n\n{wording(self.question.language).record}\n{self.record.json}"
        return [{"role": "system", "content": self.system}, {"role": "user", "content": text}]

    def told(self, fact: Fact) -> KeyFact | None:
        """Where the context gives a fact: in the record or in a result of `open`."""
        for one in self.record.key_facts:
            if fact.told(one.fact):
                return one
        say = wording(self.question.language)
        for call, result in calls_with_results(self.messages):
            if call.name != "open":
                continue
            url = str(call.arguments.get("url", ""))
            if say.answer_label in result:
                answer = answer_in(result, self.question.language)
                if answer and fact.told(answer):
                    return KeyFact(answer, url)
            else:
                for sentence in sentences(result):
                    if (not fact.subject or fact.subject in sentence) and fact.told(sentence):
                        return KeyFact(sentence, url)
        return None

    def shows(self, words: str) -> bool:
        texts = [str(one.get("content") or "") for one in (*self.head, *self.messages)]
        return any(words in text for text in texts)


class Player(Protocol):
    """Who plays the main agent."""

    def turn(self, context: Context) -> Asking[Turn | Refused]: ...


class Oracle:
    """The scripted agent."""

    def __init__(self, question: Question, config: SearchConfig) -> None:
        self.question = question
        self.config = config
        self.say = wording(question.language)
        self.step = 0
        self.queries = 0  # made for this step
        self.candidates: list[tuple[int, str]] = []  # (rank in the result list, address), not yet opened
        self.opened: set[str] = set()  # in this context

    def turn(self, context: Context) -> Asking[Turn | Refused]:
        yield from ()  # nothing is asked of a model
        thoughts = self._noticed(context)
        facts = self.question.facts
        while self.step < len(facts) and context.told(facts[self.step]):
            value = facts[self.step].value
            thoughts = [one for one in thoughts if one != self.say.thoughts.missed]
            thoughts.append(self.say.thoughts.found.format(number=self.step + 1, value=value))
            self.step, self.queries, self.candidates = self.step + 1, 0, []
        if self.step == len(facts):
            return self._answer(context, thoughts)
        fact = facts[self.step]
        if fact.subject and not context.shows(fact.subject):
            return Refused("lost_fact", f"step {self.step + 1} needs `{fact.subject}`")
        if self.candidates:
            rank, url = self.candidates.pop(0)
            self.opened.add(url)
            thoughts.append(self.say.thoughts.open.format(rank=rank))
            return Turn(" ".join(thoughts), "", Call("open", {"url": url, "pattern": fact.ask}))
        if self.queries == MOST_QUERIES:
            return Refused("not_found", f"step {self.step + 1}: {fact.ask}")
        query = fact.exact_query if self.queries else fact.query
        thoughts.append(self._search_thought(fact, is_second=self.queries > 0 and bool(context.messages)))
        self.queries += 1
        return Turn(" ".join(thoughts), "", Call("search", {"query": query}))

    def _noticed(self, context: Context) -> list[str]:
        """What the last result says to the oracle; after a compression nothing but the record is left."""
        if not context.messages:
            self.candidates, self.opened = [], set()
            return []
        *_, (call, result) = calls_with_results(context.messages)
        if call.name == "open":
            return [self.say.thoughts.missed]
        fresh = [(rank, url) for rank, url in enumerate(listed_addresses(result), 1) if url not in self.opened]
        self.candidates = fresh[: self.config.opens_per_search]
        return []

    def _search_thought(self, fact: Fact, *, is_second: bool) -> str:
        number = self.step + 1
        if is_second:
            return self.say.thoughts.again
        if not fact.subject:
            return self.say.thoughts.gap_search.format(number=number)
        return self.say.thoughts.search.format(number=number, step=fact.step, entity=fact.subject)

    def _answer(self, context: Context, thoughts: list[str]) -> Turn | Refused:
        found = [context.told(fact) for fact in self.question.facts]
        lost = [number for number, one in enumerate(found, start=1) if one is None]
        if lost:
            return Refused("lost_fact", f"the context does not give step {lost[0]} any more")
        values = ", ".join(fact.value for fact in self.question.facts)
        lines = [f"{number}. {one.fact} ({one.source_url})" for number, one in enumerate(found, start=1) if one]
        content = "\n".join([*lines, "", f"{self.say.answer_line} {self.question.answer}"])
        return Turn(" ".join([*thoughts, self.say.thoughts.finish.format(values=values)]), content)


class Model:
    """An agent played by the set's endpoint."""

    def __init__(self, question: Question, config: SearchConfig, model: str) -> None:
        self.question = question
        self.config = config
        self.model = model

    def turn(self, context: Context) -> Asking[Turn | Refused]:
        (outcome,) = yield [self._request(context)]
        if isinstance(outcome, ContentError):
            return Refused("no_answer", str(outcome))
        if outcome.finish_reason != "stop":
            return Refused("finish", f"finish_reason `{outcome.finish_reason}`", outcome.content)
        return read_turn(outcome.reasoning, outcome.content)

    def _request(self, context: Context) -> Request:
        template = prompt("search.agent", self.question.language)
        told = prompt("search.calling", self.question.language)
        tools = "\n".join(orjson.dumps(tool).decode() for tool in TOOLS)
        system, question = context.head
        first = {"role": "system", "content": f"{system['content']}\n\n{told.messages(tools=tools)[1]['content']}"}
        messages = (first, question, *map(_plain, context.messages))
        parameters = {
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
            "max_tokens": self.config.max_tokens,
        }
        identity = f"{template.identity}+{told.identity}"
        return Request(self.model, messages, parameters, identity, 0, _name(context), template.hash)


def _name(context: Context) -> str:
    """What a request is about: the question, and the documents that it quotes."""
    return " ".join([context.question.key, *context.documents])


def read_turn(reasoning: str, content: str) -> Turn:
    """What a model's text comes to."""
    match = CALL.search(content)
    if match is None:
        return Turn(reasoning, content)
    before = content[: match.start()].strip()
    try:
        value = orjson.loads(match[1])  # refuses what could not be written again: half of a surrogate pair, NaN
        call = Call(str(value["name"]), dict(value["arguments"]))
    except (KeyError, TypeError, ValueError) as error:
        return Turn(reasoning, content, trouble=f"{type(error).__name__}: {error}")
    return Turn(reasoning, before, call)


def _plain(message: Message) -> dict[str, str]:
    """A message as any server takes it: calls and results as text."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_result>{message['content']}</tool_result>"}
    content = str(message.get("content") or "")
    calls: Sequence[Message] = message.get("tool_calls") or ()
    for call in calls:
        written = f'{{"name": "{call["name"]}", "arguments": {call["arguments"]}}}'
        content += f"{chr(10) if content else ''}<tool_call>{written}</tool_call>"
    return {"role": str(message["role"]), "content": content}
