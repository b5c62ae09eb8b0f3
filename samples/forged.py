"""The bad pages that a crawl brings, made from `samples/bad/*.md`.

Contract: the front matter says what is wrong with a page (its bytes' charset and what is declared, headers, robots
directives, damage, the text it copies and the words it changes) and what must happen to it; see samples/README.md.
Every page is original; personal data is of documentation ranges, invented or impossible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import ftfy.bad_codecs
from crawl import Capture
from expected import Expectation
from render import HERE, Page, Text, body_html, page_html, read_text

NOISE_BYTES = 3000
NOISE_MARK = "{noise}"
QUESTION_MARK = "{question}"
ftfy.bad_codecs.ok()  # registers `sloppy-windows-1252`, in which every byte has a meaning


def bad_captures(
    good_pages: Mapping[str, tuple[Text, Page]], chrome: Mapping[str, Any]
) -> tuple[list[Capture], list[Expectation]]:
    """Every bad page with what must happen to it; the originals of copies are in `good_pages`."""
    captures, expectations = [], []
    for path in sorted((HERE / "bad").glob("*.md")):
        text = read_text(path)
        if "of" in text.front:
            original, page = good_pages[text.front["of"]]
            capture, pair = _copy(text, original, page, chrome[page.lang])
            captures.append(capture)
            expectations += pair
        else:
            captures.append(_forge(text, chrome[text.front["lang"]]))
            expectations.append(_expectation(text))
    return captures, expectations


def _expectation(text: Text) -> Expectation:
    front = text.front
    kept = front["outcome"] == "kept"
    return Expectation(
        source="web",
        key=front["url"],
        outcome=front["outcome"],
        reasons=() if kept else tuple(front["reason"]),
        lang=front["lang"] if kept else None,
        why=front["why"],
        contains=tuple(front.get("contains", ())),
        lacks=tuple(front.get("lacks", ())),
    )


def _copy(text: Text, original: Text, page: Page, chrome: Mapping[str, Any]) -> tuple[Capture, list[Expectation]]:
    """A copy of a good page at another URL, and the two expectations of the pair (replacing the original's own)."""
    front, body = text.front, original.body
    for old, new in front.get("replace", ()):
        if old not in body:
            raise ValueError(f"samples/bad/{text.slug}.md: `{old}` is not in {front['of']}")
        body = body.replace(old, new)
    copied = replace(page, url=front["url"], site=urlsplit(front["url"]).netloc)
    capture = Capture(copied.url, page_html(copied, body_html(body), dict(chrome)).encode(), page.date)
    pair = [
        Expectation("web", url, "kept", tuple(front["reason"]), page.lang, front["why"], group=text.slug)
        for url in (page.url, copied.url)
    ]
    return capture, pair


def _forge(text: Text, chrome: Mapping[str, Any]) -> Capture:
    front = text.front
    charset = front.get("charset", "utf-8")
    page = Page(
        title=front["title"],
        lang=front["lang"],
        url=front["url"],
        site=urlsplit(front["url"]).netloc,
        date=front["date"],
        template=front["page"],
        links=(),
        meta_charset=_stated(front.get("meta_charset", "utf-8")),
        robots=front.get("robots"),
    )
    body = text.body.replace(QUESTION_MARK, _question(front["quotes"])) if "quotes" in front else text.body
    whole = page_html(page, body_html(body), dict(chrome))
    if "mojibake" in front:
        whole = whole.encode().decode("sloppy-windows-1252")
    payload = whole.encode(charset, errors="xmlcharrefreplace")  # old pages write what their charset lacks as &#n;
    if front.get("damage") == "noise":
        payload = payload.replace(NOISE_MARK.encode(), _noise(front["url"]))
    stated = _stated(front.get("header_charset", "UTF-8"))
    return Capture(page.url, payload, page.date, stated, headers=front.get("headers", {}))


def _stated(value: str) -> str | None:
    return None if value == "none" else value


def _question(name: str) -> str:
    """A benchmark question, word for word."""
    for path in sorted((HERE / "benchmarks").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["id"] == name:
                return record["question"]
    raise ValueError(f"no benchmark question is called `{name}`")


def _noise(seed: str) -> bytes:
    """Bytes from 128 to 255 that follow no charset, the same at every build."""
    stream = b"".join(hashlib.sha256(f"{seed} {n}".encode()).digest() for n in range(NOISE_BYTES // 32))
    return bytes(byte | 0x80 for byte in stream)
