"""Compliance: what may be used for training, decided before anything else looks at the text.

Contract: a source whose card refuses or has not finished a review is read, counted and dropped as a whole; a document
whose own declarations opt out, or whose address is on a block list, is dropped. Kept documents get the card's licence
and domain where they have none of their own. The review points are those of the K-EXAONE report's compliance process
(collection, training). Cost: columns only, the text is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from pipeline.core.config import Config
from pipeline.core.errors import InputError
from pipeline.core.files import open_input
from pipeline.core.provenance import SourceCard
from stages.block import Dropped, Outcome, outcome, with_columns

VERSION = 1
BLOCK_LISTS = "block_lists"  # role in `paths`


class ComplianceConfig(Config):
    """Options of the `compliance` block."""

    # Directives that keep a document out; `noimageai` speaks of images only and does not.
    opt_outs: tuple[str, ...] = ("noai", "noml", "tdm-reservation=1")
    blocked: tuple[str, ...] = ()  # domains (with all below them) or, with a slash, beginnings of addresses
    block_lists: tuple[str, ...] = ()  # files of such lines; `#` starts a comment


@dataclass(frozen=True)
class BlockList:
    """Domains and beginnings of addresses, without scheme, in lower case."""

    domains: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, lines: Iterable[str]) -> BlockList:
        entries = {line.split("#", 1)[0].strip().lower().split("://", 1)[-1].rstrip("/") for line in lines} - {""}
        return cls(
            frozenset(entry for entry in entries if "/" not in entry),
            tuple(sorted(entry for entry in entries if "/" in entry)),
        )

    def rule(self, url: str) -> tuple[str, str] | None:
        """(rule, entry) that blocks this address, or None."""
        parts = urlsplit(url if "://" in url else f"//{url}")
        labels = (parts.hostname or "").split(".")
        for first in range(len(labels)):
            domain = ".".join(labels[first:])
            if domain in self.domains:
                return "blocked_domain", domain
        address = url.lower().split("://", 1)[-1]
        for prefix in self.prefixes:
            if address == prefix or address.startswith((f"{prefix}/", f"{prefix}?", f"{prefix}#")):
                return "blocked_url", prefix
        return None


class Compliance:
    """The block; `card` is None for documents whose sources were checked before."""

    def __init__(self, config: ComplianceConfig, block_list: BlockList, card: SourceCard | None) -> None:
        self._opt_outs = frozenset(config.opt_outs)
        self._block_list = block_list
        self._card = card

    def apply(self, documents: pa.Table) -> Outcome:
        refused = self._refused()
        if refused is not None:
            dropped = [Dropped(row, *refused) for row in range(documents.num_rows)]
        else:
            columns = zip(documents["robots"].to_pylist(), documents["url"].to_pylist(), strict=True)
            found = (self._judge(row, robots, url) for row, (robots, url) in enumerate(columns))
            dropped = [one for one in found if one is not None]
        return outcome(self._labelled(documents), dropped)

    def _refused(self) -> tuple[str, str] | None:
        if self._card is None:
            return None
        for point, review in (("collection", self._card.review_collection), ("training", self._card.review_training)):
            if review != "approved":
                return f"compliance.{point}_{review}", f"source card: review_{point} is {review}"
        return None

    def _judge(self, row: int, robots: str | None, url: str | None) -> Dropped | None:
        for directive in (robots or "").split(","):
            if directive.strip().lower() in self._opt_outs:
                return Dropped(row, "compliance.opt_out", directive.strip())
        blocked = self._block_list.rule(url) if url else None
        return Dropped(row, f"compliance.{blocked[0]}", blocked[1]) if blocked else None

    def _labelled(self, documents: pa.Table) -> pa.Table:
        if self._card is None:
            return documents
        own = {"license": self._card.license, "domain": self._card.domain}
        filled = {name: documents[name].fill_null(value).combine_chunks() for name, value in own.items()}
        return with_columns(documents, filled)


def make(config: ComplianceConfig, paths: Mapping[str, tuple[str, ...]], card: SourceCard | None = None) -> Compliance:
    """The block for one source. Raises `InputError` when a block list cannot be read."""
    lines = list(config.blocked)
    for path in paths.get(BLOCK_LISTS, ()):
        if "://" not in path and not Path(path).is_file():
            raise InputError("no such block list", where=path, fix="check `compliance.block_lists`")
        with open_input(path) as stream:
            lines += stream.read().decode("utf-8").splitlines()
    return Compliance(config, BlockList.of(lines), card)
