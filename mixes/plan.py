"""Planning one segment: from a mix and token shards to rows of pieces, written once and never changed.

Contract: `append_segment` adds a segment to a chain (or begins one); every earlier segment's files stay as they are and
its fingerprint enters the new one's. Exactly `config.rows` rows are planned. A document longer than a row is, where its
component allows it, a sequence of row-length pieces; of the documents of each (component, source, stratum) pieces are
taken until its token quota is met, interleaved by quota and packed window by window. The prefix of that stream that
fills the rows is served, so that every quota ends within one piece of its target, less its share of the padding. Each
may so serve one document in part, its beginning: that counts as drawn (for repeat caps and cursors), is among the cut
documents, and its end is among the lost tokens.
The step's `WORK` does the same as one shard of a `mix.PHASE` step. Cost: about 40 bytes a document of the catalogue and
a few windows; rows go to disk as they are packed. Some 3 million documents a second of CPU time, two threads.

Beside the plan's own files: `excluded.json` (component -> source -> reason -> documents, tokens), `quota.json` (token
targets by component and source) and `stats.json`.

Shapes: D documents of the catalogue, P pieces, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from mixes.catalog import THREADS, Catalogue, count_up, draws_before, open_catalogue
from mixes.draw import ACCEPTED, NOT_NAMED, REASONS, Pool, Sorted, capacity, draw, sort_out
from mixes.limits import Limits, hold
from mixes.quota import Ask, Supply, solve, wanted_tokens
from mixes.spec import PlanConfig
from mixes.stats import segment_statistics
from mixes.strata import stratum_factors
from mixes.stream import Stream
from mixes.tally import Tally
from mixes.writing import Numbers, write_rows
from pipeline.core.errors import InputError
from pipeline.core.files import write_json
from pipeline.core.plans import (
    ORDER_VERSION,
    Plan,
    Segment,
    SegmentRows,
    SourcePlan,
    read_plan,
    sealed,
    write_chain,
)
from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.shards import TOKEN_DTYPE
from pipeline.core.steps import StepOutput, StepTask

PREVIOUS = "previous"
ENCODED = "encode."


@dataclass(frozen=True)
class Drawn:
    """What each pool is to give and gives, in its own order."""

    targets: tuple[int, ...]  # tokens, by pool
    documents: tuple[np.ndarray, ...]  # by pool: catalogue rows


def append_segment(
    store: Path,
    encoded: Mapping[str, StepOutput],
    config: PlanConfig,
    previous: Plan | None,
    folder: Path,
) -> ShardResult:
    """Plan one segment after `previous` and write it to `folder`.

    After a red gate the same config (with the round's own budget) is appended again: the segment is named
    `PHASE+1`, `PHASE+2` …, and drawing goes on where the chain stopped.

    Args:
        store: Root that shard stems and folders are relative to.
        encoded: Encode steps by role.
        config: The segment's identity.
        previous: The chain so far, or None.
        folder: Where to write, below `store`.

    Returns:
        Counts, reasons and licences for the record.

    Raises:
        QuotaError: the sources cannot give what the mix asks for.
        ConfigError: a pattern names no source.
        InputError: shards are missing, or made with another tokenizer than the chain's.
    """
    catalogue = open_catalogue(store, encoded)
    if previous is not None and previous.segments[-1].tokenizer != catalogue.tokenizer:
        raise InputError(
            f"the plan uses tokenizer {previous.segments[-1].tokenizer[:8]}, these shards {catalogue.tokenizer[:8]}",
            where=f"mix of phase `{config.phase}`",
            fix="encode all phases with one tokenizer",
        )
    uses_D = np.zeros(catalogue.documents, np.uint16)
    if previous is not None:
        uses_D = draws_before(previous, previous.segments, catalogue)
    name = _segment_name(config.phase, previous)
    found = sort_out(catalogue, config)
    drawn = _draw_all(catalogue, config, found.pools, uses_D, name)
    numbers = _numbers(catalogue, config, found)
    tally = Tally(catalogue, len(numbers.components), config.context_tokens, uses_D)
    stream = Stream(catalogue.length_D, drawn.documents, drawn.targets, config.context_tokens)
    write_rows(catalogue, config, found.pools, stream, numbers, tally, folder)
    _check_promises(config, numbers, tally)
    segment = _segment(catalogue, config, found.pools, drawn, numbers, tally, name, previous, folder)
    return _write_rest(catalogue, config, found, drawn, numbers, tally, previous, segment, folder)


def _segment_name(phase: str, previous: Plan | None) -> str:
    taken = {segment.name for segment in previous.segments} if previous else set()
    rounds = sum(name == phase or name.startswith(f"{phase}+") for name in taken)
    return f"{phase}+{rounds}" if rounds else phase


def _draw_all(catalogue: Catalogue, config: PlanConfig, pools: Sequence[Pool], uses_D: np.ndarray, name: str) -> Drawn:
    """Solve the quota and draw. Components may share documents: the stricter repeat cap draws first (then whole
    documents, then by name), each sees the draws before it, and one that came up short is solved again with what it
    could really get."""
    components = config.mix.components
    where = f"mix of phase `{name}`"
    caps = [capacity(catalogue, pool, pool.max_repeats, uses_D) for pool in pools]
    ask = Ask(
        budget_tokens=config.rows * config.context_tokens,
        weights={key: component.weight for key, component in components.items()},
        max_repeats={key: component.max_repeats for key, component in components.items()},
        shortage=config.mix.shortage,
        where=where,
    )
    held = [(pool.component, pool.stratum, pool.unique_tokens) for pool in pools]
    factors = stratum_factors(config.mix, held, wanted_tokens(ask), where)
    limits = Limits(config.mix.native_floors, config.mix.synthetic_cap)

    def capacity_at(component: str, max_repeats: float) -> int:
        return sum(capacity(catalogue, pool, max_repeats, uses_D) for pool in pools if pool.component == component)

    def urgency(index: int) -> tuple[float, bool, str, int]:
        pool = pools[index]
        return pool.max_repeats, not components[pool.component].whole, pool.component, index

    by_source: dict[int, list[int]] = {}
    for i in sorted(range(len(pools)), key=urgency):
        by_source.setdefault(pools[i].source, []).append(i)
    while True:
        supplies = [
            Supply(
                pool.component,
                catalogue.sources[pool.source],
                pool.unique_tokens,
                caps[i],
                factors[i],
                pool.stratum.limit,
            )
            for i, pool in enumerate(pools)
        ]
        targets = hold(solve(ask, supplies, capacity_at), supplies, limits, where)
        now_D = uses_D.copy()
        draw_from = partial(_draw_from, catalogue, pools, config.seed, targets, now_D)
        with ThreadPoolExecutor(THREADS, "draw") as threads:  # sources share no documents
            documents = {i: taken for found in threads.map(draw_from, by_source.values()) for i, taken in found}
        short = False
        for i, taken in documents.items():
            tokens = int(catalogue.length_D[taken].sum(dtype=np.int64))
            if tokens < targets[i]:
                caps[i], short = tokens, True
        if not short:
            return Drawn(tuple(targets), tuple(documents[i] for i in range(len(pools))))


def _draw_from(
    catalogue: Catalogue,
    pools: Sequence[Pool],
    seed: int,
    targets: Sequence[int],
    now_D: np.ndarray,
    own: Sequence[int],
) -> list[tuple[int, np.ndarray]]:
    """(pool, catalogue rows) of the pools of one source, drawn one after the other."""
    found = []
    for i in own:
        found.append((i, draw(catalogue, pools[i], now_D, seed, targets[i])))
        count_up(now_D, found[-1][1])
    return found


def _numbers(catalogue: Catalogue, config: PlanConfig, found: Sorted) -> Numbers:
    """Of all documents that some component accepts."""
    bounds = catalogue.first_document_S.tolist()
    accepted_S = [bool((found.reason_D[a:b] == ACCEPTED).any()) for a, b in pairwise(bounds)]
    used_K = _kinds_of(catalogue.kind_D, found.reason_D, ACCEPTED, len(catalogue.kinds))
    return Numbers(
        shards=np.flatnonzero(accepted_S),
        kinds=np.flatnonzero(used_K),
        sources=tuple(sorted({pool.source for pool in found.pools})),
        components=tuple(sorted(config.mix.components)),
    )


@njit(cache=True, nogil=True)
def _kinds_of(kind_D: np.ndarray, reason_D: np.ndarray, reason: int, kinds: int) -> np.ndarray:
    used = np.zeros(kinds, np.bool_)
    for row in range(kind_D.shape[0]):
        if reason_D[row] == reason:
            used[kind_D[row]] = True
    return used


def _check_promises(config: PlanConfig, numbers: Numbers, tally: Tally) -> None:
    for number, component in enumerate(numbers.components):
        cut = int(tally.cut_pieces_C[number])
        assert not (config.mix.components[component].whole and cut), "a document promised whole was cut"


def _segment(
    catalogue: Catalogue,
    config: PlanConfig,
    pools: Sequence[Pool],
    drawn: Drawn,
    numbers: Numbers,
    tally: Tally,
    name: str,
    previous: Plan | None,
    folder: Path,
) -> Segment:
    segment = Segment(
        name=name,
        context_tokens=config.context_tokens,
        rows=config.rows,
        rows_per_batch=config.rows_per_batch,
        first_row=previous.rows if previous else 0,
        seed=derive_seed(config.seed, "rows", name),
        order_version=ORDER_VERSION,
        tokenizer=catalogue.tokenizer,
        components=numbers.components,
        sources=tuple(catalogue.sources[number] for number in numbers.sources),
        shards=tuple(catalogue.shards[number] for number in numbers.shards),
        shares=_shares(catalogue, config, pools, drawn, numbers, tally),
        tokens=tally.tokens,
        padding_tokens=config.rows * config.context_tokens - tally.tokens,
        truncated_documents=tally.cut_documents,
        folder=folder.relative_to(catalogue.store).as_posix(),
    )
    return sealed(segment, previous.segments[-1].fingerprint if previous else "")


def _shares(
    catalogue: Catalogue,
    config: PlanConfig,
    pools: Sequence[Pool],
    drawn: Drawn,
    numbers: Numbers,
    tally: Tally,
) -> tuple[SourcePlan, ...]:
    targets: dict[tuple[str, int], int] = {}
    for pool, target in zip(pools, drawn.targets, strict=True):
        targets[pool.component, pool.source] = targets.get((pool.component, pool.source), 0) + target
    shares = []
    for (component, source), target in targets.items():
        own = numbers.components.index(component), catalogue.source_K == source
        rows = catalogue.of_source[source]
        drawn_before = int(tally.uses_before_D[rows].sum(dtype=np.int64))
        shares.append(
            SourcePlan(
                component=component,
                source=catalogue.sources[source],
                weight=target / (config.rows * config.context_tokens),
                max_repeats=config.mix.components[component].max_repeats,
                tokens_planned=int(tally.tokens_CK[own].sum()),
                tokens_unique=int(tally.unique_tokens_CK[own].sum()),
                documents_planned=int(tally.documents_CK[own].sum()),
                cursor_after=drawn_before + int(tally.draws_D[rows].sum(dtype=np.int64)),
            )
        )
    return tuple(shares)


def _write_rest(
    catalogue: Catalogue,
    config: PlanConfig,
    found: Sorted,
    drawn: Drawn,
    numbers: Numbers,
    tally: Tally,
    previous: Plan | None,
    segment: Segment,
    folder: Path,
) -> ShardResult:
    """The small files, `segments.json` and the statistics last; counts for the record."""
    quota: dict[str, dict[str, int]] = {}
    for pool, target in zip(found.pools, drawn.targets, strict=True):
        of_component = quota.setdefault(pool.component, {})
        source = catalogue.sources[pool.source]
        of_component[source] = of_component.get(source, 0) + target
    write_json(folder / "excluded.json", found.excluded)
    write_json(folder / "quota.json", quota)
    write_json(folder / "kinds.json", [catalogue.kinds[number]._asdict() for number in numbers.kinds])
    chain = (*(previous.segments if previous else ()), segment)
    write_chain(folder, chain)
    rows = SegmentRows(Plan(catalogue.store, chain), segment)
    write_json(folder / "stats.json", segment_statistics(tally, rows, quota, found.excluded))
    licenses: dict[str, int] = {}
    for kind, documents in zip(catalogue.kinds, tally.documents_by_kind().tolist(), strict=True):
        if documents:
            licenses[kind.license] = licenses.get(kind.license, 0) + documents
    return ShardResult(
        **_counts(catalogue, config, found, numbers, tally, segment),
        licenses=dict(sorted(licenses.items())),
        facts={"fingerprint": segment.fingerprint, "segment": segment.name, "lost_tokens": tally.lost_tokens},
    )


def _counts(
    catalogue: Catalogue, config: PlanConfig, found: Sorted, numbers: Numbers, tally: Tally, segment: Segment
) -> dict[str, Any]:
    """Every document of the catalogue is either served or has a reason why not."""
    whole_C = np.array([config.mix.components[component].whole for component in numbers.components])
    not_served = tally.unserved_by(found.reason_D, NOT_NAMED, len(REASONS) - NOT_NAMED)
    dropped = {"mix.no_component": int(not_served[0]), "mix.not_drawn": int(not_served[ACCEPTED - NOT_NAMED])}
    dropped |= {f"mix.{reason}": int(not_served[i - NOT_NAMED]) for i, reason in enumerate(REASONS)}
    token_bytes = TOKEN_DTYPE.itemsize
    return {
        "counts": {
            "documents_in": catalogue.documents,
            "documents_out": int(tally.documents_by_kind().sum()),
            "bytes_in": int(catalogue.length_D.sum(dtype=np.int64)) * token_bytes,
            "bytes_out": segment.tokens * token_bytes,
            "tokens": segment.tokens,
            "padding_tokens": segment.padding_tokens,
            "rows": segment.rows,
            "pieces": int(tally.pieces_C.sum()),
            "documents_cut": segment.truncated_documents,
            "whole_documents": int(tally.pieces_C[whole_C].sum()),
            "whole_documents_cut": int(tally.cut_pieces_C[whole_C].sum()),
        },
        "dropped": {reason: count for reason, count in dropped.items() if count},
    }


class PlanWork:
    """Work of a `mix.PHASE` step: one shard, the whole segment. Inputs: roles `encode.*`, and `previous` if any."""

    def shard_count(self, task: StepTask) -> int:
        return 1

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        encoded = {role: output for role, output in task.inputs.items() if role.startswith(ENCODED)}
        before = task.inputs.get(PREVIOUS)
        previous = read_plan(task.store, before.folder) if before else None
        return append_segment(task.store, encoded, task.config, previous, task.folder)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return results[0].facts


WORK = PlanWork()
