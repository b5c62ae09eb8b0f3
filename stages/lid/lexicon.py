"""What the second look knows of each language: its words, the three-letter pieces they are made of, relatives' words.

Contract: `words/LANG.txt` holds the words of our own sample texts (`samples/texts`, `samples/thinking`), one a line,
sorted; `python -m stages.lid.lexicon` writes them anew. `relatives.yaml` adds common words the samples lack and the
words that betray a close relative. Everything is lower case and NFC. No text of any evaluation set is in here.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import regex

from pipeline.core.config import Config, load_config
from pipeline.core.files import atomic_path
from stages.lid.masking import mask

LANGUAGES = ("en", "de", "es", "vi")  # ours in Latin script, in the order of the bits
HERE = Path(__file__).parent
WORD = regex.compile(r"\p{Latin}+")
EDGE = 1  # code point that stands before and after a word
EMPTY = np.uint64(0)
_MASK = (1 << 64) - 1
_FRONT_MATTER = regex.compile(r"\A---\n.*?\n---\n", regex.DOTALL)


class Relative(Config):
    """A language that is taken for one of ours, and words that tell it apart."""

    of: str
    words: str


class Knowledge(Config):
    """`relatives.yaml`."""

    common: dict[str, str]
    relatives: dict[str, Relative]


@dataclass(frozen=True)
class Lexicon:
    """Hash tables for the kernel: word -> bits, word -> relatives, piece -> bits.

    Attributes:
        keys: [slots] uint64 hashes of words and pieces, 0 where empty; linear probing.
        bits: [slots] uint8, bit n set when `LANGUAGES[n]` has the word or piece.
        marks: [slots] uint64, bit k set when relative k uses the word and the language it is taken for does not.
        relatives: [relatives] codes, as in `relatives.yaml` up to a hyphen.
        of: [relatives] int64 number of the language that each is taken for.
    """

    keys: np.ndarray
    bits: np.ndarray
    marks: np.ndarray
    relatives: tuple[str, ...]
    of: np.ndarray


def folded_words(text: str) -> Iterator[str]:
    """The Latin words of a text, lower case, NFC."""
    return (match.group() for match in WORD.finditer(unicodedata.normalize("NFC", text).lower()))


def word_hash(word: str) -> int:
    """FNV-1a over the code points of a word, as the kernel computes it."""
    state = 0xCBF29CE484222325
    for char in word:
        state = ((state ^ ord(char)) * 0x100000001B3) & _MASK
    return state or 1


def pieces(word: str) -> Iterator[tuple[int, int, int]]:
    """Three-letter pieces of a word with its edges."""
    points = (EDGE, *map(ord, word), EDGE)
    return zip(points, points[1:], points[2:], strict=False)


def piece_hash(a: int, b: int, c: int) -> int:
    """Three code points of at most 21 bits; the top bit keeps pieces apart from words."""
    return (1 << 63) | (a << 42) | (b << 21) | c


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The tables of the files beside this one."""
    knowledge = load_config(HERE / "relatives.yaml", Knowledge)
    words = {lang: {*read_words(lang), *knowledge.common[lang].split()} for lang in LANGUAGES}
    return build(words, knowledge.relatives)


def build(words: dict[str, set[str]], relatives: dict[str, Relative]) -> Lexicon:
    """Tables from each language's words and the relatives' ones; a word of the language marks no relative of it."""
    assert len(relatives) <= 64, "one bit a relative"
    bits: dict[int, int] = {}
    marks: dict[int, int] = {}
    for number, lang in enumerate(LANGUAGES):
        for word in words.get(lang, ()):
            for key in (word_hash(word), *(piece_hash(*piece) for piece in pieces(word))):
                bits[key] = bits.get(key, 0) | 1 << number
    for number, relative in enumerate(relatives.values()):
        for word in {*relative.words.split()} - words.get(relative.of, set()):
            marks[word_hash(word)] = marks.get(word_hash(word), 0) | 1 << number
    return Lexicon(
        *_table(bits, marks),
        relatives=tuple(name.partition("-")[0] for name in relatives),
        of=np.array([LANGUAGES.index(relative.of) for relative in relatives.values()], np.int64),
    )


def _table(bits: dict[int, int], marks: dict[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keys = sorted({*bits, *marks})
    slots = 1 << (2 * len(keys)).bit_length()  # at most half full
    table = np.zeros(slots, np.uint64)
    found_bits, found_marks = np.zeros(slots, np.uint8), np.zeros(slots, np.uint64)
    for key in keys:
        at = slot_of(key, slots)
        while table[at] != EMPTY:
            at = (at + 1) & (slots - 1)
        table[at], found_bits[at], found_marks[at] = key, bits.get(key, 0), marks.get(key, 0)
    return table, found_bits, found_marks


def slot_of(key: int, slots: int) -> int:
    """First slot of a key: the high bits of a Fibonacci product."""
    return (((key * 0x9E3779B97F4A7C15) & _MASK) >> 32) & (slots - 1)


def read_words(lang: str) -> list[str]:
    """The sample words of a language."""
    return (HERE / "words" / f"{lang}.txt").read_text(encoding="utf-8").split()


def sample_words(texts: Iterable[str]) -> list[str]:
    """The words of sample pages, front matter, code and formulas left out."""
    return sorted({word for text in texts for word in folded_words(mask(_FRONT_MATTER.sub("", text)))})


def main(arguments: Sequence[str]) -> None:
    """Write `words/LANG.txt` anew from a folder of samples."""
    root = Path(arguments[0]) if arguments else HERE.parents[1] / "samples"
    for lang in LANGUAGES:
        pages = [*sorted((root / "texts" / lang).glob("*.md")), *sorted((root / "thinking" / lang).glob("*.md"))]
        with atomic_path(HERE / "words" / f"{lang}.txt") as partial:
            lines = sample_words(page.read_text(encoding="utf-8") for page in pages)
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
