"""The documents that long-context questions are laid into, chosen by language and length.

Contract: a draw of the domain `long-context` gets documents of its language until they are as long as asked; whole ones
only, each once. It begins at the place among them that its number has among the set's draws, so that neighbouring
samples read the same files. A document without a licence is left out; where a language has none, the input is made up.
Cost: the narrow columns of every document file once a shard, then each file that is needed, one in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.core.steps import StepTask
from synth.instructions.exercise import Draw, Passage
from synth.language import facts
from synth.selection import Chosen, choose, read_chosen
from synth.sourced import SourcedConfig

DOMAIN = "long-context"


class Haystack:
    """The chosen documents of one step, read when they are needed."""

    def __init__(self, task: StepTask) -> None:
        """Raises `InputError` when no source matches `from`."""
        wanted = {"from": task.config.from_, "languages": task.config.languages}
        self.folder = task.inputs["documents"].folder
        self.draws: int = task.config.documents
        self.chosen: dict[str, list[Chosen]] = {}
        for one in sorted(choose(replace(task, config=SourcedConfig.model_validate(wanted))), key=_place):
            self.chosen.setdefault(one.language, []).append(one)
        self.file = -1  # whose rows are held
        self.rows: dict[str, Mapping[str, Any]] = {}

    def laid(self, draw: Draw) -> Draw:
        """The draw with its documents."""
        chosen = self.chosen.get(draw.language, []) if draw.domain == DOMAIN else []
        room = draw.tokens * facts(draw.language).characters_per_token
        passages: list[Passage] = []
        start = draw.index * len(chosen) // self.draws
        for one in [*chosen[start:], *chosen[:start]]:
            if room <= 0:
                break
            row = self._row(one)
            if row["license"]:
                passages.append(_passage(row))
                room -= len(row["text"])
        return replace(draw, passages=tuple(passages))

    def _row(self, one: Chosen) -> Mapping[str, Any]:
        if one.file != self.file:
            same = [other for others in self.chosen.values() for other in others if other.file == one.file]
            self.file, self.rows = one.file, {row["id"]: row for row in read_chosen(self.folder, same)}
        return self.rows[one.id]


def _place(one: Chosen) -> tuple[int, int]:
    return one.file, one.row


def _passage(row: Mapping[str, Any]) -> Passage:
    return Passage(row["id"], row["text"], row["title"] or "", row["license"])
