"""The cleaning blocks as a file lists them, and how a list is cut into steps.

Contract: `rules` begin a step, and the step before it ends with measuring what they judge (`signals`), so that a
changed threshold re-runs only from there on. `rules` that follow `rules` and count the same words share a step. What
stands between two steps is the text as the rules would have seen it: verdicts are those of measuring afresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.config import Config, Located
from pipeline.core.errors import ConfigError
from stages.catalog import block_config

COMPLIANCE, SIGNALS, RULES = "compliance", "signals", "rules"


@dataclass(frozen=True)
class ListedBlock:
    """A cleaning block as the file lists it."""

    name: str
    config: Config
    where: str

    @property
    def segmenter(self) -> str:
        """Whose words `rules` and `signals` count."""
        return dict(self.config)["segmenter"]


def cut_at_rules(blocks: Sequence[ListedBlock]) -> list[list[ListedBlock]]:
    """Per-document blocks as steps; the first may be empty. Raises `ConfigError` where `signals` fit no `rules`."""
    steps: list[list[ListedBlock]] = [[]]
    for one in blocks:
        last = steps[-1][-1] if steps[-1] else None
        if one.name == RULES and not (last and last.name == RULES and last.segmenter == one.segmenter):
            steps[-1] = _measuring(steps[-1], one)
            steps.append([])
        steps[-1].append(one)
    return steps


def _measuring(blocks: Sequence[ListedBlock], rules: ListedBlock) -> list[ListedBlock]:
    """A step's blocks with `signals` at their end, unless the file itself lists it there."""
    found = list(blocks)
    if not found or found[-1].name != SIGNALS:
        config = block_config(SIGNALS, Located({"segmenter": rules.segmenter}), rules.where)
        found.append(ListedBlock(SIGNALS, config, rules.where))
    first, *more = [one for one in found if one.name == SIGNALS]
    if more:
        message = "`signals` would be measured twice in one step"
        raise ConfigError(message, where=first.where, fix="list it right before `rules`, or leave it out")
    if first.segmenter != rules.segmenter:
        message = f"`signals` counts the words of `{first.segmenter}`, `rules` those of `{rules.segmenter}`"
        raise ConfigError(message, where=rules.where, fix="give both the same `segmenter`, or leave `signals` out")
    return found


def filter_name(group: int, part: int) -> str:
    """Name of a step that begins with `rules`, `part` being its place among the steps of a run of blocks.

    `group` counts those runs, a global block standing between each: `filter` is the first of the first.
    """
    return "filter" + (f"-{group}" if group > 1 or part > 1 else "") + (f"-{part}" if part > 1 else "")
