"""Where documents lie: every table, token shard, mix segment, training step, checkpoint and export below a store.

Contract: looks at every folder of the store, finished or not, of this and of earlier configurations, and changes
nothing. A document is found by its id, its address or its page's canonical address; with it everything made from it,
from generation to generation (`parents`). Cost: the id columns of every table once a generation, addresses once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow.parquet as pq

from mixes.trace import positions_in
from pipeline.core.addresses import address_of
from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL, read_json
from pipeline.core.plans import Plan, Segment, read_plan
from pipeline.core.record import finished, read_record
from pipeline.core.runlog import read_lines
from pipeline.core.takedown import Takedown
from stages.takedown import addresses
from stages.tokenizer.sample import COUNT_KIND

TOKENS = ".docs.parquet"


@dataclass(frozen=True)
class Found:
    """A document, or what was made from one."""

    id: str
    source: str
    url: str | None
    made_from: tuple[str, ...] = ()  # those of the found documents that it was made from


@dataclass(frozen=True)
class Holding:
    """Rows of one table."""

    folder: str  # relative to the store
    table: str  # documents, heldout, dropped, signals, tokens, responses …
    file: str
    rows: tuple[int, ...]
    ids: tuple[str, ...]
    tokens: tuple[tuple[int, int], ...] = ()  # of token shards: (start, length) of each row


@dataclass(frozen=True)
class Whereabouts:
    """Everything found. `mixes`, `training`, `checkpoints` and `exports` are JSON rows."""

    documents: tuple[Found, ...]
    holdings: tuple[Holding, ...] = ()
    # Folders of steps that read a table with them and hold none, such as tokenizers; their counts hold words of them.
    readers: tuple[str, ...] = ()
    mixes: tuple[Mapping[str, Any], ...] = ()
    training: tuple[Mapping[str, Any], ...] = ()
    checkpoints: tuple[Mapping[str, Any], ...] = ()
    exports: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())  # what could not be looked at

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def folders(self) -> tuple[str, ...]:
        """Every folder with a document, a row of tokens or a model that has seen one."""
        rows = (*self.mixes, *self.training, *self.checkpoints)
        found = {one.folder for one in self.holdings} | {str(row["folder"]) for row in rows} | set(self.exports)
        return tuple(sorted(found))


def whereabouts(store: Path, wanted: Takedown) -> Whereabouts:
    """Look for what `wanted` names. Raises `InputError` for a table that cannot be read."""
    tables = list(_tables(store))
    documents = find_documents(tables, wanted)
    if not documents:
        return Whereabouts(())
    ids = {one.id for one in documents}
    files = [*(_holding(store, table, ids) for table in tables), *_responses(store, ids)]
    holdings = tuple(one for one in files if one is not None)
    chains, problems = _chains(store)
    mixes: list[Mapping[str, Any]] = []
    hits: dict[str, set[int]] = {}
    for fingerprint, (plan, segment) in sorted(chains.items()):
        try:
            _, served = positions_in(plan, segment, ids)
        except InputError as error:
            problems.append(error.render())
            continue
        hits[fingerprint] = set(served["position"].to_list())
        mixes += _mix_rows(segment, served)
    trained = tuple(_training(store, hits))
    seen = tuple(_checkpoints(store, chains, hits))
    return Whereabouts(
        documents,
        holdings,
        _readers(store, {one.folder for one in holdings}, {row["folder"] for row in (*mixes, *trained, *seen)}),
        tuple(mixes),
        trained,
        seen,
        tuple(_exports(store, [store / row["folder"] / row["checkpoint"] for row in seen])),
        tuple(problems),
    )


def _tables(store: Path) -> Iterator[Path]:
    """Every table of every step that has a row a document."""
    for path in sorted(store.glob("*/*/**/*.parquet")):
        if not path.name.startswith(PARTIAL) and "id" in _columns(path):
            yield path


def _columns(path: Path) -> list[str]:
    try:
        return pq.read_schema(path).names
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable Parquet file: {error}", where=str(path)) from None


def find_documents(tables: Collection[Path], wanted: Takedown) -> tuple[Found, ...]:
    """What `wanted` names in the tables, and what was made from it, sorted by generation and id."""
    fits: Callable[[pl.DataFrame], pl.Series]
    if wanted.kind == "id":
        found = _matching(tables, lambda part: part["id"] == wanted.pattern)
    else:
        found = _matching(tables, lambda part: _fitting(part, wanted))
    newest = set(found)
    while newest:
        parents = list(newest)
        fits = lambda part, parents=parents: _children(part, parents)  # noqa: E731
        made = _matching([table for table in tables if "parents" in _columns(table)], fits)
        newest = set(made) - set(found)
        found |= {identity: made[identity] for identity in newest}
    known = set(found)
    return tuple(
        Found(identity, row["source"], row["url"], tuple(one for one in row["parents"] or () if one in known))
        for identity, row in found.items()
    )


def _matching(tables: Collection[Path], fits: Callable[[pl.DataFrame], pl.Series]) -> dict[str, dict[str, Any]]:
    """id -> its row, of every row that `fits`."""
    found: dict[str, dict[str, Any]] = {}
    for path in tables:
        names = [name for name in ("id", "source", "url", "extra", "parents") if name in _columns(path)]
        if "source" not in names:
            continue
        part = pl.read_parquet(path, columns=names, use_pyarrow=True)
        for row in part.filter(fits(part)).sort("id").iter_rows(named=True):
            before = found.setdefault(row["id"], {"source": row["source"], "url": None, "parents": None})
            before["url"] = before["url"] or row.get("url")
            before["parents"] = before["parents"] or row.get("parents")
    return dict(sorted(found.items()))


def _fitting(part: pl.DataFrame, wanted: Takedown) -> pl.Series:
    rows = part.select(
        pl.col("url") if "url" in part.columns else pl.lit(None, pl.String).alias("url"),
        pl.col("extra") if "extra" in part.columns else pl.lit(None, pl.String).alias("extra"),
    ).iter_rows()
    found = (map(address_of, addresses(url, extra)) for url, extra in rows)
    return pl.Series([any(one is not None and wanted.fits(one) for one in row) for row in found], dtype=pl.Boolean)


def _children(part: pl.DataFrame, parents: Collection[str]) -> pl.Series:
    return part["parents"].list.eval(pl.element().is_in(list(parents))).list.any().fill_null(value=False)


def _holding(store: Path, path: Path, ids: Collection[str]) -> Holding | None:
    tokens = path.name.endswith(TOKENS)
    part = pl.read_parquet(path, columns=["id", "start", "length"] if tokens else ["id"], use_pyarrow=True)
    part = part.with_row_index("row").filter(pl.col("id").is_in(list(ids)))
    if not part.height:
        return None
    place = path.relative_to(store)
    return Holding(
        place.parts[0],
        place.parts[1],
        path.relative_to(store / place.parts[0]).as_posix(),
        tuple(part["row"].to_list()),
        tuple(part["id"].to_list()),
        tuple(part.select("start", "length").iter_rows()) if tokens else (),
    )


def _responses(store: Path, ids: Collection[str]) -> Iterator[Holding]:
    """Files of recorded answers of models that were asked about a document; rows are lines."""
    for path in sorted(store.glob("responses/*.jsonl")):
        with path.open("rb") as lines:
            asked = [str(orjson.loads(line).get("document", "")) for line in lines if line.endswith(b"\n")]
        hits = [(row, one) for row, text in enumerate(asked) for one in text.split() if one in ids]
        if hits:
            rows, found = zip(*hits, strict=True)
            yield Holding("responses", "responses", path.name, rows, found)


def _readers(store: Path, folders: Collection[str], others: Collection[str]) -> tuple[str, ...]:
    """Finished steps, in neither collection, that took their inputs from `folders`; tokenizers through their counts."""
    fingerprints = {read_record(store / name).fingerprint for name in folders if finished(store / name)}
    records = {path.parent.name: read_record(path.parent) for path in sorted(store.glob("*/record.json"))}
    found: set[str] = set()
    while True:
        more = {
            name
            for name, record in records.items()
            if name not in {*folders, *others, *found} and fingerprints & set(record.inputs.values())
        }
        if not more:
            return tuple(sorted(found))
        found |= more
        fingerprints = {records[name].fingerprint for name in more if records[name].kind == COUNT_KIND}


def _chains(store: Path) -> tuple[dict[str, tuple[Plan, Segment]], list[str]]:
    """(fingerprint of each segment -> the chain that ends with it, plans that cannot be read)."""
    chains: dict[str, tuple[Plan, Segment]] = {}
    problems: list[str] = []
    for path in sorted(store.glob("*/segments.json")):
        try:
            plan = read_plan(store, path.parent)
        except InputError as error:
            problems.append(error.render())
            continue
        chains[plan.fingerprint] = (plan, plan.segments[-1])
    return chains, problems


def _mix_rows(segment: Segment, served: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for (identity,), rows in served.group_by(["id"], maintain_order=True):
        yield {
            "folder": segment.folder,
            "segment": segment.name,
            "fingerprint": segment.fingerprint,
            "id": identity,
            "tokens": int(rows["length"].sum()),
            "positions": sorted(set(rows["position"].to_list())),
        }


def _training(store: Path, hits: Mapping[str, Collection[int]]) -> Iterator[dict[str, Any]]:
    """Runs of training steps whose rows held a document."""
    for path in sorted(store.glob("*/train.jsonl")):
        steps: list[tuple[str, int]] = []
        for line in read_lines(path):
            served = hits.get(line["segment"], ())
            if any(line["position"] <= position < line["position"] + line["rows"] for position in served):
                steps.append((line["phase"], line["step"]))
        for phase in sorted({phase for phase, _ in steps}):
            own = sorted(step for name, step in steps if name == phase)
            yield {"folder": path.parent.name, "phase": phase, "steps": len(own), "ranges": ranges(own)}


def ranges(numbers: Collection[int]) -> list[tuple[int, int]]:
    """Ascending whole numbers as (first, last) of each unbroken run: 1 2 3 7 -> (1, 3), (7, 7)."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _checkpoints(
    store: Path, chains: Mapping[str, tuple[Plan, Segment]], hits: Mapping[str, Collection[int]]
) -> Iterator[dict[str, Any]]:
    """Checkpoints whose weights have seen a document: positions count over the whole chain of phases."""
    for path in sorted(store.glob("*/checkpoints/*/checkpoint.json")):
        stored = read_json(path)
        if stored["plan"] not in chains:
            continue
        plan, _ = chains[stored["plan"]]
        seen = {row for segment in plan.segments for row in hits.get(segment.fingerprint, ())}
        rows = [row for row in seen if row < stored["position"]]
        if rows:
            yield {
                "folder": path.relative_to(store).parts[0],
                "checkpoint": path.parent.relative_to(store / path.relative_to(store).parts[0]).as_posix(),
                "phase": stored["phase"],
                "step": stored["step"],
                "rows": len(rows),
                "first_position": min(rows),
            }


def _exports(store: Path, checkpoints: Collection[Path]) -> Iterator[str]:
    """Exported models that are one of the checkpoints."""
    paths = sorted(store.glob("export/*/export-check.json"))
    if not paths:
        return
    from trainer.checkpoint import read_info  # torch

    seen = {read_info(path).identity for path in checkpoints}
    for path in paths:
        if read_json(path)["checkpoint"] in seen:
            yield path.parent.relative_to(store).as_posix()
