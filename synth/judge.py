"""A model as judge of a share of the samples that passed every other check.

Contract: which samples it sees follows from their keys; its answer is a JSON object of three grades from 1 to 5, and a
sample whose lowest grade is below the minimum goes (`KIND.judge`). An answer that does not fit the schema says nothing
against the sample. The prompt is in English whatever the sample's language: only the grades are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xxhash

from synth.cache import Request
from synth.completion import Completion, ContentError
from synth.prompts import prompt

GRADES = ("grounded", "useful", "clean")
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 1, "maximum": 5} for name in GRADES},
    "required": list(GRADES),
    "additionalProperties": False,
}
PARAMETERS = {"temperature": 0.0, "max_tokens": 2048}


def judged_worth(key: str, permille: int) -> bool:
    """Whether the judge sees the sample of this key."""
    return xxhash.xxh3_64_intdigest(key.encode()) % 1000 < permille


def judge_request(kind: str, row: Mapping[str, Any], sample: str, model: str) -> Request:
    template = prompt(f"judge.{kind}", "en")
    messages = template.messages(document=str(row["text"]), sample=sample)
    document = f"{row['source']} {row['id']}"
    return Request(
        model, messages, PARAMETERS, template.identity, document=document, prompt_hash=template.hash, schema=SCHEMA
    )


def verdict_of(outcome: Completion | ContentError, minimum: int) -> str:
    """What is wrong with the sample, or an empty text."""
    if isinstance(outcome, ContentError):
        return ""
    low = [f"{name} {outcome.structured[name]}" for name in GRADES if outcome.structured[name] < minimum]
    return ", ".join(low)
