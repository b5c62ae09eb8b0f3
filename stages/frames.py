"""Zstandard files by frames: where each frame starts, found from block headers alone, and the bytes of each.

Contract: `frame_starts` walks frame and block headers (RFC 8878, section 3.1.1) without decompressing, so that a frame
belongs to a byte range by its first byte whatever is packed in it. A file that is cut inside a frame has a last frame
whose `stop` is None. Cost of the walk: one seek and three bytes a block (at most 128 KiB of text each).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import zstandard

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = 0x184D2A50  # the first 28 bits of a skippable frame's magic number
READ_BYTES = 1 << 18
_LONGEST_HEADER = 18
_RUN_LENGTH = 1  # block type: one byte, repeated
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Frame:
    """One frame: its first byte, and the byte after its last; None where the file ends within it."""

    start: int
    stop: int | None
    skippable: bool = False


def frames(handle: IO[bytes]) -> Iterator[Frame]:
    """Every frame of a file, in order. Raises `zstandard.ZstdError` where no frame starts at a frame's end."""
    offset = 0
    while True:
        handle.seek(offset)
        header = handle.read(_LONGEST_HEADER)
        if not header:
            return
        if len(header) >= 8 and (struct.unpack("<I", header[:4])[0] & ~0xF) == SKIPPABLE:
            stop = offset + 8 + struct.unpack("<I", header[4:8])[0]
            yield Frame(offset, stop, skippable=True)
        elif header.startswith(MAGIC):
            found = _stop(handle, offset, header)
            yield Frame(offset, found)
            if found is None:
                return
            stop = found
        elif MAGIC.startswith(header):
            yield Frame(offset, None)
            return
        else:
            message = f"no Zstandard frame at byte {offset}"
            raise zstandard.ZstdError(message)
        offset = stop


def frame_bytes(handle: IO[bytes], frame: Frame) -> Iterator[bytes]:
    """What a frame holds, in parts.

    Raises:
        EOFError: The file ends within the frame; what was there has been given.
        zstandard.ZstdError: The frame is damaged.
    """
    handle.seek(frame.start)
    engine = zstandard.ZstdDecompressor().decompressobj()
    while not engine.eof:
        part = handle.read(READ_BYTES)
        if not part:
            message = f"the Zstandard frame at byte {frame.start} is cut short"
            raise EOFError(message)
        # Small steps: a damaged block then costs what it holds, not all that was read with it.
        for at in range(0, len(part), READ_BYTES // 16):
            if engine.eof:
                break
            if data := engine.decompress(part[at : at + READ_BYTES // 16]):
                yield data


def _stop(handle: IO[bytes], start: int, header: bytes) -> int | None:
    try:
        parameters = zstandard.get_frame_parameters(header)
        at = start + zstandard.frame_header_size(header)
    except zstandard.ZstdError:
        return None
    size = handle.seek(0, 2)
    while True:
        handle.seek(at)
        block = handle.read(3)
        if len(block) < 3:
            return None
        value = int.from_bytes(block, "little")
        at += 3 + (1 if (value >> 1) & 3 == _RUN_LENGTH else value >> 3)
        if value & 1:
            at += _CHECKSUM_BYTES if parameters.has_checksum else 0
            return at if at <= size else None
