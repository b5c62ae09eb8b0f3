"""Peak memory of a worker that gets documents of 64 MB, stage by stage, against the limit of 1 GiB.

Contract: a fresh process a stage, with everything it imports and the children it starts. The input is one document of
`megabytes`, real ones of all languages joined, among a few small ones; for `extract` a page of HTML at the default of
`maximum_page_bytes`, alone and with the models of the other blocks in the process.
Ratios above 1 are within the limit. The input's size is below the default of `maximum_document_bytes`: a larger
document is dropped at reading (`read.too_large`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dedup_steps import deduplicated, write_input
from benchmarks.inputs import Corpus, documents, parquet_rows
from benchmarks.measure import Side, worker_memory
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.config import Located
from pipeline.core.provenance import SourceCard
from pipeline.core.steps import StepTask
from stages.catalog import block_config
from stages.clean import WORK
from stages.config import BlockSpec, CleanConfig, ReadConfig
from stages.extract import ExtractConfig
from stages.presets import load_preset
from stages.sources import expand_paths, step_paths

NAME = "memory"
LIMIT_MIB = 1024.0
CLEANING = ("normalise", "language", "rules", "pii", "toxicity")
ALL = "all of these"
EXTRACT, EXTRACT_ALL = "extract", "extract and all of these"
BLOCKS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in CLEANING},
    ALL: CLEANING,
    EXTRACT: (EXTRACT,),
    EXTRACT_ALL: (EXTRACT, *CLEANING),
}
OFF = dict.fromkeys(rule.name for rule in load_preset("fineweb2").rules)  # every rule, so that the document goes on
DEDUPLICATIONS = ("dedup.exact", "dedup.minhash", "dedup.paragraphs", "dedup.substring")


@dataclass(frozen=True)
class Load:
    megabytes: int


LOADS: dict[SizeName, Load] = {"full": Load(64), "quick": Load(1)}


def run(settings: Settings) -> Iterator[Found]:
    """Each block of cleaning, and each deduplication."""
    load = LOADS[settings.size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = large(load.megabytes * 10**6)
        given = write_input(folder, corpus)
        (folder / "page").mkdir()
        page_bytes = min(ExtractConfig().maximum_page_bytes, load.megabytes * 10**6)
        (folder / "page" / "page.html").write_text(page(page_bytes), encoding="utf-8")
        for block in (*BLOCKS, *DEDUPLICATIONS):
            is_page = block in (EXTRACT, EXTRACT_ALL)
            source = folder / "page" if is_page else given
            side = dedup_of if block in DEDUPLICATIONS else clean_of
            peak = worker_memory(side, block, str(source), str(folder / f"out-{block}"))
            label = f"a page of {page_bytes / 1e6:.1f} MB" if is_page else corpus.label
            yield Comparison(NAME, block, "MiB", peak, Spread.of([LIMIT_MIB]), "1 GiB a worker", label)


def large(size: int) -> Corpus:
    """One document of nearly so many bytes, with some small ones before it."""
    few = documents(2_000)
    parts = documents(3_000_000)
    whole = "\n\n".join(parts.texts)
    text = (whole * (1 + size // len(whole.encode()))).encode()[:size].decode(errors="ignore")
    label = f"a document of {size / 1e6:.0f} MB of {parts.label}"
    return Corpus((*few.ids, "large"), (*few.texts, text), (*few.languages, "en"), label)


def page(size: int) -> str:
    """A page of nearly so many bytes: the bodies of real ones."""
    rows = parquet_rows("html_gold.parquet", ("html",))
    bodies = [f"<p>{text}</p>" for text in documents(100_000).texts]
    if rows is not None:
        bodies = [row["html"].decode(errors="replace").partition("<body")[2].partition(">")[2] for row in rows]
    whole = "\n".join(body.partition("</body")[0] for body in bodies)
    inner = (whole * (1 + size // len(whole.encode()))).encode()[: size - 200].decode(errors="ignore")
    return f"<html lang='en'><head><title>Large</title><meta charset='utf-8'></head><body>{inner}</body></html>"


def clean_of(block: str, given: str, out: str) -> Callable[[], Side]:
    """For `worker_memory`: a cleaning step with one or all blocks; nothing is dropped before the last of them."""
    card = SourceCard(
        origin="benchmark", license="CC0-1.0", basis="own work", collected="2025-01-01", opt_out="none", contact="none"
    )
    if block in (EXTRACT, EXTRACT_ALL):
        read = ReadConfig(kind="html", paths=("*.html",))
    else:  # a language that is known is not identified
        known = "" if "language" in BLOCKS[block] else "lang"
        read = ReadConfig(kind="parquet", paths=("*/*.parquet",), lang_key=known)
    options = {"extract": {"seconds_per_page": 600.0}, "rules": {"preset": "fineweb2", "thresholds": {"default": OFF}}}
    specs = tuple(BlockSpec(name=one, config=block_config(one, Located(options.get(one, {})))) for one in BLOCKS[block])
    config = CleanConfig(source="benchmark", read=read.replaced(paths=()), card=card, blocks=specs)
    paths = step_paths(expand_paths(read, Path(given)))
    task = StepTask("clean.benchmark", "0" * 64, config, {}, Path(out), Path(out), paths)
    return lambda: lambda: WORK.make_shard(task, 0)


def dedup_of(block: str, given: str, out: str) -> Callable[[], Side]:
    """For `worker_memory`: a deduplication."""
    return lambda: lambda: deduplicated(block, Path(given), Path(out))
