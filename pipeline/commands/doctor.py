"""`seodang doctor`: is this machine, this installation and this curriculum file ready to run?"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import amount, console, table
from pipeline.core.errors import UserError
from pipeline.core.record import library_versions

NEEDED_BYTES = 2 << 30  # free disk of a quickstart with room


def examine(config: Path | None, overrides: Sequence[str], *, schema: bool) -> None:
    """Print one line a check; raises `UserError` when one fails."""
    if schema:
        from pipeline.curriculum_file import Curriculum

        print_json(Curriculum.model_json_schema())
        return
    checks = [*machine(), *installation(), *(curriculum(config, overrides) if config else ())]
    console.print(
        table("Doctor", ("", "check", "found"), [("✓" if ok else "✗", name, text) for ok, name, text in checks])
    )
    failed = [f"{name}: {text}" for ok, name, text in checks if not ok]
    if failed:
        raise UserError(f"{len(failed)} of {len(checks)} checks failed", fix="; ".join(failed))


def machine() -> Iterator[tuple[bool, str, str]]:
    yield sys.version_info >= (3, 11), "Python", platform.python_version()
    yield True, "cores", str(len(os.sched_getaffinity(0)))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield memory >= 4e9, "memory", f"{amount(memory)}B (4 GB needed)"
    free = shutil.disk_usage(Path.cwd()).free
    yield free >= NEEDED_BYTES, "free disk here", f"{amount(free)}B"


def installation() -> Iterator[tuple[bool, str, str]]:
    versions = library_versions()
    for name in ("datatrove", "pyarrow", "polars", "tokenizers", "torch", "transformers"):
        yield name in versions, name, versions.get(name, "missing: run `make install`")
    try:
        import_module("fasttext")
        yield True, "fasttext", "importable"
    except ImportError as error:
        yield False, "fasttext", f"{error}: run `make install`"
    from trainer.devices import accelerator

    yield True, "accelerator", accelerator()


def curriculum(config: Path, overrides: Sequence[str]) -> Iterator[tuple[bool, str, str]]:
    from pipeline.recipe import open_curriculum

    try:
        opened = open_curriculum(config, overrides)
    except UserError as error:
        yield False, str(config), error.render()
        return
    yield True, str(config), f"{len(opened.graph.nodes)} steps, {len(opened.curriculum.phases)} phases"
    for name, source in opened.curriculum.sources.items():
        files = opened.graph.node(f"clean.{name}").step.paths.get("source", ())
        yield True, f"source {name}", f"{len(files)} files ({source.read.kind}), card: {opened.cards[name].license}"
