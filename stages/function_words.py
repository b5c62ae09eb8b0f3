"""Function words of Korean and Japanese, which are written without a space before or after what they belong to.

Contract: lists for `stages.words`, ours; no dictionary of content words is needed to find word borders near them.
`table` packs the words of a list, of at most `LONGEST` characters of one block of 3-byte characters, into an open
hash table of 64-bit keys (0 = empty) that a kernel can look into.
Korean: particles and endings that close an eojeol; `KOREAN_INNER` may stand before another one (tense, honour,
copula, locatives): 학교에서는 -> 학교 에서 는, 읽었습니다 -> 읽 었 습니다. Japanese: particles, auxiliaries,
demonstratives and formal nouns; hiragana that they leave over belong to the word before: 読みます -> 読み ます.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

KOREAN_TAILS = """
은 는 이 가 을 를 의 에 로 와 과 도 만 요 고 다 며 면 지 게 서 나 한 할 된 될 인 년 월 들 적
음 기 여 해 어 라 니 에서 에게 께서 한테 으로 까지 부터 처럼 보다 이나 이며 이고 이다 라고 라는 이란
마다 조차 밖에 대로 만큼 같이 하고 하는 하여 하며 하게 하지 하면 하기 하다 하거나 해서 해야 해요 했다
한다 합니다 하세요 되고 되는 되어 되며 되면 되지 되다 된다 됐다 됩니다 습니다 입니다 니다 십시오 세요 어요
아요 나요 이요 예요 에요 네요 지만 는데 은데 인데 던 어서 아서 으면 려면 려고 으려고 도록 면서 다가 거나
든지 으며 으나 으로써 으로서 로서 로써 는지 은지 을지 어야 아야 여야 어도 아도 다면 다고 다는 더니 더라도
려는 에선 신가요
"""
KOREAN_INNER = """
었 았 였 겠 했 됐 시 으시 하 되 이 들 적 에 에서 에게 으로 로 까지 부터 만 밖에 처럼 하였 되었 시키
보다 와 과
"""
JAPANESE = """
の に は を て た が で と も し か ます から する ない い な その です こと だ まし ある へ お ん
よう さ この いる もの ませ や ば あり これ わたし なっ つ そう どう ながら さん あっ ござい ら ず もう
ため なら まで なかっ そこ でき せ なり れる れ よ ください また しかし だけ なく られ られる ね より
ところ あの など こう やう たり なる ばかり まだ らしい たち なん うち たい よく でしょう ここ すぐ だっ
たら しまっ どこ って そんな できる いい ゐる ましょう なけれ ほど すべて みんな ほか あなた あと いつ わけ
こんな あろう ただ まま せる しれ だろう とき そして なに べき いろいろ なぜ もし どんな いっ なか けれど
ころ さえ くらい ぐらい あるいは よる いく みる ほとんど もちろん はず つもり あまり きっと しよう および
それぞれ それ さらに もっと ちょっと ちょうど あれ あいだ したがって たとえば すでに すれ たく について
"""
# After a single Chinese character other hiragana are its ending: 高い, 話し, 現れる.
JAPANESE_AFTER_HAN = """
の に は を て た が で と も か へ や だ です ます まで から など より だけ まし ませ
"""
LONGEST = 5
HANGUL_FIRST, KANA_FIRST = 0xAC00, 0x3040
_EMPTY = np.uint64(0)


@lru_cache(maxsize=1)
def tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hash tables of the four lists, in the order in which they stand above."""
    return (
        table(KOREAN_TAILS, HANGUL_FIRST),
        table(KOREAN_INNER, HANGUL_FIRST),
        table(JAPANESE, KANA_FIRST),
        table(JAPANESE_AFTER_HAN, KANA_FIRST),
    )


def table(words: str, first: int) -> np.ndarray:
    """[1024] uint64 of words parted by spaces; `first` is the block's first code point."""
    slots = np.zeros(1024, np.uint64)
    for word in words.split():
        assert 0 < len(word) <= LONGEST, word
        data = np.frombuffer(word.encode(), np.uint8)
        key = packed(data, 0, len(word), first)
        at = _slot(key)
        while slots[at] not in (_EMPTY, key):
            at = (at + 1) & 1023
        slots[at] = key
    return slots


@njit(cache=True)
def contains(slots: np.ndarray, data: np.ndarray, at: int, length: int, first: int) -> bool:
    """Whether the `length` characters of three bytes at `at` are a word of the table."""
    key = packed(data, at, length, first)
    slot = _slot(key)
    while slots[slot] != 0:
        if slots[slot] == key:
            return True
        slot = (slot + 1) & 1023
    return False


@njit(cache=True)
def packed(data: np.ndarray, at: int, length: int, first: int) -> np.uint64:
    """One key of `length` three-byte characters of a block of at most 11,212; exact, as 11213^5 < 2^64 / 5."""
    key = np.uint64(length)
    for i in range(at, at + 3 * length, 3):
        point = (
            ((np.int64(data[i]) & 0x0F) << 12) | ((np.int64(data[i + 1]) & 0x3F) << 6) | (np.int64(data[i + 2]) & 0x3F)
        )
        key = key * np.uint64(11213) + np.uint64(point - first + 1)
    return key


@njit(cache=True)
def _slot(key: np.uint64) -> np.int64:
    return np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(54))
