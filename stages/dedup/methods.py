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


class WrittenKeys(MinhashKeys):
    """Identity of MinHash signatures of what makers wrote."""

    compared: Literal["written"] = "written"


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


class ParagraphsConfig(Config):
    """Options of `dedup.paragraphs`."""

    minimum_words: int = Field(default=10, ge=1)  # shorter ones may stand anywhere (ours); a kana or Han counts half
    quality_signal: str = ""


class SubstringConfig(Config):
    """Options of `dedup.substring`."""

    # Lee et al. 2022 (arXiv 2107.06499) cut at 50 tokens: about 200 bytes of English, fewer tokens elsewhere (ours).
    minimum_bytes: int = Field(default=200, ge=32, le=1000)
    quality_signal: str = ""


def paragraphs_parts(config: ParagraphsConfig, where: str) -> tuple[Part, ...]:
    """Equal paragraphs."""
    del where
    return (
        Part(
            "hashes.paragraphs",
            "stages.dedup.paragraph_hashes",
            2,
            config,
            "stages.dedup.paragraphs:SIGN",
            reads_documents=True,
        ),
        _copies("copies.paragraphs", "hashes.paragraphs"),
        Part(
            "dedup.paragraphs",
            "stages.dedup.paragraphs",
            2,
            config,
            "stages.dedup.paragraphs:CUT",
            reads_documents=True,
            after={"items": "hashes.paragraphs", "copies": "copies.paragraphs"},
        ),
    )


def substring_parts(config: SubstringConfig, where: str) -> tuple[Part, ...]:
    """Repeated strings of bytes."""
    del where
    module = "stages.dedup.substrings"
    found = {"anchors": "anchors.substring", "shared": "shared.substring"}
    return (
        Part("anchors.substring", "stages.dedup.anchors", 2, config, f"{module}:FIND_ANCHORS", reads_documents=True),
        Part(
            "shared.substring",
            "stages.dedup.shared_anchors",
            1,
            Config(),
            f"{module}:SORT_ANCHORS",
            after={"items": "anchors.substring"},
        ),
        Part(
            "windows.substring",
            "stages.dedup.windows",
            2,
            config,
            f"{module}:HASH_WINDOWS",
            reads_documents=True,
            after=found,
        ),
        _copies("copies.substring", "windows.substring"),
        Part(
            "dedup.substring",
            "stages.dedup.substring",
            2,
            config,
            f"{module}:CUT",
            reads_documents=True,
            after={**found, "windows": "windows.substring", "copies": "copies.substring"},
        ),
    )


def _copies(name: str, items: str) -> Part:
    return Part(name, "stages.dedup.copied_items", 1, Config(), "stages.dedup.spans:COPIES", after={"items": items})
