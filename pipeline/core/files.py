"""Files: written whole or not at all, hashed, and opened whatever their compression or place.

Contract: a file appears under its name only when it is complete (temporary name, fsync, rename, fsync of the folder).
A temporary file left by a killed process starts with `.partial-` and is ignored by every reader here.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import xxhash

PARTIAL = ".partial-"
READ_BYTES = 1 << 20


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Give a temporary path in the same folder; on success it becomes `path`, on failure it goes away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{platform.node()}-{os.getpid()}-{path.name}")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a write that found no room does not say where
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def clear_partials(folder: Path) -> None:
    """Remove what killed processes left half-written below `folder`."""
    for path in sorted(folder.rglob(f"{PARTIAL}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Deterministic JSON: sorted keys, two-space indent, final newline."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def hash_file(path: Path) -> str:
    """xxh3-128 of the content, 32 hex digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while block := handle.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def list_files(folder: Path) -> list[Path]:
    """Every complete file below `folder`, sorted by its relative name."""
    found = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(PARTIAL)]
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


@contextmanager
def open_input(url: str) -> Generator[IO[bytes]]:
    """Open a local path or any fsspec URL for reading, decompressing .gz, .zst and .bz2 by name.

    WARC readers want the raw members: they open with `open_raw`.
    """
    with open_raw(url) as raw:
        if url.endswith(".zst"):
            import zstandard

            stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            yield io.BufferedReader(stream, READ_BYTES)
        elif url.endswith(".gz"):
            import gzip

            # No further buffer around it: of a cut file that would lose up to a buffer of what was read before the cut.
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
        elif url.endswith(".bz2"):
            import bz2

            yield cast("IO[bytes]", bz2.BZ2File(raw))
        else:
            yield raw


@contextmanager
def open_raw(url: str) -> Generator[IO[bytes]]:
    """Open a local path or any fsspec URL for reading, as it is."""
    if "://" not in url:
        with open(url, "rb") as handle:
            yield handle
        return
    import fsspec

    opened: Any = fsspec.open(url, "rb")
    with opened as handle:
        yield handle
