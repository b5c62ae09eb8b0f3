"""The step that builds a search set's index: `index.SET`, files `index/00000.sqlite`.

Contract: shard k holds the pages of the chosen documents [k * size, (k + 1) * size) by rank, a longer document as
several pages of whole paragraphs, and after them the planted pages whose host is one of them. A planted page is a copy
of a host's page with one sentence of ours; its licence is the host's and ours (SPDX `AND`), unknown where the host's
is. Addresses: a document's own, `#part-2` and so on for further pages, or one below `page.invalid` where it has none or
another document has it too. `pages/00000.parquet` lists them, a row a page in the file's order, so that a takedown
finds the index like any table. Cost: reading the chosen documents once, writing about 5 MB of text a second; holds
the texts of a shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.core.documents import (
    DOCUMENT_SCHEMA,
    document_files,
    document_id,
    read_table,
    table_from_rows,
    write_table,
)
from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from synth.licences import joined_licence
from synth.passages import passages
from synth.selection import Chosen, choose, read_chosen, shards_of, slice_of
from synth.subagents.config import SearchCorpusConfig
from synth.subagents.index import SUFFIX, Page, write_index
from synth.subagents.planted import chain_question, planted
from synth.subagents.questions import Question, draw

INDEX_FOLDER = "index"
PAGES_FOLDER = "pages"
PAGES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("license", pa.string()),
        pa.field("parents", pa.list_(pa.string())),  # the document a further part or a planted page is from
        pa.field("planted", pa.bool_(), nullable=False),
    ]
)
OWN_LICENSE = "Apache-2.0"
ADDRESS = "https://page.invalid"  # RFC 2606: leads nowhere
TITLE_CHARACTERS = 80


class SearchIndexWork:
    """The work of an `index.SET` step."""

    def shard_count(self, task: StepTask) -> int:
        config: SearchCorpusConfig = task.config
        return shards_of(len(choose(task)[: config.documents]), config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        config: SearchCorpusConfig = task.config
        chosen = choose(task)[: config.documents]
        own = list(slice_of(chosen, shard, config.documents_per_shard))
        rows = read_chosen(task.inputs["documents"].folder, own)
        doubled = _doubled_addresses(task, chosen)
        real = [page for row in rows for page in pages_of(row, config.page_characters, doubled)]
        parts: dict[str, list[Page]] = {}
        for page in real:
            parts.setdefault(page.document, []).append(page)
        added = list(_planted_pages(task, chosen, parts))
        write_index(task.folder / INDEX_FOLDER / f"{shard:05d}{SUFFIX}", [*real, *added])
        sources = {row["id"]: row["source"] for row in rows}
        listed = [_listed(page, task.name if page.planted else sources[page.document]) for page in [*real, *added]]
        write_table(task.folder / PAGES_FOLDER / f"{shard:05d}.parquet", table_from_rows(listed, PAGES_SCHEMA))
        counts = {"documents_in": len(rows), "documents_out": len(rows), "pages": len(real), "planted": len(added)}
        licenses = Counter(page.license or "unknown" for page in [*real, *added])
        return ShardResult(counts=counts, licenses=dict(licenses))

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return {}


def _listed(page: Page, source: str) -> dict[str, Any]:
    own = page.id == page.document
    parents = None if own else [page.document]
    columns = {"id": page.id, "source": source, "url": page.url, "lang": page.lang, "license": page.license}
    return {**columns, "parents": parents, "planted": page.planted}


def _doubled_addresses(task: StepTask, chosen: Sequence[Chosen]) -> frozenset[str]:
    """Addresses that several documents have."""
    paths = document_files(task.inputs["documents"].folder)
    rows: dict[int, list[int]] = {}
    for item in chosen:
        rows.setdefault(item.file, []).append(item.row)
    counts: Counter[str] = Counter()
    for file in sorted(rows):
        urls = read_table(paths[file], DOCUMENT_SCHEMA, ["url"])["url"].to_pylist()
        counts.update(url for row in rows[file] if (url := urls[row]))
    return frozenset(url for url, count in counts.items() if count > 1)


def pages_of(row: Mapping[str, Any], page_characters: int, doubled: frozenset[str] = frozenset()) -> list[Page]:
    """A document as pages, in order."""
    own = row["url"]
    # White space in an address would end it in a result list.
    url = own if own and own not in doubled and len(own.split()) == 1 else f"{ADDRESS}/{row['id']}"
    found: list[Page] = []
    for number, text in enumerate(passages(row["text"], page_characters), start=1):
        address = url if number == 1 else f"{url}#part-{number}"
        identity = row["id"] if number == 1 else document_id(row["source"], f"{row['id']}#part-{number}")
        title = " ".join((row["title"] or row["text"][:TITLE_CHARACTERS]).split())
        language = str(row["lang"]).split("-")[0].lower()
        found.append(Page(identity, address, title, language, row["license"], row["id"], text))
    return found


def _planted_pages(task: StepTask, chosen: Sequence[Chosen], parts: Mapping[str, Sequence[Page]]) -> Iterator[Page]:
    """The planted pages whose hosts are among `parts`, by question and step."""
    config: SearchCorpusConfig = task.config
    hosts: dict[str, list[Chosen]] = {}
    for item in chosen:
        hosts.setdefault(item.language, []).append(item)
    for question in chain_questions(config, sorted(hosts)):
        able = hosts[question.language]
        for step, fact in enumerate(question.facts, start=1):
            seed = derive_seed("search host", config.seed, question.number, step)
            host_pages = parts.get(able[seed % len(able)].id)
            if host_pages:
                host = host_pages[seed // len(able) % len(host_pages)]
                name = f"{question.key}/{step}"
                identity = document_id(task.name, name)
                text = planted(host.text, fact.sentence, derive_seed("search place", config.seed, name))
                license_ = joined_licence([host.license, OWN_LICENSE])
                url = f"{ADDRESS}/{identity}"
                yield Page(identity, url, host.title, host.lang, license_, host.document, text, planted=True)


def chain_questions(config: SearchCorpusConfig, languages: Sequence[str]) -> Iterator[Question]:
    for number in range(config.questions):
        drawn = draw(config, number, languages)
        if drawn.kind == "chain":
            yield chain_question(config, drawn)


WORK = SearchIndexWork()
