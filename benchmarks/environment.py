"""The machine and the library versions a figure belongs to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = (
    "ai2-olmo-core", "datasketch", "datatrove", "fasttext-numpy2-wheel", "megatron-core", "mosaicml-streaming",
    "numba", "numpy", "polars", "py3langid", "pyarrow", "reasoning-gym", "rensa", "spacy", "tiktoken", "tokenizers",
    "torch", "trafilatura", "transformers",
)  # fmt: skip
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)  # fmt: skip


def limit_threads(threads: int) -> None:
    """Before any library is imported, also for child processes: how many threads each may use."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def environment(threads: int) -> dict[str, Any]:
    """Machine, thread limit and versions of the libraries that are installed."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
