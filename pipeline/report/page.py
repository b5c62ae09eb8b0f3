"""One self-contained HTML page about a run: funnel, mixes, lengths, losses, gates, data card.

Contract: `write_page` writes one file that needs nothing else, neither network nor fonts; a content security policy in
it forbids loading anything. The same `Gathered` gives the same bytes but for the date line. Size: about 5 MB, nearly
all of it plotly.js, which is inlined once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from plotly.offline import get_plotlyjs

from pipeline.core.files import write_text
from pipeline.report.card import card_section
from pipeline.report.classifiers import classifiers_section
from pipeline.report.composition import composition_section
from pipeline.report.contamination import contamination_section
from pipeline.report.funnel import funnel_section
from pipeline.report.gather import Gathered
from pipeline.report.lengths import lengths_section
from pipeline.report.losses import losses_section
from pipeline.report.markup import Markup, tag
from pipeline.report.mixes import mixes_section
from pipeline.report.needles import needles_section
from pipeline.report.routing import routing_section
from pipeline.report.summary import summary_section
from pipeline.report.tokenizer import tokenizer_section

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
SECTIONS = (
    ("summary", "Summary", summary_section),
    ("funnel", "Funnel", funnel_section),
    ("classifiers", "Classifiers", classifiers_section),
    ("benchmarks", "Benchmarks", contamination_section),
    ("composition", "Mixes", composition_section),
    ("lengths", "Lengths", lengths_section),
    ("mixes", "Overlap", mixes_section),
    ("losses", "Training", losses_section),
    ("gates", "Gates", needles_section),
    ("routing", "Experts", routing_section),
    ("tokenizer", "Tokenizer", tokenizer_section),
    ("card", "Data card", card_section),
)


def write_page(store: Path, path: Path, title: str, gathered: Gathered) -> None:
    """Write the page to `path`, whole or not at all.

    Args:
        store: Named in the page as the place of all folders.
        path: The HTML file.
        title: Of the page, for example the curriculum's name.
        gathered: What to show.
    """
    write_text(path, render(store, title, gathered, datetime.now(UTC)))


def render(store: Path, title: str, gathered: Gathered, written: datetime) -> str:
    """The page's HTML. `written` is the one thing that differs between two pages of the same run."""
    package = files("pipeline.report")
    style = (package / "style.css").read_text(encoding="utf-8")
    drawing = (package / "page.js").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    links = [tag("a", short, href=f"#{name}") for name, short, _ in SECTIONS]
    header = tag(
        "header",
        tag("h1", title),
        tag("p", "Store: ", tag("code", str(store))),
        tag("p", f"Written {written:%Y-%m-%d %H:%M} UTC", id="written"),
        tag("nav", *links, aria_label="Sections"),
    )
    body = tag(
        "body",
        header,
        tag("main", *(build(gathered) for _, _, build in SECTIONS)),
        tag("noscript", tag("p", "Charts need JavaScript; every value is also in a table.", class_="missing")),
        tag("script", Markup(get_plotlyjs())),
        tag("script", Markup(drawing)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
