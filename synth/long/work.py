"""The work of a `synth.SET` step of kind `long`: groups of parts become whole long documents, or say why not.

Contract: every group is kept whole or dropped as a whole with the reason `long.CHECK`; no text is ever cut.
`documents_in == documents_out + dropped` counts groups, `parts_in == parts_out + parts_dropped` their parts.
`extra.missing` counts the parts that `incomplete: keep` lets be missing, at most `MOST_MISSING`.
`extra.parts` has the [start, end) characters of each part in the text, where its text stands unchanged; `parents` are
their ids in the same order. Language and domain are those of most characters, the licence joins all of them, and the
maker is the parts' own: joining writes nothing, so text by people stays native text in limits and statistics.
Memory: the texts of one shard (`shard_bytes`, or one longer group) and one row group of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import commonprefix
from typing import Any

import pyarrow.parquet as pq

from pipeline.core.documents import document_files
from pipeline.core.fingerprint import fingerprint
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from synth.licences import joined_licence
from synth.long import books, manuals, repositories, threads
from synth.long.config import Form, LongConfig
from synth.long.groups import Group, Part, groups_of, in_shards
from synth.long.information import measured, refusal
from synth.output import DROPPED_TEXTS_KEPT, Facts, ShardWriter, merged_facts

JOINTS: Mapping[Form, str] = {"books": "\n\n", "manuals": "\n\n", "repositories": "\n\n", "threads": "\n\n---\n\n"}
BUILDER = "seodang.long.{form}@1"
SHOWN_CHARACTERS = 2000  # of a dropped group, for `peek`
MOST_MISSING = 2**64 - 1  # the highest whole number that orjson writes; parts numbered by longer ids miss more


@dataclass(frozen=True)
class Arranged:
    """A group's parts in order, and what was noticed."""

    parts: Sequence[Part]
    missing: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])


class LongWork:
    """See the module's contract."""

    def shard_count(self, task: StepTask) -> int:
        return len(in_shards(groups_of(task), task.config))

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        writer = ShardWriter(task, shard)
        groups = in_shards(groups_of(task), task.config)[shard]
        texts = read_texts(task.inputs["documents"].folder, [part for group in groups for part in group.parts])
        for group in groups:
            _write(writer, group, texts, task.config)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        return merged_facts(results)


def read_texts(folder: Path, parts: Sequence[Part]) -> dict[str, tuple[str, str | None]]:
    """Id -> (text, maker) of some parts."""
    found: dict[str, tuple[str, str | None]] = {}
    rows: dict[int, dict[int, str]] = {}
    for part in parts:
        rows.setdefault(part.file, {})[part.row] = part.id
    paths = document_files(folder)
    for number, wanted in sorted(rows.items()):
        file = pq.ParquetFile(paths[number])
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            here = sorted(row for row in wanted if first <= row < first + count)
            if here:
                table = file.read_row_group(group, columns=["text", "maker"]).take([row - first for row in here])
                pairs = zip(table["text"].to_pylist(), table["maker"].to_pylist(), strict=True)
                found.update(zip((wanted[row] for row in here), pairs, strict=True))
            first += count
    return found


def arrange(group: Group, texts: Mapping[str, str], form: Form) -> Arranged:
    """The parts of a group in reading, contents, dependency or reply order."""
    if form == "books":
        return Arranged(*books.arranged(group.parts))
    if form == "threads":
        return Arranged(*threads.arranged(group.parts))
    if form == "manuals":
        return Arranged(manuals.arranged(group.parts, texts))
    parts, cycles = repositories.arranged(group.parts, texts)
    return Arranged(parts, notes={"cycles": cycles} if cycles else {})


def joined(parts: Sequence[Part], texts: Mapping[str, str], form: Form) -> tuple[str, list[list[int]]]:
    """(the document, [start, end) characters of each part's text in it)."""
    pieces: list[str] = []
    places: list[list[int]] = []
    at = 0
    for number, part in enumerate(parts):
        before = JOINTS[form] if number else ""
        before += repositories.header(part) if form == "repositories" else ""
        text = texts[part.id]
        pieces += [before, text]
        places.append([at + len(before), at + len(before) + len(text)])
        at = places[-1][1]
    return "".join(pieces), places


def _unfit(group: Group, config: LongConfig) -> tuple[str, str] | None:
    """Why a group is not put together at all."""
    if len(group.parts) < config.minimum_parts:
        return "too_few_parts", f"{len(group.parts)} parts"
    if group.tokens < config.minimum_tokens:
        return "too_short", f"about {group.tokens} tokens"
    if config.maximum_tokens is not None and group.tokens > config.maximum_tokens:
        return "too_long", f"about {group.tokens} tokens"
    return None


def _write(writer: ShardWriter, group: Group, read: Mapping[str, tuple[str, str | None]], config: LongConfig) -> None:
    texts = {part.id: read[part.id][0] for part in group.parts}
    trouble = _unfit(group, config)
    found = Arranged(group.parts)
    if trouble is None:
        found = arrange(group, texts, config.form)
        if found.missing and config.incomplete == "drop":
            trouble = ("incomplete", f"{found.missing} missing of {len(group.parts) + found.missing}")
    text, places = joined(found.parts, texts, config.form) if trouble is None else ("", [])
    information = measured(text) if trouble is None else None
    if information is not None:
        trouble = refusal(information, group.language, config)
    writer.counts.update(parts_in=len(group.parts))
    if trouble is not None or information is None:
        assert trouble is not None
        _drop(writer, group, *trouble, texts)
        return
    writer.counts.update(parts_out=len(group.parts))
    makers = sorted({maker for part in group.parts if (maker := read[part.id][1])})
    writer.keep(
        fingerprint([part.id for part in found.parts]),
        text,
        bytes_in=group.size_bytes,
        extra={
            "form": config.form,
            "built_by": BUILDER.format(form=config.form),
            "parts": places,
            **({"missing": min(found.missing, MOST_MISSING)} if found.missing else {}),
            **found.notes,
        },
        title=_title(found.parts),
        lang=group.language or None,
        domain=group.domain or None,
        license=joined_licence(part.licence for part in group.parts),
        parents=[part.id for part in found.parts],
        maker=" + ".join(makers) or None,
    )


def _title(parts: Sequence[Part]) -> str | None:
    """The only part's title; of several the folders that their names share, or the first title."""
    if len(parts) == 1:
        return parts[0].title or None
    shared = commonprefix([part.name.split("/")[:-1] for part in parts])
    return "/".join(shared) or parts[0].title or None


def _drop(writer: ShardWriter, group: Group, check: str, detail: str, texts: Mapping[str, str]) -> None:
    reason = f"long.{check}"
    writer.counts.update(parts_dropped=len(group.parts))
    first = group.parts[0]
    shown = texts[first.id][:SHOWN_CHARACTERS] if writer.dropped[reason] < DROPPED_TEXTS_KEPT else ""
    key = fingerprint([part.id for part in group.parts])
    writer.drop(key, reason, f"{first.name}: {detail}", shown, bytes_in=group.size_bytes, lang=group.language or None)


WORK = LongWork()
