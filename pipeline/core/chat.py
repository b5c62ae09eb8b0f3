"""The chat format: messages to runs of text and special tokens, with what counts in the loss.

Contract: `chat_runs` is the one place that knows the format; the tokenizer's Jinja template says the same and a test
holds them together. Specials stand in the K-EXAONE order (roles 50-52, end of turn 53, thinking 54-55); the order of
the tool tokens is ours. An assistant turn without reasoning carries an empty thinking block, which is also the prompt
for an answer without thinking. Cost: linear in the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import InputError

RESERVED_IDS = 64  # every id below is a special or reserved token
PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|endofturn|>"
_NAMED = {
    0: PAD,
    1: BOS,
    50: "<|system|>",
    51: "<|user|>",
    52: "<|assistant|>",
    53: EOS,
    54: "<think>",
    55: "</think>",
    56: "<|tool_declare|>",
    57: "<|tool|>",
    58: "<tool>",
    59: "</tool>",
    60: "<tool_call>",
    61: "</tool_call>",
    62: "<tool_result>",
    63: "</tool_result>",
}
SPECIAL_TOKENS = tuple(_NAMED.get(number, f"<|reserved_{number}|>") for number in range(RESERVED_IDS))
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Run:
    """A piece of a chat: one special token, or text that is encoded as a whole and never read as special."""

    text: str
    special: bool
    counts: bool  # in the loss


def chat_runs(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[Run]:
    """The runs of a conversation, neighbouring text joined.

    Args:
        messages: `role`, `content`, and for assistants optionally `reasoning` and `tool_calls` (`name`, `arguments`
            as JSON text or a mapping), as in the document contract.
        tools: JSON-schema declarations of the tools on offer.

    What counts in the loss is what an assistant writes after its prompt, up to and with the end of its turn.
    Raises `InputError` for an unknown role.
    """
    runs: list[Run] = []
    if tools:
        runs += [Run("<|tool_declare|>", True, False), Run("\n# Tools\n", False, False)]
        for tool in tools:
            declared = Run(json.dumps(dict(tool), ensure_ascii=False), False, False)
            runs += [Run("<tool>", True, False), declared, Run("</tool>", True, False), Run("\n", False, False)]
        runs += [Run(EOS, True, False), Run("\n", False, False)]
    for number, message in enumerate(messages):
        role = message["role"]
        if role not in ROLES:
            raise InputError(f"unknown role `{role}`", where=f"message {number}", fix=f"use one of {', '.join(ROLES)}")
        content = message.get("content") or ""
        runs += [Run(f"<|{role}|>", True, False), Run("\n", False, False)]
        if role == "assistant":
            runs += _assistant(content, message.get("reasoning") or "", message.get("tool_calls") or ())
        elif role == "tool":
            runs += [Run("<tool_result>", True, False), Run(content, False, False), Run("</tool_result>", True, False)]
        else:
            runs.append(Run(content, False, False))
        runs += [Run(EOS, True, role == "assistant"), Run("\n", False, False)]
    return _joined(runs)


def prompt_runs(*, thinking: bool) -> list[Run]:
    """What is put before an answer: an open thinking block, or an empty one."""
    head = [Run("<|assistant|>", True, False), Run("\n", False, False), Run("<think>", True, False)]
    if thinking:
        return [*head, Run("\n", False, False)]
    return [*head, Run("\n\n", False, False), Run("</think>", True, False), Run("\n\n", False, False)]


def _assistant(content: str, reasoning: str, calls: Sequence[Mapping[str, Any]]) -> list[Run]:
    thought = Run(f"\n{reasoning}\n", False, bool(reasoning))
    runs = [Run("<think>", True, False), thought, Run("</think>", True, bool(reasoning))]
    runs.append(Run(f"\n\n{content}", False, True))
    for number, call in enumerate(calls):
        if content or number:
            runs.append(Run("\n", False, True))
        arguments = call["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        written = f'{{"name": {json.dumps(call["name"], ensure_ascii=False)}, "arguments": {arguments}}}'
        runs += [Run("<tool_call>", True, True), Run(written, False, True), Run("</tool_call>", True, True)]
    return runs


def _joined(runs: Sequence[Run]) -> list[Run]:
    """Join neighbouring text: a tokenizer that cuts at special tokens sees the same pieces."""
    joined: list[Run] = []
    for run in runs:
        if not run.text:
            continue
        if joined and not run.special and not joined[-1].special:
            last = joined.pop()
            run = Run(last.text + run.text, False, last.counts or run.counts)
        joined.append(run)
    return joined
