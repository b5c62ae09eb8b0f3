"""The command line: `seodang VERB CONFIG [STEP…]`.

Human text goes to stderr, data to stdout (`--json`). Exit codes: 0 done, 1 a defect of ours (with traceback), 2 a
mistake in what was given, 130 interrupted. Commands are imported when they run, so that `--help` stays quick.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

INTERRUPTED = 130  # exit code of a process ended by Ctrl-C: 128 + SIGINT

app = typer.Typer(
    name="seodang",
    help="From raw web pages to a long-context Mixture-of-Experts model, on one curriculum file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Curriculum = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The curriculum file, for example configs/quickstart.yaml.")
]
Steps = Annotated[
    list[str] | None, typer.Argument(metavar="[STEP]…", help="Step names or patterns such as 'clean.*'; none = all.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value of the file.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]
Executor = Annotated[str, typer.Option("--executor", help="Where data steps run: local, slurm or ray.")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Worker processes at once; 0 = the file's, or one a core.")
]


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
    from pipeline.commands.synth import estimate_sets, make_sets

    if estimate:
        estimate_sets(config, set_name, set_ or [], as_json=json)
    else:
        make_sets(config, set_name, executor, workers, examples, set_ or [], as_json=json)


@app.command()
def preview(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(metavar="[PHASE]", help="The phase to preview; none = all.")] = "",
    lengths: Annotated[
        Path | None, typer.Option("--lengths", metavar="CSV", help="Histograms: source,tokens,documents.")
    ] = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Show what mixes would become, from length histograms alone: rows, fill, epochs, cut documents.

    Example: seodang preview configs/quickstart.yaml extend-1 --set mixes.longer.components.long.weight=0.5
    """
    from pipeline.commands.preview import show_preview

    show_preview(config, phase, lengths, set_ or [], as_json=json)


@app.command()
def stats(
    config: Curriculum,
    mix: Annotated[str, typer.Argument(metavar="[PHASE]", help="The phase whose mix to show; none = all.")] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print tokens by every group as CSV on stdout.")] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Show what is in each phase's mix, planned and consumed, to the token.

    Example: seodang stats configs/quickstart.yaml extend-1
    """
    from pipeline.commands.stats import show_stats

    show_stats(config, mix, set_ or [], as_json=json, as_csv=as_csv)


@app.command()
def diff(
    config: Curriculum,
    one: Annotated[str, typer.Argument(metavar="PHASE", help="A phase with a planned mix.")],
    other: Annotated[str, typer.Argument(metavar="PHASE", help="The phase to compare it with.")],
    against: Annotated[
        Path | None, typer.Option("--against", metavar="CONFIG", help="The second phase's curriculum, if another.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Also look for near-duplicates and shared n-grams in a sample.")
    ] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Compare two phases' mixes: shares by every group, documents in both, near-duplicates.

    Example: seodang diff configs/quickstart.yaml pretrain-1 extend-1 --sample
    """
    from pipeline.commands.diff import show_diff

    show_diff(config, one, other, against, set_ or [], sample=sample, as_json=json)


@app.command()
def trace(
    config: Curriculum,
    step: Annotated[int | None, typer.Option("--step", min=1, help="The documents of this training step.")] = None,
    row: Annotated[int | None, typer.Option("--row", min=0, help="Only this row of the step.")] = None,
    phase: Annotated[str, typer.Option("--phase", help="Count steps in this phase; none = over all phases.")] = "",
    document: Annotated[str, typer.Option("--document", metavar="ID", help="Every step that saw this document.")] = "",
    text: Annotated[bool, typer.Option("--text", help="Also print the rows' text, documents coloured.")] = False,
    check: Annotated[bool, typer.Option("--audit", help="Compare the run logs with the plans, to the token.")] = False,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Tell which documents were in a batch, which batches saw a document, and whether the run log agrees.

    Example: seodang trace configs/quickstart.yaml --phase extend-1 --step 3 --row 0 --text
    """
    from pipeline.commands.trace import show_trace

    show_trace(config, phase, step or 0, row, document, set_ or [], text=text, check=check, as_json=json)


@app.command()
def report(config: Curriculum, set_: Overrides = None) -> None:
    """Write one self-contained HTML page about everything that has been run so far.

    Example: seodang report configs/quickstart.yaml
    """
    from pipeline.commands.report import write_report

    write_report(config, set_ or [])


@app.command()
def train(config: Curriculum, executor: Executor = "", workers: Workers = 0, set_: Overrides = None) -> None:
    """Make whatever is missing, then run the phases and their gates.

    Example: seodang train configs/quickstart.yaml --set 'phases.0.budget_tokens=100000'
    """
    from pipeline.commands.train import train_curriculum

    train_curriculum(config, executor, workers, set_ or [])


@app.command()
def branch(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(help="The phase to branch from.")],
    step: Annotated[int, typer.Option("--step", min=1, help="Of the checkpoint to start from.")],
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Length of the decay.")],
    set_: Overrides = None,
) -> None:
    """Decay the learning rate from any checkpoint of a phase's stable part, beside the phase.

    Example: seodang branch configs/quickstart.yaml base --step 40 --tokens 60000
    """
    from pipeline.commands.branch import branch_phase

    branch_phase(config, phase, step, tokens, set_ or [])


@app.command(name="train-segment")
def train_segment(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(help="The phase whose planned rows to train on.")],
    set_: Overrides = None,
) -> None:
    """Train a phase's planned rows in several processes; `seodang train` then gates it and goes on.

    Example: torchrun --nproc-per-node 4 -m pipeline.cli train-segment CONFIG base --set training.parallel.data=4
    """
    from pipeline.commands.branch import train_first_segment

    train_first_segment(config, phase, set_ or [])


@app.command()
def routing(
    config: Curriculum,
    phase: Annotated[
        str, typer.Argument(metavar="[PHASE]", help="The phase whose last checkpoint to use; none = the last.")
    ] = "",
    by: Annotated[str, typer.Option("--by", help="languages, domains or sources.")] = "languages",
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows of the phase's mix to read.")] = 32,
    set_: Overrides = None,
) -> None:
    """Which experts serve which language, domain or source, with confidence.

    Example: seodang routing configs/quickstart.yaml base --by domains
    """
    from pipeline.commands.routing import show_routing
    from pipeline.core.errors import unknown_name

    kinds = ["languages", "domains", "sources"]
    if by not in kinds:
        raise unknown_name("kind of group", by, kinds)
    show_routing(config, phase, by, rows, set_ or [])


@app.command(name="eval")
def evaluate(
    config: Curriculum,
    phase: Annotated[
        str, typer.Argument(metavar="[PHASE]", help="The phase whose last checkpoint to use; none = the last.")
    ] = "",
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Run the needle grid and the short-context check on a phase's last checkpoint.

    Example: seodang eval configs/quickstart.yaml extend-2 --json
    """
    from pipeline.commands.model import evaluate_phase

    evaluate_phase(config, phase, set_ or [], as_json=json)


@app.command()
def generate(
    config: Curriculum,
    prompt: Annotated[str, typer.Argument(help="Text to continue.")],
    phase: Annotated[
        str, typer.Option("--phase", help="The phase whose last checkpoint to use; none = the last.")
    ] = "",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How many tokens to add at most.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 = greedy.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the sampling.")] = 0,
    set_: Overrides = None,
) -> None:
    """Continue a text with a trained checkpoint.

    Example: seodang generate configs/quickstart.yaml "def main(" --tokens 40
    """
    from pipeline.commands.model import continue_text

    continue_text(config, prompt, phase, tokens, temperature, seed, set_ or [])


@app.command()
def export(
    config: Curriculum,
    phase: Annotated[
        str, typer.Argument(metavar="[PHASE]", help="The phase whose last checkpoint to use; none = the last.")
    ] = "",
    set_: Overrides = None,
) -> None:
    """Write a checkpoint in the transformers `exaone_moe` format, load it there and compare logits.

    Example: seodang export configs/quickstart.yaml
    """
    from pipeline.commands.model import export_phase

    export_phase(config, phase, set_ or [])


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


classifier = typer.Typer(
    help="Train, apply and judge a quality or domain classifier.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(classifier, name="classifier")
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
app.add_typer(tokenizer, name="tokenizer")


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


mix_app = typer.Typer(
    help="Ratio tables, rows for other trainers, and mixture search.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(mix_app, name="mix")
MixName = Annotated[str, typer.Argument(metavar="MIX", help="A name below `mixes:`.")]


@mix_app.command("ratios")
def mix_ratios(config: Curriculum, mix: MixName, set_: Overrides = None) -> None:
    """Print a mix's weights as CSV.

    Example: seodang mix ratios configs/quickstart.yaml longer > longer.csv
    """
    from pipeline.commands.mix import print_ratios

    print_ratios(config, mix, set_ or [])


@mix_app.command("import")
def mix_import(
    config: Curriculum,
    mix: MixName,
    table: Annotated[Path, typer.Argument(metavar="CSV", help="Columns component and weight.")],
) -> None:
    """Write a table's weights into the curriculum file; comments and order stay.

    Example: seodang mix import configs/quickstart.yaml longer longer.csv
    """
    from pipeline.commands.mix import import_ratios

    import_ratios(config, mix, table)


@mix_app.command("export")
def mix_export(
    config: Curriculum,
    phase: Annotated[str, typer.Argument(metavar="PHASE", help="A phase with a planned mix.")],
    kind: Annotated[str, typer.Option("--format", help="megatron, mds or parquet.")],
    out: Annotated[Path, typer.Option("--out", help="A new or empty folder.")],
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Write a phase's packed rows, in the order in which they are served, for another trainer.

    Example: seodang mix export configs/quickstart.yaml extend-1 --format megatron --out exported
    """
    from pipeline.commands.mix import export_rows

    export_rows(config, phase, kind, out, set_ or [], as_json=json)


@mix_app.command("proxies")
def mix_proxies(
    config: Curriculum,
    mix: MixName,
    out: Annotated[Path, typer.Option("--out", help="The CSV file to write.")],
    proxies: Annotated[int, typer.Option("--proxies", min=2, help="How many; RegMix trains 512.")] = 512,
    set_: Overrides = None,
) -> None:
    """Draw many small variations of a mix, to train a small model on each.

    Example: seodang mix proxies configs/quickstart.yaml longer --out proxies.csv
    """
    from pipeline.commands.mix import write_proxies

    write_proxies(config, mix, proxies, out, set_ or [])


@mix_app.command("propose")
def mix_propose(
    config: Curriculum,
    mix: MixName,
    results: Annotated[Path, typer.Argument(metavar="CSV", help="The table of proxies, with a column of losses.")],
    loss: Annotated[str, typer.Option("--loss", help="The column to make small.")] = "loss",
    out: Annotated[Path | None, typer.Option("--out", help="Write the proposed ratio table here.")] = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Fit the proxies' losses and propose weights.

    Example: seodang mix propose configs/quickstart.yaml longer proxies.csv --out better.csv
    """
    from pipeline.commands.mix import propose_weights

    propose_weights(config, mix, results, loss, out, set_ or [], as_json=json)


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


@tokenizer.command("report")
def tokenizer_report(
    subject: Annotated[Path, typer.Argument(metavar="CONFIG", help="The curriculum file, or a tokenizer.json.")],
    against: Annotated[
        list[Path] | None, typer.Option("--against", metavar="FILE", help="Another tokenizer.json to stand beside it.")
    ] = None,
    documents: Annotated[
        list[Path] | None,
        typer.Option("--documents", metavar="FILE", help="Parquet or JSONL to measure on; else held-out documents."),
    ] = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Bytes per token and fertility by language and domain, frequent superwords, tokens never used.

    Example: seodang tokenizer report configs/quickstart.yaml --against other/tokenizer.json
    """
    from pipeline.commands.tokenizer_report import report_tokenizer

    report_tokenizer(subject, against or [], documents or [], set_ or [], as_json=json)


def main() -> None:
    """Entry point: turns errors into exit codes."""
    from pipeline.core.errors import UserError

    # Waiting threads of torch's and numba's pools sleep instead of spinning: beside other work a spinning pool is
    # several times slower, alone it gains nothing here. Must be set before either library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, _interrupted)
    try:
        app()
    except UserError as error:
        print(f"error: {error.render()}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("interrupted: run the same command again to go on where it stopped", file=sys.stderr)
        raise


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End on Ctrl-C as an exit: the command library would turn a KeyboardInterrupt into its own message."""
    del number, frame
    raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    main()
