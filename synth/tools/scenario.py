"""A scenario: everything an environment is made of, as one JSON object that is stored and played again.

Contract: `to_json` and `from_json` are inverse. Tools are named by domain and version, since they are code: a scenario
of another version of its domain is refused, because its end state may differ. The reference is a list of turns, each
with the calls that are made at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from pipeline.core.errors import InputError, unknown_name
from synth.tools.domain import Domain
from synth.tools.domains import DOMAINS
from synth.tools.environment import Call, Criteria, Environment, Forbidden, Order, State

SCENARIO_VERSION = 1


@dataclass(frozen=True)
class Turn:
    """What the assistant does at once, and why."""

    thought: str
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Scenario:
    """One task in one state."""

    domain: str  # name@version
    template: str  # the domain's scene, or `written` by a model
    language: str
    policy: str  # the system message
    task: str  # what the user writes
    state: State
    turns: tuple[Turn, ...]
    closing: str  # the thought before the answer
    reply: str  # the reference answer
    criteria: Criteria

    @property
    def calls(self) -> list[Call]:
        """The reference calls in order."""
        return [call for turn in self.turns for call in turn.calls]

    def tools(self) -> Domain:
        """The domain whose tools the scenario uses. Raises `InputError` where it is unknown or of another version."""
        name, _, version = self.domain.partition("@")
        if name not in DOMAINS:
            raise unknown_name("domain", name, DOMAINS, where="scenario")
        domain = DOMAINS[name]
        if version != str(domain.version):
            what = f"made with `{self.domain}`, the tools are `{domain.identity}`"
            raise InputError(what, where="scenario", fix="make the set again")
        return domain

    def environment(self) -> Environment:
        """An environment at its start."""
        return Environment(self.tools().tools, self.state, self.calls, self.criteria)

    def opening(self) -> list[dict[str, str]]:
        """The messages that an assistant starts from."""
        return [{"role": "system", "content": self.policy}, {"role": "user", "content": self.task}]

    def declarations(self) -> list[dict[str, Any]]:
        """What the assistant is told of its tools."""
        return [tool.declaration() for tool in self.tools().tools.values()]

    def to_json(self) -> str:
        """One JSON object; keys in the order of the fields."""
        return orjson.dumps({"version": SCENARIO_VERSION, **asdict(self)}).decode()

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        """Raises `InputError` for another version of this form."""
        value = orjson.loads(text)
        version = value.pop("version", None)
        if version != SCENARIO_VERSION:
            raise InputError(f"scenario version {version}, {SCENARIO_VERSION} is known", where="scenario")
        criteria = value.pop("criteria")
        turns = [Turn(turn["thought"], calls_of(turn["calls"])) for turn in value.pop("turns")]
        never = tuple(Forbidden(Call(**one["call"]), tuple(one["matters"])) for one in criteria.pop("never"))
        order = tuple(Order(one["first"], tuple(one["then"])) for one in criteria.pop("order"))
        return cls(**value, turns=tuple(turns), criteria=Criteria(tuple(criteria.pop("facts")), never, order))


def calls_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Call, ...]:
    """Calls from their JSON form."""
    return tuple(Call(row["name"], row["arguments"]) for row in rows)
