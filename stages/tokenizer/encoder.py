"""Batches of text to token ids, several times as fast as `tokenizers`, with its very ids.

Contract: ids are those of `pipeline.core.tokenizer.Tokenizer.encode` for every text, special tokens never read from
text. A tokenizer that the kernel does not cover (another pattern, another model) is encoded by `tokenizers` itself:
slower, the same ids, and `reason` says why. Results never depend on what was encoded before. Memory: 32 MiB of cache,
8 MiB of tables for 150,000 merges, four bytes for each byte of a batch. Cost: `python -m benchmarks encode`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.tokenizer import Tokenizer, nfc
from stages.tokenizer.encoder_cache import empty_cache
from stages.tokenizer.encoder_kernel import encode
from stages.tokenizer.encoder_tables import MergeTables, Unsupported, merge_tables, token_bytes

KEPT_CHUNKS = 1 << 18  # 128 bytes each
# A single undecodable byte, as Python's `surrogateescape` writes it.
_LONE_BYTE = re.compile("([\udc80-\udcff])")


@dataclass(frozen=True)
class Encoder:
    """The encoder of one tokenizer; the cache in it is the only state. One thread at a time."""

    tokenizer: Tokenizer
    reason: str | None  # why `tokenizers` encodes instead, or None
    _tables: MergeTables | None = field(repr=False)
    _cache: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, tokenizer: Tokenizer, kept_chunks: int = KEPT_CHUNKS) -> Encoder:
        """An encoder with an empty cache of `kept_chunks` places."""
        try:
            tables = merge_tables(tokenizer.description())
        except Unsupported as unsupported:
            return cls(tokenizer, str(unsupported), None, empty_cache(2))
        return cls(tokenizer, None, tables, empty_cache(kept_chunks))

    def encode_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """[tokens] uint32 ids of NFC of each text."""
        ids, offsets = self.encode_joined(texts)
        return np.split(ids, offsets[1:-1]) if texts else []

    def encode_joined(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """([tokens] uint32 ids of all texts, [texts + 1] int64 places of the texts in them).

        Raises:
            InputError: A text holds a lone surrogate, which no UTF-8 can hold.
        """
        if self._tables is None:
            found = self.tokenizer.encode_batch(texts)
            offsets = np.cumsum([0, *map(len, found)], dtype=np.int64)
            return np.concatenate([np.empty(0, np.uint32), *found]), offsets
        data = [_utf8(text, number) for number, text in enumerate(texts)]
        offsets = np.cumsum([0, *map(len, data)], dtype=np.int64)
        return encode(np.frombuffer(b"".join(data), np.uint8), offsets, self._tables, self._cache)

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """[tokens] uint32 ids whose bytes are `data`, whatever it is: what is no UTF-8 becomes single-byte tokens.

        Text in it is not normalised. Raises `Unsupported` where the kernel does not cover the tokenizer.
        """
        if self._tables is None:
            raise Unsupported(self.reason)
        pieces: list[np.ndarray] = []
        for piece in _LONE_BYTE.split(data.decode("utf-8", "surrogateescape")):
            written = np.frombuffer(piece.encode("utf-8", "surrogateescape"), np.uint8)
            if _LONE_BYTE.fullmatch(piece):
                pieces.append(self._tables.byte_ids[written])
            else:
                pieces.append(encode(written, np.array([0, written.size]), self._tables, self._cache)[0])
        return np.concatenate(pieces)

    def decode_bytes(self, token_ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes of the ids; special tokens give their names."""
        return b"".join(self._bytes_of_ids[int(number)] for number in token_ids)

    @cached_property
    def _bytes_of_ids(self) -> dict[int, bytes]:
        description = self.tokenizer.description()
        specials = {int(token["id"]): str(token["content"]).encode() for token in description["added_tokens"]}
        return token_bytes(description["model"]["vocab"]) | specials


@lru_cache(maxsize=4)
def shared_encoder(file: Path, content_hash: str) -> Encoder:
    """One encoder for all shards that a process encodes with the tokenizer.json of this content."""
    del content_hash  # only tells contents apart
    return Encoder.of(Tokenizer.load(file))


def _utf8(text: str, number: int) -> bytes:
    try:
        return nfc(text).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} is half of a surrogate pair",
            where=f"text {number} of the batch",
            fix="decode the text again with errors='replace'",
        ) from None
