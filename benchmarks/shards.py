"""Documents to token shards: our encode step against datatrove's DocumentTokenizer, with the same tokenizer.json.

Contract: both read prepared documents and write tokens with their index, unshuffled; ours also writes Megatron's index
and the document table. `equal` means the same token ids, end of document included, in the same order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.datatrove_peer import datatrove_documents, silence
from benchmarks.encode import trained_tokenizer
from benchmarks.inputs import documents
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.chat import EOS
from pipeline.core.documents import write_documents
from pipeline.core.shards import TokenShard, shard_stems
from pipeline.core.steps import StepOutput, StepTask
from stages.encode import WORK, EncodeConfig

NAME = "shards"
PEER = "datatrove DocumentTokenizer"
TOKENS_OF_UINT16 = 1 << 16


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(800_000, 16_384, 3), "quick": Load(20_000, 1024, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison."""
    load = LOADS[settings.size]
    yield from against(PEER, ("datatrove",), lambda: _compared(load))


def _compared(load: Load) -> Comparison:
    from datatrove.pipeline.tokens import DocumentTokenizer

    silence()
    corpus = documents(load.bytes_of_language)
    given = datatrove_documents(corpus)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokenizer").mkdir()
        path = trained_tokenizer(folder / "tokenizer", corpus.texts, load.vocabulary)
        write_documents(folder / "documents-step", 0, corpus.table())
        inputs = {
            "documents": StepOutput("documents", folder / "documents-step"),
            "tokenizer": StepOutput("tokenizer", folder / "tokenizer"),
        }
        task = StepTask("encode", "0" * 64, EncodeConfig(), inputs, folder / "ours", folder, {})

        def ours() -> None:
            WORK.make_shard(task, 0)

        def theirs() -> None:
            writer = DocumentTokenizer(
                str(folder / "theirs"), str(path), eos_token=EOS, shuffle_documents=False, save_final_metadata=False
            )
            writer.run(iter(given))

        seconds = interleaved([ours, theirs], load.rounds)
        (stem,) = shard_stems(task.folder)
        mine = np.array(TokenShard.open(stem).token_ids)
        (file,) = (folder / "theirs").glob("*.ds")
        their_ids = np.fromfile(file, np.uint16 if load.vocabulary <= TOKENS_OF_UINT16 else np.uint32)
    return Comparison(
        NAME,
        "documents to token shard",
        "MB/s",
        Spread.rate(corpus.megabytes, seconds[0]),
        Spread.rate(corpus.megabytes, seconds[1]),
        PEER,
        corpus.label,
        equal=bool(np.array_equal(mine, their_ids)),
    )
