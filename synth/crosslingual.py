"""Cross-lingual samples: documents that say the same in two languages, joined into one sample.

Contract: chosen documents with the same `parallel_id` form a group (the first by rank of each language); of a group's
pairs of languages the first `pairs_per_group` in a seeded order are made, the direction included. A pair that fails
`synth/parallel_checks.py` is dropped with the reason `crosslingual.CHECK`. The sample's language is `mul` (BCP-47 for
more than one); `extra.languages` names them in order. Cost: about 2 milliseconds a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, permutations
from typing import Any

from pipeline.core.errors import InputError
from pipeline.core.languages import MULTILINGUAL
from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from synth.config import CrossLingualConfig
from synth.language import primary
from synth.licences import joined_licence
from synth.output import Facts, ShardWriter, merged_facts
from synth.parallel_checks import Side, check_pair, paragraphs
from synth.selection import Chosen, choose, read_chosen, shards_of, slice_of

MAKER = "seodang.crosslingual.parallel@1"


@dataclass(frozen=True)
class Pair:
    """Two documents of one group, in the order they are joined."""

    first: Chosen
    second: Chosen


def pairs(task: StepTask) -> list[Pair]:
    """Every pair of the set, groups by `parallel_id`. Raises `InputError` when no two documents belong together."""
    config: CrossLingualConfig = task.config
    found: list[Pair] = []
    members = sorted((item for item in choose(task) if item.parallel_id), key=lambda c: (c.parallel_id, c))
    grouped = [list(group) for _, group in groupby(members, key=lambda c: c.parallel_id)]
    for group in grouped[: config.documents]:
        by_language = {item.language: item for item in reversed(group)}  # the first by rank stays
        found.extend(_group_pairs(by_language, config))
    if not found:
        raise InputError(
            f"no two documents of {', '.join(config.from_)} share a `parallel_id` in different languages",
            where=f"{task.name}.from",
            fix="name sources whose reader gives a parallel_id, or drop this set",
        )
    return found


def _group_pairs(by_language: Mapping[str, Chosen], config: CrossLingualConfig) -> list[Pair]:
    """Unordered pairs of languages in a seeded order, each in the direction that comes first there."""
    ordered = sorted(
        permutations(sorted(by_language), 2),
        key=lambda two: derive_seed("crosslingual", config.seed, by_language[two[0]].parallel_id, *two),
    )
    taken: dict[frozenset[str], Pair] = {}
    for a, b in ordered:
        taken.setdefault(frozenset((a, b)), Pair(by_language[a], by_language[b]))
    return list(taken.values())[: config.pairs_per_group]


def joined(first: str, second: str, config: CrossLingualConfig) -> str:
    """Both texts, one after the other or paragraph by paragraph, or the first with paragraphs of the second in it."""
    if config.layout == "documents":
        return f"{first}\n\n{second}"
    if config.layout == "switched":
        return "\n\n".join(_switched(paragraphs(first), paragraphs(second), config))
    return "\n\n".join(chain.from_iterable(zip(paragraphs(first), paragraphs(second), strict=True)))


def _switched(first: Sequence[str], second: Sequence[str], config: CrossLingualConfig) -> list[str]:
    """The first's paragraphs with the second's in the places whose seeded hash is low; at least one of each."""
    ranks = [derive_seed("switched", config.seed, part) % 1000 for part in first]
    taken = {index for index, rank in enumerate(ranks) if rank < config.switched_permille}
    by_rank = sorted(range(len(ranks)), key=lambda index: (ranks[index], index))
    taken = (taken | {by_rank[0]}) - ({by_rank[-1]} if len(by_rank) > 1 else set())
    return [second[index] if index in taken else part for index, part in enumerate(first)]


class CrossLingualWork:
    """The work of a `synth.SET` step of kind `crosslingual`."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(len(pairs(task)), task.config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        config: CrossLingualConfig = task.config
        own = list(slice_of(pairs(task), shard, config.documents_per_shard))
        needed = list(dict.fromkeys(item for pair in own for item in (pair.first, pair.second)))
        rows = {row["id"]: row for row in read_chosen(task.inputs["documents"].folder, needed)}
        writer = ShardWriter(task, shard)
        for pair in own:
            _write(writer, rows[pair.first.id], rows[pair.second.id], config)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        return merged_facts(results)


def _write(
    writer: ShardWriter, first: Mapping[str, Any], second: Mapping[str, Any], config: CrossLingualConfig
) -> None:
    sides = [Side(row["text"], primary(row["lang"])) for row in (first, second)]
    bytes_in = sum(len(side.text.encode("utf-8")) for side in sides)
    key = f"{first['id']}\x1f{second['id']}"
    failure = check_pair(sides[0], sides[1], config.length_band)
    if failure is None and config.layout != "documents":
        counts = [len(paragraphs(side.text)) for side in sides]
        reason = "" if counts[0] == counts[1] else "crosslingual.structure"
        detail = f"{counts[0]} and {counts[1]} paragraphs"
    else:
        reason = f"crosslingual.{failure.check}" if failure else ""
        detail = failure.detail if failure else ""
    if reason:
        text = f"{sides[0].text}\n\n{sides[1].text}"
        writer.drop(
            key,
            reason,
            f"{sides[0].language}-{sides[1].language}: {detail}",
            text,
            bytes_in=bytes_in,
            lang=MULTILINGUAL,
        )
        return
    writer.keep(
        key,
        joined(sides[0].text, sides[1].text, config),
        bytes_in=bytes_in,
        extra={"languages": [side.language for side in sides], "layout": config.layout, "mode": config.mode},
        title=first["title"],
        lang=MULTILINGUAL,
        domain=first["domain"],
        license=joined_licence((first["license"], second["license"])),
        parallel_id=first["parallel_id"],
        parents=[first["id"], second["id"]],
        maker=MAKER,
    )


WORK = CrossLingualWork()
