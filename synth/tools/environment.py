"""A tool environment: state, typed tools, and what a solution must reach. What a rollout talks to.

Contract: the state is a JSON object of tables (key → record). `applied` is a pure function of (state, call): a call
that fails leaves the state as it was and gives `{"error": {"code", "message"}}`. `Environment.reset` starts anew,
`call` runs one tool, `passes` judges what was done and said:

  state    the end state is, by hash, that of a fresh environment after the reference actions
  fact     the answer says every required fact
  never    no forbidden call has succeeded
  order    no call has succeeded before one that must come first

All must hold, and a scenario whose reference changes nothing and says nothing passes for nobody. The form follows
tau2-bench's tasks (database hash and facts to communicate). Cost: about 0.1 ms a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from unicodedata import normalize

import orjson
import xxhash
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from pipeline.core.errors import nearest

State = dict[str, dict[str, dict[str, Any]]]
SPACE = re.compile(r"\s+")
GROUPED = re.compile(r"(?<!\d)\d{1,3}(?:[.,'’ \u00a0\u202f]\d{3})+(?!\d)")  # 12,000 or 12.000
SEPARATOR = re.compile(r"\D")


class ToolError(Exception):
    """A call that a tool refuses, as its caller sees it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def result(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}}


@dataclass(frozen=True)
class Tool:
    """One tool: a JSON Schema of its arguments and what it does with a state of its own."""

    name: str
    description: str
    parameters: Mapping[str, Mapping[str, Any]]  # argument → JSON Schema; all are required
    run: Callable[..., Any]  # (state, **arguments) → JSON result; may change the state; raises `ToolError`

    @cached_property
    def schema(self) -> dict[str, Any]:
        properties = {name: dict(one) for name, one in self.parameters.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    @cached_property
    def validator(self) -> Draft202012Validator:
        return Draft202012Validator(self.schema)

    @cached_property
    def schema_fault(self) -> str:
        """Why the arguments' schema is no JSON Schema, or an empty text."""
        try:
            Draft202012Validator.check_schema(self.schema)
        except SchemaError as error:
            return error.message
        return ""

    def declaration(self) -> dict[str, Any]:
        """As servers of the chat completions protocol take it."""
        told = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": told}


@dataclass(frozen=True)
class Call:
    """One use of a tool."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Forbidden:
    """A call that the policy forbids: one that could be made, and which of its arguments matter."""

    call: Call
    matters: tuple[str, ...] = ()  # none: the tool must not be used at all

    def fits(self, other: Call) -> bool:
        """Whether the other call is forbidden by this."""
        own = self.call
        return own.name == other.name and all(own.arguments[key] == other.arguments.get(key) for key in self.matters)


@dataclass(frozen=True)
class Order:
    """One tool must succeed before others."""

    first: str
    then: tuple[str, ...]


@dataclass(frozen=True)
class Criteria:
    """What a solution must reach besides the reference's end state."""

    facts: tuple[str, ...] = ()  # that the answer must say
    never: tuple[Forbidden, ...] = ()
    order: tuple[Order, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a call came to."""

    state: State
    result: Any
    failed: bool


@dataclass(frozen=True)
class Verdict:
    """Whether a solution passes, and what it lacks."""

    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.failures


def copied(state: Mapping[str, Any]) -> State:
    return orjson.loads(orjson.dumps(state))


def state_hash(state: Mapping[str, Any]) -> str:
    """32 hex digits, whatever the order of keys."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps(state, option=orjson.OPT_SORT_KEYS))


def applied(tools: Mapping[str, Tool], state: State, call: Call) -> Outcome:
    """The call on a copy of the state."""
    tool = tools.get(call.name)
    own = copied(state)
    try:
        if tool is None:
            close = nearest(call.name, tools)
            hint = f"did you mean `{close}`?" if close else f"there are: {', '.join(tools)}"
            raise ToolError("unknown_tool", f"no tool `{call.name}`; {hint}")
        errors = sorted(tool.validator.iter_errors(dict(call.arguments)), key=lambda one: list(map(str, one.path)))
        if errors:
            place = "/".join(map(str, errors[0].path)) or call.name
            raise ToolError("invalid_arguments", f"{place}: {errors[0].message}")
        return Outcome(own, tool.run(own, **call.arguments), False)
    except ToolError as error:
        return Outcome(state, error.result(), True)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a state that does not hold together
        return Outcome(state, ToolError("internal", f"{call.name} failed: {type(error).__name__}").result(), True)


def replayed(tools: Mapping[str, Tool], state: State, calls: Iterable[Call]) -> tuple[State, list[Outcome]]:
    """The state after the calls, and what each came to."""
    outcomes: list[Outcome] = []
    for call in calls:
        outcomes.append(applied(tools, state, call))
        state = outcomes[-1].state
    return state, outcomes


def _plain(text: str) -> str:
    return SPACE.sub(" ", normalize("NFKC", text)).casefold()


def mentions(text: str, fact: str) -> bool:
    """Whether the text says the fact: as a whole word or number, digits grouped in thousands or not."""
    wanted = re.compile(rf"(?<![a-z0-9]){re.escape(_plain(fact))}(?![a-z0-9])")
    said = _plain(text)
    return bool(wanted.search(said) or wanted.search(GROUPED.sub(lambda match: SEPARATOR.sub("", match[0]), said)))


def broken(criteria: Criteria, log: Sequence[tuple[Call, bool]]) -> list[str]:
    """What calls (with whether they failed) break of the policy."""
    failures: list[str] = []
    done: set[str] = set()
    for call, failed in log:
        if failed:
            continue
        if any(one.fits(call) for one in criteria.never):
            failures.append(f"never: {call.name} {orjson.dumps(dict(call.arguments)).decode()}")
        early = [one.first for one in criteria.order if call.name in one.then and one.first not in done]
        failures += [f"order: {call.name} before {first}" for first in early]
        done.add(call.name)
    return failures


@dataclass
class Environment:
    """One episode after another of the same scenario.

    Attributes:
        tools: Name → tool.
        start: The state every episode starts from; never changed.
        reference: The calls of a right solution.
        criteria: What else a solution must reach.
    """

    tools: Mapping[str, Tool]
    start: State
    reference: Sequence[Call]
    criteria: Criteria
    state: State = field(init=False)
    log: list[tuple[Call, bool]] = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    @cached_property
    def end_hash(self) -> str:
        """Of a fresh state after the reference calls."""
        return state_hash(replayed(self.tools, copied(self.start), self.reference)[0])

    def reset(self) -> str:
        """Start anew; the hash of the state."""
        self.state, self.log = copied(self.start), []
        return state_hash(self.state)

    def call(self, name: str, arguments: Mapping[str, Any] | str) -> Any:
        """Run a tool; its result, or an object with `error`. Arguments may be JSON text, as a model writes them."""
        try:
            given = orjson.loads(arguments) if isinstance(arguments, str) else dict(arguments)
        except orjson.JSONDecodeError as error:
            return ToolError("invalid_arguments", f"the arguments are no JSON: {error}").result()
        if not isinstance(given, dict):
            return ToolError("invalid_arguments", "the arguments are no JSON object").result()
        call = Call(name, given)
        outcome = applied(self.tools, self.state, call)
        self.state = outcome.state
        self.log.append((call, outcome.failed))
        return outcome.result

    def passes(self, answer: str) -> Verdict:
        """Judge what was done since `reset` and what is said at the end."""
        return self.judged(self.state, self.log, answer)

    def judged(self, state: State, log: Sequence[tuple[Call, bool]], answer: str) -> Verdict:
        """The verdict on a state, the calls that led to it, and an answer."""
        failures: list[str] = []
        if self.end_hash == state_hash(self.start) and not self.criteria.facts:
            failures.append("no_criteria: the reference changes nothing and nothing need be said")
        if state_hash(state) != self.end_hash:
            failures.append("state: it is not the one after the reference actions")
        failures += [f"fact: {fact}" for fact in self.criteria.facts if not mentions(answer, fact)]
        return Verdict((*failures, *broken(self.criteria, log)))
