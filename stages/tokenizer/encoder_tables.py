"""What a `tokenizer.json` says, as arrays for the encoder; or why the encoder cannot stand in for `tokenizers`.

Contract: `merge_tables` gives tables only for a model that the encoder encodes identically: byte-level BPE with a token
for every byte, one of the two patterns, pair rules only. Anything else is `Unsupported` with the reason.

Words before superwords: a chunk of several words may be merged word by word first, then as a whole, as long as no rule
that joins across a word boundary stands before `word_rules`. Up to that rank the merges of all words are independent,
so that doing each word's first reaches the state that lowest-rank-first reaches. Cost: 0.3 s for 150,000 merges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stages.tokenizer.patterns import SUPERWORD, WORD
from stages.tokenizer.scanner import LETTER, MARK, PATTERNS, Pattern, character_classes
from stages.tokenizer.spelling import byte_of_character, unspell

ID_BITS = 20
LARGEST_TABLE = 1 << ID_BITS  # ids and ranks are packed into 20 bits each
NO_RANK = np.int32(0x7FFFFFFF)
FREE = np.int64(-1)
BLANK, SPELT_BLANK = 0x20, "\u0120"
# As in K-EXAONE's own tokenizer.json: cuts like SUPERWORD.
PUBLISHED_SUPERWORD = SUPERWORD.replace(
    r"\p{L}[\p{L}\p{M}]*(?: \p{L}[\p{L}\p{M}]*)*", r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
)
_KNOWN_PATTERNS: dict[str, Pattern] = {WORD: "word", SUPERWORD: "superword", PUBLISHED_SUPERWORD: "superword"}
_PLAIN_MODEL = {
    "dropout": (None, 0.0),
    "unk_token": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (False, None),
    "ignore_merges": (False, None),
}


class Unsupported(Exception):
    """The encoder cannot promise the ids of `tokenizers`; the message says why."""


class MergeTables(NamedTuple):
    """Arrays as kernels take them."""

    classes: np.ndarray  # [CODE_POINTS] uint8
    byte_ids: np.ndarray  # [256] uint32: the token of each byte
    byte_ranks: np.ndarray  # [256, 256] int32: rank of the rule that joins two bytes, or NO_RANK
    rules: np.ndarray  # [power of two] int64: left << 40 | right << 20 | rank, or FREE; open addressing
    merged: np.ndarray  # [ranks] uint32: the token that a rule makes
    starts_late: np.ndarray  # [ids] bool: left side of a rule that is no word rule
    ends_late: np.ndarray  # [ids] bool: right side of one
    word_rules: int  # rules below this rank never join across a word boundary
    pattern: int  # of `stages.tokenizer.scanner`


def merge_tables(description: Mapping[str, Any]) -> MergeTables:
    """Tables of a parsed tokenizer.json. Raises `Unsupported`."""
    pattern = _pattern(description.get("pre_tokenizer"))
    model = description["model"]
    vocabulary = _vocabulary(model)
    rules = _rules(model["merges"], vocabulary)
    spellings = byte_of_character()
    byte_ids = np.empty(256, np.uint32)
    byte_ids[list(spellings.values())] = [vocabulary[character] for character in spellings]
    left, right, merged = (np.array([rule[side] for rule in rules], np.int64) for side in range(3))
    table = np.full(1 << max(10, (2 * len(rules)).bit_length()), FREE)  # at most half full
    _fill(table, left, right)
    word_rules = len(rules)
    if pattern == "superword":
        spelling_of_id = {number: token for token, number in vocabulary.items()}
        word_rules = _first_across_words([spelling_of_id[token] for token in merged.tolist()])
    starts_late, ends_late = (np.zeros(max(vocabulary.values()) + 1, np.bool_) for _ in range(2))
    starts_late[left[word_rules:]] = True
    ends_late[right[word_rules:]] = True
    return MergeTables(
        character_classes(), byte_ids, _byte_ranks(table, byte_ids), table, merged.astype(np.uint32),
        starts_late, ends_late, word_rules, PATTERNS[pattern],
    )  # fmt: skip


def token_bytes(vocabulary: Mapping[str, int]) -> dict[int, bytes]:
    """The bytes of each id of a byte-level vocabulary; tokens that are not spelt so are left out."""
    known = byte_of_character()
    return {number: unspell(token) for token, number in vocabulary.items() if all(map(known.__contains__, token))}


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> Pattern:
    match pre_tokenizer:
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(written)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            if written in _KNOWN_PATTERNS:
                return _KNOWN_PATTERNS[written]
            raise Unsupported(f"its pattern is not one of ours: {written}")
        case _:
            raise Unsupported("its pre-tokenizer is not one pattern and byte-level spelling")


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    if model.get("type") != "BPE":
        raise Unsupported(f"its model is {model.get('type')}, not BPE")
    for name, plain in _PLAIN_MODEL.items():
        if model.get(name) not in plain:
            raise Unsupported(f"its model has {name} = {model[name]!r}")
    vocabulary: dict[str, int] = model["vocab"]
    absent = [byte for character, byte in byte_of_character().items() if character not in vocabulary]
    if absent:
        raise Unsupported(f"it has no token for {len(absent)} bytes, 0x{absent[0]:02X} among them")
    if max(vocabulary.values()) >= LARGEST_TABLE or len(model["merges"]) > LARGEST_TABLE:
        raise Unsupported(f"it has ids or merges beyond {LARGEST_TABLE:,}")
    return vocabulary


def _rules(merges: Sequence[Any], vocabulary: Mapping[str, int]) -> list[tuple[int, int, int]]:
    """(left, right, made) ids of each merge, which a file writes as a pair or as one string with a space."""
    rules: list[tuple[int, int, int]] = []
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rules.append((vocabulary[left], vocabulary[right], vocabulary[left + right]))
    return rules


@njit(cache=True, nogil=True)
def _fill(rules: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Later rules of the same pair replace earlier ones, as in `tokenizers`."""
    for rank in range(left.shape[0]):
        place = rule_place(rules, left[rank], right[rank])
        rules[place] = left[rank] << (2 * ID_BITS) | right[rank] << ID_BITS | rank


@njit(cache=True, nogil=True, inline="always")
def rule_place(rules: np.ndarray, left: int, right: int) -> np.uint64:
    """Where the rule of a pair stands, or the free place where it would."""
    pair = np.uint64(left) << np.uint64(ID_BITS) | np.uint64(right)
    mask = np.uint64(rules.shape[0] - 1)
    place = (pair * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & mask
    while rules[place] != FREE and np.uint64(rules[place]) >> np.uint64(ID_BITS) != pair:
        place = (place + np.uint64(1)) & mask
    return place


@njit(cache=True, nogil=True)
def rank_of(rules: np.ndarray, left: int, right: int) -> np.int32:
    """Rank of the rule that joins two tokens, or NO_RANK."""
    rule = rules[rule_place(rules, left, right)]
    return NO_RANK if rule == FREE else np.int32(rule & (LARGEST_TABLE - 1))


@njit(cache=True, nogil=True)
def _byte_ranks(rules: np.ndarray, byte_ids: np.ndarray) -> np.ndarray:
    found = np.empty((256, 256), np.int32)
    for first in range(256):
        for second in range(256):
            found[first, second] = rank_of(rules, byte_ids[first], byte_ids[second])
    return found


def _first_across_words(made: Sequence[str]) -> int:
    """The lowest rank whose token, given as it is spelt, may reach over a word boundary of the superword pattern."""
    for rank, token in enumerate(made):
        if SPELT_BLANK in token[1:] and crosses_words(unspell(token)):
            return rank
    return len(made)


def crosses_words(token: bytes) -> bool:
    """Whether the token can hold the end of a word and the space before the next."""
    return any(
        byte == BLANK and _may_end_word(token[:at]) and _may_begin_word(token[at + 1 :])
        for at, byte in enumerate(token)
        if at
    )


def _may_end_word(before: bytes) -> bool:
    """Ends in a letter or mark, or in the tail of a character whose head is in another token."""
    lead = len(before) - 1
    while lead >= 0 and before[lead] & 0xC0 == 0x80:
        lead -= 1
    if lead < 0:
        return True
    last = before[lead:].decode("utf-8", "replace")
    return last != "\ufffd" and character_classes()[ord(last[0])] in (LETTER, MARK)


def _may_begin_word(after: bytes) -> bool:
    """Begins with a letter, with the head of a character, or with nothing."""
    if not after:
        return True
    if after[0] & 0xC0 == 0x80:  # the middle of a character
        return False
    size = 1 if after[0] < 0x80 else 2 if after[0] < 0xE0 else 3 if after[0] < 0xF0 else 4
    if len(after) < size:
        return True
    first = after[:size].decode("utf-8", "replace")
    return first != "\ufffd" and bool(character_classes()[ord(first[0])] == LETTER)
