"""The outputs of a store, by hash: what must be the same whatever ran, stopped or shared the work."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.files import hash_file, list_files
from pipeline.core.record import LOGS, RUN

NOT_COMPARED = (RUN, "train.jsonl", ".lock", "content-hashes.json")  # facts of a run, speeds, the lock, a cache


def outputs(store: Path) -> dict[str, str]:
    """Hash of every output below a store; logs are not outputs."""
    return {
        path.relative_to(store).as_posix(): hash_file(path)
        for path in list_files(store)
        if path.name not in NOT_COMPARED and LOGS not in path.relative_to(store).parts
    }
