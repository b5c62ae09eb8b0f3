"""What a domain is made of: tables, tools, rules of its policy, and scenes that draw a state with a task.

Contract: tools and scenes are pure functions; a scene draws from the given dice alone. Words stand in
`texts/LANGUAGE.yaml`: role, numbered rules (with places for the domain's settings), and for each scene the task's
wordings, the decisive thought and the reply. `decline_request` is a tool of every domain: a request that a rule forbids
is declined by recording the rule, so that doing nothing never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, cached_property
from random import Random
from typing import Any

import xxhash
from jsonschema import Draft202012Validator

from synth.language import read_package_yaml
from synth.tools.environment import Call, Forbidden, Order, State, Tool, ToolError

SESSION, CURRENT = "session", "current"
FIRST_DAY = datetime(2031, 1, 6)  # a Monday
FRIDAY = 4
DAY, STAMP = "%Y-%m-%d", "%Y-%m-%d %H:%M"
CODE_DIGITS = 5

TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}
DATE: Mapping[str, Any] = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": "YYYY-MM-DD"}
MOMENT: Mapping[str, Any] = {
    "type": "string",
    "pattern": r"^\d{4}-\d{2}-\d{2} \d{2}:\d{2}$",
    "description": "YYYY-MM-DD HH:MM",
}
LARGEST = 10**9  # of any number: days beyond it are no dates, and JSON has 53 bits
COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 1, "maximum": LARGEST}
AMOUNT: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": LARGEST}
FLAG: Mapping[str, Any] = {"type": "boolean"}
RULE: Mapping[str, Any] = {
    "type": "integer",
    "minimum": 1,
    "maximum": 99,
    "description": "number of the rule in the policy",
}
SUBJECT: Mapping[str, Any] = {**TEXT, "description": "id of the record that the request is about"}


def choice(*values: str) -> Mapping[str, Any]:
    """One of these."""
    return {"type": "string", "enum": list(values)}


def listed(items: Mapping[str, Any]) -> Mapping[str, Any]:
    """An array of at least one."""
    return {"type": "array", "items": dict(items), "minItems": 1}


def record(state: State, table: str, key: str, kind: str) -> dict[str, Any]:
    """A record by its key. Raises `ToolError` where there is none."""
    if key not in state[table]:
        example = next(iter(state[table]), "")
        hint = f"; they look like {example}" if example else ""
        raise ToolError("not_found", f"no {kind} `{key}`{hint}")
    return state[table][key]


def code(prefix: str, *parts: object) -> str:
    """A confirmation code that follows from what was done."""
    digest = xxhash.xxh3_64_hexdigest("\x1f".join(map(str, parts)).encode())
    return f"{prefix}-{digest[:CODE_DIGITS].upper()}"


def now(state: State) -> str:
    """The time of the session."""
    return str(state[SESSION][CURRENT]["time"])


def verifier(table: str, kind: str, secret: str) -> Callable[..., Any]:
    """The tool function that confirms who is asking by a key and a secret."""

    def verify(state: State, key: str, value: str) -> Any:
        if record(state, table, key, kind)[secret] != value:
            raise ToolError("mismatch", f"the {secret} does not belong to {kind} `{key}`")
        state[SESSION][CURRENT]["verified"] = key
        return {"verified": key}

    return verify


def verify_tool(name: str, table: str, kind: str, secret: str) -> Tool:
    """A tool `name(KIND_id, SECRET)`."""
    verify = verifier(table, kind, secret)
    argument = f"{kind}_id"

    def run(state: State, **given: str) -> Any:
        return verify(state, given[argument], given[secret])

    return Tool(name, f"Confirm a {kind} by the {secret}; needed before changes.", {argument: TEXT, secret: TEXT}, run)


def decline_request(state: State, subject: str, rule: int) -> Any:
    declined: list[dict[str, Any]] = state[SESSION][CURRENT]["declined"]
    declined.append({"subject": subject, "rule": rule})
    return {"case": code("CASE", subject, rule)}


DECLINE = Tool(
    "decline_request",
    "Record that a request was declined and by which rule of the policy.",
    {"subject": SUBJECT, "rule": RULE},
    decline_request,
)
SESSION_TABLE: Mapping[str, Any] = {
    "time": MOMENT,
    "verified": {"type": ["string", "null"]},
    "declined": {"type": "array"},
}


@cache
def texts(language: str) -> Mapping[str, Any]:
    """All words of tool environments in a language."""
    return read_package_yaml("tools/texts", f"{language}.yaml")


@cache
def people(language: str) -> Sequence[str]:
    """First names that the reasoning problems use too."""
    return read_package_yaml("templates", f"{language}.yaml")["common"]["names"]


@dataclass
class Draw:
    """Dice and words for one scene."""

    dice: Random
    language: str
    domain: str
    settings: Mapping[str, int]
    _used: set[str] = field(default_factory=set[str])

    @property
    def words(self) -> Mapping[str, Any]:
        """The domain's words in the language."""
        return texts(self.language)[self.domain]

    @property
    def money_unit(self) -> int:
        return int(texts(self.language)["common"]["money_unit"])

    def money(self, amount: int) -> str:
        """An amount as it is written."""
        return str(texts(self.language)["common"]["money"]).format(amount=amount)

    def amount(self, low: int, high: int) -> int:
        """A price between two numbers of the language's unit."""
        return self.dice.randint(low, high) * self.money_unit

    def joined(self, parts: Iterable[str]) -> str:
        """A list within a sentence."""
        return str(texts(self.language)["common"]["comma"]).join(parts)

    def key(self, prefix: str) -> str:
        """A fresh key such as `L-4821`."""
        while (found := f"{prefix}-{self.dice.randint(1000, 9999)}") in self._used:
            pass
        self._used.add(found)
        return found

    def names(self, count: int) -> list[str]:
        return self.dice.sample(list(people(self.language)), count)

    def things(self, name: str, count: int) -> list[str]:
        return self.dice.sample(list(self.words[name]), count)

    def digits(self, count: int) -> str:
        return "".join(str(self.dice.randrange(10)) for _ in range(count))

    def time(self) -> datetime:
        """A moment of a working day."""
        day = FIRST_DAY + timedelta(days=7 * self.dice.randrange(150) + self.dice.randrange(5))
        return day + timedelta(hours=self.dice.randint(8, 17), minutes=5 * self.dice.randrange(12))

    def workday(self, time: datetime, number: int) -> datetime:
        """Midnight of the next working day but `number - 1`; 0: of the day itself."""
        day = datetime(time.year, time.month, time.day)
        for _ in range(number):
            day += timedelta(days=3 if day.weekday() == FRIDAY else 1)
        return day

    def session(self, time: datetime) -> dict[str, dict[str, Any]]:
        return {CURRENT: {"time": time.strftime(STAMP), "verified": None, "declined": []}}


@dataclass(frozen=True)
class Move:
    """One turn of the reference: the key of its thought, places in it, and the calls made at once."""

    thought: str
    calls: tuple[Call, ...]
    places: Mapping[str, object] = field(default_factory=dict[str, object])


def move(thought: str, *calls: Call, **places: object) -> Move:
    return Move(thought, calls, places)


def call(tool: str, /, **arguments: Any) -> Call:
    return Call(tool, arguments)


def forbid(forbidden: Call, *matters: str) -> Forbidden:
    return Forbidden(forbidden, matters)


@dataclass(frozen=True)
class Drawn:
    """What a scene gives."""

    words: str  # key of its words under `scenes`: the scene, or one of its turns of fate
    state: State
    moves: Sequence[Move]
    facts: Sequence[str]
    places: Mapping[str, object]  # of the task, the decisive thought and the reply
    never: Sequence[Forbidden] = ()


@dataclass(frozen=True)
class Domain:
    """One field of life."""

    name: str
    tables: Mapping[str, Mapping[str, Any]]  # table → field → JSON Schema
    tool_list: tuple[Tool, ...]
    scenes: Mapping[str, Callable[[Draw], Drawn]]
    settings: Callable[[Random], dict[str, int]]  # numbers in its rules
    order: tuple[Order, ...] = ()  # which tools its rules want before others
    version: int = 1
    tools: Mapping[str, Tool] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", {tool.name: tool for tool in (*self.tool_list, DECLINE)})

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def state_schema(self) -> dict[str, Any]:
        """JSON Schema of its states."""
        return {
            "type": "object",
            "properties": {
                name: {"type": "object", "additionalProperties": _record_schema(fields)}
                for name, fields in {**self.tables, SESSION: SESSION_TABLE}.items()
            },
            "required": [*self.tables, SESSION],
            "additionalProperties": False,
        }

    @cached_property
    def state_validator(self) -> Draft202012Validator:
        return Draft202012Validator(self.state_schema)


def _record_schema(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }
