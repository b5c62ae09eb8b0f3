"""Text to token ids with one superword vocabulary: ours against `tokenizers` and tiktoken.

Contract: the vocabulary is trained on every second document, the others are encoded; all three run on one thread with
warm caches. `equal` means the same ids for every document, compared with the very tokenizer.json.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FileTokenizer

from benchmarks.inputs import Corpus, documents
from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.chat import RESERVED_IDS
from pipeline.core.tokenizer import FILE, Tokenizer
from stages.tokenizer.patterns import SUPERWORD
from stages.tokenizer.superbpe import build, train

NAME = "encode"
SUPERWORD_SHARE = 0.2
MINIMUM_COUNT = 2
Encode = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(1_200_000, 16_384, 3), "quick": Load(30_000, 1024, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Against both."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    with tempfile.TemporaryDirectory() as folder:
        path = trained_tokenizer(Path(folder), corpus.texts[::2], load.vocabulary)
        held_out = corpus.texts[1::2]
        ours, whole = Tokenizer.load(path), FileTokenizer.from_file(str(path))

        def compared(peer_name: str, encode: Encode) -> Comparison:
            return _compared(corpus, held_out, ours, load, peer_name, encode)

        yield compared(
            "tokenizers encode_batch_fast",
            lambda texts: [one.ids for one in whole.encode_batch_fast(list(texts), add_special_tokens=False)],
        )
        yield from against("tiktoken", ("tiktoken",), lambda: compared("tiktoken", _tiktoken(path)))


def trained_tokenizer(folder: Path, texts: Sequence[str], vocabulary: int) -> Path:
    """A tokenizer.json below `folder`; smaller than asked for where the texts support no more."""
    trained = train(lambda: texts, vocabulary, SUPERWORD_SHARE, MINIMUM_COUNT)
    path = folder / FILE
    build(trained).save(str(path))
    return path


def _compared(
    corpus: Corpus, texts: Sequence[str], ours: Tokenizer, load: Load, peer_name: str, encode: Encode
) -> Comparison:
    found = [ids.tolist() for ids in ours.encode_batch(texts)]
    equal = found == encode(texts)
    seconds = interleaved([lambda: ours.encode_batch(texts), lambda: encode(texts)], load.rounds)
    megabytes = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    return Comparison(
        NAME,
        f"vocabulary {ours.vocabulary_size:,}, held-out documents",
        "MB/s",
        Spread.rate(megabytes, seconds[0]),
        Spread.rate(megabytes, seconds[1]),
        peer_name,
        f"every second of: {corpus.label}",
        equal=equal,
        notes={"bytes_per_token": megabytes * 1e6 / sum(map(len, found))},
    )


def _tiktoken(path: Path) -> Encode:
    import tiktoken

    vocabulary: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    byte_of = _byte_of_character()
    ranks = {
        bytes(byte_of[character] for character in token): number
        for token, number in vocabulary.items()
        if number >= RESERVED_IDS
    }
    encoding: Any = tiktoken.Encoding("benchmark", pat_str=SUPERWORD, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: [encoding.encode_ordinary(text) for text in texts]


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE's spelling: printable Latin-1 stands for itself, other bytes for the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    found = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return found | {chr(0x100 + number): byte for number, byte in enumerate(others)}
