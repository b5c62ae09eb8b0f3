"""The tokenizer: how many bytes a token holds, on held-out text and in what was encoded.

Contract: shows what the `tokenizer` and `encode.*` steps and `seodang tokenizer report` recorded, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.report.funnel import step_family
from pipeline.report.gather import Gathered
from pipeline.report.markup import Cell, Markup, Share, facts, folded, missing, section, table
from pipeline.report.tokenizer_report import held_out_tables


def tokenizer_section(gathered: Gathered) -> Markup:
    """Tokenizer facts and encoded tokens."""
    introduction = "How text becomes tokens: more bytes in a token mean shorter rows for the same text."
    record = gathered.record("tokenizer")
    parts: list[Markup] = []
    if record is None:
        parts.append(missing("No tokenizer has been trained or taken over yet."))
    else:
        plain = [(name.replace("_", " "), value) for name, value in sorted(record.facts.items()) if _is_plain(value)]
        if plain:
            parts.append(folded("Tokenizer facts", facts(plain)))
    parts.append(held_out_tables(gathered.tokenizer_report))
    parts.append(_encoded(gathered))
    return section("tokenizer", "Tokenizer", introduction, *parts)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _encoded(gathered: Gathered) -> Markup:
    rows: list[tuple[Cell, ...]] = []
    languages: Counter[str] = Counter()
    for step in gathered.steps:
        if step_family(step.name) != "encode" or step.record is None:
            continue
        counts = step.record.counts
        tokens, size = counts.get("tokens"), counts.get("bytes_in")
        rows.append((step.name, counts.get("documents_out"), size, tokens, size / tokens if size and tokens else None))
        languages.update(step.record.facts.get("tokens_by_language", {}))
    if not rows:
        return missing("Nothing has been encoded yet.")
    columns = ("step", "documents", "text (bytes)", "tokens", "bytes per token")
    encoded = table("Encoded documents", columns, rows)
    ranked = sorted(languages.items(), key=lambda item: (-item[1], item[0]))
    by_language = [(name, tokens, Share(tokens, languages.total())) for name, tokens in ranked]
    if not by_language:
        return encoded
    return Markup(encoded + table("Encoded tokens by language", ("language", "tokens", "share"), by_language))
