"""A small store as a run leaves it, made by the contracts' own writers: records, dropped tables, token shards, real mix
plans, run logs and gates. Names and amounts are chosen so that every figure in a page can be told from the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixes.loader import MixLoader
from mixes.plan import append_segment
from mixes.spec import MixConfig, PlanConfig
from pipeline.core.config import Config
from pipeline.core.documents import DROPPED_SCHEMA, document_id, table_from_rows, write_dropped
from pipeline.core.files import write_json
from pipeline.core.plans import Plan, read_plan
from pipeline.core.provenance import SourceCard
from pipeline.core.record import Record, output_hashes, write_record
from pipeline.core.runlog import RunLog, StepLine
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, write_shard
from pipeline.core.steps import Step, StepOutput
from pipeline.graph import Graph
from pipeline.report.gather import PhaseView

EOS = 1
LANGUAGES = ("ko", "en", "es", "de", "ja", "vi")
SOURCES = ("web-ko", "python-stdlib", "notes")
ROWS_PER_BATCH = 4
CARD = {
    "origin": "Pages written for this test",
    "license": "CC-BY-4.0",
    "basis": "own work",
    "collected": "2025-03-14",
    "opt_out": "robots.txt and TDM reservations are honoured",
    "contact": "data@example.org",
}

# source -> (read, {reason: dropped}); conservation: what is left went out
CLEANED: dict[str, tuple[int, dict[str, int]]] = {
    "web-ko": (480, {"extract.empty": 17, "language.other": 41, "rules.gopher_short": 63, "rules.c4_curly": 9}),
    "python-stdlib": (912, {"rules.gopher_short": 122, "compliance.refused": 3}),
    "notes": (75, {"language.other": 5, "decontaminate.ngram": 2}),
}


class NoConfig(Config):
    """Steps of the fixture have no settings."""


@dataclass(frozen=True)
class Store:
    """What a test needs of the store."""

    root: Path
    graph: Graph
    phases: tuple[PhaseView, ...]
    cards: Mapping[str, SourceCard]
    plans: Mapping[str, Plan]  # by phase


def step(name: str, kind: str, inputs: Mapping[str, str] | None = None) -> Step:
    return Step(name, kind, 1, NoConfig(), dict(inputs or {}), "none:NONE")


def commit(graph: Graph, name: str, **parts: Any) -> Record:
    """Write the record of a step whose files are there."""
    node = graph.node(name)
    node.folder.mkdir(parents=True, exist_ok=True)
    inputs = {role: graph.node(other).fingerprint for role, other in node.step.inputs.items()}
    empty: dict[str, Any] = {"counts": {}, "dropped": {}, "licenses": {}, "facts": {}}
    record = Record(
        step=name, kind=node.step.kind, kind_version=1, fingerprint=node.fingerprint, config={}, inputs=inputs,
        files=output_hashes(node.folder), **(empty | parts),
    )  # fmt: skip
    write_record(node.folder, record, {"seconds": 1.0})
    return record


def build_graph(root: Path) -> Graph:
    cleaned = [f"clean.{source}" for source in SOURCES]
    roles = {f"documents.{source}": f"clean.{source}" for source in SOURCES}
    steps = [step(name, "stages.clean") for name in cleaned]
    steps += [
        step("dedup.minhash", "stages.dedup", roles),
        step("split", "stages.split", {"documents": "dedup.minhash"}),
        step("tokenizer", "stages.tokenizer", {"documents": "split"}),
        step("synth.reason", "synth.reasoning"),
        step("encode.clean", "stages.encode", {"documents": "split", "tokenizer": "tokenizer"}),
        step("encode.reason", "stages.encode", {"documents": "synth.reason", "tokenizer": "tokenizer"}),
        step("mix.pretrain-1", "mixes.plan", {"encode.clean": "encode.clean"}),
        step("mix.extend-1", "mixes.plan", {"encode.clean": "encode.clean", "previous": "mix.pretrain-1"}),
        step("mix.extend-2", "mixes.plan", {"encode.clean": "encode.clean", "previous": "mix.extend-1"}),
    ]
    return Graph(root, steps)


def write_cleaning(graph: Graph) -> None:
    left: dict[str, int] = {}
    for source, (read, dropped) in CLEANED.items():
        left[source] = read - sum(dropped.values())
        counts = {"documents_in": read, "documents_out": left[source], "bytes_in": 5 * read, "bytes_out": 3 * read}
        tally = {"in": read, "out": left[source], "dropped": dropped}
        facts = {"by_source": {source: tally}, "by_language": {"ko" if source == "web-ko" else "en": tally}}
        commit(
            graph, f"clean.{source}", counts=counts, dropped=dropped, facts=facts, licenses={"CC-BY-4.0": left[source]}
        )
    total = sum(left.values())
    tallies = {
        source: {"in": count, "out": count - 10, "dropped": {"dedup.minhash": 10}} for source, count in left.items()
    }
    korean, rest = left["web-ko"], total - left["web-ko"]
    languages = {
        "ko": {"in": korean, "out": korean - 10, "dropped": {"dedup.minhash": 10}},
        "en": {"in": rest, "out": rest - 20, "dropped": {"dedup.minhash": 20}},
    }
    commit(
        graph, "dedup.minhash", counts={"documents_in": total, "documents_out": total - 30},
        dropped={"dedup.minhash": 30}, facts={"by_source": tallies, "by_language": languages},
    )  # fmt: skip
    # This step says nothing by source: the page counts its dropped documents.
    held = [
        {"id": document_id("notes", str(i)), "source": "notes", "lang": "en", "reason": "split.held_out"}
        for i in range(4)
    ]
    write_dropped(graph.node("split").folder, 0, table_from_rows(held, DROPPED_SCHEMA))
    counts = {"documents_in": total - 30, "documents_out": total - 34}
    licenses = {"CC-BY-4.0": 300, "PSF-2.0": total - 334}
    commit(graph, "split", counts=counts, dropped={"split.held_out": 4}, licenses=licenses)


def write_tokens(graph: Graph) -> None:
    facts = {"vocabulary": 8192, "superwords": 611}
    commit(graph, "tokenizer", counts={"tokens": 8192}, facts=facts)
    commit(
        graph, "synth.reason", counts={"documents_in": 140, "documents_out": 120}, dropped={"check.wrong_answer": 20},
        licenses={"Apache-2.0": 120},
    )  # fmt: skip
    random = np.random.default_rng(7)
    for name, sources in (("encode.clean", SOURCES), ("encode.reason", ("reason",))):
        rows: list[dict[str, Any]] = []
        start = 0
        for source in sources:
            lengths = np.minimum(np.exp(random.normal(4.6, 1.0, 260)).astype(int) + 2, 6000)
            for number, length in enumerate(lengths.tolist()):
                rows.append(
                    {
                        "id": document_id(source, str(number)),
                        "source": source,
                        "lang": "en" if source == "python-stdlib" else LANGUAGES[number % 6],
                        "domain": ("code", "science", None)[number % 3],
                        "license": {"python-stdlib": "PSF-2.0", "reason": "Apache-2.0"}.get(source, "CC-BY-4.0"),
                        "maker": "reasoning-gym@1" if source == "reason" else None,
                        "start": start,
                        "length": length,
                    }
                )
                start += length
        tokens = np.full(start, 9)
        tokens[np.array([row["start"] + row["length"] - 1 for row in rows])] = EOS
        write_shard(
            graph.node(name).folder / "tokens" / "00000",
            tokens,
            table_from_rows(rows, DOCUMENT_TABLE_SCHEMA),
            eos_id=EOS,
        )
        licenses: dict[str, int] = {}
        for row in rows:
            licenses[row["license"]] = licenses.get(row["license"], 0) + 1
        counts = {"documents_in": len(rows), "documents_out": len(rows), "bytes_in": 4 * start, "tokens": start}
        languages = {lang: sum(row["length"] for row in rows if row["lang"] == lang) for lang in LANGUAGES}
        commit(graph, name, counts=counts, licenses=licenses, facts={"tokens_by_language": languages})


MIX = {
    "pretrain-1": {"web": {"from": ("web-ko", "notes",), "weight": 0.6}, "code": {"from": ("python-stdlib",), "weight": 0.4}},
    "extend-1": {
        "rehearsal": {"from": ("web-ko", "python-stdlib",), "weight": 0.5, "max_repeats": 3},
        "reasoning": {"from": ("reason",), "weight": 0.2},
        "long": {"from": ("*",), "weight": 0.3, "whole": True, "minimum_tokens": 60, "max_repeats": 4},
    },
}  # fmt: skip


def write_mix(store: Path, graph: Graph, phase: str, context: int, budget: int, previous: Plan | None) -> Plan:
    node = graph.node(f"mix.{phase}")
    encoded = {name: StepOutput(name, graph.node(name).folder) for name in ("encode.clean", "encode.reason")}
    config = PlanConfig.model_validate(
        {
            "mix": MixConfig.model_validate({"components": MIX[phase], "shortage": "fill"}),
            "phase": phase, "context_tokens": context, "budget_tokens": budget, "rows_per_batch": ROWS_PER_BATCH, "seed": 3,
        }
    )  # fmt: skip
    result = append_segment(store, encoded, config, previous, node.folder)
    commit(graph, f"mix.{phase}", counts=result.counts, dropped=result.dropped, licenses=result.licenses)
    return read_plan(store, node.folder)


def write_log(plan: Plan, folder: Path, phase: str, steps: int | None, start_loss: float) -> None:
    """A run log over the last segment of `plan`, with the loader's own tokens by source."""
    segment = plan.segments[-1]
    loader = MixLoader(plan)
    log = RunLog.open(folder / "train.jsonl", keep_steps=0)
    total = segment.rows // ROWS_PER_BATCH
    random = np.random.default_rng(len(phase))
    for number in range(steps or total):
        position = segment.first_row + number * ROWS_PER_BATCH
        batch = loader.batch(position, ROWS_PER_BATCH)
        ids, counts = np.unique(batch.source_ids_RT[batch.source_ids_RT >= 0], return_counts=True)
        by_source = {batch.sources[i]: int(n) for i, n in zip(ids, counts, strict=True)}
        loss = 2 + (start_loss - 2) * math.exp(-number / (total / 3)) + float(random.normal(0, 0.12))
        log.write(
            StepLine(
                phase=phase, step=number + 1, position=position, rows=ROWS_PER_BATCH, tokens=sum(by_source.values()),
                labelled_tokens=sum(by_source.values()) - 7, loss=loss, mtp_loss=loss * 1.2, balance_loss=0.01,
                learning_rate=3e-4 * min(1.0, (number + 1) / 8), gradient_norm=1 + float(random.random()),
                segment=segment.fingerprint,
                loss_by_source={name: loss + 0.2 * place for place, name in enumerate(sorted(by_source))},
                loss_by_language={"ko": loss + 0.3, "en": loss - 0.1}, loss_by_domain={"code": loss - 0.5},
                tokens_by_source=by_source, load_max_over_mean=1.1 + 2 * math.exp(-number / 9),
                dead_experts=max(0, 3 - number), seconds=0.5, tokens_per_second=2 * sum(by_source.values()),
            )
        )  # fmt: skip
    log.close()


def write_gate(folder: Path, phase: str, number: int, plan: Plan, exact: list[list[float]], reasons: list[str]) -> None:
    from trainer.evals.gate import GateVerdict
    from trainer.evals.niah import NiahGrid

    context = plan.segments[-1].context_tokens
    depths = (0.0, 0.25, 0.5, 0.75, 1.0)
    lengths = tuple(context * (i + 1) // 4 for i in range(4))
    rows = tuple(tuple(row) for row in exact)
    nats = tuple(tuple(round(-6.5 + 6 * cell, 3) for cell in row) for row in rows)
    grid = NiahGrid(lengths, depths, rows, nats, 4, {"ko": 0.625, "en": 0.875})
    verdict = GateVerdict(
        phase=phase, round=number, checkpoint="00000042", plan=plan.fingerprint, context_tokens=context,
        green=not reasons, reasons=tuple(reasons), niah=grid, niah_mean=grid.mean, niah_worst_length=min(grid.by_length),
        niah_needed=0.99, short_context_loss=2.3125 + number / 64, short_context_baseline=2.3, short_context_allowed=2.323,
    )  # fmt: skip
    write_json(folder / f"gate-{number}.json", asdict(verdict))


def build_store(root: Path) -> Store:
    """Two of three phases made and trained, the second only in part; the third not begun."""
    graph = build_graph(root)
    write_cleaning(graph)
    write_tokens(graph)
    first = write_mix(root, graph, "pretrain-1", 256, 50_000, None)
    second = write_mix(root, graph, "extend-1", 512, 40_000, first)
    trained = {phase: f"train.{phase}-0123abcd" for phase in ("pretrain-1", "extend-1")}
    write_log(first, root / trained["pretrain-1"], "pretrain-1", None, 9.0)
    write_log(second, root / trained["extend-1"], "extend-1", 11, 4.0)
    red = [
        [0.75, 0.5, 0.25, 0.5, 1.0],
        [0.5, 0.25, 0.0, 0.25, 0.75],
        [0.25, 0.0, 0.0, 0.0, 0.5],
        [0.0, 0.0, 0.0, 0.0, 0.25],
    ]
    reason = "needles found: 5.0% at 512 tokens; 99.0% needed at every length"
    write_gate(root / trained["extend-1"], "extend-1", 0, second, red, [reason])
    write_gate(root / trained["extend-1"], "extend-1", 1, second, [[1.0] * 5] * 4, [])
    folders = {phase: graph.node(f"mix.{phase}").folder.name for phase in ("pretrain-1", "extend-1", "extend-2")}
    phases = (
        PhaseView("pretrain-1", 256, 50_000, (folders["pretrain-1"],), trained["pretrain-1"]),
        PhaseView("extend-1", 512, 40_000, (folders["extend-1"],), trained["extend-1"]),
        PhaseView("extend-2", 1024, 30_000, (folders["extend-2"],), None),
    )
    cards = {source: SourceCard.model_validate(CARD | {"note": f"note about {source}"}) for source in SOURCES}
    return Store(root, graph, phases, cards, {"pretrain-1": first, "extend-1": second})


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def empty_graph() -> Callable[[Path], Graph]:
    """The same curriculum before anything has been run."""
    return build_graph
