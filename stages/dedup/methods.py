"""The deduplications of whole documents: their options, and the steps each becomes.

`minhash_parts`, `exact_parts` and `url_parts` are what the catalog names. MinHash defaults are as many values
as FineWeb's 14 bands of 8 over 5-gram shingles (arXiv 2406.17557, section 3.4) in 16 bands of 7, because a shared
bucket is then checked with all of them: two texts of Jaccard similarity 0.75 share a bucket with probability 0.90
(FineWeb's 0.77), of 0.85 with 0.998 (0.99), and what is less alike than the minimum is kept apart.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.core.config import Config
from stages.dedup.layout import DedupConfig, Part, document_parts

# Parameters that say where a visitor came from, not which page it is (ours, after the lists of common browsers).
TRACKING = (
    "utm_*", "fbclid", "gclid", "dclid", "gbraid", "wbraid", "msclkid", "yclid", "twclid", "igshid", "mc_cid", "mc_eid",
    "_ga", "_gl",
)  # fmt: skip


class MinhashKeys(Config):
    """Identity of MinHash signatures.

    `scheme` is how a text becomes values. `seodang`: the quick segmenter and 32-bit values. `datatrove`: datatrove's
    words, normalisation, xxhash64 shingles and 64-bit permutations with seed 1: with `bands: 14, rows: 8` the same
    numbers as its `MinhashDedupSignature` under its default configuration; slow, for comparing with signatures made
    by it.
    """

    bands: int = Field(default=16, ge=1, le=256)
    rows: int = Field(default=7, ge=1, le=64)  # signature values a band
    shingle: int = Field(default=5, ge=1, le=32)  # tokens
    scheme: Literal["seodang", "datatrove"] = "seodang"
    quality_signal: str = ""


class TextKeys(Config):
    """Identity of the hashes of texts."""

    quality_signal: str = ""


class UrlKeys(Config):
    """Identity of the hashes of URLs."""

    ignored_parameters: tuple[str, ...] = TRACKING
    quality_signal: str = ""


class MinhashConfig(MinhashKeys, DedupConfig):
    """Options of `dedup.minhash`."""

    # Ours: 0.7 less one standard error of the estimate. 0.0 trusts the buckets, as FineWeb did.
    minimum_similarity: float = Field(default=0.65, ge=0.0, le=1.0)


class ExactConfig(DedupConfig):
    """Options of `dedup.exact`."""


class UrlConfig(UrlKeys, DedupConfig):
    """Options of `dedup.url`."""


def minhash_parts(config: MinhashConfig, where: str) -> tuple[Part, ...]:
    """Near-duplicates."""
    keys = MinhashKeys(**{name: getattr(config, name) for name in MinhashKeys.model_fields})
    return document_parts(
        "dedup.minhash", keys, "stages.dedup.sign:MINHASH", config.minimum_similarity, config.against, where
    )


def exact_parts(config: ExactConfig, where: str) -> tuple[Part, ...]:
    """Equal texts."""
    keys = TextKeys(quality_signal=config.quality_signal)
    return document_parts("dedup.exact", keys, "stages.dedup.sign:TEXT", 1.0, config.against, where)


def url_parts(config: UrlConfig, where: str) -> tuple[Part, ...]:
    """Equal URLs."""
    keys = UrlKeys(ignored_parameters=config.ignored_parameters, quality_signal=config.quality_signal)
    return document_parts("dedup.url", keys, "stages.dedup.sign:URL", 1.0, config.against, where)
