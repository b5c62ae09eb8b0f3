"""Every text of the folder of real documents, file by file, for tests of exact agreement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow.parquet as pq

from pipeline.core.files import open_input
from pipeline.core.tokenizer import nfc

TEXT_COLUMNS = ("text", "html")


def real_texts(root: Path) -> Iterator[tuple[str, str]]:
    """(where it stands, NFC text) of each document; pages that are no UTF-8 are left out."""
    for file in sorted(root.glob("*.parquet")):
        table = pq.ParquetFile(file)
        columns = [name for name in TEXT_COLUMNS if name in table.schema_arrow.names]
        for batch in table.iter_batches(batch_size=64, columns=columns):
            for column in columns:
                for text in batch[column].to_pylist():
                    if isinstance(text, bytes):
                        text = text.decode("utf-8", "ignore")
                    if text:
                        yield f"{file.name}, {column}", nfc(text)
    with open_input(str(root / "docs_parallel.jsonl.zst")) as lines:
        for line in lines:
            yield "docs_parallel.jsonl.zst", nfc(orjson.loads(line)["text"])
