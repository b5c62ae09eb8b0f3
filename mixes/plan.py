"""Planning one segment: from a mix and token shards to rows of pieces, written once and never changed.

Contract: `append_segment` adds a segment to a chain (or begins one); every earlier segment's files stay as they are and
its fingerprint enters the new one's. Exactly `config.rows` rows are planned. A document longer than a row is, where its
component allows it, a sequence of row-length pieces; of the documents of each (component, source) pieces are taken
until its token quota is met, interleaved by quota and packed window by window. The prefix of that stream that fills
the rows is served, so that every (component, source) ends within one piece of its quota, less its share of the
padding. Each may so serve one document in part, its beginning: that counts as drawn (for repeat caps and cursors), is
among the cut documents, and its end is among the lost tokens.
The step's `WORK` does the same as one shard of a `mix.PHASE` step. Cost: O(D + P) integers in memory, no text.

Beside the plan's own files: `excluded.json` (component -> source -> reason -> documents, tokens), `quota.json` (token
targets by component and source), `vocabulary.json` (languages and domains, for the loader) and `stats.json`.

Shapes: D documents of the catalogue, P pieces, R rows, W windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixes.catalog import NO_LANGUAGE, NO_VALUE, Catalogue, draws_before, open_catalogue
from mixes.draw import REASONS, Pool, Sorted, capacity, draw, interleave, sort_out
from mixes.packing import fill_rows, group_by_row
from mixes.quota import Ask, Supply, solve
from mixes.spec import PlanConfig
from mixes.stats import first_seen_pieces, plan_statistics
from pipeline.core.errors import InputError
from pipeline.core.files import write_json
from pipeline.core.plans import (
    ORDER_VERSION,
    PIECES_SCHEMA,
    Plan,
    Segment,
    SourcePlan,
    read_plan,
    sealed,
    write_segment,
)
from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.shards import TOKEN_DTYPE
from pipeline.core.steps import StepOutput, StepTask

PREVIOUS = "previous"
ENCODED = "encode."

Quota = dict[tuple[str, str], int]


@dataclass(frozen=True)
class Drawn:
    """What each pool gives, in its own order."""

    targets: Quota
    documents: tuple[np.ndarray, ...]  # by pool: int64 catalogue rows


@dataclass(frozen=True)
class Pieces:
    """Served pieces, row by row."""

    first_piece: np.ndarray  # [R + 1] int64
    row_D: np.ndarray  # [P] int64 catalogue row of the piece's document
    pool: np.ndarray  # [P] int32
    start: np.ndarray  # [P] int64 tokens, in the shard
    length: np.ndarray  # [P] int64 tokens
    cut_documents: int  # draws served in several pieces or without their end
    lost_tokens: int  # ends of documents served in part, one a pool at most


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
    uses_D = np.zeros(catalogue.documents, np.int64)
    if previous is not None:
        uses_D = draws_before(
            previous, previous.segments, catalogue.shards, catalogue.first_document_S, catalogue.start_D
        )
    name = _segment_name(config.phase, previous)
    found = sort_out(catalogue, config)
    drawn = _draw_all(catalogue, config, found, uses_D, name)
    pieces = _pieces(catalogue, config, found.pools, drawn)
    return _write(catalogue, config, name, previous, folder, found, drawn, pieces, uses_D)


def _segment_name(phase: str, previous: Plan | None) -> str:
    taken = {segment.name for segment in previous.segments} if previous else set()
    rounds = sum(name == phase or name.startswith(f"{phase}+") for name in taken)
    return f"{phase}+{rounds}" if rounds else phase


def _draw_all(catalogue: Catalogue, config: PlanConfig, found: Sorted, uses_D: np.ndarray, name: str) -> Drawn:
    """Solve the quota and draw. Components may share documents: the stricter repeat cap draws first (then whole
    documents, then by name), each sees the draws before it, and one that came up short is solved again with what it
    could really get."""
    components = config.mix.components
    pools = found.pools
    caps = [capacity(catalogue, pool, pool.max_repeats, uses_D) for pool in pools]
    unique = [int(catalogue.length_D[pool.documents_E].sum()) for pool in pools]
    ask = Ask(
        budget_tokens=config.rows * config.context_tokens,
        weights={key: component.weight for key, component in components.items()},
        max_repeats={key: component.max_repeats for key, component in components.items()},
        shortage=config.mix.shortage,
        where=f"mix of phase `{name}`",
    )

    def capacity_at(component: str, max_repeats: float) -> int:
        return sum(capacity(catalogue, pool, max_repeats, uses_D) for pool in pools if pool.component == component)

    def urgency(index: int) -> tuple[float, bool, str, int]:
        pool = pools[index]
        return pool.max_repeats, not components[pool.component].whole, pool.component, pool.source

    while True:
        supplies = [
            Supply(pool.component, catalogue.sources[pool.source], unique[i], caps[i]) for i, pool in enumerate(pools)
        ]
        targets = solve(ask, supplies, capacity_at)
        documents = [np.empty(0, np.int64)] * len(pools)
        now_D = uses_D.copy()
        short = False
        for i in sorted(range(len(pools)), key=urgency):
            target = targets[pools[i].component, catalogue.sources[pools[i].source]]
            documents[i] = draw(catalogue, pools[i], now_D, config.seed, target)
            tokens = int(catalogue.length_D[documents[i]].sum())
            if tokens < target:
                caps[i], short = tokens, True
            now_D += np.bincount(documents[i], minlength=catalogue.documents)
        if not short:
            return Drawn(targets, tuple(documents))


def _pieces(catalogue: Catalogue, config: PlanConfig, pools: Sequence[Pool], drawn: Drawn) -> Pieces:
    targets = [drawn.targets[pool.component, catalogue.sources[pool.source]] for pool in pools]
    stream = interleave(catalogue, drawn.documents, targets, config.context_tokens)
    begins_P = stream.offset_P == 0
    windows_W = _window_ends(begins_P, config.window_documents)
    row_P = fill_rows(stream.length_P, config.context_tokens, config.rows, windows_W)
    taken = row_P.shape[0]
    first_piece, order = group_by_row(row_P, config.rows)
    served_N = np.flatnonzero(begins_P[:taken])  # a document's beginning is the first of its pieces in the stream
    document_length_N = catalogue.length_D[stream.row_P[served_N]]
    return Pieces(
        first_piece=first_piece,
        row_D=stream.row_P[order],
        pool=stream.pool_P[order],
        start=catalogue.start_D[stream.row_P[order]] + stream.offset_P[order],
        length=stream.length_P[order],
        cut_documents=int((document_length_N > config.context_tokens).sum()),
        lost_tokens=int(document_length_N.sum() - stream.length_P[:taken].sum()),
    )


def _window_ends(begins_P: np.ndarray, window_documents: int) -> np.ndarray:
    """[W] int64 piece counts: in each window of the stream begin `window_documents` documents, in the last the rest."""
    first_W = np.flatnonzero(begins_P)[window_documents::window_documents]
    return np.append(first_W, begins_P.shape[0])


def _write(
    catalogue: Catalogue,
    config: PlanConfig,
    name: str,
    previous: Plan | None,
    folder: Path,
    found: Sorted,
    drawn: Drawn,
    pieces: Pieces,
    uses_D: np.ndarray,
) -> ShardResult:
    used, shard_P = np.unique(catalogue.shard_D[pieces.row_D], return_inverse=True)
    component_names = tuple(sorted(config.mix.components))
    source_numbers = sorted({pool.source for pool in found.pools})
    source_of_pool = np.array([source_numbers.index(pool.source) for pool in found.pools], np.int32)
    component_of_pool = np.array([component_names.index(pool.component) for pool in found.pools], np.int32)
    table = pa.table(
        {
            "shard": shard_P.astype(np.int32),
            "start": pieces.start,
            "length": pieces.length.astype(np.int32),
            "source": source_of_pool[pieces.pool],
            "document": pieces.row_D - catalogue.first_document_S[catalogue.shard_D[pieces.row_D]],
            "component": component_of_pool[pieces.pool],
        },
        schema=PIECES_SCHEMA,
    )
    tokens = int(pieces.length.sum())
    earlier = previous.segments if previous else ()
    segment = Segment(
        name=name,
        context_tokens=config.context_tokens,
        rows=config.rows,
        first_row=previous.rows if previous else 0,
        seed=derive_seed(config.seed, "rows", name),
        order_version=ORDER_VERSION,
        tokenizer=catalogue.tokenizer,
        components=component_names,
        sources=tuple(catalogue.sources[number] for number in source_numbers),
        shards=tuple(catalogue.shards[number] for number in used),
        shares=_shares(catalogue, config, found.pools, drawn, pieces, uses_D),
        tokens=tokens,
        padding_tokens=config.rows * config.context_tokens - tokens,
        truncated_documents=pieces.cut_documents,
        folder=folder.relative_to(catalogue.store).as_posix(),
    )
    segment = sealed(segment, earlier[-1].fingerprint if earlier else "")
    quota: dict[str, dict[str, int]] = {}
    for (component, source), target in drawn.targets.items():
        quota.setdefault(component, {})[source] = target
    seen = catalogue.columns(["lang", "domain", "license"])[np.unique(pieces.row_D)]
    write_json(folder / "excluded.json", found.excluded)
    write_json(folder / "quota.json", quota)
    languages = sorted(set(seen["lang"].fill_null(NO_LANGUAGE)))
    write_json(
        folder / "vocabulary.json",
        {"languages": languages, "domains": sorted(set(seen["domain"].fill_null(NO_VALUE)))},
    )
    write_segment(folder, (*earlier, segment), pieces.first_piece, table)
    write_json(folder / "stats.json", plan_statistics(Plan(catalogue.store, (*earlier, segment)), segment))
    licenses = seen["license"].fill_null(NO_VALUE).value_counts().sort("license")
    return ShardResult(
        **_counts(catalogue, config, found, pieces, segment),
        licenses=dict(licenses.iter_rows()),
        facts={"fingerprint": segment.fingerprint, "segment": segment.name, "lost_tokens": pieces.lost_tokens},
    )


def _shares(
    catalogue: Catalogue,
    config: PlanConfig,
    pools: Sequence[Pool],
    drawn: Drawn,
    pieces: Pieces,
    uses_D: np.ndarray,
) -> tuple[SourcePlan, ...]:
    new_P = first_seen_pieces(catalogue.shard_D[pieces.row_D], pieces.start, uses_D[pieces.row_D])
    begins_P = pieces.start == catalogue.start_D[pieces.row_D]
    source_of_pool = np.array([pool.source for pool in pools])
    draws_of_source = np.bincount(source_of_pool[pieces.pool[begins_P]], minlength=len(catalogue.sources))
    shares = []
    for i, pool in enumerate(pools):
        own_P = pieces.pool == i
        source = catalogue.sources[pool.source]
        shares.append(
            SourcePlan(
                component=pool.component,
                source=source,
                weight=drawn.targets[pool.component, source] / (config.rows * config.context_tokens),
                max_repeats=pool.max_repeats,
                tokens_planned=int(pieces.length[own_P].sum()),
                tokens_unique=int(pieces.length[own_P & new_P].sum()),
                documents_planned=int((own_P & begins_P).sum()),
                cursor_after=int(uses_D[catalogue.of_source[pool.source]].sum() + draws_of_source[pool.source]),
            )
        )
    return tuple(shares)


def _counts(
    catalogue: Catalogue, config: PlanConfig, found: Sorted, pieces: Pieces, segment: Segment
) -> dict[str, Any]:
    """Every document of the catalogue is either served or has a reason why not."""
    served_D = np.zeros(catalogue.documents, bool)
    served_D[pieces.row_D] = True
    whole_P = np.array([config.mix.components[pool.component].whole for pool in found.pools])[pieces.pool]
    cut_P = pieces.length != catalogue.length_D[pieces.row_D]
    assert not (whole_P & cut_P).any(), "a document promised whole was cut"
    dropped = {
        "mix.no_component": int((found.reason_D == -2).sum()),
        "mix.not_drawn": int(((found.reason_D == -1) & ~served_D).sum()),
    }
    dropped |= {f"mix.{reason}": int((found.reason_D == i).sum()) for i, reason in enumerate(REASONS)}
    token_bytes = TOKEN_DTYPE.itemsize
    return {
        "counts": {
            "documents_in": catalogue.documents,
            "documents_out": int(served_D.sum()),
            "bytes_in": int(catalogue.length_D.sum()) * token_bytes,
            "bytes_out": segment.tokens * token_bytes,
            "tokens": segment.tokens,
            "padding_tokens": segment.padding_tokens,
            "rows": segment.rows,
            "pieces": int(pieces.first_piece[-1]),
            "documents_cut": segment.truncated_documents,
            "whole_documents": int(whole_P.sum()),
            "whole_documents_cut": int((whole_P & cut_P).sum()),
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
