"""Discussions: the messages of one, each after the message it answers.

Contract: messages are named by their own name in `extra` or by the record id that reading made their id of. Answers to
one message come by date, then by id; each with its own answers behind it (a forum's nested order). A message whose
parent is not there counts as missing one and stands by its date among the beginnings.
"""

from __future__ import annotations

from collections.abc import Sequence

from synth.long.groups import Part
from synth.long.naming import natural


def arranged(parts: Sequence[Part]) -> tuple[list[Part], int]:
    """(messages in reply order, how many answer one that is missing)."""
    known = {name: part for part in parts for name in part.names}
    answers: dict[str, list[Part]] = {}
    beginnings: list[Part] = []
    missing = 0
    for part in sorted(parts, key=lambda one: (one.date, natural(one.own), one.id)):
        found = next((known[name] for name in part.answers if name in known), None)
        missing += found is None and bool(part.parent)
        if found is None or found.id == part.id:
            beginnings.append(part)
        else:
            answers.setdefault(found.id, []).append(part)
    order: list[Part] = []
    waiting = beginnings[::-1]
    seen: set[str] = set()
    while waiting:
        part = waiting.pop()
        seen.add(part.id)
        order.append(part)
        waiting += answers.get(part.id, [])[::-1]
    # Messages that answer each other in a circle have no beginning.
    return order + sorted((one for one in parts if one.id not in seen), key=lambda one: (one.date, one.id)), missing
