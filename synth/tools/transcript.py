"""The conversation of a scenario's reference solution, as `messages` of the document contract.

Contract: system (policy), user (task), then for each turn the assistant's calls and a `tool` message for each result,
in the order of the calls, then the answer. Results are JSON as the environment gives them. Tool declarations are not a
message: they stand in a document's `extra` under `tools`, and the encoder writes them before everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from synth.tools.scenario import Scenario

Message = Mapping[str, Any]


def messages_of(scenario: Scenario, *, reasoning: bool) -> list[Message]:
    """Play the reference in a fresh environment; with the thoughts, or without any."""
    environment = scenario.environment()
    messages: list[Message] = [*scenario.opening()]
    for turn in scenario.turns:
        calls = [{"name": call.name, "arguments": json_text(call.arguments)} for call in turn.calls]
        thought = {"reasoning": turn.thought} if reasoning else {}
        messages.append({"role": "assistant", **thought, "content": "", "tool_calls": calls})
        for call in turn.calls:
            result = environment.call(call.name, call.arguments)
            messages.append({"role": "tool", "content": json_text(result)})
    thought = {"reasoning": scenario.closing} if reasoning else {}
    messages.append({"role": "assistant", **thought, "content": scenario.reply})
    return messages


def json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


def readable(messages: Sequence[Message]) -> str:
    """The conversation as text, for people and for filters that read text."""
    parts: list[str] = []
    for message in messages:
        called = [f"{call['name']} {call['arguments']}" for call in message.get("tool_calls") or ()]
        said = [message.get("reasoning") or "", message["content"], *called]
        parts.append("\n".join([f"[{message['role']}]", *(one for one in said if one)]))
    return "\n\n".join(parts)
