"""Two-stage SuperBPE from a bag of texts, with the trainer of `tokenizers` for both stages.

Stage 1 is byte-level BPE under the word pattern. Stage 2 goes on under the superword pattern: in each chunk of several
words, every word that stage 1 gives one token becomes one private character, the others cut the chunk, and the same
trainer runs on those strings; its merges are then translated back (`tokenizers` cannot start from merges). So every
token of stage 2 joins whole words, and the superword share is met exactly. Two-stage training: SuperBPE, arXiv
2503.13423; joining whole words only: BoundlessBPE, arXiv 2504.00178. The result does not depend on the order of the
texts: counts are summed and ties broken by ids. Cost: about 2 MB/s on one core; memory grows with distinct chunks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import regex
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.core.chat import RESERVED_IDS, SPECIAL_TOKENS
from pipeline.core.tokenizer import nfc
from stages.tokenizer.patterns import SUPERWORD, WORD

BYTES = 256
SMALLEST = RESERVED_IDS + BYTES  # reserved ids and single bytes: what every vocabulary holds
# Private characters for stage-1 tokens: planes 4 to 15, unassigned or private, 786,432 places.
PRIVATE = 0x40000
LARGEST = 0x100000 - PRIVATE
# Different cuts can spell the same token; such merges are kept but add nothing, so a few more are asked for.
SPARE_MERGES = 64
ENCODE_BATCH = 4096

Texts = Callable[[], Iterable[str]]
Merge = tuple[str, str]


@dataclass(frozen=True)
class Trained:
    """Tokens by id (byte-level spelling) and merges by rank. `complete` is False when the text ran out of pairs."""

    tokens: list[str]
    merges: list[Merge]
    superwords: int  # tokens that hold a space between letters
    complete: bool


def train(texts: Texts, vocabulary: int, superword_share: float, minimum_count: int) -> Trained:
    """Train a vocabulary of exactly `vocabulary` tokens, or of fewer when the text supports no more.

    Args:
        texts: Gives the texts anew at each call; two passes are made.
        vocabulary: Tokens in all, reserved ids included.
        superword_share: Share of the whole vocabulary learnt in stage 2.
        minimum_count: A pair seen less often is not merged.
    """
    words = vocabulary - round(vocabulary * superword_share)
    stage1 = _train_words(texts, max(words, SMALLEST), minimum_count)
    if len(stage1.tokens) < words:
        return stage1
    return _train_superwords(texts, stage1, vocabulary, minimum_count)


def supported_vocabulary(texts: Texts, superword_share: float, minimum_count: int, below: int) -> int | None:
    """A vocabulary below `below` that was tried and works with this text, or None; only asked for after a failure."""
    candidate = below - 1
    while candidate > SMALLEST:
        trained = train(texts, candidate, superword_share, minimum_count)
        if trained.complete:
            return candidate
        words = candidate - round(candidate * superword_share)
        reached = len(trained.tokens)
        bound = int(reached / (1 - superword_share)) if reached < words else reached
        candidate = min(candidate * 19 // 20, bound)
    return None


def _train_words(texts: Texts, size: int, minimum_count: int) -> Trained:
    tokenizer = _pretokenizing(Tokenizer(models.BPE()), WORD)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=minimum_count,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((nfc(text) for text in texts()), trainer)
    tokens, merges = _model(tokenizer)
    return Trained(tokens, merges, 0, len(tokens) == size)


def _train_superwords(texts: Texts, stage1: Trained, vocabulary: int, minimum_count: int) -> Trained:
    asked = vocabulary - len(stage1.tokens)
    if asked <= 0:
        return stage1
    strings = _private_strings(texts, stage1)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
    trainer = trainers.BpeTrainer(
        vocab_size=len(stage1.tokens) + asked + SPARE_MERGES,
        min_frequency=minimum_count,
        initial_alphabet=[chr(PRIVATE + number) for number in range(len(stage1.tokens))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(strings), trainer)
    _, merges = _model(tokenizer)
    return _extended(stage1, [(_spell(a, stage1.tokens), _spell(b, stage1.tokens)) for a, b in merges], vocabulary)


def _private_strings(texts: Texts, stage1: Trained) -> Counter[str]:
    """Runs of words that are one stage-1 token each, as strings of private characters, with their counts."""
    superwords, words = regex.compile(SUPERWORD), regex.compile(WORD)
    chunks: Counter[str] = Counter()
    for text in texts():
        chunks.update(chunk for chunk in superwords.findall(nfc(text)) if " " in chunk[1:] and not chunk.isspace())
    cuts = {chunk: words.findall(chunk) for chunk in chunks}
    private = _private_words(sorted({word for cut in cuts.values() for word in cut}), stage1)
    strings: Counter[str] = Counter()
    for chunk, cut in cuts.items():
        for run in "".join(private[word] for word in cut).split("\n"):
            if len(run) > 1:
                strings[run] += chunks[chunk]
    return strings


def _private_words(words: list[str], stage1: Trained) -> dict[str, str]:
    """Each word as one private character, or as a line feed when stage 1 needs several tokens for it."""
    encoder = build(stage1, WORD)
    private: dict[str, str] = {}
    for start in range(0, len(words), ENCODE_BATCH):
        batch = words[start : start + ENCODE_BATCH]
        for word, cut in zip(batch, encoder.encode_batch_fast(batch, add_special_tokens=False), strict=True):
            private[word] = chr(PRIVATE + cut.ids[0]) if len(cut.ids) == 1 else "\n"
    return private


def _repeated(strings: Counter[str]) -> Iterator[str]:
    """Each string as often as it was seen: the trainer takes texts, not counts."""
    for string in sorted(strings):
        yield "\n".join([string] * strings[string])


def _spell(private: str, tokens: list[str]) -> str:
    return "".join(tokens[ord(character) - PRIVATE] for character in private)


def _extended(stage1: Trained, merges: list[Merge], vocabulary: int) -> Trained:
    tokens, known = list(stage1.tokens), set(stage1.tokens)
    kept = list(stage1.merges)
    ranked = set(kept)
    for merge in merges:
        if len(tokens) == vocabulary:
            break
        if merge in ranked:  # the same two spellings reached by another cut
            continue
        ranked.add(merge)
        kept.append(merge)
        joined = merge[0] + merge[1]
        if joined not in known:
            known.add(joined)
            tokens.append(joined)
    # U+0120 is the space in byte-level spelling; one inside a learnt token stands between two words.
    superwords = sum("\u0120" in token[1:] for token in tokens[len(stage1.tokens) :])
    return Trained(tokens, kept, superwords, len(tokens) == vocabulary)


def build(trained: Trained, pattern: str = SUPERWORD) -> Tokenizer:
    """The whole tokenizer: NFC, the pattern, byte-level BPE and the special tokens at their reserved ids."""
    vocabulary = {token: number for number, token in enumerate(trained.tokens)}
    tokenizer = _pretokenizing(Tokenizer(models.BPE(vocab=vocabulary, merges=trained.merges)), pattern)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS if token.startswith("<|")]
    )
    # Thinking and tool marks are for readers: they stay when special tokens are skipped in decoding.
    tokenizer.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in SPECIAL_TOKENS if not token.startswith("<|")]
    )
    return tokenizer


def _pretokenizing(tokenizer: Tokenizer, pattern: str) -> Tokenizer:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _model(tokenizer: Tokenizer) -> tuple[list[str], list[Merge]]:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens, [(left, right) for left, right in model["merges"]]
