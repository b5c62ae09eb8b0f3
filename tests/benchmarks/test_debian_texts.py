"""The texts out of Debian packages: catalogues read as gettext reads them, each file under its language, all NFC."""

from __future__ import annotations

import gettext
import gzip
import io
import struct
from pathlib import Path

import pytest

from benchmarks.debian_texts import MAGIC, messages_of, texts

MESSAGES = [
    ("", "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n"),
    ("Menu\x04Open", "열기"),
    ("one file\0many files", "파일 하나\0파일 여럿"),
]


def catalogue(messages: list[tuple[str, str]]) -> bytes:
    """A binary catalogue by the format's description in the gettext manual."""
    count = len(messages)
    header = struct.pack("<7I", MAGIC, 0, count, 28, 28 + 8 * count, 0, 0)
    strings, tables = b"", [b"", b""]
    for side in (0, 1):
        for message in messages:
            data = message[side].encode()
            tables[side] += struct.pack("<2I", len(data), 28 + 16 * count + len(strings))
            strings += data + b"\0"
    return header + tables[0] + tables[1] + strings


def test_messages_are_those_of_gettext() -> None:
    data = catalogue(MESSAGES)
    assert list(messages_of(data)) == [("Open", "열기"), ("one file\nmany files", "파일 하나\n파일 여럿")]
    theirs = gettext.GNUTranslations(io.BytesIO(data))
    assert theirs.pgettext("Menu", "Open") == "열기"
    assert theirs.ngettext("one file", "many files", 2) == "파일 여럿"


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("ko", ["안내", "도움말", "열기\n파일 하나\n파일 여럿"]),
        ("de", ["Auf"]),
        ("en", ["a\u00e9", "manual", "help", "Open"]),  # sources of the first catalogue of each name: the German one
        ("vi", []),
    ],
)
def test_each_file_stands_under_its_language(language: str, expected: list[str], tmp_path: Path) -> None:
    files = {
        "ko/help/usr/share/doc/page.html": "안내".encode(),
        "en/docs/usr/share/doc/page.txt": "ae\u0301".encode(),
        "en/docs/usr/share/man/man1/tool.1.gz": gzip.compress(b"manual"),
        "en/docs/usr/share/doc/picture.png": b"\x89PNG",
        "en/docs/usr/share/doc/old.txt": b"\xe9",
        "all/guide/usr/share/help/ko/guide.page": "도움말".encode(),
        "all/guide/usr/share/help/C/guide.page": b"help",
        "all/tool/usr/share/locale/ko/LC_MESSAGES/tool.mo": catalogue(MESSAGES),
        "all/tool/usr/share/locale/de/LC_MESSAGES/tool.mo": catalogue([("Open", "Auf")]),
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert [text.decode() for text in texts(tmp_path, language)] == expected
