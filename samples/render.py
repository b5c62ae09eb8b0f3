"""Sample pages: light Markdown with front matter becomes a realistic HTML page around the text.

Contract: `read_text` gives front matter and the stripped NFC body; `page_html` puts the body into one of the templates
of `samples/pages` with the menus, cookie banner, advertisements and footer of its language. Pure functions of the
files; no clock, no network. Source: written for this project.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parent
TEMPLATES = ("blog", "magazine", "plain", "portal")
CHROME = ("cookie", "accept", "reject", "related", "popular", "newsletter", "share", "comments", "comment", "footer")
_FENCE = "```"
_CODE = re.compile(r"`([^`]+)`")
_NUMBER = re.compile(r"^\d+\. ")


@dataclass(frozen=True)
class Text:
    """One authored text: its front matter and its body (stripped, NFC)."""

    slug: str
    front: dict[str, Any]
    body: str


@dataclass(frozen=True)
class Page:
    """What a page shows besides its text."""

    title: str
    lang: str
    url: str
    site: str
    date: str
    template: str
    links: tuple[tuple[str, str], ...]  # (url, title) of related pages
    meta_charset: str | None = "utf-8"
    robots: str | None = None


def read_text(path: Path) -> Text:
    """Raises `ValueError` naming the file when it has no front matter or is not NFC."""
    whole = path.read_text(encoding="utf-8")
    parts = whole.split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        raise ValueError(f"{path}: no front matter between two `---` lines")
    if unicodedata.normalize("NFC", whole) != whole:
        raise ValueError(f"{path}: not in Unicode NFC")
    front = YAML(typ="safe", pure=True).load(parts[1])
    return Text(path.stem, {key: _plain(value) for key, value in front.items()}, parts[2].strip())


def _plain(value: Any) -> Any:
    return value if isinstance(value, (list, dict)) else str(value)


def load_chrome() -> dict[str, dict[str, Any]]:
    """Menus, banners and footers by language."""
    return YAML(typ="safe", pure=True).load((HERE / "pages" / "chrome.yaml").read_text(encoding="utf-8"))


def body_html(body: str) -> str:
    """Paragraphs, `## ` headings, `- ` and `1. ` lists, fenced code and `code` as HTML; everything else as it is."""
    out: list[str] = []
    blocks = body.split("\n\n")
    while blocks:
        block = blocks.pop(0)
        if block.startswith(_FENCE):
            while not block.endswith("\n" + _FENCE):
                block += "\n\n" + blocks.pop(0)
            code = block.split("\n", 1)[1].removesuffix(_FENCE)
            out.append(f"<pre><code>{html.escape(code, quote=False)}</code></pre>")
        elif block.startswith("## "):
            out.append(f"<h2>{_inline(block[3:])}</h2>")
        else:
            out.append(_lines_html(block.split("\n")))
    return "\n".join(out)


def _lines_html(lines: list[str]) -> str:
    for name, mark in (("ul", re.compile(r"^- ")), ("ol", _NUMBER)):
        if all(mark.match(line) for line in lines):
            items = "\n".join(f"<li>{_inline(mark.sub('', line))}</li>" for line in lines)
            return f"<{name}>\n{items}\n</{name}>"
    return f"<p>{'<br>'.join(_inline(line) for line in lines)}</p>"


def _inline(line: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html.escape(line, quote=False))


def page_html(page: Page, body: str, chrome: dict[str, Any]) -> str:
    """The whole page; `body` is HTML already, all other strings are escaped here."""
    template = Template((HERE / "pages" / f"{page.template}.html").read_text(encoding="utf-8"))
    words = {key: html.escape(chrome[key]) for key in CHROME}
    (label1, ad1), (label2, ad2) = chrome["ads"]
    words |= {"ad1_label": label1, "ad1": html.escape(ad1), "ad2_label": label2, "ad2": html.escape(ad2)}
    words["nav"] = "".join(
        f'<li><a href="/menu/{number}">{html.escape(word)}</a></li>' for number, word in enumerate(chrome["nav"])
    )
    words["links"] = "".join(
        f'<li><a href="{html.escape(url)}">{html.escape(title)}</a></li>' for url, title in page.links
    )
    return template.substitute(
        words,
        title=html.escape(page.title),
        lang=page.lang,
        url=html.escape(page.url),
        site=html.escape(page.site),
        date=page.date,
        body=body,
        charset=_meta("charset", page.meta_charset),
        robots=_meta("robots", page.robots),
    )


def _meta(name: str, value: str | None) -> str:
    if value is None:
        return ""
    if name == "charset":
        return f'<meta charset="{value}">\n'
    return f'<meta name="{name}" content="{html.escape(value)}">\n'
