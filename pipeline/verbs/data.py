"""Verbs of the data stages: run, watch, look into and correct them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.verbs.options import Curriculum, Executor, Json, Overrides, Steps, Workers

app = typer.Typer(rich_markup_mode=None)


@app.command()
def plan(config: Curriculum, set_: Overrides = None, json: Json = False) -> None:
    """Show the steps, the phases, the model and its parameter groups, without running anything.

    Example: seodang plan configs/quickstart.yaml
    """
    from pipeline.commands.plan import show_plan

    show_plan(config, set_ or [], as_json=json)


@app.command()
def run(
    config: Curriculum, steps: Steps = None, executor: Executor = "", workers: Workers = 0, set_: Overrides = None
) -> None:
    """Run the data, synthesis and mix steps that are missing.

    Example: seodang run configs/quickstart.yaml 'clean.*' --workers 2
    """
    from pipeline.commands.run import run_steps

    run_steps(config, steps or [], executor, workers, set_ or [])


@app.command()
def status(config: Curriculum, set_: Overrides = None, json: Json = False) -> None:
    """Show how far each step is: shards, documents, speed, jobs on a cluster, and the log line of what went wrong.

    Example: seodang status configs/quickstart.yaml --json
    """
    from pipeline.commands.status import show_status

    show_status(config, set_ or [], as_json=json)


@app.command()
def cancel(config: Curriculum, steps: Steps = None, set_: Overrides = None) -> None:
    """Cancel the jobs that steps have on a cluster; what they have made is kept.

    Example: seodang cancel configs/quickstart.yaml 'clean.*'
    """
    from pipeline.commands.cancel import cancel_jobs

    cancel_jobs(config, steps or [], set_ or [])


@app.command()
def why(config: Curriculum, step: str, set_: Overrides = None) -> None:
    """Say why a step would run: the fields that changed since it was last finished.

    Example: seodang why configs/quickstart.yaml dedup.minhash
    """
    from pipeline.commands.plan import show_why

    show_why(config, step, set_ or [])


@app.command()
def peek(
    config: Curriculum,
    step: str,
    dropped: Annotated[
        str, typer.Option("--dropped", metavar="REASON", help="Dropped documents of this reason; 'all' for any.")
    ] = "",
    where: Annotated[
        str, typer.Option("--where", metavar="SQL", help="Filter over columns, e.g. \"lang = 'ko'\".")
    ] = "",
    table: Annotated[
        str, typer.Option("--table", metavar="NAME", help="signals, heldout, tokens (decoded), … instead of documents.")
    ] = "",
    skip: Annotated[int, typer.Option("--skip", min=0, help="How many rows to pass over.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many rows.")] = 5,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Read any step's documents, kept or dropped, its signals or its token shards in the terminal.

    Example: seodang peek configs/quickstart.yaml filter.web --dropped rules.gopher_stop_words
    """
    from pipeline.commands.peek import Page, show_documents

    show_documents(config, step, Page(table, dropped, where, skip, limit), set_ or [], as_json=json)


@app.command()
def tune(
    config: Curriculum,
    step: Annotated[str, typer.Argument(metavar="[STEP]", help="A step that measures or judges; none = all.")] = "",
    rule: Annotated[str, typer.Option("--rule", help="Only rules whose name holds this.")] = "",
    lang: Annotated[str, typer.Option("--lang", help="Only this language.")] = "",
    try_: Annotated[
        list[str] | None, typer.Option("--try", metavar="LANG.RULE=VALUE", help="What another threshold would change.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="How many documents to show each way.")] = 3,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Show what each rule's threshold drops, by language, from stored signals; try others without reading text again.

    Example: seodang tune configs/quickstart.yaml --lang ko --try ko.gopher_too_short=30
    """
    from pipeline.commands.tune import show_tuning

    show_tuning(config, step, rule, lang, try_ or [], examples, set_ or [], as_json=json)


@app.command()
def synth(
    config: Curriculum,
    set_name: Annotated[str, typer.Argument(metavar="[SET]", help="A synthetic set; none = all.")] = "",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only tell what asking the endpoint would cost.")
    ] = False,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Rejected samples to show of each filter.")] = 2,
    executor: Executor = "",
    workers: Workers = 0,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Make synthetic sets and show what each of their filters lets through, with samples of what it rejects.

    Example: seodang synth configs/quickstart.yaml think --examples 3
    """
    if estimate:
        from pipeline.commands.synth_estimate import estimate_sets

        estimate_sets(config, set_name, executor, workers, set_ or [], as_json=json)
    else:
        from pipeline.commands.synth import make_sets

        make_sets(config, set_name, executor, workers, examples, set_ or [], as_json=json)


@app.command()
def takedown(
    config: Curriculum,
    url: Annotated[
        list[str] | None, typer.Option("--url", metavar="PATTERN", help="An address; `*` is anything.")
    ] = None,
    identity: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="A document's id.")] = None,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", metavar="DOMAIN", help="A domain with all below it.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    look: Annotated[bool, typer.Option("--look", help="Only tell where the documents lie; take nothing down.")] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Tell where documents and what was made from them lie, and keep them out of every later run.

    Example: seodang takedown configs/quickstart.yaml --url 'https://example.org/users/*' --reason "owner's request"
    """
    from pipeline.commands.takedown import take_down

    take_down(config, {"url": url, "id": identity, "domain": domain}, reason, set_ or [], write=not look, as_json=json)


@app.command()
def pii(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Labelled JSONL or Parquet: text, lang, spans.")],
    names: Annotated[str, typer.Option("--names", metavar="MODULE:FUNCTION", help="Finder of persons' names.")] = "",
    json: Json = False,
) -> None:
    """Measure precision and recall of the personal-data rules on labelled text.

    Example: seodang pii samples/pii/labelled.jsonl
    """
    from pipeline.commands.pii import show_accuracy

    show_accuracy(files, names, as_json=json)


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Also check this curriculum file.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of curriculum files, for editors.")
    ] = False,
    set_: Overrides = None,
) -> None:
    """Check the installation, the machine and, with CONFIG, the file and the inputs it names.

    Example: seodang doctor configs/quickstart.yaml
    """
    from pipeline.commands.doctor import examine

    examine(config, set_ or [], schema=schema)
