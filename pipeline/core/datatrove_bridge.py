"""Documents to and from `datatrove.data.Document`, without loss in either direction.

Ours to theirs: `id` and `text` as they are; every other column that is not null becomes a metadata entry of the same
name; `text_hash` is left out, because it follows from the text. Theirs to ours: metadata entries that fit a column
become that column; what does not fit (other keys, other types, media, an id that is not ours) is kept under the key
`datatrove` in `extra`, and comes out again on the way back. datatrove is imported when a function is called.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from pipeline.core.documents import DOCUMENT_SCHEMA, document_id, table_from_rows, text_hash
from pipeline.core.errors import InputError

if TYPE_CHECKING:
    from datatrove.data import Document, Media

WRAPPER = "datatrove"
_HEX = frozenset("0123456789abcdef")
_OWN = frozenset({"id", "text", "text_hash"})
_COLUMNS = tuple(name for name in DOCUMENT_SCHEMA.names if name not in _OWN)
_MEDIA_FIELDS = ("id", "type", "url", "alt", "path", "offset", "length", "media_bytes", "metadata")


def to_datatrove(documents: pa.Table) -> Iterator[Document]:
    """datatrove documents of `DOCUMENT_SCHEMA` rows, in order."""
    for row in documents.to_pylist():
        present = {name: value for name, value in row.items() if value is not None}
        yield _wrapped_document(present) or _plain_document(present)


def from_datatrove(documents: Iterable[Document], source: str | Sequence[str]) -> pa.Table:
    """`DOCUMENT_SCHEMA` rows of datatrove documents, in order.

    Args:
        documents: Of any datatrove reader or block.
        source: Source name of documents that carry none, one for all or one for each; their ids are made from it. The
            way back and forth is lossless for the same name.

    Raises:
        InputError: Metadata that is not JSON; names the document and the key.
    """
    sources = repeat(source) if isinstance(source, str) else source
    return table_from_rows([_row(document, name) for document, name in zip(documents, sources, strict=False)])


def _plain_document(row: Mapping[str, Any]) -> Document:
    from datatrove.data import Document

    return Document(
        text=row["text"], id=row["id"], metadata={name: row[name] for name in _COLUMNS if row.get(name) is not None}
    )


def _wrapped_document(row: Mapping[str, Any]) -> Document | None:
    """The datatrove document that `_row` made this row of; None when it was made elsewhere, whatever it looks like."""
    from datatrove.data import Document

    wrapper = _unwrapped(row.get("extra"))
    if wrapper is None:
        return None
    metadata = {name: row[name] for name in _COLUMNS if row.get(name) is not None and name != "extra"}
    if wrapper.get("sourceless"):
        del metadata["source"]
    try:
        media = [_media(one) for one in wrapper.get("media", [])]
        metadata |= wrapper.get("metadata", {})
    except (TypeError, KeyError, ValueError):
        return None
    document = Document(text=row["text"], id=wrapper.get("id", row["id"]), media=media, metadata=metadata)
    made = _row(document, row["source"])
    return document if made == {**row, "text_hash": made["text_hash"]} else None


def _row(document: Document, source: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in document.metadata.items():
        if key in _COLUMNS and _fits(key, value):
            row[key] = value
        else:
            rest[key] = value
    row["text"] = document.text
    row["text_hash"] = text_hash(document.text)
    wrapper: dict[str, Any] = {}
    if "source" not in row:
        row["source"] = source
        wrapper["sourceless"] = True
    own_id = str(document.id)
    if len(own_id) == 32 and set(own_id) <= _HEX:
        row["id"] = own_id
    else:
        row["id"] = document_id(row["source"], own_id)
        wrapper["id"] = document.id
    if document.media:
        wrapper["media"] = [{name: _plain(getattr(one, name)) for name in _MEDIA_FIELDS} for one in document.media]
    # An `extra` of the document's own that would be taken for a wrapper of ours goes inside one.
    if "extra" in row and (wrapper or rest or _wrapped_document(row) is not None):
        rest["extra"] = row.pop("extra")
    if rest:
        wrapper["metadata"] = rest
    if wrapper:
        row["extra"] = _wrapped(wrapper, own_id)
    return row


def _wrapped(wrapper: Mapping[str, Any], document: str) -> str:
    try:
        return orjson.dumps({WRAPPER: wrapper}, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError as error:
        bad = [key for key, value in wrapper.get("metadata", {}).items() if not _is_json(value)]
        raise InputError(
            f"metadata {bad} cannot be kept as JSON: {error}", where=f"document {document}", fix="use JSON types"
        ) from None


def _unwrapped(extra: str | None) -> Mapping[str, Any] | None:
    """What looks as `_wrapped` writes it, or None."""
    if extra is None or not extra.startswith(f'{{"{WRAPPER}":'):
        return None
    try:
        value = orjson.loads(extra)
    except orjson.JSONDecodeError:
        return None
    inner = value[WRAPPER]
    kinds = {"sourceless": bool, "id": object, "media": list, "metadata": dict}
    if not isinstance(inner, dict) or not set(inner) <= set(kinds):
        return None
    return inner if all(isinstance(inner[key], kinds[key]) for key in inner) else None


def _fits(name: str, value: Any) -> bool:
    """Whether a value goes into a column and comes out as it was."""
    if value is None:
        return False
    kind = DOCUMENT_SCHEMA.field(name).type
    try:
        return pa.array([value], type=kind).to_pylist()[0] == value and not isinstance(value, bool)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _media(values: dict[str, Any]) -> Media:
    from datatrove.data import Media

    media = Media(**values)
    media.media_bytes = _bytes(values["media_bytes"])
    return media


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
