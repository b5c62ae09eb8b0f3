"""The report page as a browser would take it in."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Tables as lists of rows of texts, figures as data, and everything a browser would load."""

    LOADING = frozenset({"src", "srcset", "data", "poster", "action", "background"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.figures: dict[str, Any] = {}
        self.sections: dict[str, str] = {}
        self.loaded: list[str] = []
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.targets: set[str] = set()
        self._rows: list[list[str]] = []
        self._text: list[str] | None = None
        self._section = ""
        self._script = ""
        self._caption = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        given_attributes = dict(attrs)
        self.loaded += [value or "" for name, value in attrs if name in self.LOADING]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.targets |= {value or "" for name, value in attrs if name == "href"}
        if tag == "link":
            self.loaded.append(given_attributes.get("href") or "")
        if tag == "section":
            self._section = given_attributes["id"] or ""
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td", "caption"):
            self._text = []
        self._script = (given_attributes.get("id") or "js") if tag == "script" else ""
        assert not any(name.startswith("on") for name, _ in attrs), attrs

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td") and self._text is not None:
            self._rows[-1].append("".join(self._text))
        if tag == "caption" and self._text is not None:
            self._caption = "".join(self._text)
        if tag == "table":
            self.tables[self._caption] = self._rows
        if tag == "section":
            self._section = ""
        if tag == "script":
            self._script = ""

    def handle_data(self, data: str) -> None:
        if self._script.startswith("data-"):
            self.figures[self._script.removeprefix("data-")] = json.loads(data)
        elif not self._script:
            if self._text is not None:
                self._text.append(data)
            if self._section:
                self.sections[self._section] = self.sections.get(self._section, "") + data

    def row(self, caption: str, *start: str) -> list[str]:
        """The one row of a table that begins with `start`."""
        found = [row for row in self.tables[caption] if row[: len(start)] == list(start)]
        assert len(found) == 1, (caption, start, self.tables[caption])
        return found[0]
