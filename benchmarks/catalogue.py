"""The catalogue of benchmarks: the one visible list. Adding a benchmark is adding a file and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from benchmarks.result import Found
from benchmarks.settings import Settings
from pipeline.core.errors import unknown_name

Run = Callable[[Settings], Iterator[Found]]


@dataclass(frozen=True)
class Entry:
    """One benchmark: its name, where it is (`module:function`, a `Run`), what it measures and against whom."""

    name: str
    run: str
    what: str
    peers: tuple[str, ...]


BENCHMARKS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "bounds",
            "benchmarks.bounds:run",
            "words, blocks and deduplications beside UTF-8 decoding and a memory scan",
            ("UTF-8 decoding", "memory scan"),
        ),
        Entry(
            "clustering",
            "benchmarks.clustering:run",
            "signatures to clusters, out of core",
            ("datatrove MinhashDedupBuckets, MinhashDedupCluster",),
        ),
        Entry(
            "words",
            "benchmarks.words:run",
            "splitting text into words, by language, and for shingles",
            ("datatrove's word tokenizers",),
        ),
        Entry(
            "signals",
            "benchmarks.signals:run",
            "all quality signals and rules, by language",
            ("datatrove's Gopher, C4 and FineWeb filters",),
        ),
        Entry(
            "minhash",
            "benchmarks.minhash:run",
            "text to MinHash signatures",
            ("datatrove MinhashDedupSignature", "datasketch", "rensa"),
        ),
        Entry(
            "dedupe",
            "benchmarks.dedupe:run",
            "text to survivors of near-duplicate removal",
            ("datatrove's four stages", "datasketch MinHashLSH", "rensa RMinHashLSH"),
        ),
        Entry(
            "exact",
            "benchmarks.exact:run",
            "Parquet to survivors of exact deduplication",
            ("datatrove ExactDedup",),
        ),
        Entry(
            "substring",
            "benchmarks.substring:run",
            "Parquet to Parquet without repeated substrings, and peak memory",
            ("pydivsufsort", "pydivsufsort between datatrove's ES blocks"),
        ),
        Entry(
            "memory",
            "benchmarks.memory:run",
            "peak memory of a worker with documents of 64 MB, by stage",
            ("1 GiB",),
        ),
        Entry(
            "lid",
            "benchmarks.lid:run",
            "language of documents and of single paragraphs",
            ("fastText lid.176.ftz", "py3langid"),
        ),
        Entry(
            "extract",
            "benchmarks.extract:run",
            "main text of HTML pages, and what the time limit costs",
            ("trafilatura", "justext"),
        ),
        Entry(
            "end-to-end",
            "benchmarks.end_to_end:run",
            "Parquet to Parquet through all signals and rules, by language",
            ("datatrove's reader, filters and writer",),
        ),
        Entry(
            "decontaminate",
            "benchmarks.decontaminate:run",
            "search for benchmark items in documents",
            ("datatrove NGramsDecontFilter",),
        ),
        Entry("bpe-train", "benchmarks.bpe_train:run", "stage 1 of tokenizer training", ("tokenizers BpeTrainer",)),
        Entry(
            "bpe-train-large",
            "benchmarks.bpe_train_large:run",
            "both stages to 153,600 entries on 1 GB of mixed text, out of core; bytes per token of held-out text",
            ("8 GiB of memory", "a vocabulary in the older style"),
        ),
        Entry(
            "compression",
            "benchmarks.compression:run",
            "bytes per token of held-out text, by language and domain",
            ("a vocabulary in the older style",),
        ),
        Entry("encode", "benchmarks.encode:run", "text to token ids", ("tokenizers encode_batch_fast", "tiktoken")),
        Entry("shards", "benchmarks.shards:run", "documents to token shards", ("datatrove DocumentTokenizer",)),
        Entry(
            "synth-client",
            "benchmarks.synth_client:run",
            "chat completions from a local server",
            ("datatrove InferenceRunner", "bare httpx", "bare sockets"),
        ),
        Entry(
            "subagents",
            "benchmarks.subagents:run",
            "context of a search with sub-agents; recall of the search index by language",
            ("the same loop without sub-agents", "FTS5 trigram", "FTS5 unicode61"),
        ),
        Entry(
            "reasoning",
            "benchmarks.reasoning:run",
            "verified reasoning samples from parametric families",
            ("reasoning-gym",),
        ),
        Entry("pack", "benchmarks.pack:run", "packing pieces into training rows", ("OLMo-core InstancePacker",)),
        Entry(
            "preview",
            "benchmarks.preview:run",
            "a mix's rows and fill from length histograms",
            ("packing each document",),
        ),
        Entry(
            "plan",
            "benchmarks.plan:run",
            "planning a hundred million documents, and resuming in a milliard rows: time and memory",
            ("reading their tables with polars", "1 s", "a stored order"),
        ),
        Entry(
            "order",
            "benchmarks.order:run",
            "which row is served at a position",
            ("numpy Generator.permutation", "Megatron build_blending_indices"),
        ),
        Entry(
            "loader",
            "benchmarks.loader:run",
            "packed, masked training rows from shards",
            ("memory-mapped gather", "MosaicML StreamingDataLoader"),
        ),
        Entry(
            "train-step",
            "benchmarks.train_step:run_1k",
            "one training step of the small model, rows of 1,024 tokens",
            ("transformers exaone_moe", "matrix product"),
        ),
        Entry(
            "train-step-8k",
            "benchmarks.train_step:run_8k",
            "the same at a row of 8,192 tokens",
            ("transformers exaone_moe", "matrix product"),
        ),
        Entry(
            "loop-overhead",
            "benchmarks.loop_overhead:run",
            "a step of the training loop with its loader, metrics and log",
            ("the bare step",),
        ),
        Entry(
            "swa-scaling",
            "benchmarks.swa_scaling:run",
            "a sliding-window layer from 1K tokens on",
            ("transformers exaone_moe",),
        ),
        Entry(
            "loss-memory",
            "benchmarks.loss_memory:run",
            "next-token loss at a vocabulary of 153,600",
            ("full logits",),
        ),
        Entry(
            "float8-gap",
            "benchmarks.float8_gap:run",
            "loss of a training in eight bits, over seeds",
            ("the same training in bfloat16",),
        ),
        Entry(
            "drafting",
            "benchmarks.drafting:run",
            "generation with drafts of the model's own MTP module",
            ("plain generation",),
        ),
    )
}


def entry(name: str) -> Entry:
    """Raises `ConfigError` with the nearest name for a benchmark that does not exist."""
    if name not in BENCHMARKS:
        raise unknown_name("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def load(name: str) -> Run:
    """The function that runs a benchmark."""
    module, _, function = entry(name).run.partition(":")
    return getattr(import_module(module), function)
