"""The same tokenizer for tiktoken: `tokenizer.tiktoken` (tokens by rank) and `tokenizer.tiktoken.json` (all else).

Contract: tiktoken gives the ids of `tokenizers` for NFC text, or the form is not written. `tokenizers` merges the pairs
that the file lists, in its order; tiktoken merges any two neighbours whose bytes are a token, lowest id first. Both
reach the same states if every token is what its own bytes are merged into, and the rules that finish the tokens come
in the order of their ids: what lies between two token borders is merged as if it stood alone, so that two neighbours
that make up a token are always the two that its last rule joins. `first_difference` checks just that, over the whole
vocabulary. Tokens spelt with other bytes than UTF-8 are checked as all others. Cost: a second for 150,000 tokens.

`tokenizer.tiktoken` has tiktoken's own format, a line a token: its bytes in base64, a space, its id.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import read_json, write_bytes, write_json
from pipeline.core.tokenizer import Tokenizer
from stages.tokenizer.encoder_kernel import merge_alone
from stages.tokenizer.encoder_tables import MergeTables, Unsupported, merge_tables, token_bytes
from stages.tokenizer.patterns import SUPERWORD, WORD
from stages.tokenizer.scanner import WORDS

RANKS, SETTINGS = "tokenizer.tiktoken", "tokenizer.tiktoken.json"


def write_tiktoken_form(tokenizer: Tokenizer, folder: Path) -> str | None:
    """Write both files into `folder`; where tiktoken would give other ids, write none and say why."""
    description = tokenizer.description()
    try:
        tables = merge_tables(description)
    except Unsupported as unsupported:
        return str(unsupported)
    tokens = ordinary_tokens(description)
    reason = first_difference(tables, tokens)
    if reason is not None:
        return reason
    lines = [base64.b64encode(tokens[number]) + b" %d\n" % number for number in sorted(tokens)]
    write_bytes(folder / RANKS, b"".join(lines))
    write_json(
        folder / SETTINGS,
        {
            "name": f"seodang-{tokenizer.fingerprint[:8]}",
            "pat_str": WORD if tables.pattern == WORDS else SUPERWORD,
            "special_tokens": dict(sorted(tokenizer.special_ids.items(), key=lambda item: item[1])),
        },
    )
    return None


def read_tiktoken_form(folder: Path) -> dict[str, Any]:
    """The arguments of `tiktoken.Encoding`. Text must be NFC; give `encode_ordinary` text that is only text."""
    lines = (folder / RANKS).read_bytes().splitlines()
    pairs = (line.split() for line in lines)
    return {
        **read_json(folder / SETTINGS),
        "mergeable_ranks": {base64.b64decode(token): int(rank) for token, rank in pairs},
    }


def ordinary_tokens(description: Mapping[str, Any]) -> dict[int, bytes]:
    """The bytes of each id that text can have: of a parsed tokenizer.json, all but added tokens."""
    added = {int(token["id"]) for token in description["added_tokens"]}
    spelt = token_bytes(description["model"]["vocab"])
    return {number: token for number, token in spelt.items() if number not in added}


def first_difference(tables: MergeTables, tokens: Mapping[int, bytes]) -> str | None:
    """Why tiktoken might encode something otherwise, or None when it cannot."""
    numbers = np.array(sorted(tokens), np.int64)
    spelt = [tokens[number] for number in numbers.tolist()]
    if len(set(spelt)) < len(spelt):
        return "two ids have the same bytes"
    offsets = np.cumsum([0, *map(len, spelt)], dtype=np.int64)
    made, last_ranks = merge_alone(np.frombuffer(b"".join(spelt), np.uint8), offsets, tables)
    other = np.flatnonzero(made != numbers)
    if other.size:
        number = int(numbers[other[0]])
        return (
            f"{other.size} tokens are not what their bytes are merged into, id {number} {tokens[number]!r} among them"
        )
    latest = np.maximum.accumulate(last_ranks)
    early = np.flatnonzero((last_ranks[1:] >= 0) & (last_ranks[1:] <= latest[:-1])) + 1  # single bytes have no rule
    if early.size:
        number = int(numbers[early[0]])
        return f"id {number} {tokens[number]!r} is made by an earlier rule than an id before it"
    return None
