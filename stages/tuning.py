"""What thresholds would drop, from stored signals alone: the arithmetic behind `seodang tune`.

Contract: reads `signals/*.parquet` of finished steps (`stages.signals`), never text. Every figure is a count of
documents of one language judged by one preset. Cost: a comparison a rule and document; columns are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import ConfigError, InputError
from stages.rules import Judged, RulesConfig, Verdict, judge, judge_all
from stages.signals import KEYS, SIGNALS, column

SHARES = (0.01, 0.05, 0.10)  # of documents: the thresholds that would drop so many are shown


@dataclass(frozen=True)
class Effect:
    """What one rule does to the documents of one language.

    Attributes:
        fails: Documents that fail it. first: those of them that no earlier rule drops. only: that no other rule drops.
        at_shares: The thresholds that would drop each of `SHARES`.
    """

    preset: str
    lang: str
    rule: str
    signal: str
    side: str
    threshold: float
    documents: int
    fails: int
    first: int
    only: int
    at_shares: tuple[float, ...]


@dataclass(frozen=True)
class Change:
    """A document whose verdict another configuration changes: the rule that drops it, before and after, or None."""

    id: str
    lang: str
    before: Verdict | None
    after: Verdict | None


def read_signals(folders: Sequence[Path]) -> pa.Table:
    """The rules' signals of finished steps.

    Raises:
        InputError: No step has them, or they are of another version.
    """
    paths = [path for folder in folders for path in sorted((folder / "signals").glob("[0-9]*.parquet"))]
    wanted = [*KEYS, *map(column, SIGNALS)]
    tables = [pq.read_table(path, columns=wanted) for path in paths if set(wanted) <= set(pq.read_schema(path).names)]
    if not tables:
        where = ", ".join(folder.name for folder in folders)
        raise InputError("no signals of the rules there", where=where, fix="run a cleaning step with a `rules` block")
    return pa.concat_tables(tables)


def effects(signals: pa.Table, config: RulesConfig) -> list[Effect]:
    """Every rule and language, by preset, language and the preset's order. Raises `ConfigError` as `judge_all` does."""
    groups = sorted(judge_all(signals, config), key=lambda one: (one.preset.name, one.lang or ""))
    return [effect for one in groups for effect in _of_group(one)]


def _of_group(one: Judged) -> list[Effect]:
    rules = [rule for rule in one.preset.rules if rule.name in one.fails]
    failed = np.sum([one.fails[rule.name] for rule in rules], axis=0)
    still_open = np.ones(one.rows.size, bool)
    found: list[Effect] = []
    for rule in rules:
        fails, values = one.fails[rule.name], one.values[rule.name]
        known = values[~np.isnan(values)]
        shares = [share if rule.below is not None else 1 - share for share in SHARES]
        found.append(
            Effect(
                preset=one.preset.name,
                lang=one.lang or "",
                rule=rule.name,
                signal=rule.signal,
                side="above" if rule.below is None else "below",
                threshold=one.limits[rule.name],
                documents=one.rows.size,
                fails=int(fails.sum()),
                first=int((fails & still_open).sum()),
                only=int((fails & (failed == 1)).sum()),
                at_shares=tuple(np.quantile(known, shares).tolist()) if known.size else (),
            )
        )
        still_open &= ~fails
    return found


def changes(signals: pa.Table, config: RulesConfig, proposed: RulesConfig) -> list[Change]:
    """Documents whose verdict changes, in the table's order. Raises `ConfigError` as `judge_all` does."""
    pairs = zip(judge(signals, config), judge(signals, proposed), strict=True)
    ids, langs = signals["id"].to_pylist(), signals["lang"].to_pylist()
    return [
        Change(ids[row], langs[row] or "", before, after)
        for row, (before, after) in enumerate(pairs)
        if (before is None) != (after is None)
    ]


def with_proposals(config: RulesConfig, proposals: Sequence[str]) -> RulesConfig:
    """`LANG.RULE=VALUE` (or `default.RULE=VALUE`; `null` switches off) put over a configuration's thresholds.

    Raises:
        ConfigError: A proposal is not of that form.
    """
    found = {lang: dict(values) for lang, values in config.thresholds.items()}
    for proposal in proposals:
        name, _, value = proposal.partition("=")
        lang, _, rule = name.partition(".")
        try:
            number = None if value in ("null", "off") else float(value)
        except ValueError:
            number = float("nan")
        if not rule or (number is not None and np.isnan(number)):
            raise ConfigError(f"not a proposal: `{proposal}`", where="--try", fix="e.g. ko.gopher_too_short=30")
        found.setdefault(lang, {})[rule] = number
    return config.replaced(thresholds=found)
