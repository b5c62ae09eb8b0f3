"""Signals that an earlier step measured: rules over them, and handing them on with the documents that stay.

Contract: the signals of a document shard `STEP/documents/K.parquet` lie in `STEP/signals/K.parquet`, keyed by id.
Verdicts are made once a shard, over whole columns; a document's text is never looked at. Memory: the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import InputError
from stages.block import Outcome, outcome
from stages.rules import RulesConfig, Verdict, check, dropped_by, judge

SIGNALS = "signals"


def signals_file(file: Path) -> Path:
    """Where the quality signals of a document shard lie, if there are any."""
    return file.parent.parent / SIGNALS / file.name


class StoredSignals:
    """The signals of one document shard."""

    def __init__(self, table: pa.Table, where: str) -> None:
        self.table = table
        self._where = where
        self._rows = {name: row for row, name in enumerate(table["id"].to_pylist())}

    @classmethod
    def beside(cls, file: Path) -> StoredSignals | None:
        """Those of a document shard, if there are any."""
        path = signals_file(file)
        return cls(pq.read_table(path), str(path)) if path.is_file() else None

    def rows(self, names: Sequence[str]) -> list[int]:
        """The row of each document. Raises `InputError` for one that has none."""
        try:
            return [self._rows[name] for name in names]
        except KeyError as error:
            raise InputError(
                f"no signals of document {error}", where=self._where, fix="remove the step's folder and run again"
            ) from None

    def of(self, names: Sequence[str]) -> pa.Table:
        """The signals of those of the documents that have any, in the table's order."""
        stays = np.zeros(self.table.num_rows, bool)
        stays[[self._rows[name] for name in names if name in self._rows]] = True
        return self.table.filter(pa.array(stays))


class StoredRules:
    """The `rules` block over stored signals; a shard without documents needs none."""

    def __init__(self, config: RulesConfig, stored: StoredSignals | None, where: str) -> None:
        check(config)
        self._config = config
        self._stored = stored
        self._where = where

    def apply(self, documents: pa.Table) -> Outcome:
        if self._stored is None:
            fix = "put `signals` before `rules`"
            raise InputError("its documents have no stored signals", where=self._where, fix=fix)
        rows = self._stored.rows(documents["id"].to_pylist())
        return outcome(documents, dropped_by([self._verdicts[row] for row in rows]))

    @cached_property
    def _verdicts(self) -> list[Verdict | None]:
        assert self._stored is not None
        return judge(self._stored.table, self._config)
