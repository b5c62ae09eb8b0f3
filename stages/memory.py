"""Give freed memory back to the system behind a large document.

Contract: changes no result. glibc and Arrow keep what a 64 MB document needed for a while, so that the needs of block
after block would add up in a worker that holds one of them at a time. Cost: about a millisecond, and the page faults
of taking memory anew: nothing beside a large document, too much behind each small batch.
"""

from __future__ import annotations

import ctypes

import pyarrow as pa

LARGE_BYTES = 16 << 20  # of text in a batch: what `stages.read` gathers, so only single documents are larger


def give_back() -> None:
    """To the system, where the C library can."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)
