"""Text to token ids with one superword vocabulary: our encoder against `tokenizers` and tiktoken, on one thread.

Contract: the vocabulary is trained on every second document, the others are encoded. `equal` means the same ids for
every document. Warm: all sides have encoded these very documents before. Cold: each round has a new tokenizer of each
side, made outside the timing, whose caches are empty. `first pass after training text` in the notes is ours with a
cache filled by the training documents only, as in a long run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer as FileTokenizer

from benchmarks.inputs import documents
from benchmarks.measure import interleaved, timed
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.tokenizer import FILE, Tokenizer
from stages.tokenizer.encoder import Encoder
from stages.tokenizer.superbpe import build, train
from stages.tokenizer.tiktoken_form import read_tiktoken_form, write_tiktoken_form

NAME = "encode"
SUPERWORD_SHARE = 0.2
MINIMUM_COUNT = 2
Encode = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(1_200_000, 32_768, 3), "quick": Load(30_000, 1024, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """Warm and cold against `tokenizers`, warm against tiktoken."""
    load = LOADS[settings.size]
    corpus = documents(load.bytes_of_language)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = trained_tokenizer(folder, corpus.texts[::2], load.vocabulary)
        bench = Bench(load, corpus.texts[::2], corpus.texts[1::2], path, f"every second of: {corpus.label}")
        yield bench.warm("tokenizers encode_batch_fast", _file_encoder(path))
        yield bench.cold("tokenizers encode_batch_fast")
        yield from against("tiktoken", ("tiktoken",), lambda: bench.warm("tiktoken", _tiktoken(path)))


def trained_tokenizer(folder: Path, texts: Sequence[str], vocabulary: int) -> Path:
    """A tokenizer.json below `folder`; smaller than asked for where the texts support no more."""
    trained = train(lambda: texts, vocabulary, SUPERWORD_SHARE, MINIMUM_COUNT)
    path = folder / FILE
    build(trained).save(str(path))
    return path


@dataclass(frozen=True)
class Bench:
    """One tokenizer and the documents it was not trained on."""

    load: Load
    training: Sequence[str]
    texts: Sequence[str]
    path: Path
    label: str

    def warm(self, peer_name: str, theirs: Encode) -> Comparison:
        encoder = self._encoder()
        encoder.encode_joined(self.training)
        first_pass = timed(lambda: encoder.encode_joined(self.texts))
        sides = [lambda: encoder.encode_joined(self.texts), lambda: theirs(self.texts)]
        seconds = interleaved(sides, self.load.rounds)
        return self._compared("warm", peer_name, seconds, theirs, {"first pass after training text": first_pass})

    def cold(self, peer_name: str) -> Comparison:
        self._encoder().encode_joined(["compile"])
        seconds: list[list[float]] = [[], []]
        for _ in range(self.load.rounds):
            encoder, theirs = self._encoder(), _file_encoder(self.path)
            seconds[0].append(timed(lambda encoder=encoder: encoder.encode_joined(self.texts)))
            seconds[1].append(timed(lambda theirs=theirs: theirs(self.texts)))
        return self._compared("cold", peer_name, seconds, _file_encoder(self.path), {})

    def _encoder(self) -> Encoder:
        return Encoder.of(Tokenizer.load(self.path))

    def _compared(
        self, state: str, peer_name: str, seconds: Sequence[list[float]], theirs: Encode, passes: dict[str, float]
    ) -> Comparison:
        encoder = self._encoder()
        found = [ids.tolist() for ids in encoder.encode_texts(self.texts)]
        megabytes = sum(len(text.encode("utf-8")) for text in self.texts) / 1e6
        return Comparison(
            NAME,
            f"{state}, vocabulary {encoder.tokenizer.vocabulary_size:,}, held-out documents",
            "MB/s",
            Spread.rate(megabytes, seconds[0]),
            Spread.rate(megabytes, seconds[1]),
            peer_name,
            self.label,
            equal=found == theirs(self.texts),
            notes={
                "bytes_per_token": megabytes * 1e6 / sum(map(len, found)),
                **{f"MB/s, {name}": megabytes / taken for name, taken in passes.items()},
            },
        )


def _file_encoder(path: Path) -> Encode:
    whole = FileTokenizer.from_file(str(path))
    return lambda texts: [one.ids for one in whole.encode_batch_fast(list(texts), add_special_tokens=False)]


def _tiktoken(path: Path) -> Encode:
    import tiktoken

    reason = write_tiktoken_form(Tokenizer.load(path), path.parent)
    assert reason is None, reason
    encoding = tiktoken.Encoding(**read_tiktoken_form(path.parent))
    return lambda texts: [encoding.encode_ordinary(text) for text in texts]
