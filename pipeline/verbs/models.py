"""Verb groups of what is trained on text before the model: classifiers and the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.verbs.options import Curriculum, Executor, Json, Overrides, Workers

classifier = typer.Typer(
    help="Train, apply and judge a quality or domain classifier.", no_args_is_help=True, rich_markup_mode=None
)
ClassifierFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The classifier's folder.")]


@classifier.command("train")
def classifier_train(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The classifier's YAML file: labels and their sources.")],
    folder: ClassifierFolder,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Train one fastText model a language, calibrate it, and measure it on held-out documents.

    Example: seodang classifier train quality.yaml models/quality
    """
    from pipeline.commands.classifier import train

    train(spec, folder, set_ or [], as_json=json)


@classifier.command("apply")
def classifier_apply(
    folder: ClassifierFolder,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT…", help="Step folders, Parquet or JSONL files.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write: id, lang and the scores.")],
) -> None:
    """Score documents outside a run; inside one, use the block `classifier`.

    Example: seodang classifier apply models/quality runs/store/dedup.minhash-1a2b3c4d --out scores.parquet
    """
    from pipeline.commands.classifier import apply

    apply(folder, inputs, out)


@classifier.command("report")
def classifier_report(folder: ClassifierFolder, json: Json = False) -> None:
    """Show a classifier's held-out ROC, buckets and examples.

    Example: seodang classifier report models/quality
    """
    from pipeline.commands.classifier import report

    report(folder, as_json=json)


tokenizer = typer.Typer(help="Train, extend or measure a tokenizer.", no_args_is_help=True, rich_markup_mode=None)


@tokenizer.command("train")
def tokenizer_train(
    config: Curriculum, executor: Executor = "", workers: Workers = 0, set_: Overrides = None, json: Json = False
) -> None:
    """Make the curriculum's tokenizer and what it needs, and nothing else.

    Example: seodang tokenizer train configs/quickstart.yaml --set tokenizer.train.vocabulary=4096
    """
    from pipeline.commands.tokenizer_train import train_tokenizer

    train_tokenizer(config, executor, workers, set_ or [], as_json=json)


@tokenizer.command("extend")
def tokenizer_extend(
    older: Annotated[Path, typer.Argument(metavar="OLD", help="The older tokenizer.json, byte-level BPE.")],
    config: Curriculum,
    keep: Annotated[
        float, typer.Option("--keep", min=0.01, max=1.0, help="Share of its tokens to keep, the most used first.")
    ] = 0.7,
    executor: Executor = "",
    workers: Workers = 0,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Keep the most used tokens of an older vocabulary and fill it up on the curriculum's text.

    Example: seodang tokenizer extend old/tokenizer.json configs/quickstart.yaml
    """
    from pipeline.commands.tokenizer_train import extend_tokenizer

    extend_tokenizer(older, config, keep, executor, workers, set_ or [], as_json=json)


@tokenizer.command("report")
def tokenizer_report(
    subject: Annotated[Path, typer.Argument(metavar="CONFIG", help="The curriculum file, or a tokenizer.json.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Another tokenizer.json to stand beside it, or cl100k, o200k, voyage3, public (all three).",
        ),
    ] = None,
    documents: Annotated[
        list[Path] | None,
        typer.Option("--documents", metavar="FILE", help="Parquet or JSONL to measure on; else held-out documents."),
    ] = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Bytes per token and fertility by language and domain, frequent superwords, tokens never used.

    Example: seodang tokenizer report configs/quickstart.yaml --against other/tokenizer.json --against public
    """
    from pipeline.commands.tokenizer_report import report_tokenizer

    report_tokenizer(subject, against or [], documents or [], set_ or [], as_json=json)
