"""The response store: what servers answered, found by the request's key, shared by all runs of a store folder.

Contract: while a step runs, each task appends to a journal of its own (`WRITER.jsonl`); a row is on the system's side
once `put` returns, so that kill -9 loses nothing; a row cut off by a full disk or power cut is ignored when reading and
removed before the next append. When a step is committed, `merge` turns its journals into one read-only segment: rows
sorted by key (`index/NAME.jsonl`) and their keys and places (`index/NAME.keys`), found by binary search, nothing held
in memory. No locks and no database: works on network file systems. Cost: about 20 microseconds to put or get; opening
reads journals only.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from pipeline.core.files import PARTIAL, atomic_path
from synth.cache import Request

INDEX = "index"
HEAD = b'{"key":"'  # every row begins with its key, so that journals are indexed without parsing them
KEY_DIGITS = 64
PLACE = np.dtype([("key", "S32"), ("offset", "<u8"), ("length", "<u4")])
MOST_SEGMENTS = 8  # beyond that a merge joins them all


@dataclass(frozen=True)
class Stored:
    """One answer and how it came."""

    response: Mapping[str, Any]
    attempts: int = 1
    latency_ms: int = 0


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    length: int


class ResponseStore:
    """A folder of journals and segments."""

    def __init__(self, folder: Path, writer: str) -> None:
        """`writer` names this task's own journal: no two processes append to one."""
        self.folder = folder
        self.path = folder / f"{writer}.jsonl"
        self._journals: dict[bytes, _Place] = {}
        self._segments: list[Segment] = []
        self._handle: BinaryIO | None = None
        self._end = 0  # of the own journal, while it is open
        for path in sorted(folder.glob("*.jsonl")):
            self._journals.update(_places(path))
        # After the journals: a row that a merge moves meanwhile is in one of both.
        self._segments = open_segments(folder / INDEX)

    def get(self, key: str) -> Stored | None:
        binary = bytes.fromhex(key)
        place = self._journals.get(binary)
        if place is not None and (row := _read_row(place)) is not None:
            return row
        for segment in self._segments:
            found = segment.find(binary)
            if found is not None:
                return found
        return None

    def put(self, request: Request, stored: Stored) -> None:
        """Append one answer."""
        line = orjson.dumps(
            {
                "key": request.key,
                "prompt": request.prompt,
                "document": request.document,
                "attempts": stored.attempts,
                "latency_ms": stored.latency_ms,
                "response": stored.response,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        if self._handle is None:
            self._handle = _opened(self.path)
            self._end = self._handle.tell()
        self._handle.write(line)
        self._journals[bytes.fromhex(request.key)] = _Place(self.path, self._end, len(line))
        self._end += len(line)

    def close(self) -> None:
        if self._handle is not None:
            os.fsync(self._handle.fileno())
            self._handle.close()
            self._handle = None


def _opened(path: Path) -> BinaryIO:
    """The journal for appending, without buffer, a cut-off row removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("r+b" if path.exists() else "w+b", buffering=0)
    handle.truncate(_end_of_whole_lines(handle))
    handle.seek(0, os.SEEK_END)
    return handle


def _end_of_whole_lines(handle: Any) -> int:
    """Bytes up to and with the last newline; looks at the tail only."""
    end = handle.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65_536)
        handle.seek(start)
        position = handle.read(end - start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0


def _places(path: Path) -> Iterator[tuple[bytes, _Place]]:
    """(key, place) of the whole rows of a journal."""
    offset = 0
    try:
        with path.open("rb") as handle:
            for line in handle:
                if line.startswith(HEAD) and line.endswith(b"\n"):
                    digits = line[len(HEAD) : len(HEAD) + KEY_DIGITS]
                    yield bytes.fromhex(digits.decode("ascii")), _Place(path, offset, len(line))
                offset += len(line)
    except FileNotFoundError:
        return  # another run has just merged it


def _read_row(place: _Place) -> Stored | None:
    """None when the file has gone: another run merged it."""
    try:
        with place.path.open("rb") as handle:
            handle.seek(place.offset)
            return _parsed(handle.read(place.length))
    except FileNotFoundError:
        return None


def _parsed(line: bytes) -> Stored:
    row = orjson.loads(line)
    return Stored(row["response"], row.get("attempts", 1), row.get("latency_ms", 0))


class Segment:
    """A read-only part of the index."""

    def __init__(self, keys: Path) -> None:
        """Raises `FileNotFoundError` when another run has just joined it to a larger one."""
        self.rows = keys.with_suffix(".jsonl")
        self.places = np.fromfile(keys, PLACE) if keys.stat().st_size < 1 << 20 else np.memmap(keys, PLACE, "r")
        self._handle = self.rows.open("rb")

    def find(self, key: bytes) -> Stored | None:
        wanted = key.rstrip(b"\0")  # as numpy gives bytes back; the order is the same
        at = bisect_left(self.places["key"], wanted)
        if at == len(self.places) or self.places["key"][at] != wanted:
            return None
        self._handle.seek(int(self.places["offset"][at]))
        return _parsed(self._handle.read(int(self.places["length"][at])))


def open_segments(index: Path) -> list[Segment]:
    """Every segment; listed again when one goes away between listing and opening."""
    while True:
        try:
            return [Segment(path) for path in sorted(index.glob("*.keys")) if not path.name.startswith(PARTIAL)]
        except FileNotFoundError:
            time.sleep(0.01)


def merge(folder: Path, writers: str) -> None:
    """Turn the journals of finished tasks into a segment of the index, and many segments into one.

    Nobody may still write to these journals; runs that read them go on undisturbed, since files are only added before
    others go. A kill leaves rows twice, never none: equal keys are one row in the next merge.

    Args:
        folder: The store.
        writers: Pattern of the writers' names, for example `0123456789abcdef-*`.
    """
    journals = sorted(folder.glob(f"{writers}.jsonl"))
    if journals:
        _join([(path, dict(_places(path))) for path in journals], folder / INDEX)
        for path in journals:
            path.unlink(missing_ok=True)
    segments = open_segments(folder / INDEX)
    if len(segments) > MOST_SEGMENTS:
        parts = [(one.rows, _segment_places(one)) for one in segments]
        joined = _join(parts, folder / INDEX)
        for one in segments:
            if one.rows.stem != joined:
                one.rows.with_suffix(".keys").unlink(missing_ok=True)
                one.rows.unlink(missing_ok=True)


def _segment_places(segment: Segment) -> dict[bytes, _Place]:
    rows = segment.places
    return {
        bytes(key).ljust(32, b"\0"): _Place(segment.rows, int(offset), int(length))
        for key, offset, length in zip(rows["key"], rows["offset"], rows["length"], strict=True)
    }


def _join(parts: Sequence[tuple[Path, Mapping[bytes, _Place]]], index: Path) -> str:
    """Write one segment of all rows, sorted by key; gives its name, a hash of its keys. The keys come last."""
    places: dict[bytes, _Place] = {}
    for _, found in parts:
        for key, place in found.items():
            places.setdefault(key, place)  # the first answer stays
    ordered = sorted(places)
    name = sha256(b"".join(ordered)).hexdigest()[:16]
    table = np.zeros(len(ordered), PLACE)
    handles = {path: path.open("rb") for path, _ in parts}
    try:
        with atomic_path(index / f"{name}.jsonl") as partial, partial.open("wb") as out:
            for number, key in enumerate(ordered):
                place = places[key]
                handles[place.path].seek(place.offset)
                table[number] = (key, out.tell(), place.length)
                out.write(handles[place.path].read(place.length))
    finally:
        for handle in handles.values():
            handle.close()
    with atomic_path(index / f"{name}.keys") as partial:
        table.tofile(partial)
    return name
