"""Compliance: what may be used for training, decided before anything else looks at the text.

Contract: a source whose card refuses or has not finished a review is read, counted and dropped as a whole; a document
whose own declarations or whose host's files opt out, or whose address is on an opt-out or block list, is dropped. Kept
documents get the card's licence and domain where they have none of their own. The review points are those of the
K-EXAONE report's compliance process (collection, training). Cost: columns only, the text is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.core.addresses import AddressList, address_of
from pipeline.core.config import Config
from pipeline.core.errors import InputError
from pipeline.core.files import open_input
from pipeline.core.provenance import SourceTerms
from stages.block import Dropped, Outcome, outcome, with_columns
from stages.opt_outs import TRAINING_AGENTS, OptOuts, read_tdm, read_texts

VERSION = 2
BLOCK_LISTS = "block_lists"  # roles in `paths`
OPT_OUT_LISTS = "opt_out_lists"
ROBOTS_TXT = "robots_txt"
AI_TXT = "ai_txt"
TDMREP = "tdmrep"
UNKNOWN_ROBOTS = "compliance.robots_txt_unknown"


class ComplianceConfig(Config):
    """Options of the `compliance` block. Lists have a domain (with all below it) or the beginning of an address a line;
    the forms of hosts' files are those of `stages.opt_outs`."""

    # Directives that keep a document out; `noimageai` speaks of images only and does not.
    opt_outs: tuple[str, ...] = ("noai", "noml", "tdm-reservation=1")
    blocked: tuple[str, ...] = ()  # lines of a block list
    block_lists: tuple[str, ...] = ()  # files of such lines; `#` starts a comment
    opt_out_lists: tuple[str, ...] = ()  # the same, of owners who opted out
    robots_txt: tuple[str, ...] = ()  # files that hold hosts' robots.txt
    ai_txt: tuple[str, ...] = ()
    tdmrep: tuple[str, ...] = ()
    user_agents: tuple[str, ...] = TRAINING_AGENTS  # a page that any of them may not fetch is dropped


@dataclass(frozen=True)
class Lists:
    """Everything that addresses are held against."""

    blocked: AddressList
    opted_out: AddressList
    hosts: OptOuts

    @property
    def empty(self) -> bool:
        """Whether no address is listed anywhere: then none is parsed."""
        listed = (self.blocked.domains, self.blocked.prefixes, self.opted_out.domains, self.opted_out.prefixes)
        return not any((*listed, self.hosts.robots, self.hosts.ai, self.hosts.tdm))

    def rule(self, url: str) -> tuple[str, str] | None:
        """(rule, entry) that keeps this address out, or None."""
        address = address_of(url)
        if address is None:
            return None
        for name, listed in (("blocked", self.blocked), ("opt_out", self.opted_out)):
            domain = listed.domain_of(address)
            if domain is not None:
                return f"{name}_domain", domain
            prefix = listed.prefix_of(address)
            if prefix is not None:
                return f"{name}_url", prefix
        return self.hosts.rule(url)


class Compliance:
    """The block; `card` is None for documents whose sources were checked before."""

    def __init__(self, config: ComplianceConfig, lists: Lists, card: SourceTerms | None) -> None:
        self._opt_outs = frozenset(config.opt_outs)
        self._lists = lists
        self._addresses_count = not lists.empty
        self._card = card

    def apply(self, documents: pa.Table) -> Outcome:
        refused = self._refused()
        counts: dict[str, int] = {}
        if refused is not None:
            dropped = [Dropped(row, *refused) for row in range(documents.num_rows)]
        else:
            urls = documents["url"].to_pylist()
            columns = zip(documents["robots"].to_pylist(), urls, strict=True)
            found = (self._judge(row, robots, url) for row, (robots, url) in enumerate(columns))
            dropped = [one for one in found if one is not None]
            if self._lists.hosts.robots:
                counts[UNKNOWN_ROBOTS] = sum(bool(url) and not self._lists.hosts.knows(url) for url in urls)
        return outcome(self._labelled(documents), dropped, counts=counts)

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
        blocked = self._lists.rule(url) if url and self._addresses_count else None
        return Dropped(row, f"compliance.{blocked[0]}", blocked[1]) if blocked else None

    def _labelled(self, documents: pa.Table) -> pa.Table:
        if self._card is None:
            return documents
        own = {"license": self._card.license, "domain": self._card.domain}
        filled = {name: documents[name].fill_null(value).combine_chunks() for name, value in own.items()}
        return with_columns(documents, filled)


def make(config: ComplianceConfig, paths: Mapping[str, tuple[str, ...]], card: SourceTerms | None = None) -> Compliance:
    """The block for one source. Raises `InputError` when a list or a host's file cannot be read."""
    hosts = OptOuts(
        read_texts(paths.get(ROBOTS_TXT, ()), "robots.txt"),
        read_texts(paths.get(AI_TXT, ()), "ai.txt"),
        read_tdm(paths.get(TDMREP, ())),
        config.user_agents,
    )
    blocked = AddressList.of([*config.blocked, *_lines(paths.get(BLOCK_LISTS, ()))])
    return Compliance(config, Lists(blocked, AddressList.of(_lines(paths.get(OPT_OUT_LISTS, ()))), hosts), card)


def _lines(paths: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for path in paths:
        try:
            with open_input(path) as stream:
                lines += stream.read().decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"no such block list, or not one: {error}", where=path, fix="give a UTF-8 file") from None
    return lines
