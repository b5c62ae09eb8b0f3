"""The tokens of a segment's shards in memory, checked: mapped files of the store, or ranges of any fsspec store.

Contract: `locate` gives the memory addresses of pieces' tokens and loss flags. What is read is checked, block by block
of 64 KiB, against the sums that were written with the shard, whose own hash is in the plan; a block is checked when it
is first touched (mapped files) or fetched (ranges). A file that is missing, cut or changed raises `InputError` naming
it. Memory: of mapped files one bit a block touched, 2 MB for 10^12 tokens; of a remote store a cache of bounded size.

Shapes: S shards of the segment, P pieces.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash

from mixes.gather import addresses, blocks_to_check
from pipeline.core.errors import InputError
from pipeline.core.plans import Segment, ShardRef
from pipeline.core.shards import SUM_BYTES, SUM_DTYPE, TOKEN_DTYPE, sidecar

TOKEN_BYTES = TOKEN_DTYPE.itemsize
RANGE_BYTES = 1 << 20  # fetched at a time: large enough for an object store's latency, 16 checked blocks
CACHE_BYTES = 1 << 30
AT_ONCE = 4096  # blocks looked up before they are checked
MOST_MAPPED = 16_384  # shards, three files each: Linux allows a process 65,530 maps
TOKENS, FLAGS, SUMS = ".bin", ".bin.loss", ".sums"
ATTEMPTS = 3  # to read a range, the later ones after a pause that doubles
PAUSE_SECONDS = 0.1
FINAL = (FileNotFoundError, PermissionError)
UNREACHED = "check the store and its credentials"
REMEDY = "the file was cut, changed or corrupted: delete its step's folder and run it again"


@dataclass(frozen=True)
class Located:
    """Where pieces lie in memory; `held` keeps it there."""

    token_address_P: np.ndarray  # uint64
    flag_address_P: np.ndarray  # uint64, 0 where every token counts
    held: Any


class TokenBlocks(Protocol):
    """The tokens of one segment's shards."""

    def locate(self, shard_P: np.ndarray, start_P: np.ndarray, length_P: np.ndarray) -> Located: ...


def _blocks(size: int) -> int:
    return -(-size // SUM_BYTES)


def _bytes_of_bits(bits: Any) -> int:
    return -(-int(bits) // 8)


def _checked_sums(data: Any, shard: ShardRef, where: str) -> np.ndarray:
    """[blocks] uint64 of `.bin`, then of `.bin.loss` if there is one. Raises `InputError`."""
    if xxhash.xxh3_128_hexdigest(data) != shard.sums:
        raise InputError("the shard's checksums are not those the plan was made with", where=where, fix=REMEDY)
    return np.frombuffer(data, SUM_DTYPE)


def _check(data: Any, expected: int, block: int, where: str) -> None:
    if xxhash.xxh3_64_intdigest(data) != expected:
        raise InputError(
            f"bytes {block * SUM_BYTES:,} to {block * SUM_BYTES + len(data):,} are not those that were written "
            "(checksum differs)",
            where=where,
            fix=REMEDY,
        )


class MappedTokens:
    """Shards of a local or mounted store."""

    def __init__(self, store: Path, segment: Segment) -> None:
        self._store = store
        self._shards = segment.shards
        tokens_S = np.array([0, *(shard.tokens for shard in segment.shards)], np.int64)
        self._first_block_S = np.cumsum(-(-tokens_S * TOKEN_BYTES // SUM_BYTES))
        self._first_flag_block_S = np.cumsum(-(-tokens_S // SUM_BYTES))
        self._checked = np.zeros(_bytes_of_bits(self._first_block_S[-1]), np.uint8)
        self._flags_checked = np.zeros(_bytes_of_bits(self._first_flag_block_S[-1]), np.uint8)
        self._address_S = np.zeros(len(segment.shards), np.uint64)
        self._flag_address_S = np.zeros(len(segment.shards), np.uint64)
        self._files: dict[tuple[int, str], np.ndarray] = {}
        self._sums: dict[int, np.ndarray] = {}
        self._found = np.empty((AT_ONCE, 2), np.int64)

    def locate(self, shard_P: np.ndarray, start_P: np.ndarray, length_P: np.ndarray) -> Located:
        while True:
            token_address_P, flag_address_P, known = addresses(
                shard_P, start_P, length_P, self._address_S, self._flag_address_S, self._first_block_S,
                self._first_flag_block_S, self._checked, self._flags_checked, SUM_BYTES,
            )  # fmt: skip
            if known:
                return Located(token_address_P, flag_address_P, self)
            self._make_known(shard_P, start_P, length_P)

    def _make_known(self, shard_P: np.ndarray, start_P: np.ndarray, length_P: np.ndarray) -> None:
        """Open the shards and check the blocks that were not touched before."""
        needed = set(shard_P.tolist())
        for shard in sorted(needed - self._sums.keys()):
            self._open(shard)
        for shard in [shard for shard in self._sums if shard not in needed][: max(len(self._sums) - MOST_MAPPED, 0)]:
            self._close(shard)
        start_P, end_P = start_P.astype(np.int64), start_P.astype(np.int64) + length_P
        byte_P, end_byte_P = start_P * TOKEN_BYTES, end_P * TOKEN_BYTES
        self._verify(TOKENS, self._first_block_S, self._checked, shard_P, byte_P, end_byte_P)
        own = self._flag_address_S[shard_P] != 0
        if own.any():
            self._verify(FLAGS, self._first_flag_block_S, self._flags_checked, shard_P[own], start_P[own], end_P[own])

    def read(self, shard: int, start: int, length: int) -> np.ndarray:
        """[length] uint32 token ids, checked."""
        self.locate(np.array([shard]), np.array([start]), np.array([length]))
        return self._files[shard, TOKENS].view(TOKEN_DTYPE)[start : start + length]

    def _open(self, number: int) -> None:
        shard = self._shards[number]
        stem = self._store / shard.stem
        size = shard.tokens * TOKEN_BYTES
        try:
            path = sidecar(stem, ".sums")
            _checked_sums(path.read_bytes(), shard, str(path))
            sums = np.memmap(path, SUM_DTYPE, "r")  # only pages that are needed stay in memory
            self._map(number, TOKENS, size)
            if sums.shape[0] > _blocks(size):
                self._map(number, FLAGS, shard.tokens)
            self._sums[number] = sums
        except FileNotFoundError as error:
            raise InputError(
                "token shard has no such file", where=str(error.filename), fix="run its step again"
            ) from None

    def _close(self, number: int) -> None:
        """Unmap a shard; which of its blocks were checked stays known."""
        self._address_S[number] = self._flag_address_S[number] = 0
        del self._sums[number]
        for ending in (TOKENS, FLAGS):
            self._files.pop((number, ending), None)

    def _map(self, number: int, ending: str, size: int) -> None:
        path = sidecar(self._store / self._shards[number].stem, ending)
        found = path.stat().st_size
        if found != size:
            raise InputError(f"the file holds {found:,} bytes, the plan says {size:,}", where=str(path), fix=REMEDY)
        mapped = np.memmap(path, np.uint8, "r")
        self._files[number, ending] = mapped
        addresses = self._address_S if ending == TOKENS else self._flag_address_S
        addresses[number] = mapped.ctypes.data

    def _verify(
        self,
        ending: str,
        first: np.ndarray,
        checked: np.ndarray,
        shard_P: np.ndarray,
        start_P: np.ndarray,
        end_P: np.ndarray,
    ) -> None:
        found = self._found
        while count := blocks_to_check(first, shard_P, start_P, end_P, SUM_BYTES, checked, found):
            for place, (number, block) in enumerate(found[:count].tolist()):
                before = _blocks(self._shards[number].tokens * TOKEN_BYTES) if ending == FLAGS else 0
                data = self._files[number, ending].data[block * SUM_BYTES : (block + 1) * SUM_BYTES]
                try:
                    where = str(sidecar(self._store / self._shards[number].stem, ending))
                    _check(data, int(self._sums[number][before + block]), block, where)
                except InputError:
                    for other, unchecked in found[place:count].tolist():
                        bit = int(first[other]) + unchecked
                        checked[bit >> 3] &= ~(1 << (bit & 7)) & 0xFF
                    raise


class RangedTokens:
    """Shards below any fsspec URL, read by ranges through a cache of bounded size.

    All ranges that a call needs and the cache has not are asked for in one go, which asynchronous stores answer
    concurrently; reading ahead is calling ahead (`MixLoader(…, ahead=…)`).
    """

    def __init__(self, root: str, segment: Segment, cache_bytes: int = CACHE_BYTES) -> None:
        import fsspec  # only a remote store pays for the import

        self._files, self._root = fsspec.core.url_to_fs(root)
        self._shards = segment.shards
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[tuple[int, str, int], np.ndarray] = OrderedDict()
        self._held_bytes = 0

    def locate(self, shard_P: np.ndarray, start_P: np.ndarray, length_P: np.ndarray) -> Located:
        shards = shard_P.tolist()
        sums = self._fetch_sums(sorted(set(shards)))
        spans = [
            (shard, ending, start * width, (start + length) * width)
            for shard, start, length in zip(shards, start_P.tolist(), length_P.tolist(), strict=True)
            for ending, width in ((TOKENS, TOKEN_BYTES), (FLAGS, 1))
            if ending == TOKENS or sums[shard].shape[0] > _blocks(self._shards[shard].tokens * TOKEN_BYTES)
        ]
        needed = {
            (shard, ending, number): None
            for shard, ending, start, end in spans
            for number in range(start // RANGE_BYTES, (end - 1) // RANGE_BYTES + 1)
        }
        ranges = self._fetch(list(needed), sums)
        held = np.empty(sum(-(-(end - start) // TOKEN_BYTES) for *_, start, end in spans) * TOKEN_BYTES, np.uint8)
        address_P = np.zeros(shard_P.shape[0], np.uint64)
        flag_address_P = np.zeros(shard_P.shape[0], np.uint64)
        place, piece = 0, -1
        for shard, ending, start, end in spans:
            piece += ending == TOKENS
            (address_P if ending == TOKENS else flag_address_P)[piece] = held.ctypes.data + place
            for number in range(start // RANGE_BYTES, (end - 1) // RANGE_BYTES + 1):
                base = number * RANGE_BYTES
                part = ranges[shard, ending, number][max(start - base, 0) : end - base]
                held[place : place + part.shape[0]] = part
                place += part.shape[0]
            place = -(-place // TOKEN_BYTES) * TOKEN_BYTES  # tokens are read as whole words
        return Located(address_P, flag_address_P, held)

    def _path(self, shard: int, ending: str) -> str:
        return f"{self._root}/{self._shards[shard].stem}{ending}"

    def _fetch_sums(self, shards: Sequence[int]) -> dict[int, np.ndarray]:
        """By shard; those that the cache has not are fetched in one go."""
        found = {shard: self._cached[key] for shard in shards if (key := (shard, SUMS, 0)) in self._cached}
        absent = [shard for shard in shards if shard not in found]
        if absent:
            paths = [self._path(shard, SUMS) for shard in absent]
            parts = self._read(paths, [(None, None)] * len(paths))
            for shard, path, part in zip(absent, paths, parts, strict=True):
                found[shard] = _checked_sums(part, self._shards[shard], path)
        self._keep({(shard, SUMS, 0): sums for shard, sums in found.items()})
        return found

    def _fetch(
        self, needed: list[tuple[int, str, int]], sums: Mapping[int, np.ndarray]
    ) -> dict[tuple[int, str, int], np.ndarray]:
        """The ranges, from the cache or the store."""
        found = {key: self._cached[key] for key in needed if key in self._cached}
        absent = [key for key in needed if key not in found]
        if absent:
            paths = [self._path(shard, ending) for shard, ending, _ in absent]
            bounds = [self._bounds(*key) for key in absent]
            parts = self._read(paths, bounds)
            for key, path, bound, part in zip(absent, paths, bounds, parts, strict=True):
                found[key] = self._verified(key, path, bound, part, sums[key[0]])
        self._keep(found)
        return found

    def _read(self, paths: Sequence[str], bounds: Sequence[tuple[int | None, int | None]]) -> list[bytes]:
        """The ranges, asked for in one go; those that failed once more, unless the store says that they are not there.

        Raises `InputError` naming the file.
        """
        parts: list[Any] = [None] * len(paths)
        for attempt in range(ATTEMPTS):
            asked = [place for place, part in enumerate(parts) if not isinstance(part, bytes)]
            lows, highs = [bounds[place][0] for place in asked], [bounds[place][1] for place in asked]
            answers = self._files.cat_ranges([paths[place] for place in asked], lows, highs, on_error="return")
            for place, answer in zip(asked, answers, strict=True):
                parts[place] = answer
            failed = [place for place in asked if isinstance(parts[place], Exception)]
            final = [place for place in failed if isinstance(parts[place], FINAL) or attempt == ATTEMPTS - 1]
            if final:
                error = parts[final[0]]
                why = f"cannot be read: {type(error).__name__}: {error}"
                raise InputError(why, where=paths[final[0]], fix=UNREACHED)
            if not failed:
                break
            time.sleep(PAUSE_SECONDS * 2**attempt)
        return parts

    def _keep(self, found: Mapping[tuple[int, str, int], np.ndarray]) -> None:
        """The cache keeps what was used last, within its size."""
        for key, data in found.items():
            if key not in self._cached:
                self._held_bytes += data.nbytes
            self._cached[key] = data
            self._cached.move_to_end(key)
        while self._held_bytes > self._cache_bytes and self._cached:
            _, dropped = self._cached.popitem(last=False)
            self._held_bytes -= dropped.nbytes

    def _bounds(self, shard: int, ending: str, number: int) -> tuple[int, int]:
        size = self._shards[shard].tokens * (TOKEN_BYTES if ending == TOKENS else 1)
        return number * RANGE_BYTES, min((number + 1) * RANGE_BYTES, size)

    def _verified(
        self, key: tuple[int, str, int], path: str, bound: tuple[int, int], part: Any, sums: np.ndarray
    ) -> np.ndarray:
        shard, ending, number = key
        if len(part) != bound[1] - bound[0]:
            what = f"{len(part):,} bytes at {bound[0]:,} where the plan says {bound[1] - bound[0]:,}"
            raise InputError(what, where=path, fix=REMEDY)
        before = _blocks(self._shards[shard].tokens * TOKEN_BYTES) if ending == FLAGS else 0
        view = memoryview(part)
        for start in range(0, len(part), SUM_BYTES):
            block = (number * RANGE_BYTES + start) // SUM_BYTES
            _check(view[start : start + SUM_BYTES], int(sums[before + block]), block, path)
        return np.frombuffer(part, np.uint8)
