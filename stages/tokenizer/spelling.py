"""Byte-level BPE's spelling of tokens, and the alphabet every vocabulary begins with.

Printable Latin-1 characters stand for their own byte, other bytes for characters from U+0100 on, so that a token is a
string (as in GPT-2). The single bytes come in the order of those characters, which is that of the `tokenizers` trainer.
"""

from __future__ import annotations

from functools import lru_cache

from pipeline.core.chat import RESERVED_IDS

BYTES = 256
SMALLEST = RESERVED_IDS + BYTES  # reserved ids and single bytes: what every vocabulary holds


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """The byte each character of the spelling stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTES) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + number): byte for number, byte in enumerate(others)}


@lru_cache(maxsize=1)
def _characters() -> tuple[str, ...]:
    """By byte."""
    spelled = {byte: character for character, byte in byte_of_character().items()}
    return tuple(spelled[byte] for byte in range(BYTES))


def spell(token: bytes) -> str:
    """A token's spelling."""
    characters = _characters()
    return "".join(characters[byte] for byte in token)


def unspell(spelled: str) -> bytes:
    """The bytes of a spelling. Raises KeyError for a character that stands for none."""
    byte_of = byte_of_character()
    return bytes(byte_of[character] for character in spelled)


@lru_cache(maxsize=1)
def alphabet() -> tuple[bytes, ...]:
    """Tokens of the ids below `SMALLEST`: empty for the reserved ones, which text never has, then the bytes."""
    spelled = byte_of_character()
    return (*(b"" for _ in range(RESERVED_IDS)), *(bytes([spelled[character]]) for character in sorted(spelled)))
