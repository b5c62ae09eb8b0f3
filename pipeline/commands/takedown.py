"""`seodang takedown`: where a document lies, and that it never comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.markup import escape

from pipeline.commands.plan import print_json
from pipeline.commands.terminal import console, table
from pipeline.core.errors import ConfigError, InputError
from pipeline.core.record import finished
from pipeline.core.takedown import Kind, Takedown, add_takedowns, ids_by_source
from pipeline.graph import locked
from pipeline.recipe import Opened, open_curriculum
from pipeline.report.whereabouts import Whereabouts, ranges, whereabouts

SHOWN_ROWS = 30  # of each table in the terminal; `--json` has all


def take_down(
    config: Path,
    given: Mapping[Kind, Sequence[str] | None],
    reason: str,
    overrides: Sequence[str],
    *,
    write: bool,
    as_json: bool,
) -> None:
    """Tell where the named documents lie; unless only asked to look, add the requests to the takedown list."""
    entries = [request(kind, pattern, reason) for kind, patterns in given.items() for pattern in patterns or ()]
    if not entries:
        raise ConfigError("nothing is named", fix="give --id, --url or --domain, each as often as you like")
    before = open_curriculum(config, overrides)
    store, path = before.graph.store, before.curriculum.takedown_list
    if not store.is_dir():
        raise InputError("there is no store yet", where=str(store), fix=f"seodang run {config}")
    with locked(store):
        found = [whereabouts(store, entry) for entry in entries]
        for entry, where in zip(entries, found, strict=True):
            if entry.kind == "id" and not where.documents:
                raise InputError(f"no table below the store holds document `{entry.pattern}`", where=str(store))
        entries = [completed(before, *each) for each in zip(entries, found, strict=True)]
        if write:
            add_takedowns(path, entries)
    again = stale(before, open_curriculum(config, overrides)) if write else []
    if as_json:
        rows = [{"entry": e.model_dump(), **w.as_json()} for e, w in zip(entries, found, strict=True)]
        print_json({"list": str(path), "written": write, "stale_steps": again, "found": rows})
        return
    for entry, where in zip(entries, found, strict=True):
        console.print(f"[bold]{entry.kind} {escape(entry.pattern)}[/bold]")
        show(where)
    _tell_consequences(path, again, sorted({name for one in found for name in one.folders}), write=write)


def completed(opened: Opened, entry: Takedown, found: Whereabouts) -> Takedown:
    """The entry with what was found, and with the sources that it does not concern."""
    entry = entry.replaced(documents=ids_by_source([vars(one) for one in found.documents]))
    return entry if entry.kind == "id" else entry.replaced(clear=clear_sources(opened, entry))


def request(kind: Kind, pattern: str, reason: str) -> Takedown:
    """The entry, before anything was looked for. Raises `ConfigError` for a pattern that does not fit its kind."""
    try:
        return Takedown(kind=kind, pattern=pattern, reason=reason, asked=datetime.now(UTC).date().isoformat())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = str(first.get("ctx", {}).get("error", first["msg"]))
        raise ConfigError(f"`{pattern}`: {what}", where=f"--{kind}") from None


def clear_sources(opened: Opened, entry: Takedown) -> dict[str, str]:
    """Source -> content of its files, of every source that has been read whole and held nothing of the entry."""
    steps = {name: opened.graph.node(f"clean.{name}") for name in opened.curriculum.sources}
    return {
        name: node.step.content["source"]
        for name, node in steps.items()
        if name not in entry.documents and finished(node.folder)
    }


def stale(before: Opened, after: Opened) -> list[str]:
    """Steps that were finished and have to be made again."""
    return [
        name
        for name, node in before.graph.nodes.items()
        if node.finished and name in after.graph.nodes and not after.graph.node(name).finished
    ]


def show(found: Whereabouts) -> None:
    """The findings as tables."""
    if not found.documents:
        console.print("no document below the store fits")
        return
    documents = [(one.id, one.source, one.url or "", ", ".join(one.made_from)) for one in found.documents]
    _table("Documents", ("id", "source", "url", "made from"), documents)
    held = [(one.folder, one.file, _numbers(one.rows), len(set(one.ids))) for one in found.holdings]
    _table("\nTables and token shards that hold them", ("step", "file", "rows", "documents"), held)
    mixes = [(row["folder"], row["segment"], row["id"], _numbers(row["positions"])) for row in found.mixes]
    _table("\nMix segments that serve them", ("step", "segment", "id", "training rows"), mixes)
    trained = [(row["folder"], row["phase"], _ranges(row["ranges"])) for row in found.training]
    _table("\nTraining steps that saw them", ("step", "phase", "training steps"), trained)
    columns = ("step", "checkpoint", "rows seen", "from row")
    checkpoints = [
        tuple(row[name] for name in ("folder", "checkpoint", "rows", "first_position")) for row in found.checkpoints
    ]
    _table("\nCheckpoints that have seen them", columns, checkpoints)
    if found.exports:
        console.print(f"exported models that have seen them: {', '.join(found.exports)}")
    if found.readers:
        console.print(f"steps that read a table with them: {', '.join(found.readers)}")
    for problem in found.problems:
        console.print(f"[yellow]could not be looked at:[/yellow] {escape(problem)}")


def _tell_consequences(path: Path, again: Sequence[str], folders: Sequence[str], *, write: bool) -> None:
    if not write:
        console.print("nothing was written: without --look the documents are kept out of every later run")
        return
    console.print(f"added to [bold]{path}[/bold]: later runs drop them and what is made from them")
    if again:
        console.print(f"to be made again by `seodang run` and `train`: {', '.join(again)}")
    if folders:
        console.print(f"still on disk until you remove them: {', '.join(folders)}")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        console.print(table(title, columns, [[escape(str(cell)) for cell in row] for row in rows[:SHOWN_ROWS]]))
    if len(rows) > SHOWN_ROWS:
        console.print(f"… {len(rows) - SHOWN_ROWS} more: --json has all")


def _numbers(numbers: Collection[int]) -> str:
    return _ranges(ranges(numbers))


def _ranges(found: Sequence[tuple[int, int]]) -> str:
    shown = ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in found[:SHOWN_ROWS])
    return shown + (f" … ({len(found)} runs)" if len(found) > SHOWN_ROWS else "")
