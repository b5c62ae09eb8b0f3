"""Tables of a part of the report page, by caption."""

from __future__ import annotations

from html.parser import HTMLParser


class _Tables(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._text: list[str] | None = None
        self._caption = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td", "caption"):
            self._text = []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td", "caption") and self._text is not None:
            written, self._text = "".join(self._text), None
            if tag == "caption":
                self._caption = written
            else:
                self._rows[-1].append(written)
        if tag == "table":
            self.found[self._caption] = self._rows[1:]


def tables_of(html: str) -> dict[str, list[list[str]]]:
    """Caption -> rows of texts, without the heading."""
    return _Tables(html).found
