"""HTML by construction: everything that is not `Markup` is escaped.

Contract: `tag` escapes each child and each attribute value unless it is `Markup` already, so that text from outside
(source names, reasons, card fields) can never become part of the page's own HTML. Numbers get thousands separators.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

NOTHING = "–"
VOID_TAGS = frozenset({"meta", "hr", "br", "col"})


class Markup(str):
    """HTML that is safe to place in a page as it is."""

    __slots__ = ()


@dataclass(frozen=True)
class Share:
    """A part of a whole, shown as a percentage."""

    part: float
    whole: float


Cell = str | int | float | Share | None


def tag(element: str, /, *children: Cell | Iterable[Markup], **attributes: str) -> Markup:
    """`<name …>children</name>`; `class_` and `data_x` become `class` and `data-x`."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items() if value
    )
    if element in VOID_TAGS:
        return Markup(f"<{element}{words}>")
    return Markup(f"<{element}{words}>{join(children)}</{element}>")


def join(children: Iterable[Cell | Iterable[Markup]]) -> Markup:
    """Children one after the other, escaped where they are not `Markup`."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str | int | float | Share) or child is None:
            parts.append(escape(shown(child)))
        else:
            parts.extend(join([one]) for one in child)
    return Markup("".join(parts))


def shown(cell: Cell) -> str:
    """1234567 → 1,234,567; 0.123456 → 0.1235; 3e-05 stays; a `Share` → 12.3 %; None → a dash."""
    if cell is None:
        return NOTHING
    if isinstance(cell, Share):
        return percent(cell)
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    if cell.is_integer() and abs(cell) < 1e15:
        return f"{cell:,.0f}"
    return f"{cell:,.4f}" if 1e-3 <= abs(cell) < 1e15 else f"{cell:.3g}"


def percent(share: Share) -> str:
    """One decimal; what is not nothing never shows as 0.0 %, and what is not all never as 100.0 %."""
    if not share.whole:
        return NOTHING
    value = 100 * share.part / share.whole
    if 0 < value < 0.05:
        return "< 0.1 %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Markup:
    """A captioned table in a box that scrolls by itself. A column is right-aligned when all its cells are numbers."""
    body = [list(row) for row in rows]
    assert all(len(row) == len(columns) for row in body), (caption, columns)
    numeric = [_numeric([row[index] for row in body]) for index in range(len(columns))]
    classes = ["number" if is_number else "" for is_number in numeric]
    head = [tag("th", name, scope="col", class_=kind) for name, kind in zip(columns, classes, strict=True)]
    lines = [
        tag(
            "tr",
            *(
                tag("th" if index == 0 else "td", cell, class_=classes[index], scope="row" if index == 0 else "")
                for index, cell in enumerate(row)
            ),
        )
        for row in body
    ]
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), tag("tbody", *lines))
    # Focusable, so that the keyboard can scroll it.
    return tag("div", inner, class_="table", tabindex="0", role="region", aria_label=caption)


def _numeric(cells: Sequence[Cell]) -> bool:
    return any(cell is not None for cell in cells) and not any(isinstance(cell, str) for cell in cells)


def facts(items: Iterable[tuple[str, Cell | Markup]]) -> Markup:
    """A definition list."""
    pairs = [tag("div", tag("dt", name), tag("dd", value)) for name, value in items]
    return tag("dl", *pairs)


def with_code(sentence: str) -> Markup:
    """Our own sentences: what stands between backticks becomes code. Escaped like any other text."""
    parts = sentence.split("`")
    return join(tag("code", part) if index % 2 else part for index, part in enumerate(parts))


def missing(sentence: str) -> Markup:
    """Says what is not there and what would bring it."""
    return tag("p", sentence, class_="missing")


def folded(summary: str, *children: Markup) -> Markup:
    """Shown when asked for."""
    return tag("details", tag("summary", summary), *children)


def section(name: str, title: str, introduction: str, *children: Markup) -> Markup:
    """A page section with its anchor, heading and one sentence on what it answers."""
    return tag("section", tag("h2", title), tag("p", introduction, class_="lead"), *children, id=name)
