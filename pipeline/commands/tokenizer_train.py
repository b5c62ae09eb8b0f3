"""`seodang tokenizer train` and `tokenizer extend`: the tokenizer of a curriculum, with all that it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.plan import print_json
from pipeline.commands.run import run_steps
from pipeline.commands.terminal import console, table
from pipeline.core.config import read_yaml, validate
from pipeline.core.errors import InputError
from pipeline.core.record import read_record
from pipeline.core.tokenizer import FILE
from pipeline.curriculum_file import Curriculum
from pipeline.layout import TOKENIZER
from pipeline.recipe import open_curriculum
from stages.tokenizer.train import TokenizerConfig


def train_tokenizer(config: Path, executor: str, workers: int, overrides: Sequence[str], *, as_json: bool) -> None:
    """Run the tokenizer step and what it needs, and tell what came of it."""
    run_steps(config, [TOKENIZER], executor, workers, overrides)
    folder = open_curriculum(config, overrides).graph.node(TOKENIZER).folder
    facts = read_record(folder).facts
    if as_json:
        print_json({"path": str(folder / FILE), **facts})
        return
    shown = [(name.replace("_", " "), _shown(value)) for name, value in facts.items()]
    console.print(table("Tokenizer", ("what", "value"), shown))
    console.print(f"tokenizer: [bold]{folder / FILE}[/bold]", soft_wrap=True)


def extend_tokenizer(
    older: Path, config: Path, keep: float, executor: str, workers: int, overrides: Sequence[str], *, as_json: bool
) -> None:
    """The same, going on from the most used tokens of an older tokenizer.json, with the file's other options."""
    if not older.is_file():
        raise InputError("no such tokenizer", where=str(older), fix="give the path of an older tokenizer.json")
    curriculum = validate(Curriculum, read_yaml(config, overrides))
    extended = json.dumps({"extend": extension(curriculum.tokenizer, older, keep)})
    train_tokenizer(config, executor, workers, [*overrides, f"tokenizer={extended}"], as_json=as_json)


def extension(config: TokenizerConfig, older: Path, keep: float) -> dict[str, object]:
    """The options of `tokenizer.extend` that start from `older` and are otherwise those of the file."""
    options = config.trained
    kept = options.model_dump(by_alias=True) if options is not None else {}
    return {**kept, "from": str(older), "keep": keep}


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count:,}" for name, count in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
