"""Which characters of a sample its maker wrote, where the sample also holds the document it is about.

Contract: `extra.written` is a list of [start, end) characters of `text`, in order; a sample without it was written as a
whole. Samples about one document, or about documents much alike, are compared by what was written about them.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

WRITTEN = "written"  # key of `extra`


def woven(parts: Sequence[tuple[str, bool]], joint: str) -> tuple[str, list[list[int]]]:
    """(the parts joined, the [start, end) characters of those marked as written)."""
    spans: list[list[int]] = []
    at = 0
    for text, is_written in parts:
        if is_written:
            spans.append([at, at + len(text)])
        at += len(text) + len(joint)
    return joint.join(text for text, _ in parts), spans


def written_text(text: str, extra: str | None) -> str:
    """What of a sample was written, its `extra` as JSON."""
    if not extra or f'"{WRITTEN}"' not in extra:
        return text
    spans = orjson.loads(extra).get(WRITTEN)
    return "\n".join(text[start:end] for start, end in spans) if spans else text
