"""Both stages to 153,600 entries on about 1 GB of mixed text, out of core: memory within 8 GiB, and what came of it.

The text is `benchmarks.debian_texts` beside the documents of `benchmarks.bpe_corpus` that are not held out. Contract:
counting spills its runs to disk, training reads them from there and has quotas to meet exactly; memory is the largest
resident size of the whole process. The peer is the limit itself; there is no other trainer of two stages to compare
with at this size. Then the vocabulary is judged on the held-out documents as `benchmarks.compression` does, against
102,400 entries in the older style trained on the same text.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import orjson
from tokenizers import Tokenizer

from benchmarks.bpe_corpus import label, mixed_texts
from benchmarks.compression import RATIOS, compared, in_older_style
from benchmarks.debian_texts import PACKAGES, fetched, text_folder
from benchmarks.debian_texts import texts as package_texts
from benchmarks.measure import Side, worker_memory
from benchmarks.result import Comparison, Found, Missing, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.files import write_bytes, write_json
from pipeline.core.tokenizer import FILE
from stages.tokenizer.counts import Group, count_texts, read_run, run_files, write_run
from stages.tokenizer.superbpe import Plan, build, superword_count, train_runs

NAME = "bpe-train-large"
LIMIT_MIB = 8 * 1024
NOTES = "notes.json"


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int
    with_packages: bool


LOADS: dict[SizeName, Load] = {"full": Load(10_000_000, 153_600, True), "quick": Load(60_000, 1024, False)}


def run(settings: Settings) -> Iterator[Found]:
    """Peak memory, with seconds in the notes; then one comparison a group of held-out documents."""
    load = LOADS[settings.size]
    if load.with_packages and which("apt-get") is None:
        yield Missing("8 GiB of memory", "needs apt-get: a Debian machine")
        return
    texts = fetched(text_folder()) if load.with_packages else Path()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        memory = worker_memory(prepared, str(texts), made, load)
        notes: dict[str, Any] = orjson.loads((folder / NOTES).read_bytes())
        ours = Tokenizer.from_file(str(folder / FILE))
    what = f"vocabulary {load.vocabulary:,}, two stages"
    corpus = f"{notes['megabytes']:.0f} MB: {notes['label']}"
    yield Comparison(NAME, what, "MiB", memory, Spread.of([LIMIT_MIB]), "8 GiB of memory", corpus, notes=notes)
    known = (text.decode() for group, own in groups(texts, load) if _is_older(group) for text in own)
    theirs = in_older_style(known, load.vocabulary * 2 // 3)
    held_out = tuple(one for one in mixed_texts(load.bytes_of_language) if one.is_held_out)
    sizes = f"vocabulary {load.vocabulary:,} against {load.vocabulary * 2 // 3:,}"
    yield from compared(NAME, sizes, ours, theirs, held_out, f"held out of {corpus}")


def _is_older(group: Group) -> bool:
    return group.language in ("ko", "en", "es") and group.domain != "stem"


def groups(texts: Path, load: Load) -> Iterator[tuple[Group, Iterator[bytes]]]:
    """The texts that are learnt from."""
    learnt = [one for one in mixed_texts(load.bytes_of_language) if not one.is_held_out]
    for group in sorted({one.group for one in learnt}):
        yield group, (one.text.encode() for one in learnt if one.group == group)
    if load.with_packages:
        for language in PACKAGES:
            yield Group(language, "documentation"), package_texts(texts, language)


def prepared(texts: str, folder: str, load: Load) -> Callable[[], Side]:
    """For `worker_memory`: counts, trains, and leaves a tokenizer and notes in `folder`."""
    train_runs(lambda: count_texts(Group("en", ""), [b"a b c a b c"] * 9), Plan(330, 2))  # compiled code is loaded
    return lambda: lambda: _counted_and_trained(Path(texts), Path(folder), load)


def _counted_and_trained(texts: Path, folder: Path, load: Load) -> None:
    started = (time.process_time(), time.monotonic())
    sizes: dict[str, int] = {}
    runs = _spilled(groups(texts, load), folder, sizes)
    counted = (time.process_time(), time.monotonic())
    files = run_files(folder)
    plan = Plan(load.vocabulary, superword_count(load.vocabulary, 0.2), ratios=RATIOS, fills=not load.with_packages)
    trained = train_runs(lambda: map(read_run, files), plan, told=_told)
    ended = (time.process_time(), time.monotonic())
    write_bytes(folder / FILE, build(trained).to_str(pretty=False).encode())
    write_json(
        folder / NOTES,
        {
            "label": f"{label(mixed_texts(load.bytes_of_language))}, and Debian packages",
            "megabytes": sum(sizes.values()) / 1e6,
            "megabytes_of_group": {name: round(size / 1e6, 1) for name, size in sizes.items()},
            "runs": runs,
            "runs_megabytes": sum(path.stat().st_size for path in (folder / "counts").iterdir()) / 1e6,
            "counting_seconds_cpu_and_wall": _between(started, counted),
            "training_seconds_cpu_and_wall": _between(counted, ended),
            "tokens": len(trained.tokens),
            "superwords": trained.superwords,
            "by_class": dict(trained.by_class),
            "by_language": dict(trained.by_language),
            "complete": trained.complete,
        },
    )


def _between(start: tuple[float, float], end: tuple[float, float]) -> list[float]:
    return [round(after - before, 1) for before, after in zip(start, end, strict=True)]


def _told(stage: str, tokens: int, of: int) -> None:
    if tokens % 16_384 < 512:
        print(f"  {NAME}: {stage}, {tokens:,} of {of:,} tokens", file=sys.stderr, flush=True)


def _spilled(grouped: Iterator[tuple[Group, Iterator[bytes]]], folder: Path, sizes: dict[str, int]) -> int:
    """Write the runs of all groups, add up their bytes in `sizes`; gives the number of runs."""
    number = 0
    for shard, (group, texts) in enumerate(grouped):
        sizes[group.name] = 0
        for run in count_texts(group, _measured(texts, group.name, sizes)):
            write_run(folder, shard, number, run)
            number += 1
    return number


def _measured(texts: Iterator[bytes], name: str, sizes: dict[str, int]) -> Iterator[bytes]:
    for text in texts:
        sizes[name] += len(text)
        yield text
