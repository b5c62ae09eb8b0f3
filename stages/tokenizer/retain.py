"""What an older vocabulary hands on: its most used tokens, and the merges that make them.

Dropped first is what can no longer come up: text that is not NFC, and tokens that reach over a boundary of the word
pattern (several digits, punctuation with several line ends, phrases: superwords are learnt anew in stage 2). The rest
is replayed over the counted words; a token is used as often as its merges were made, that is emitted or built upon. A
token is never used more often than its parts, so that the most used ones are closed under merges.

Counts are weighed by group of documents (language and domain): a group of B bytes weighs part · √B, so that small
languages are not drowned by large ones (XLM, arXiv 1901.07291, samples with the exponent 0.5 for its BPE).
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import InputError, unknown_name
from stages.tokenizer.counts import Group
from stages.tokenizer.merging import Rules, ends_inside, merge
from stages.tokenizer.scanner import scan
from stages.tokenizer.spelling import BYTES, SMALLEST, alphabet, unspell
from stages.tokenizer.superbpe import Start
from stages.tokenizer.words import Runs, count_words

WEIGHT_SCALE = 1 << 20  # of the integers that weigh counts


@dataclass(frozen=True)
class Retained:
    """What training goes on from, and what was kept and dropped."""

    start: Start
    facts: Mapping[str, int]


@dataclass(frozen=True)
class Older:
    """An older vocabulary: T tokens of text, merges in order as bytes."""

    tokens: int
    merges: Sequence[tuple[bytes, bytes]]


def retain(file: Path, runs: Runs, keep: float, parts: Mapping[str, int], minimum_word_count: int = 1) -> Retained:
    """The `keep` most used share of the tokens in `file`, or all that the text uses when these are fewer.

    Args:
        file: A tokenizer.json of byte-level BPE.
        runs: Counts of the text that usage is judged by.
        keep: Share of the older tokens, single bytes among them.
        parts: Weights of `language/domain`, a language or a domain; 1 for others.
        minimum_word_count: Words seen less often are left out.

    Raises:
        InputError: The file is not a byte-level BPE tokenizer.
        ConfigError: A weight names no group of documents.
    """
    older = read_older(file)
    possible = producible([left + right for left, right in older.merges])
    candidates = _linked([pair for pair, is_possible in zip(older.merges, possible, strict=True) if is_possible])
    usage = _usage(runs, candidates, group_weights(runs, parts), minimum_word_count)
    wanted = max(0, round(keep * older.tokens) - BYTES)
    kept = _most_used(candidates, usage, wanted)
    start = _linked(
        [
            (candidates.tokens[left], candidates.tokens[right])
            for left, right, result in candidates.merges
            if {left, right, result} <= kept
        ]
    )
    facts = {
        "older_tokens": older.tokens,
        "older_tokens_possible": len(candidates.tokens) - SMALLEST + BYTES,
        "older_tokens_used": sum(1 for token in usage if usage[token]) + BYTES,
        "older_tokens_kept": len(start.tokens) - SMALLEST + BYTES,
    }
    return Retained(start, facts)


def read_older(file: Path) -> Older:
    """Read a tokenizer.json. Raises `InputError` for any but byte-level BPE."""
    try:
        description: Mapping[str, Any] = json.loads(file.read_bytes())
        model = description["model"]
        vocabulary: Mapping[str, int] = model["vocab"]
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
        added = {token["content"] for token in description.get("added_tokens", ())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a BPE tokenizer.json: {error}", where=str(file), fix="give a tokenizer.json") from None
    try:
        merges = [(unspell(left), unspell(right)) for left, right in pairs]
        tokens = sum(1 for token in vocabulary if token not in added and unspell(token))
    except (KeyError, ValueError) as error:
        what = f"not byte-level BPE: {error} is no character of its spelling"
        raise InputError(what, where=str(file), fix="extend a tokenizer of the ByteLevel kind, or train anew") from None
    return Older(tokens, merges)


def producible(tokens: Sequence[bytes]) -> list[bool]:
    """Which tokens NFC text can give in one chunk of the word pattern; cut characters at the ends do not count."""
    texts: list[bytes | None] = [_whole_characters(token) for token in tokens]
    known = [text or b"" for text in texts]
    offsets = np.cumsum([0, *map(len, known)], dtype=np.int64)
    ends = scan(np.frombuffer(b"".join(known) or b"\0", np.uint8), offsets, "word")
    chunks = np.bincount(np.searchsorted(offsets, ends, side="left") - 1, minlength=len(tokens))
    return [
        text is not None and chunks[place] <= 1 and unicodedata.is_normalized("NFC", text.decode())
        for place, text in enumerate(texts)
    ]


def _whole_characters(token: bytes) -> bytes | None:
    """A token without the parts of characters at its ends; None when the rest is no UTF-8."""
    if any(byte in (0xC0, 0xC1) or byte > 0xF4 for byte in token):  # in no UTF-8 at all
        return None
    start = 0
    while start < min(3, len(token)) and 0x80 <= token[start] < 0xC0:
        start += 1
    end = len(token)
    while end > start and ends_inside(token[start:end]):
        end -= 1
    try:
        token[start:end].decode()
    except UnicodeDecodeError:
        return None
    return token[start:end]


def group_weights(runs: Runs, parts: Mapping[str, int]) -> dict[Group, int]:
    """What each count of a group is multiplied by. Raises `ConfigError` for a part that names no group."""
    sizes: Counter[Group] = Counter()
    for run in runs():
        sizes[run.group] += int(np.diff(run.word_bounds) @ run.word_counts)
    known = {name for group in sizes for name in (group.name, group.language, group.domain) if name}
    for name in parts:
        if name not in known:
            raise unknown_name("group of documents", name, known, where="tokenizer.extend.weights")
    return {
        group: max(1, _part(group, parts) * isqrt(size) * WEIGHT_SCALE // max(1, size)) if _part(group, parts) else 0
        for group, size in sizes.items()
    }


def _part(group: Group, parts: Mapping[str, int]) -> int:
    return parts.get(group.name, parts.get(group.domain, parts.get(group.language, 1)))


def _linked(merges: Sequence[tuple[bytes, bytes]]) -> Start:
    """Tokens and merges by id, in order, without merges whose parts nothing makes."""
    tokens = list(alphabet())
    ids = {token: number for number, token in enumerate(tokens) if token}
    triples: dict[tuple[int, int], int] = {}
    for left, right in merges:
        if left not in ids or right not in ids or (ids[left], ids[right]) in triples:
            continue
        joined = left + right
        if joined not in ids:
            ids[joined] = len(tokens)
            tokens.append(joined)
        triples[ids[left], ids[right]] = ids[joined]
    return Start(tuple(tokens), tuple((left, right, result) for (left, right), result in triples.items()))


def _usage(runs: Runs, candidates: Start, weights: Mapping[Group, int], minimum_word_count: int) -> Counter[int]:
    """How often each token was made, by weight."""
    words = count_words(runs, minimum_word_count, lambda group: weights[group])
    rules = Rules(len(candidates.tokens))
    replayed = merge(words.sequences, candidates.tokens, candidates.merges, rules)
    usage: Counter[int] = Counter()
    for (_, _, result), count in zip(replayed.merges, replayed.counts, strict=True):
        usage[result] += count
    return usage


def _most_used(candidates: Start, usage: Counter[int], wanted: int) -> set[int]:
    """The bytes and the most used tokens, each after its parts."""
    parts: dict[int, list[tuple[int, int]]] = {}
    for left, right, result in candidates.merges:
        parts.setdefault(result, []).append((left, right))
    kept = set(range(SMALLEST))
    for token in sorted((token for token in usage if usage[token] > 0), key=lambda token: (-usage[token], token)):
        if len(kept) == SMALLEST + wanted:
            break
        if any(left in kept and right in kept for left, right in parts[token]):
            kept.add(token)
    return kept
