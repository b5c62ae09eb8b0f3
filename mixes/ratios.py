"""Ratio tables: the weights of a mix's components as CSV, in and out.

Contract: `component,weight` and, going out, what a person needs beside them (sources, repeat cap, promises). Coming in,
only the weights count; they are written into the curriculum file in place, comments and order kept, the file written
whole or not at all. Every component of the mix must stand in the table once, with a weight above 0.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mixes.spec import MixConfig
from pipeline.core.errors import InputError, unknown_name
from pipeline.core.files import write_text

SCALAR = re.compile(r"[^\s,}#]+")  # a number, up to what can follow it
COLUMNS = ("component", "weight", "share", "from", "max_repeats", "whole", "where")


def ratio_table(mix: MixConfig) -> str:
    """The CSV text; `share` is the weight over the sum of weights."""
    total = sum(component.weight for component in mix.components.values())
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, one in mix.components.items():
        share = f"{one.weight / total:.6g}"
        writer.writerow((name, repr(one.weight), share, " ".join(one.from_), one.max_repeats, one.whole, one.where))
    return out.getvalue()


def read_ratios(path: Path, mix: MixConfig, where: str) -> dict[str, float]:
    """Component -> weight. Raises `InputError` and `ConfigError` naming file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    reader = csv.DictReader(io.StringIO(text))
    if not {"component", "weight"} <= set(reader.fieldnames or ()):
        raise InputError("no columns `component` and `weight`", where=f"{path}:1", fix="component,weight\\nweb,0.7")
    weights: dict[str, float] = {}
    for row in reader:
        place = f"{path}:{reader.line_num}"
        name, text = str(row["component"]), str(row["weight"])
        if name not in mix.components:
            raise unknown_name("component", name, mix.components, where=place)
        if name in weights:
            raise InputError(f"component `{name}` stands twice", where=place, fix="keep one of the lines")
        try:
            weights[name] = float(text)
        except ValueError:
            raise InputError(f"weight `{text}` is not a number", where=place, fix="for example 0.25") from None
        if not 0 < weights[name] < float("inf"):
            fix = f"give a weight above 0, or take `{name}` out of the mix"
            raise InputError(f"weight {weights[name]:g}", where=place, fix=fix)
    missing = [name for name in mix.components if name not in weights]
    if missing:
        raise InputError(f"no line for {', '.join(missing)}", where=str(path), fix=f"every component of {where}")
    return weights


def write_weights(curriculum: Path, mix: str, weights: dict[str, float]) -> None:
    """Change the weights of a mix in the curriculum file itself, and nothing else in it.

    Raises `InputError` when a component's weight is not written in this file.
    """
    text = curriculum.read_text(encoding="utf-8")
    tree: Any = YAML(typ="rt", pure=True).load(text)
    components = (tree.get("mixes") or {}).get(mix, {}).get("components", {})
    lines = text.splitlines(keepends=True)
    places: list[tuple[int, int, float]] = []
    for name, weight in weights.items():
        if name not in components or "weight" not in components[name]:
            what = f"component `{name}` of mix `{mix}` is not defined in this file"
            raise InputError(what, where=str(curriculum), fix="give the included file that defines it")
        places.append((*components[name].lc.value("weight"), weight))
    for row, column, weight in sorted(places, reverse=True):  # from the end: what is before keeps its place
        line = lines[row]
        lines[row] = line[:column] + SCALAR.sub(repr(weight), line[column:], count=1)
    write_text(curriculum, "".join(lines))
