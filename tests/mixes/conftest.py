"""Small real shards and plans for the mixes' tests: every token id tells its document and place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mixes.plan import append_segment
from mixes.spec import PlanConfig
from pipeline.core.documents import document_id, table_from_rows
from pipeline.core.plans import Plan, read_plan
from pipeline.core.record import Record, output_hashes, write_record
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, write_shard
from pipeline.core.steps import StepOutput

EOS = 1
TOKENIZER = "t" * 64


def write_encoded(
    store: Path,
    name: str,
    shards: Sequence[Sequence[Mapping[str, Any]]],
    *,
    tokenizer: str = TOKENIZER,
    masked: bool = False,
) -> StepOutput:
    """An encode step's folder. Each document is a mapping with `source`, `length` and any column of the table; its
    tokens are 10, 11, 12 … shifted by its catalogue-wide number, and EOS."""
    folder = store / f"{name}-00000000"
    number = 0
    for index, documents in enumerate(shards):
        rows, tokens, start = [], [], 0
        for document in documents:
            length = document["length"]
            rows.append({"id": document_id(document["source"], f"{name}/{number}"), **document, "start": start})
            tokens.append(np.append(np.arange(length - 1) + 10 + 1000 * number, EOS))
            start += length
            number += 1
        ids = np.concatenate(tokens) if tokens else np.empty(0, np.int64)
        table: pa.Table = table_from_rows(rows, DOCUMENT_TABLE_SCHEMA)
        flags = (np.arange(ids.shape[0]) % 3 != 0).astype(np.uint8) if masked else None
        write_shard(folder / "tokens" / f"{index:05d}", ids, table, eos_id=EOS, loss=flags)
    inputs, files = {"tokenizer": tokenizer}, output_hashes(folder)
    record = Record(name, "stages.encode", 1, "f" * 64, {}, inputs, {}, {}, {}, {}, files)
    write_record(folder, record, {})
    return StepOutput(name, folder)


def simple(source: str, lengths: Sequence[int], **columns: Any) -> list[dict[str, Any]]:
    return [{"source": source, "length": length, "license": "CC0-1.0", **columns} for length in lengths]


@dataclass
class House:
    """A store with encoded sources, and a chain of segments planned over them."""

    store: Path
    encoded: dict[str, StepOutput] = field(default_factory=dict)
    plan: Plan | None = None
    results: list[Any] = field(default_factory=list)

    def encode(self, name: str, *shards: Sequence[Mapping[str, Any]], **options: Any) -> None:
        self.encoded[f"encode.{name}"] = write_encoded(self.store, f"encode.{name}", shards, **options)

    def append(self, components: Mapping[str, Any], **settings: Any) -> Plan:
        promises = ("shortage", "native_floors", "synthetic_cap")
        mix = {"components": components, **{name: settings.pop(name) for name in promises if name in settings}}
        values = {"phase": "one", "context_tokens": 64, "rows_per_batch": 1, "seed": 7, **settings, "mix": mix}
        config = PlanConfig.model_validate(values)
        folder = self.store / f"mix.{len(self.plan.segments) if self.plan else 0}"
        self.results.append(append_segment(self.store, self.encoded, config, self.plan, folder))
        self.plan = read_plan(self.store, folder)
        return self.plan


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(scope="session")
def new_house(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], House]:
    """For hypothesis and modules: a fresh store for every call."""
    return lambda: House(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def documents_of() -> Callable[..., list[dict[str, Any]]]:
    return simple
