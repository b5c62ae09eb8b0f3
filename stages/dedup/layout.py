"""How a deduplication becomes steps: sign each shard, find pairs by key range, join them by range of documents, choose
survivors cluster by cluster, filter each shard. Every one of them is many tasks.

Contract: `Part`s of one block in running order; the last has the block's own name and writes documents. Only options
that a part's bytes depend on are in its config, so that another threshold does not sign texts again. `against` names
folders of finished signature steps, the oldest first; their content is identity, their place is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.fingerprint import canonical, fingerprint
from pipeline.core.record import finished, read_record

DOCUMENTS, KEYS, PAIRS, FORESTS, CLUSTERS = "documents", "keys", "pairs", "forests", "clusters"  # roles
EARLIER = "against"  # role of the folders of earlier signatures
SIGNATURES_KIND = "stages.dedup.signatures"


@dataclass(frozen=True)
class Part:
    """One step of a block.

    Attributes:
        name: Of the step.
        kind: What it does.
        version: Of its output bytes.
        config: Its identity.
        work: Import path of its work object.
        reads_documents: Whether the block's input documents are among its inputs.
        after: Role -> name of an earlier part of the block.
        paths: Folders that it reads outside the graph, by role.
        content: Fingerprints of what lies there.
    """

    name: str
    kind: str
    version: int
    config: Config
    work: str
    reads_documents: bool = False
    after: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    content: Mapping[str, str] = field(default_factory=dict)


class DedupConfig(Config):
    """Options of every deduplication of whole documents."""

    quality_signal: str = ""  # a signal's column, name@version; empty: the longest document survives
    against: tuple[str, ...] = ()  # folders of earlier signature steps, oldest first: what they hold is had already


class PairsConfig(Config):
    """Identity of the search for pairs."""

    minimum_similarity: float = Field(ge=0.0, le=1.0)  # share of equal signature values


class JoinConfig(Config):
    """Nothing: forests and clusters follow from pairs."""


class FilterConfig(Config):
    """Identity of the last part."""

    reason: str


def document_parts(
    block: str, signatures: Config, sign_work: str, minimum_similarity: float, against: Sequence[str], where: str
) -> tuple[Part, ...]:
    """The five parts of a deduplication of whole documents.

    Raises:
        InputError: A folder in `against` holds no finished signatures.
        ConfigError: Earlier signatures were made with other options.
    """
    kind = block.removeprefix("dedup.")
    earlier, content = _earlier(signatures, against, where)
    prefixes = {KEYS: "signatures", PAIRS: "pairs", FORESTS: "forests", CLUSTERS: "clusters"}
    names = {role: f"{prefix}.{kind}" for role, prefix in prefixes.items()}
    return (
        Part(names[KEYS], SIGNATURES_KIND, 1, signatures, sign_work, reads_documents=True),
        Part(
            names[PAIRS],
            "stages.dedup.pairs",
            2,
            PairsConfig(minimum_similarity=minimum_similarity),
            "stages.dedup.pairs:WORK",
            after={KEYS: names[KEYS]},
            paths=earlier,
            content=content,
        ),
        Part(
            names[FORESTS],
            "stages.dedup.forests",
            1,
            JoinConfig(),
            "stages.dedup.forests:WORK",
            after={KEYS: names[KEYS], PAIRS: names[PAIRS]},
            paths=earlier,
            content=content,
        ),
        Part(
            names[CLUSTERS],
            "stages.dedup.clusters",
            2,
            JoinConfig(),
            "stages.dedup.clusters:WORK",
            after={KEYS: names[KEYS], FORESTS: names[FORESTS]},
            paths=earlier,
            content=content,
        ),
        Part(
            block,
            f"stages.{block}",
            3,
            FilterConfig(reason=block),
            "stages.dedup.survivors:WORK",
            reads_documents=True,
            after={CLUSTERS: names[CLUSTERS]},
        ),
    )


def _earlier(
    signatures: Config, against: Sequence[str], where: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(paths, content) of earlier signatures. Their quality may come of another signal, all else must be the same."""
    if not against:
        return {}, {}
    asked = _comparable(canonical(signatures))
    hashes: list[Mapping[str, str]] = []
    for folder in map(Path, against):
        if not finished(folder):
            fix = "name the finished `signatures.…` folders of earlier runs, oldest first"
            raise InputError("no finished signature step", where=f"{where}.against: {folder}", fix=fix)
        record = read_record(folder)
        if record.kind != SIGNATURES_KIND:
            fix = "name a `signatures.…` folder of the same store"
            raise InputError(f"holds no signatures but `{record.kind}`", where=f"{where}.against: {folder}", fix=fix)
        if _comparable(record.config) != asked:
            raise ConfigError(
                f"earlier signatures were made with {_comparable(record.config)}, these with {asked}",
                where=f"{where}.against: {folder}",
                fix="use the same options, or sign the earlier documents again",
            )
        hashes.append(record.files)
    return {EARLIER: tuple(against)}, {EARLIER: fingerprint(hashes)}


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "quality_signal"}
