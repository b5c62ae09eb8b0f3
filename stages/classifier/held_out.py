"""What a trained classifier's report says, for the record of a step that scores with it.

Contract: catalog `report` of the blocks with a `model` option: the classifier's `report.json` under its name, from
beside the `classifier.json` that the block read; nothing where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from pipeline.core.config import Config
from stages.classifier.model import CLASSIFIER_FILE, REPORT_FILE


def report(folder: Path, config: Config, paths: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Name -> held-out figures and example sheets."""
    del folder, config
    for path in map(Path, paths.get("model", ())):
        beside = path.with_name(REPORT_FILE)
        if path.name == CLASSIFIER_FILE and beside.is_file():
            found = orjson.loads(beside.read_bytes())
            return {str(found["name"]): found}
    return {}
