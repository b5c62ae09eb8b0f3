"""Which environments stay: each is played, left alone, and disturbed in every way we know of.

Contract: `judged` gives nothing, or the first reason in this order:

  schema_invalid     a tool's schema, the state or a reference call does not fit
  reference_fails    the reference actions with the reference answer do not pass
  ungrounded         a call uses a text, or the answer must say a fact, that no one has said and no tool returned before
  reset_inexact      two plays differ, or a reset does not give the start back
  noop_passes        doing nothing passes, whatever is said, or all actions pass without the facts
  perturbed_passes   a state-changing call left out, with another argument or another record, still passes
  violation_passes   a forbidden call, or guarded ones before the one that must come first, still pass
  leaked             the task says a fact that has to be found out
  language           task, answer or thoughts are in another language
  duplicate          (by the caller) the same task on the same state stands earlier in the shard

Cost: 5 ms a scenario, half of it the state's JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from synth.language import detect
from synth.tools.domain import DAY, STAMP
from synth.tools.environment import (
    Call,
    Environment,
    Outcome,
    State,
    Tool,
    applied,
    copied,
    mentions,
    replayed,
    state_hash,
)
from synth.tools.scenario import Scenario

OTHERS_TRIED = 3  # values from the same column put in place of an argument's
CHECKS = (
    "schema_invalid", "reference_fails", "ungrounded", "reset_inexact", "noop_passes", "perturbed_passes",
    "violation_passes", "leaked", "language",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Why an environment does not stay."""

    check: str
    detail: str


def judged(scenario: Scenario) -> Fault | None:
    """The first fault of the scenario, or nothing."""
    environment = scenario.environment()
    for check, finder in (
        ("schema_invalid", _misfit),
        ("reference_fails", _failing),
        ("ungrounded", _ungrounded),
        ("reset_inexact", _inexact),
        ("noop_passes", _idle),
        ("perturbed_passes", _indifferent),
        ("violation_passes", _unguarded),
        ("leaked", _leaking),
        ("language", _foreign),
    ):
        detail = finder(scenario, environment)
        if detail:
            return Fault(check, detail)
    return None


def _misfit(scenario: Scenario, environment: Environment) -> str:
    for tool in environment.tools.values():
        if tool.schema_fault:
            return f"{tool.name}: {tool.schema_fault}"
    for error in scenario.tools().state_validator.iter_errors(scenario.state):
        return f"state {'/'.join(map(str, error.path))}: {error.message[:200]}"
    for call in environment.reference:
        tool = environment.tools.get(call.name)
        if tool is None:
            return f"no tool `{call.name}`"
        for error in tool.validator.iter_errors(dict(call.arguments)):
            return f"{call.name}: {error.message[:200]}"
    return ""


def _played(environment: Environment) -> list[Any]:
    return [environment.call(call.name, call.arguments) for call in environment.reference]


def _failing(scenario: Scenario, environment: Environment) -> str:
    environment.reset()
    _played(environment)
    return "; ".join(environment.passes(scenario.reply).failures)


def _ungrounded(scenario: Scenario, environment: Environment) -> str:
    """Free texts, and all that confirms who is asking: choices, numbers and times may be worked out elsewhere."""
    environment.reset()
    known = [scenario.task, scenario.policy]
    confirming = {order.first for order in scenario.criteria.order}
    for turn in scenario.turns:
        for call in turn.calls:
            parameters = environment.tools[call.name].parameters
            texts = [text for name, value in call.arguments.items() for text in _free_texts(parameters[name], value)]
            for text in _texts(dict(call.arguments)) if call.name in confirming else texts:
                if not mentions("\n".join(known), text):
                    return f"{_shown(call)}: `{text}` comes from nowhere"
        for call in turn.calls:
            known += [*_texts(dict(call.arguments)), *_texts(environment.call(call.name, call.arguments))]
    said = "\n".join(known)
    return next(
        (f"the fact `{fact}` comes from nowhere" for fact in scenario.criteria.facts if not mentions(said, fact)), ""
    )


def _free_texts(schema: Mapping[str, Any], value: Any) -> list[str]:
    if isinstance(value, list):
        parts: list[Any] = value
        return [text for part in parts for text in _free_texts(schema.get("items", {}), part)]
    return [value] if isinstance(value, str) and not {"enum", "pattern"} & set(schema) else []


def _texts(value: Any) -> list[str]:
    """Every text and number of a JSON value."""
    if isinstance(value, Mapping):
        return [text for child in value.values() for text in _texts(child)]
    if isinstance(value, list):
        parts: list[Any] = value
        return [text for child in parts for text in _texts(child)]
    return [str(value)]


def _inexact(scenario: Scenario, environment: Environment) -> str:
    plays: list[tuple[str, list[Any], str]] = []
    for _ in range(2):
        start = environment.reset()
        results = _played(environment)
        plays.append((start, results, state_hash(environment.state)))
    if plays[0] != plays[1]:
        return "two plays of the reference differ"
    return "" if environment.reset() == state_hash(scenario.state) else "a reset does not give the start back"


def _idle(scenario: Scenario, environment: Environment) -> str:
    environment.reset()
    for answer in ("", scenario.reply):
        if environment.passes(answer).passed:
            return f"no call, and the answer `{answer[:60]}`"
    if scenario.criteria.facts:
        _played(environment)
        if environment.passes("").passed:
            return "all calls, and an empty answer"
    return ""


def _indifferent(scenario: Scenario, environment: Environment) -> str:
    """Only calls that change the state count: who knows without looking has done nothing wrong."""
    steps = changing(environment.tools, scenario.state, environment.reference)
    for place, (before, call) in enumerate(steps):
        rest = [one for _, one in steps[place + 1 :]]
        done = [(one, False) for _, one in steps[:place]]
        for other in (None, *other_calls(environment.tools[call.name], before, call)):
            tried = [*([other] if other else []), *rest]
            state, outcomes = replayed(environment.tools, before, tried)
            if environment.judged(state, [*done, *_log(tried, outcomes)], scenario.reply).passed:
                return f"{_shown(call)} instead: {_shown(other) if other else 'left out'}"
    return ""


def changing(tools: Mapping[str, Tool], state: State, calls: Sequence[Call]) -> list[tuple[State, Call]]:
    """The calls that change the state, each with the state before it."""
    found: list[tuple[State, Call]] = []
    for call in calls:
        after = applied(tools, state, call).state
        if state_hash(after) != state_hash(state):
            found.append((state, call))
        state = after
    return found


def _log(calls: Sequence[Call], outcomes: Sequence[Outcome]) -> list[tuple[Call, bool]]:
    return [(call, outcome.failed) for call, outcome in zip(calls, outcomes, strict=True)]


def other_calls(tool: Tool, state: State, call: Call) -> Iterator[Call]:
    """The call with one argument changed at a time."""
    for name, value in call.arguments.items():
        for other in other_values(tool.parameters.get(name, {}), state, value):
            yield Call(call.name, {**call.arguments, name: other})


def other_values(schema: Mapping[str, Any], state: State, value: Any) -> list[Any]:
    """Values of the same kind: other choices, neighbours of numbers and times, other records and their fields."""
    if "enum" in schema:
        return [one for one in schema["enum"] if one != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, value * 2 + 10]
    if isinstance(value, list):
        parts: list[Any] = value
        swapped = [
            [*parts[:place], other, *parts[place + 1 :]]
            for place, part in enumerate(parts)
            for other in other_values(schema.get("items", {}), state, part)[:1]
        ]
        return [*([parts[:-1]] if len(parts) > 1 else []), *swapped]
    for form, step in ((DAY, timedelta(days=1)), (STAMP, timedelta(minutes=30))):
        try:
            return [(datetime.strptime(value, form) + step).strftime(form)]
        except ValueError:
            continue
    return [*_neighbours(state, str(value)), f"{value}0"]


def _neighbours(state: State, value: str) -> list[str]:
    """Other keys of the table that has this key, and other values of the column that has this value."""
    found: list[str] = []
    for records in state.values():
        if value in records:
            found += [key for key in records if key != value][:OTHERS_TRIED]
        for column in sorted({name for one in records.values() for name, held in one.items() if held == value}):
            others = {one[column] for one in records.values() if isinstance(one.get(column), str)}
            found += sorted(others - {value})[:OTHERS_TRIED]
    return list(dict.fromkeys(found))


def _unguarded(scenario: Scenario, environment: Environment) -> str:
    """Forbidden calls are really made, as late in the reference as they succeed, and in place of its last call."""
    criteria, reference = scenario.criteria, list(environment.reference)
    tries: list[list[Call]] = []
    for one in criteria.never:
        place = _latest(environment, one.call)
        if place < 0:
            return f"never possible: {_shown(one.call)}"
        tries += [[*reference[:place], one.call, *reference[place:]], [*reference[:-1], one.call]]
    for order in criteria.order:
        if {order.first, *order.then} & {call.name for call in reference} > {order.first}:
            tries.append([*_without(reference, order.first), *_only(reference, order.first)])
    for calls in tries:
        state, outcomes = replayed(environment.tools, copied(scenario.state), calls)
        if environment.judged(state, _log(calls, outcomes), scenario.reply).passed:
            return ", ".join(map(_shown, calls))
    return ""


def _only(calls: Sequence[Call], name: str) -> list[Call]:
    return [call for call in calls if call.name == name]


def _without(calls: Sequence[Call], name: str) -> list[Call]:
    return [call for call in calls if call.name != name]


def _latest(environment: Environment, call: Call) -> int:
    """After how many calls of the reference the call last succeeds; -1: never."""
    states = [copied(environment.start)]
    for one in environment.reference:
        states.append(applied(environment.tools, states[-1], one).state)
    for place in range(len(states) - 1, -1, -1):
        if not applied(environment.tools, states[place], call).failed:
            return place
    return -1


def _leaking(scenario: Scenario, environment: Environment) -> str:
    return next((fact for fact in environment.criteria.facts if mentions(scenario.task, fact)), "")


def _foreign(scenario: Scenario, environment: Environment) -> str:
    del environment
    thoughts = "\n".join([*(turn.thought for turn in scenario.turns), scenario.closing])
    for name, text in (("task", scenario.task), ("answer", scenario.reply), ("thoughts", thoughts)):
        found = detect(text)
        if found not in ("", scenario.language):
            return f"{name} in `{found}`, not in `{scenario.language}`"
    return ""


def _shown(call: Call) -> str:
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"
