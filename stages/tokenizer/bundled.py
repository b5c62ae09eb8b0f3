"""Public vocabularies that a package on this machine ships, to stand beside ours in a report; nothing is downloaded.

Contract: `BUNDLED` names those whose data lie in the wheel of `bpe-openai` (the extra `public`): OpenAI's cl100k and
o200k, and voyage3, which has the same tokens as Qwen's. Text is encoded as text, special tokens are not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipeline.core.errors import InputError
from stages.tokenizer.report import Count

PACKAGE = "bpe_openai"
BUNDLED = {"cl100k": "cl100k_base", "o200k": "o200k_base", "voyage3": "voyage3_base"}
ALL = "public"  # every one of them


def bundled_counter(name: str) -> Count:
    """How many tokens a bundled vocabulary gives a text. Raises `InputError` when the package is not there."""
    if find_spec(PACKAGE) is None:
        raise InputError(
            f"the vocabulary `{name}` comes with a package that is not installed",
            where=f"--against {name}",
            fix="pip install '.[public]', or give the path of a tokenizer.json",
        )
    encoding: Any = import_module(PACKAGE).get_encoding(BUNDLED[name])

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.encode_ordinary(text)) for text in texts]

    return count
