"""Looking for benchmark items in documents: ours against datatrove's n-gram filter.

Contract: English documents; every tenth has one of the items at its end. datatrove's index is written directly, with
its own words and hashes. The quality is the share of planted items found; how many clean documents each side drops is
in the notes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.datatrove_peer import datatrove_documents, silence
from benchmarks.inputs import Corpus, documents, parquet_rows
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.documents import document_id
from stages.decontaminate import Decontaminate, DecontaminateConfig, Item, build_index

NAME = "decontaminate"
PEER = "datatrove NGramsDecontFilter"
EVERY = 10
ITEM_WORDS = 20  # at least, so that both sides' n-grams fit
GENERATED_ITEM_CHARACTERS = 300


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    items: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(1_000_000, 5000, 3), "quick": Load(20_000, 50, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison."""
    load = LOADS[settings.size]
    yield from against(PEER, ("datatrove", "spacy", "xxhash"), lambda: _compared(load))


def _compared(load: Load) -> Comparison:
    silence()
    clean = documents(load.bytes_of_language, ["en"])
    items = _items(load)
    corpus, planted = _planted(clean, items)
    block = Decontaminate(
        config := DecontaminateConfig(),
        build_index([Item(f"items:{number}", text) for number, text in enumerate(items)], config),
    )
    table = corpus.table()
    dropped: dict[str, set[str]] = {}

    def ours() -> None:
        dropped["ours"] = set(pc.take(table["id"], block.apply(table).dropped_at).to_pylist())

    with tempfile.TemporaryDirectory() as folder:
        peer = _their_filter(Path(folder), items)

        def theirs() -> None:
            given = datatrove_documents(corpus)
            kept = {document.id for document in peer.run(iter(given))}
            dropped["peer"] = {document_id("benchmark", one.id) for one in given if one.id not in kept}

        seconds = interleaved([ours, theirs], load.rounds)
    wanted = {document_id("benchmark", identity) for identity in planted}
    return Comparison(
        NAME,
        f"{len(items)} items",
        "MB/s",
        Spread.rate(corpus.megabytes, seconds[0]),
        Spread.rate(corpus.megabytes, seconds[1]),
        PEER,
        corpus.label,
        quality_ours=len(dropped["ours"] & wanted) / len(wanted),
        quality_peer=len(dropped["peer"] & wanted) / len(wanted),
        quality="planted items found",
        notes={"clean_documents_dropped": {side: len(found - wanted) for side, found in dropped.items()}},
    )


def _items(load: Load) -> list[str]:
    rows = parquet_rows("math_gsm8k_train.parquet", ("text",))
    if rows is None:
        spare = documents(2 * load.bytes_of_language, ["en"]).texts[-load.items :]
        return [text[-GENERATED_ITEM_CHARACTERS:] for text in spare]
    return [row["text"] for row in rows if len(row["text"].split()) >= ITEM_WORDS][: load.items]


def _planted(clean: Corpus, items: Sequence[str]) -> tuple[Corpus, list[str]]:
    texts, planted = list(clean.texts), []
    for number, row in enumerate(range(0, len(texts), EVERY)):
        texts[row] = f"{texts[row]}\n\n{items[number % len(items)]}"
        planted.append(clean.ids[row])
    return Corpus(clean.ids, tuple(texts), clean.languages, f"{clean.label}, items in every tenth"), planted


def _their_filter(folder: Path, items: Sequence[str]) -> Any:
    from datatrove.pipeline.decont import NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text

    peer = NGramsDecontFilter(str(folder))
    hashes: set[int] = set()
    hash_of: Any = peer.hash_func  # annotated for bytes, called with text
    for item in items:
        words = peer.tokenizer.word_tokenize(simplify_text(item, peer.config.norm_config))
        hashes.update(hash_of(" ".join(gram)) for gram in ngrams(words, peer.config.n_grams))
    np.array(sorted(hashes), peer.config.hash_config.np_descr).tofile(folder / "items.index.hashes")
    return peer
