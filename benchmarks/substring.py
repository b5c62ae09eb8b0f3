"""Repeated substrings, Parquet to Parquet: ours against a suffix array, by itself and between datatrove's blocks.

Contract: windows of 200 bytes. The peer's suffix array and common prefixes are pydivsufsort's, over all documents, the
best first, so that the first of equal windows stays; its ranges are cut by numpy, or by datatrove's ESRangeRemover
after ESDatasetToSequence with a byte-level vocabulary, which takes `str.replace` to them and drops documents of fewer
than 50 words. Equal: the same texts stay. Memory is the peak of a fresh process; for ours it is bounded, so it is also
measured where all is repeated.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datatrove_peer import silence
from benchmarks.dedup_steps import deduplicated, texts_of, write_input
from benchmarks.inputs import Corpus, documents, parquet_rows
from benchmarks.measure import Side, interleaved, peak_memory
from benchmarks.peers import against, peer
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.tokenizer import nfc

NAME = "substring"
WINDOW = 200
ALONE, IN_DATATROVE = "pydivsufsort, ranges cut by numpy", "pydivsufsort between datatrove's ES blocks"
SEPARATOR_BYTES = 12  # of datatrove's sequences


@dataclass(frozen=True)
class Load:
    bytes_in_all: int
    repeated_bytes: int  # of the input that is there twice
    rounds: int


LOADS: dict[SizeName, Load] = {
    "full": Load(12_000_000, 24_000_000, 3),
    "quick": Load(60_000, 60_000, 1),
}


def run(settings: Settings) -> Iterator[Found]:
    """Rate and memory against the suffix array; the rate against datatrove; memory where all is repeated."""
    load = LOADS[settings.size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = revisions(load.bytes_in_all)
        given = write_input(folder / "revisions", corpus)
        yield from against(ALONE, ("pydivsufsort",), lambda: _rate(corpus, given, folder, load, ALONE, _alone))
        yield from against(ALONE, ("pydivsufsort",), lambda: _memory(corpus, given, folder))
        needed = ("datatrove", "pydivsufsort", "spacy", "tokenizers")
        yield from against(
            IN_DATATROVE, needed, lambda: _rate(corpus, given, folder, load, IN_DATATROVE, _between_datatrove)
        )
        twice = repeated(long_texts(load.repeated_bytes))
        whole = write_input(folder / "twice", twice)
        yield from against(ALONE, ("pydivsufsort",), lambda: _memory(twice, whole, folder))


def revisions(most: int) -> Corpus:
    """Real revisions of pages and editions of books, so that much is repeated; else documents, every one twice."""
    rows = parquet_rows("neardup_docs.parquet", ("id", "text", "lang"))
    if rows is None:
        return repeated(documents(most // 12))
    return _taken(rows, most, "SEODANG_DATA revisions")


def long_texts(most: int) -> Corpus:
    """Real books and manuals, else documents."""
    rows = parquet_rows("long_docs.parquet", ("id", "text", "lang"))
    return documents(most // 6) if rows is None else _taken(rows, most, "SEODANG_DATA long documents")


def _taken(rows: list[dict[str, Any]], most: int, label: str) -> Corpus:
    chosen: list[tuple[str, str, str]] = []
    size = 0
    for row in sorted(rows, key=lambda one: one["id"]):
        text = nfc(row["text"])
        if size + len(text.encode()) <= most or not chosen:
            size += len(text.encode())
            chosen.append((row["id"], text, row["lang"]))
    ids, texts, languages = zip(*chosen, strict=True)
    return Corpus(ids, texts, languages, f"{label}, {len(ids)} documents, {size / 1e6:.1f} MB")


def repeated(corpus: Corpus) -> Corpus:
    """All of it twice."""
    again = tuple(f"{identity} again" for identity in corpus.ids)
    label = f"{corpus.label}, every one twice"
    return Corpus((*corpus.ids, *again), corpus.texts * 2, corpus.languages * 2, label)


def _rate(
    corpus: Corpus, given: Path, folder: Path, load: Load, peer_name: str, peer: Callable[[Path, Path], None]
) -> Comparison:
    sides = [
        lambda: deduplicated("dedup.substring", given, folder / "ours", minimum_bytes=WINDOW),
        lambda: peer(given, folder / "theirs"),
    ]
    seconds = interleaved(sides, load.rounds)
    kept = [texts_of(folder / "ours" / "dedup.substring"), texts_of(folder / "theirs")]
    sizes = [sum(len(text.encode()) for text in side.values()) / 1e6 / corpus.megabytes for side in kept]
    return Comparison(
        NAME,
        "Parquet to Parquet",
        "MB/s",
        Spread.rate(corpus.megabytes, seconds[0]),
        Spread.rate(corpus.megabytes, seconds[1]),
        peer_name,
        corpus.label,
        equal=kept[0] == {key: text for key, text in kept[1].items() if text.strip()} if peer_name == ALONE else None,
        quality_ours=sizes[0],
        quality_peer=sizes[1],
        quality="bytes kept",
    )


def _memory(corpus: Corpus, given: Path, folder: Path) -> Comparison:
    ours, theirs = (peak_memory(side, str(given), str(folder / "out")) for side in (ours_of, alone_of))
    return Comparison(NAME, "Parquet to Parquet, peak memory", "MiB", ours, theirs, ALONE, corpus.label)


def ours_of(given: str, out: str) -> Callable[[], Side]:
    """For `peak_memory`: one small run before, for imports and compiled kernels."""
    with tempfile.TemporaryDirectory() as name:
        small = write_input(Path(name), repeated(documents(2_000)))
        deduplicated("dedup.substring", small, Path(name) / "out", minimum_bytes=WINDOW)
    return lambda: lambda: deduplicated("dedup.substring", Path(given), Path(out), minimum_bytes=WINDOW)


def alone_of(given: str, out: str) -> Callable[[], Side]:
    """For `peak_memory`."""
    peer("pydivsufsort")
    return lambda: lambda: _alone(Path(given), Path(out))


def _alone(given: Path, out: Path) -> None:
    table = pq.read_table(given / "documents" / "00000.parquet")
    raw = [text.encode() for text in table["text"].to_pylist()]
    ids = table["id"].to_pylist()
    order = sorted(range(len(raw)), key=lambda row: (-len(raw[row]), ids[row]))
    joined = np.frombuffer(bytearray(b"".join(raw[row] + b"\xff" for row in order)), np.uint8)  # it wants to write
    firsts = np.cumsum([0, *(len(raw[row]) + 1 for row in order)])
    gone = _copied(joined, firsts[1:] - 1)
    texts = list[str]([""] * len(raw))
    for place, row in enumerate(order):
        texts[row] = raw_without(joined[firsts[place] : firsts[place + 1] - 1], gone[firsts[place] : firsts[place + 1]])
    field = table.schema.field("text")
    table = table.set_column(table.schema.get_field_index("text"), field, pa.array(texts, field.type))
    (out / "documents").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out / "documents" / "00000.parquet", compression="zstd")


def raw_without(text: np.ndarray, gone: np.ndarray) -> str:
    """The characters of which a byte at least stays."""
    starts = np.flatnonzero((text & 0xC0) != 0x80)
    if not starts.shape[0]:
        return ""
    whole = np.logical_and.reduceat(gone[: text.shape[0]], starts)
    return text[~np.repeat(whole, np.diff(np.append(starts, text.shape[0])))].tobytes().decode()


def _copied(joined: np.ndarray, ends: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """[bytes] whether a byte lies in a window, inside of a document, that is also earlier."""
    library = peer("pydivsufsort")
    suffixes = library.divsufsort(joined)
    common = library.kasai(joined, suffixes)
    inside = np.zeros(joined.shape[0] + 1, bool)
    for first, end in zip(np.append(0, ends[:-1] + 1).tolist(), ends.tolist(), strict=True):
        inside[first : max(first, end - window + 1)] = True
    groups = np.flatnonzero(np.append(True, common[:-1] < window))
    least = np.minimum.reduceat(suffixes, groups)
    copies = suffixes[suffixes != np.repeat(least, np.diff(np.append(groups, suffixes.shape[0])))]
    change = np.zeros(joined.shape[0] + 1, np.int32)
    copies = copies[inside[copies]]
    change[copies] += 1
    np.subtract.at(change, np.minimum(copies + window, joined.shape[0]), 1)
    return np.cumsum(change)[:-1] > 0


def _between_datatrove(given: Path, out: Path) -> None:
    from datatrove.pipeline.dedup.exact_substrings import ESDatasetToSequence, ESMergeSequences, ESRangeRemover
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    silence()
    shutil.rmtree(out, ignore_errors=True)
    sequences = out / "sequences"
    sequences.mkdir(parents=True)
    tokenizer = _byte_tokenizer(out / "bytes.json")
    reader: Any = ParquetReader(str(given / "documents"), glob_pattern="*.parquet")
    ESDatasetToSequence(str(sequences), str(tokenizer)).run(reader.run(None, 0, 1))
    ESMergeSequences(str(sequences), tasks_stage_1=1).run(None, 0, 1)
    sequence = np.fromfile(next(sequences.glob("*.big_sequence")), np.uint8)
    sizes = np.fromfile(next(sequences.glob("*.size")), "<u8").astype(np.int64)
    gone = _copied(sequence, np.cumsum(sizes), 2 * WINDOW)  # a token has two bytes
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gone.view(np.int8), [0]]))).reshape(-1, 2)
    lines = "".join(f"{a} {b}\n" for a, b in _in_documents(edges, np.cumsum(sizes) - sizes, np.cumsum(sizes)))
    (sequences / "dataset.bytearange").write_text(f"out\n{lines}")
    passing = ESRangeRemover(str(sequences), str(tokenizer)).run(reader.run(None, 0, 1), 0, 1)
    for _ in ParquetWriter(str(out / "documents"), "${rank}.parquet", compression="zstd").run(passing):
        pass


def _in_documents(ranges: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges without what lies in separators."""
    for first, last in ranges.tolist():
        place = int(np.searchsorted(lasts, first, side="right"))
        begin, end = max(first, int(firsts[place]) + SEPARATOR_BYTES), min(last, int(lasts[place]))
        if begin + 2 < end:
            yield begin, end


def _byte_tokenizer(path: Path) -> Path:
    """A vocabulary of single bytes for the `tokenizers` library."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made: Any = Tokenizer(models.BPE({symbol: number for number, symbol in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(path))
    return path
