"""Configuration of reading and cleaning.

`ReadConfig` and `SourceConfig` have the shape of the curriculum file; `CleanConfig` is the identity of one cleaning
step: the same options without the paths, which are execution. Files that a step reads count by their content.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from pipeline.core.config import Config
from pipeline.core.provenance import SourceTerms
from stages.charset import codec_name

Kind = Literal["warc", "jsonl", "parquet", "csv", "text", "html", "source-tree", "python-stdlib"]

MEBIBYTE = 1 << 20
PYTHON_STDLIB = "python-stdlib"
CUTTABLE: tuple[Kind, ...] = ("text", "source-tree", "jsonl", "parquet")  # pages have no text before they are parsed


class ReadConfig(Config):
    """Where documents come from and which of the source's fields mean what.

    `warc`: WARC and WET files, `.gz` or plain. `jsonl`, `text`, `html`: also `.gz`, `.zst`, `.bz2`. `source-tree`:
    folders of program text, one document a file. `python-stdlib`: the running interpreter's own library (no paths).
    `csv`: a header line, then a record a row; separated by whichever of , ; | and tab the header has most of.
    Optional keys name fields of JSONL, Parquet and CSV records; fields that no key names are kept in `extra`.
    """

    kind: Kind
    paths: tuple[str, ...] = ()  # globs, relative to the configuration's working folder, or fsspec URLs
    text_key: str = "text"
    id_key: str = "id"  # records without it, or with an empty one, are identified by file and line
    url_key: str = "url"
    title_key: str = "title"
    date_key: str = "date"
    lang_key: str = ""  # empty: languages are identified, not believed
    domain_key: str = "domain"
    license_key: str = "license"
    parallel_key: str = "parallel_id"
    charset: str | None = None  # of text, HTML and WARC pages; null: declared, then detected
    domain: str | None = None  # of every document without one of its own; null: the source card's
    lang: str | None = None  # of every document; null: identified by the `language` block
    endings: tuple[str, ...] = (".py",)  # of the files that a source tree gives
    maximum_bytes: int | None = Field(default=None, gt=0)  # whole files, a fixed sample of them, up to this many bytes
    maximum_document_bytes: int = Field(default=64 * MEBIBYTE, gt=0)
    # Larger documents: dropped as read.too_large; or cut into several at paragraphs (all kinds but HTML and WARC).
    too_large: Literal["drop", "cut"] = "drop"
    shard_bytes: int = Field(default=64 * MEBIBYTE, gt=0)  # small files share an output shard up to this many bytes

    @field_validator("charset")
    @classmethod
    def _charset_is_known(cls, label: str | None) -> str | None:
        try:
            "".encode(codec_name(label) or "" if label is not None else "utf-8")
        except LookupError:
            message = f"no character encoding is called `{label}`: for example utf-8, cp949, shift_jis or latin-1"
            raise ValueError(message) from None
        return label

    @model_validator(mode="after")
    def _paths_fit_the_kind(self) -> Self:
        if self.kind == PYTHON_STDLIB and self.paths not in ((), (PYTHON_STDLIB,)):
            message = "a `python-stdlib` source has no paths: it reads the running interpreter's library"
            raise ValueError(message)
        if self.too_large == "cut" and self.kind not in CUTTABLE:
            message = f"`too_large: cut` is for {', '.join(CUTTABLE)}: of {self.kind} it would cut pages, not texts"
            raise ValueError(message)
        return self


class SourceConfig(Config):
    """One corpus: how to read it, its source card (a YAML file), and what it is for.

    `use: ingest` is for tables, questions and answers, and parallel text that `ingest` sets map into conversations:
    compliance looks at them, but they are not cleaned, deduplicated or mixed as running text.
    """

    read: ReadConfig
    card: str
    use: Literal["corpus", "ingest"] = "corpus"


class BlockSpec(Config):
    """One block of a cleaning step: its name in the catalog and its options."""

    name: str
    config: SerializeAsAny[Config]


class CleanConfig(Config):
    """Identity of a cleaning step.

    Attributes:
        source: Name of the source that is read, or an empty string when documents of other steps are cleaned further.
        read: How it is read, its `paths` empty; None when documents of other steps are cleaned further.
        card: The terms of the source card; None when there is no source.
        blocks: The blocks after compliance, in order.
    """

    source: str = ""
    read: ReadConfig | None = None
    card: SourceTerms | None = None
    blocks: tuple[BlockSpec, ...] = ()

    @model_validator(mode="after")
    def _source_is_whole(self) -> Self:
        whole = bool(self.source) == (self.read is not None) == (self.card is not None)
        if not whole or (self.read is not None and self.read.paths):
            message = "a source needs its name, its read options without paths, and its card"
            raise ValueError(message)
        return self
