"""What readers give: a row of a document's columns, or a fault that says which record could not be read.

Contract: an id is given once, `document_id(source, record)`, record being the source's own id, or file and place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zstandard

from pipeline.core.documents import document_id, text_hash

READ_ERRORS = (EOFError, OSError, zstandard.ZstdError)
Row = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """What every document of a source gets when it has nothing of its own."""

    source: str
    license: str | None
    domain: str | None
    lang: str | None


@dataclass(frozen=True)
class Fault:
    """A record that could not be read. `place` is file and line, row or offset; it identifies the dropped row."""

    rule: str
    place: str
    message: str
    url: str | None = None


def document_row(origin: Origin, record: str, text: str, **columns: Any) -> Row:
    given = {key: value for key, value in columns.items() if value is not None}
    return {
        "id": document_id(origin.source, record),
        "text": text,
        "text_hash": text_hash(text),
        "source": origin.source,
        "license": origin.license,
        "domain": origin.domain,
        "lang": origin.lang,
        **given,
    }
