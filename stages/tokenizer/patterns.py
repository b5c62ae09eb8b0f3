r"""The two pre-tokenisation patterns: words for stage 1, words joined by single spaces for stage 2.

`SUPERWORD` is the pattern published for K-EXAONE (llama.cpp, pre-tokenizer `exaone-moe`), written without nested
quantifiers: `(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+` and the form here match the same text, but a backtracking engine cannot
blow up on it. A superword is letters, marks and single spaces, with at most one other character in front; it never
crosses punctuation, digits, line ends or double spaces. Digits stand alone. `WORD` is its twin without the inner
spaces (ours: the stage-1 pattern was not published). Every boundary of SUPERWORD is a boundary of WORD.
"""

from __future__ import annotations

_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*"
_TAIL = r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"

WORD = _HEAD + _TAIL
SUPERWORD = _HEAD + r"(?: \p{L}[\p{L}\p{M}]*)*" + _TAIL
