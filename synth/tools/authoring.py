"""Scenarios that a model writes: a new state and task for one of our domains, after an example of ours.

Contract: the domain's tools, tables and policy stay ours; the model gives one JSON object of `answer_schema`: state,
task, reference calls with a thought before each turn, facts, and the answer. Nothing it says is believed: what it wrote
is validated as our own scenarios are (`synth/tools/validators.py`). Cost: the endpoint's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from synth.cache import Request
from synth.client import Outcome
from synth.completion import ContentError
from synth.language import read_package_yaml
from synth.prompts import prompt
from synth.tools.config import ToolsConfig
from synth.tools.domain import SESSION, Domain
from synth.tools.environment import Call, Criteria, Forbidden
from synth.tools.scenario import Scenario, Turn, calls_of
from synth.tools.validators import Fault

WRITTEN = "written"  # the template of a model's scenario
TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}


def answer_schema(domain: Domain) -> dict[str, Any]:
    """JSON Schema of what the model answers."""
    call = {
        "type": "object",
        "properties": {"name": {"enum": list(domain.tools)}, "arguments": {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    turn = {
        "type": "object",
        "properties": {"thought": TEXT, "calls": {"type": "array", "items": call, "minItems": 1}},
        "required": ["thought", "calls"],
        "additionalProperties": False,
    }
    properties = {
        "state": domain.state_schema,
        "task": TEXT,
        "turns": {"type": "array", "items": turn, "minItems": 1},
        "closing": TEXT,
        "reply": TEXT,
        "facts": {"type": "array", "items": TEXT, "minItems": 1},
        "forbidden": {"type": "array", "items": call},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def example(scenario: Scenario) -> dict[str, Any]:
    """A scenario in the form of the answer."""
    turns = [{"thought": turn.thought, "calls": [_plain(call) for call in turn.calls]} for turn in scenario.turns]
    return {
        "state": scenario.state,
        "task": scenario.task,
        "turns": turns,
        "closing": scenario.closing,
        "reply": scenario.reply,
        "facts": list(scenario.criteria.facts),
        "forbidden": [_plain(one.call) for one in scenario.criteria.never],
    }


def _plain(call: Call) -> dict[str, Any]:
    return {"name": call.name, "arguments": dict(call.arguments)}


def scenario_request(scenario: Scenario, config: ToolsConfig, model: str, sample: int) -> Request:
    """Ask for another scenario of the same domain and language."""
    domain = scenario.tools()
    template = prompt("tools.scenario", "en")
    messages = template.messages(
        policy=scenario.policy,
        tools=orjson.dumps(scenario.declarations()).decode(),
        language=read_package_yaml("languages", "names.yaml")["en"][scenario.language],
        example=orjson.dumps(example(scenario)).decode(),
    )
    parameters = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    document = f"{scenario.domain} {scenario.template} {scenario.language}"
    schema = answer_schema(domain)
    return Request(model, messages, parameters, template.identity, sample, document, template.hash, schema)


def written_scenario(seed: Scenario, outcome: Outcome) -> Scenario | Fault:
    """The model's scenario under the seed's domain, language and policy."""
    if isinstance(outcome, ContentError):
        return Fault("no_answer", str(outcome))
    try:
        answer: Mapping[str, Any] = orjson.loads(orjson.dumps(outcome.structured))
    except orjson.JSONEncodeError as error:  # half of a surrogate pair, for example
        return Fault("schema_invalid", f"what the answer says cannot be stored: {error}")
    if answer["state"][SESSION] != seed.state[SESSION]:
        return Fault("schema_invalid", "the session is not a fresh one at the policy's time")
    criteria = Criteria(
        facts=tuple(answer["facts"]),
        never=tuple(Forbidden(one, tuple(one.arguments)) for one in calls_of(answer["forbidden"])),
        order=seed.criteria.order,
    )
    return replace(
        seed,
        template=WRITTEN,
        task=answer["task"],
        state=answer["state"],
        turns=tuple(Turn(turn["thought"], calls_of(turn["calls"])) for turn in answer["turns"]),
        closing=answer["closing"],
        reply=answer["reply"],
        criteria=criteria,
    )
