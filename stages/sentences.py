"""datatrove's sentences in the lines that C4 keeps, for comparing verdicts with its `C4QualityFilter`.

Contract: `count_sentences` replaces the sentence counts of `stages.line_signals.line_counts` in place. Which lines are
kept is the kernel's own decision, taken with each line as a document. Cost: datatrove's tokenizer on every kept line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from stages import line_signals
from stages.c4 import C4_FIELDS, phrase_table
from stages.characters import classes
from stages.words import sentence_counter

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_FIELDS = len(C4_FIELDS)
_SENTENCES, _KEPT = C4_FIELDS.index("sentences"), C4_FIELDS.index("lines_kept")


def count_sentences(counts: np.ndarray, data: np.ndarray, offsets: np.ndarray, langs: Sequence[str | None]) -> None:
    """`counts` is [documents, line_signals.COUNTS]; documents as in `stages.words.split`."""
    for number, lang in enumerate(langs):
        count = sentence_counter(lang)
        text = data[offsets[number] : offsets[number + 1]].tobytes().decode()
        parts = [line.strip() for line in text.splitlines() if line.strip()]
        raw = [part.encode() for part in parts]
        places = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        each = line_signals.line_counts(np.frombuffer(b"".join(raw), np.uint8), places, classes(), *phrase_table())
        kept = each[:, line_signals.C4 :].reshape(len(parts), -1, _FIELDS)[:, :, _KEPT]  # [lines, variants]
        wanted = np.flatnonzero(kept.sum(axis=1)).tolist()
        sizes = np.zeros(len(parts), np.int64)
        sizes[wanted] = [count(_CITATION.sub("", parts[line])) for line in wanted]
        counts[number, line_signals.C4 :].reshape(-1, _FIELDS)[:, _SENTENCES] = kept.T @ sizes
