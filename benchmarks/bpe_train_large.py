"""Both stages toward 153,600 entries on about 1 GB of mixed text, out of core: memory within 8 GiB, and the cost.

The text is Debian's documentation in six languages, as it lies in the packages (HTML with its markup, manual pages,
reStructuredText), downloaded with apt-get and unpacked, not installed, below `SEODANG_TEXTS` (default: a folder in the
system's temporary one), beside the documents of `benchmarks.bpe_corpus`. Contract: counting spills its runs to disk,
training reads them from there; memory is the largest resident size of a fresh process above what it had after its
imports. The peer is the limit itself; there is no other trainer to compare with at this size.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bpe_corpus import label, mixed_texts
from benchmarks.measure import Side, peak_memory
from benchmarks.result import Comparison, Found, Missing, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.files import write_json
from pipeline.core.tokenizer import nfc
from stages.tokenizer.counts import Group, count_texts, read_run, run_files, write_run
from stages.tokenizer.superbpe import Plan, superword_count, train_runs

NAME = "bpe-train-large"
LIMIT_MIB = 8 * 1024
RATIOS = {"en": 2, "ko": 3, "multilingual": 1}
# Documentation of six languages in Debian 12, about 0.95 GB unpacked, 120 MB to download.
PACKAGES = {
    "de": ("libreoffice-help-de", "manpages-de"),
    "es": ("libreoffice-help-es", "manpages-es"),
    "ja": ("libreoffice-help-ja", "manpages-ja"),
    "ko": ("libreoffice-help-ko",),
    "vi": ("libreoffice-help-vi", "manpages-vi"),
    "en": ("libreoffice-help-en-us", "rust-doc", "python3.11-doc", "linux-doc-6.1"),
}
ENDINGS = {".html", ".xhtml", ".rst", ".txt", ".md", ".tree", ".xhp", ".py"}


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int
    with_packages: bool


LOADS: dict[SizeName, Load] = {"full": Load(10_000_000, 153_600, True), "quick": Load(20_000, 1024, False)}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison: peak memory, with seconds in the notes."""
    load = LOADS[settings.size]
    if load.with_packages and shutil.which("apt-get") is None:
        yield Missing("8 GiB of memory", "needs apt-get: a Debian machine")
        return
    texts = fetched(text_folder()) if load.with_packages else Path()
    with tempfile.TemporaryDirectory() as folder:
        memory = peak_memory(prepared, str(texts), folder, load)
        notes: dict[str, Any] = read_notes(Path(folder))
    yield Comparison(
        NAME,
        f"vocabulary {load.vocabulary:,}, two stages",
        "MiB",
        memory,
        Spread.of([LIMIT_MIB]),
        "8 GiB of memory",
        f"{notes['megabytes']:.0f} MB: {notes['label']}, and Debian documentation in six languages",
        notes=notes,
    )


def text_folder() -> Path:
    return Path(os.environ.get("SEODANG_TEXTS", Path(tempfile.gettempdir()) / "seodang-debian-texts"))


def fetched(folder: Path) -> Path:
    """The packages' files below `folder`/LANGUAGE/PACKAGE, downloaded where they are not there."""
    for language, packages in PACKAGES.items():
        for package in packages:
            place = folder / language / package
            if place.is_dir():
                continue
            with tempfile.TemporaryDirectory() as download:
                subprocess.run(["apt-get", "download", package], cwd=download, check=True, stdout=subprocess.DEVNULL)
                (archive,) = Path(download).glob("*.deb")
                unpacked = Path(download) / "unpacked"
                subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(unpacked, place, symlinks=True)
    return folder


def package_texts(folder: Path, language: str) -> Iterator[bytes]:
    """The NFC text of each file, in the order of their names."""
    for path in sorted((folder / language).rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        compressed = path.suffix == ".gz"
        if (path.with_suffix("").suffix if compressed else path.suffix) not in ENDINGS and "/man/" not in str(path):
            continue
        data = _unpacked(path) if compressed else path.read_bytes()
        try:
            yield nfc(data.decode("utf-8")).encode()
        except UnicodeDecodeError:
            continue  # pictures and old encodings


def _unpacked(path: Path) -> bytes:
    import gzip

    return gzip.decompress(path.read_bytes())


def prepared(texts: str, folder: str, load: Load) -> Callable[[], Side]:
    """For `peak_memory`: counts, trains, and leaves notes in `folder`."""
    train_runs(lambda: count_texts(Group("en", ""), [b"a b c a b c"] * 9), Plan(330, 2))  # compiled code is loaded
    return lambda: lambda: _counted_and_trained(Path(texts), Path(folder), load)


def _counted_and_trained(texts: Path, folder: Path, load: Load) -> None:
    started = time.process_time()
    mixed = mixed_texts(load.bytes_of_language)
    groups: list[tuple[Group, Iterator[bytes]]] = [
        (group, (one.text.encode() for one in mixed if one.group == group))
        for group in sorted({one.group for one in mixed})
    ]
    if load.with_packages:
        groups += [(Group(language, "documentation"), package_texts(texts, language)) for language in PACKAGES]
    size = [0]
    runs = _spilled(groups, folder, size)
    counted = time.process_time()
    files = run_files(folder)
    plan = Plan(
        load.vocabulary,
        superword_count(load.vocabulary, 0.2),
        ratios=RATIOS,
        fills=True,
        minimum_count=2,
    )
    trained = train_runs(lambda: map(read_run, files), plan)
    ended = time.process_time()
    write_json(
        folder / "notes.json",
        {
            "label": label(mixed),
            "megabytes": size[0] / 1e6,
            "runs": runs,
            "runs_megabytes": sum(path.stat().st_size for path in (folder / "counts").iterdir()) / 1e6,
            "counting_cpu_seconds": round(counted - started, 1),
            "training_cpu_seconds": round(ended - counted, 1),
            "tokens": len(trained.tokens),
            "superwords": trained.superwords,
            "by_class": dict(trained.by_class),
            "by_language": dict(trained.by_language),
            "complete": trained.complete,
        },
    )


def _spilled(groups: Sequence[tuple[Group, Iterator[bytes]]], folder: Path, size: list[int]) -> int:
    """Write the runs of all groups, add up the bytes in `size`; gives the number of runs."""
    number = 0
    for shard, (group, texts) in enumerate(groups):
        for run in count_texts(group, _measured(texts, size)):
            write_run(folder, shard, number, run)
            number += 1
    return number


def _measured(texts: Iterator[bytes], size: list[int]) -> Iterator[bytes]:
    for text in texts:
        size[0] += len(text)
        yield text


def read_notes(folder: Path) -> dict[str, Any]:
    import orjson

    return orjson.loads((folder / "notes.json").read_bytes())
