"""Whether a long text says enough: how well it compresses, and what its second half adds to its first.

Contract: `measured` is a pure function of the text's bytes (and of the compressors' versions); `refusal` names the
first measure outside its limits. `compression` is zlib's size over the plain one: little for what says the same again
within 32 KB, much for digits and encoded bytes (Olmo 3 drops both ends of gzip's ratio, arXiv 2512.13961). `novelty`
is how much the second half adds to the compressed size of the first, over its compressed size alone, in a zstd window
of the whole text: near 0 when it repeats the first, 1 and above when the first is of no use to it.

Measured on 92 statutes, manuals and novels in six languages, 282 works of Aozora Bunko, and 143 packages and modules
of Python's library, lowest to highest: compression 0.12-0.37 (Japanese prose 0.25-0.65 from 400 characters on),
novelty 0.56-0.98 (the library as a whole 0.997). Base64 0.76, hexadecimal digits 0.58, a repeated line 0.003; novelty
of a text twice 0.001, of two editions of one book 0.04, of hexadecimal digits 1.015, of random tables 1.04.
Shuffled words, and texts that have nothing to do with each other, are not told apart from real ones.
Cost: about 20 MB/s; memory: the text twice.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import zstandard

from synth.long.config import LongConfig

DENSE = frozenset({"ko", "ja"})  # scripts with more in a byte
ZLIB_LEVEL = 6
ZSTD_LEVEL = 3
SMALLEST_WINDOW, LARGEST_WINDOW = 10, 27  # powers of two; 128 MiB is as far as a decoder looks unasked


@dataclass(frozen=True)
class Information:
    """The two measures of a text."""

    compression: float
    novelty: float


def measured(text: str) -> Information:
    """Both measures; an empty text has none to say (0, 0)."""
    data = text.encode("utf-8", "surrogatepass")
    middle = len(data) // 2
    if not middle:
        return Information(0.0, 0.0)
    added = _compressed(data) - _compressed(data[:middle])
    return Information(len(zlib.compress(data, ZLIB_LEVEL)) / len(data), added / _compressed(data[middle:]))


def _compressed(data: bytes) -> int:
    window = min(LARGEST_WINDOW, max(SMALLEST_WINDOW, len(data).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(ZSTD_LEVEL, window_log=window, enable_ldm=True)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(data))


def refusal(found: Information, language: str, config: LongConfig) -> tuple[str, str] | None:
    """(check, value) of the first measure outside its limits."""
    most = config.maximum_compression_dense if language in DENSE else config.maximum_compression
    told = f"{found.compression:.3f} of the bytes when compressed"
    if found.compression < config.minimum_compression:
        return "repetitive", told
    if found.compression > most:
        return "incompressible", told
    told = f"{found.novelty:.3f} of the second half is new, given the first"
    if found.novelty < config.minimum_novelty:
        return "repeated", told
    if found.novelty > config.maximum_novelty:
        return "unrelated", told
    return None
