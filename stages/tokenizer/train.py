"""The tokenizer step: a sample of the cleaned documents in, `tokenizer.json` and `tokenizer_config.json` out.

Contract: the same documents give the same bytes in any order and any sharding: documents are drawn by the hash of
their id until `maximum_bytes` is reached. A given tokenizer (`path`) is checked and taken over as it is. The plain
`tokenizer.json` loads in tokenizers and transformers; the chat template stands in `tokenizer_config.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import xxhash
from pydantic import Field, model_validator

from pipeline.core.chat import BOS, EOS, PAD
from pipeline.core.config import Config
from pipeline.core.documents import DOCUMENT_SCHEMA, document_files, read_table
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.files import write_bytes, write_json
from pipeline.core.record import ShardResult
from pipeline.core.steps import StepTask
from pipeline.core.tokenizer import FILE, Tokenizer
from stages.tokenizer.superbpe import LARGEST, SMALLEST, build, supported_vocabulary, train

VERSION = 1
TOKENIZER_ROLE = "tokenizer"  # in `StepTask.paths`, when a tokenizer is given
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


class TrainTokenizerConfig(Config):
    """How to train. The superword share is the K-EXAONE report's (about 20 % of the vocabulary); the rest is ours."""

    vocabulary: int = Field(default=153_600, gt=SMALLEST, lt=LARGEST)  # tokens, reserved ids included
    superword_share: float = Field(default=0.2, ge=0.0, le=0.8)
    maximum_bytes: int = Field(default=1_000_000_000, gt=0)  # of UTF-8 text
    minimum_count: int = Field(default=2, ge=1)  # occurrences of a pair


class TokenizerConfig(Config):
    """Train a tokenizer, or take the one at `path`."""

    train: TrainTokenizerConfig | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.train is None) == (self.path is None):
            raise ValueError("give either `train` or `path`")
        return self

    def identity(self) -> TokenizerConfig:
        """The config without where the file lies: its content is identity, its path is not."""
        return self if self.path is None else TokenizerConfig(path=FILE)


class TokenizerWork:
    """The step's work: one shard that is the whole tokenizer."""

    def shard_count(self, task: StepTask) -> int:
        return 1

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `ConfigError` when the text does not support the vocabulary, with the size that would work."""
        config: TokenizerConfig = task.config
        facts = _take_over(task) if config.train is None else _train(task, config.train)
        write_json(task.folder / "tokenizer_config.json", tokenizer_settings())
        return ShardResult(counts={"tokens": facts["vocabulary"]}, facts=facts)

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Mapping[str, Any]:
        return dict(results[0].facts)


WORK = TokenizerWork()


def tokenizer_settings() -> dict[str, Any]:
    """The content of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE.read_text(encoding="utf-8").rstrip("\n"),
    }


def _take_over(task: StepTask) -> dict[str, Any]:
    path = Path(task.paths[TOKENIZER_ROLE][0])
    tokenizer = Tokenizer.load(path)
    file = path / FILE if path.is_dir() else path
    write_bytes(task.folder / FILE, file.read_bytes())
    return {"fingerprint": tokenizer.fingerprint, "vocabulary": tokenizer.vocabulary_size}


def _train(task: StepTask, config: TrainTokenizerConfig) -> dict[str, Any]:
    files = [file for role in sorted(task.inputs) for file in document_files(task.inputs[role].folder)]
    chosen, sampled_bytes = _sample(files, config.maximum_bytes)
    if not chosen:
        raise InputError("no documents to train a tokenizer on", where=task.name, fix="see what the clean step dropped")

    def texts() -> Iterator[str]:
        return _texts(files, chosen)

    trained = train(texts, config.vocabulary, config.superword_share, config.minimum_count)
    if not trained.complete:
        works = supported_vocabulary(texts, config.superword_share, config.minimum_count, config.vocabulary)
        fix = f"set `vocabulary: {works}`" if works else "set `superword_share: 0.0`"
        raise ConfigError(
            f"{sampled_bytes:,} bytes of text support {len(trained.tokens)} tokens, {trained.superwords} of them "
            f"superwords: too few for `vocabulary: {config.vocabulary}`, `superword_share: {config.superword_share}`",
            where=task.name,
            fix=f"{fix}, or give more text",
        )
    data = build(trained).to_str(pretty=False).encode("utf-8")
    write_bytes(task.folder / FILE, data)
    return {
        "fingerprint": hashlib.sha256(data).hexdigest(),
        "vocabulary": len(trained.tokens),
        "merges": len(trained.merges),
        "superwords": trained.superwords,
        "sampled_documents": len(chosen),
        "sampled_bytes": sampled_bytes,
    }


def _sample(files: Sequence[Path], maximum_bytes: int) -> tuple[set[str], int]:
    """Ids of the documents to train on and their bytes: by ascending hash of the id, as many as fit."""
    ids: list[str] = []
    sizes: list[int] = []
    for file in files:
        table = read_table(file, DOCUMENT_SCHEMA, ["id", "text"])
        ids += table["id"].to_pylist()
        sizes += [len(text.encode("utf-8")) for text in table["text"].to_pylist()]
    order = sorted(range(len(ids)), key=lambda row: (xxhash.xxh3_64_intdigest(ids[row].encode()), ids[row]))
    chosen: set[str] = set()
    total = 0
    for row in order:
        if chosen and total + sizes[row] > maximum_bytes:
            break
        if ids[row] not in chosen:
            chosen.add(ids[row])
            total += sizes[row]
    return chosen, total


def _texts(files: Sequence[Path], chosen: set[str]) -> Iterator[str]:
    for file in files:
        table = read_table(file, DOCUMENT_SCHEMA, ["id", "text"])
        for identity, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
            if identity in chosen:
                yield text
