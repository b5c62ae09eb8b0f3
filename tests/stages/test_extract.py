"""Extraction: main content only, structure kept, metadata in columns, pathological pages cut off."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from lxml import etree

from pipeline.core.documents import table_from_rows, text_hash
from stages.block import verify
from stages.charset import decode_page
from stages.extract import Extract, ExtractConfig, extract_page
from stages.extract_worker import Worker
from stages.mathml import latex_of
from stages.plugin import Plugin

PAGE = """<html lang="de-AT"><head><title>Brot backen</title><link rel="canonical" href="https://brot.example/backen">
<meta name="date" content="2024-01-02"></head><body><nav><a href="/">Start</a> <a href="/shop">Laden</a></nav>
<div class="cookie-banner">Wir verwenden Cookies. Alle annehmen</div><article><h1>Brot backen</h1>
<p>Ein gutes Brot braucht vor allem Zeit, und wer am Abend beginnt, kann am nächsten Morgen schon backen.</p>
<h2>Zutaten</h2><ul><li>500 g Mehl</li><li>350 ml Wasser</li></ul>
<pre><code>def rest(hours):
    return hours * 60
</code></pre><p>Danach ruht der Teig noch einmal, bevor er in den heißen Ofen kommt und eine Stunde backt.</p></article>
<footer>Impressum</footer></body></html>"""


def row(text: str, html: bool = True, **columns: Any) -> dict[str, Any]:
    extra = '{"charset":"utf-8","content_type":"text/html"}' if html else None
    return {"id": text_hash(text), "text": text, "text_hash": text_hash(text), "source": "s", "extra": extra, **columns}


def test_main_content_keeps_headings_lists_and_code_and_loses_the_frame() -> None:
    page = extract_page(PAGE, "https://brot.example/b?ref=1", ExtractConfig())
    assert "# Brot backen" in page.text
    assert "- 500 g Mehl\n- 350 ml Wasser" in page.text
    assert "def rest(hours):\n    return hours * 60" in page.text
    for noise in ("Cookies", "Laden", "Impressum"):
        assert noise not in page.text
    assert (page.title, page.date, page.declared_lang) == ("Brot backen", "2024-01-02", "de-at")
    assert page.canonical_url == "https://brot.example/backen"


def test_block_fills_columns_passes_plain_text_and_drops_the_empty() -> None:
    rows = [row(PAGE, url="https://brot.example/x"), row("plain <b>text</b>", html=False), row("<html></html>")]
    documents = table_from_rows(rows)
    result = Extract(ExtractConfig(seconds_per_page=0)).apply(documents)
    verify(documents, result)
    kept = result.kept.to_pylist()
    assert [one["title"] for one in kept] == ["Brot backen", None]
    assert kept[0]["text_hash"] == text_hash(kept[0]["text"])
    assert json.loads(kept[0]["extra"]) == {"canonical_url": "https://brot.example/backen", "charset": "utf-8"}
    assert kept[1]["text"] == "plain <b>text</b>"
    assert (result.dropped_at.tolist(), result.reasons) == ([2], ["extract.empty"])


def test_the_worker_gives_what_this_process_gives() -> None:
    documents = table_from_rows([row(PAGE), row("<p>")])
    inside = Extract(ExtractConfig(seconds_per_page=0)).apply(documents)
    outside = Extract(ExtractConfig(seconds_per_page=60.0)).apply(documents)
    assert outside.kept.equals(inside.kept)
    assert outside.reasons == inside.reasons


def slow(config: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A function of the worker process that hangs or dies on request."""
    if request["html"] == "hang":
        time.sleep(600)
    if request["html"] == "die":
        raise SystemExit(1)
    return {"echo": request["html"]}


def test_a_request_over_its_limit_is_killed_and_the_next_one_is_served(monkeypatch: Any) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    worker = Worker("test_extract:slow", {})
    assert worker.ask({"html": "hang"}, 0.3) is None
    assert worker.ask({"html": "die"}, 30) is None
    assert worker.ask({"html": "again"}, 30) == {"echo": "again"}
    worker.close()


def test_real_pages_agree_with_their_hand_made_main_text(data_root: Path) -> None:
    rows = pq.read_table(data_root / "html_gold.parquet", columns=["html", "text", "url", "lang"]).to_pylist()
    for lang in ("en", "ko", "de", "vi"):
        precision, recall = [], []
        for one in [r for r in rows if r["lang"] == lang][:8]:
            page = decode_page(one["html"])
            assert page is not None
            ours = set(extract_page(page.text, one["url"], ExtractConfig()).text.split())
            gold = set(one["text"].split())
            precision.append(len(ours & gold) / max(1, len(ours)))
            recall.append(len(ours & gold) / max(1, len(gold)))
        assert sum(precision) / len(precision) > 0.88, lang
        assert sum(recall) / len(recall) > 0.85, lang


FORMULAS = """<html><body><article><p>The law, which has been known for more than three centuries by now, is written as
<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"><mi>F</mi><mo>=</mo><mfrac><mrow><mi>G</mi>
<msub><mi>m</mi><mn>1</mn></msub></mrow><msup><mi>r</mi><mn>2</mn></msup></mfrac></math> in the books of the time.</p>
<p>Inline <span class="katex"><span class="katex-mathml"><math><semantics><msup><mi>x</mi><mn>2</mn></msup>
<annotation encoding="application/x-tex">x^2</annotation></semantics></math></span><span class="katex-html">x2</span></span>
and <script type="math/tex">z_3</script> and \\(y\\) stand within the sentence, as readers are used to see them.</p>
<p>So does <span class="mwe-math-element"><span><math alttext="{\\displaystyle E=mc^{2}}"><mi>E</mi></math></span>
<img class="mwe-math-fallback-image-inline" alt="{\\displaystyle E=mc^{2}}"></span>, and
<img class="latex" alt="a+b"> at the end of the page, where nobody looks for it any more.</p></article></body></html>"""


def test_formulas_of_all_kinds_are_kept_as_latex() -> None:
    text = extract_page(FORMULAS, None, ExtractConfig()).text
    assert "$$F = \\frac{Gm_{1}}{r^{2}}$$" in text
    assert "Inline $x^2$ and $z_3$ and $y$ stand" in text
    assert text.count("$E=mc^{2}$") == 1
    assert "$a+b$ at the end" in text
    assert "x2" not in text


@pytest.mark.parametrize(
    ("mathml", "latex"),
    [
        ("<mi>&#x3B1;</mi><mi>x</mi>", r"\alpha x"),
        ("<msqrt><mi>x</mi><mo>+</mo><mn>1</mn></msqrt>", r"\sqrt{x + 1}"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", r"\sqrt[3]{x}"),
        ("<munderover><mo>&#x2211;</mo><mi>i</mi><mi>n</mi></munderover>", r"\sum_{i}^{n}"),
        ("<mover><mi>v</mi><mo>&#x2192;</mo></mover>", r"\vec{v}"),
        ("<msup><mrow><mi>a</mi><mi>b</mi></mrow><mn>2</mn></msup>", r"{ab}^{2}"),
        ("<mfenced><mi>a</mi><mi>b</mi></mfenced>", r"\left(a,b\right)"),
        ("<mi>sin</mi><mi>x</mi>", r"\sin x"),
        ("<mn>50</mn><mo>%</mo>", r"50\%"),
        ("<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd></mtr></mtable>",
         r"\begin{matrix}1 & 2 \\ 3\end{matrix}"),
        ("<mtext>if</mtext><mspace/><mi>&#xBF51;</mi>", "\\text{if} 뽑"),
    ],
)  # fmt: skip
def test_mathml_becomes_latex(mathml: str, latex: str) -> None:
    assert latex_of(etree.fromstring(f"<math>{mathml}</math>")) == latex


def test_formulas_of_a_textbook_convert_with_matching_braces(data_root: Path) -> None:
    rows = pq.read_table(data_root / "stem_openstax_vol3.parquet", columns=["raw_cnxml"]).to_pylist()
    sources = [row["raw_cnxml"] for row in rows if row["raw_cnxml"]]
    formulas = [
        latex_of(one)
        for raw in sources
        for one in etree.fromstring(raw.encode()).iter("{http://www.w3.org/1998/Math/MathML}math")
    ]
    assert len(formulas) > 1000
    for latex in formulas:
        plain = latex.replace("\\{", "").replace("\\}", "")
        assert plain.count("{") == plain.count("}")
        assert latex


def shout(html: str, url: str | None, lang: str | None) -> str:
    """A plug-in for the test below."""
    return f"{lang} {url} {'Mehl' in html}"


def test_other_extractors_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    plugin = Plugin(function="test_extract:shout", version="1")
    page = extract_page(PAGE, "https://brot.example/x", ExtractConfig(extractor=plugin))
    assert (page.text, page.title, page.date) == ("de-at https://brot.example/x True", "Brot backen", "2024-01-02")
    long = PAGE.replace(
        "Ein gutes Brot braucht vor allem Zeit",
        "Ein gutes Brot, das man mit der Hand und nicht mit der "
        "Maschine knetet, braucht vor allem viel Zeit, denn der Teig ruht über die ganze Nacht in einer Schüssel, und es "
        "ist nicht nötig, dass man dabei ist oder dass man auf ihn achtet",
    )
    plain = extract_page(long, None, ExtractConfig(extractor="justext")).text
    assert "Ein gutes Brot" in plain
    assert "Cookies" not in plain


def test_marks_that_are_text_are_not_escaped() -> None:
    sentence = "The name snake_case, the product a*b*c, [a link] and C:\\new\\_x are text in this sentence"
    page = "".join(f"<p>{sentence} number {n}.</p>" for n in range(4)) + "<pre><code>a\\_b = [1]</code></pre>"
    text = extract_page(f"<html><body><article>{page}</article></body></html>", None, ExtractConfig()).text
    assert text.startswith(f"{sentence} number 0.")
    assert "a\\_b = [1]" in text


def test_columns_of_real_pages(data_root: Path) -> None:
    rows = pq.read_table(data_root / "html_gold.parquet", columns=["html", "url", "lang"]).to_pylist()[::60]
    for one in rows:
        decoded = decode_page(one["html"])
        assert decoded is not None
        page = extract_page(decoded.text, one["url"], ExtractConfig())
        assert page.title
        assert page.declared_lang is None or page.declared_lang.split("-")[0] == one["lang"]


def test_a_page_above_the_limit_is_dropped_unread_with_the_value_that_would_work() -> None:
    longer = PAGE.replace("Impressum", "Impressum und Datenschutz")
    documents = table_from_rows([row(longer), row(PAGE), row("x" * 2 * len(PAGE.encode()), html=False)])
    limit, size = len(PAGE.encode()), len(longer.encode())
    result = Extract(ExtractConfig(maximum_page_bytes=limit, seconds_per_page=0)).apply(documents)
    verify(documents, result)
    assert (result.dropped_at.tolist(), result.reasons) == ([0], ["extract.too_large"])
    assert (
        f"a page of {size} bytes, `extract: maximum_page_bytes` is {limit}; {size} would take it" in result.details[0]
    )
    assert result.kept["text"].to_pylist()[0].startswith("# Brot backen")
    assert Extract(ExtractConfig(maximum_page_bytes=size, seconds_per_page=0)).apply(documents).reasons == []
