"""About 1 GB of text in six languages out of Debian packages: documentation as it lies in them, and gettext catalogues.

The packages are downloaded with apt-get and unpacked, not installed, below `SEODANG_TEXTS` (default: a folder in the
system's temporary one). Documentation keeps its markup (HTML, Mallard, manual pages, reStructuredText). A catalogue is
one document, a message a line; English is what the catalogues translate. Contract: `texts` gives NFC text in UTF-8, in
the order of the files' names, one file in memory at a time. The packages hold none of the documents that
`benchmarks.bpe_corpus` holds out.
"""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.tokenizer import nfc

# Documentation in one language each.
PACKAGES = {
    "de": ("libreoffice-help-de", "manpages-de", "gimp-help-de"),
    "en": ("libreoffice-help-en-us", "gimp-help-en", "rust-doc", "python3.11-doc", "linux-doc-6.1"),
    "es": ("libreoffice-help-es", "manpages-es", "gimp-help-es"),
    "ja": ("libreoffice-help-ja", "manpages-ja", "gimp-help-ja"),
    "ko": ("libreoffice-help-ko", "gimp-help-ko"),
    "vi": ("libreoffice-help-vi", "manpages-vi"),
}
# Catalogues and handbooks of all languages.
SHARED = (
    "apt", "audacity-data", "bash", "calligra-data", "coreutils", "digikam-data", "dpkg", "evolution-common",
    "freeciv-data", "gettext", "gimp-data", "git", "gnome-user-docs", "gnucash-common", "inkscape", "iso-codes",
    "kdenlive-data", "kio", "krita-l10n", "libc-l10n", "libglib2.0-data", "libgtk-3-common", "libgtk-4-common",
    "libkf5i18n-data", "libreoffice-l10n-de", "libreoffice-l10n-es", "libreoffice-l10n-ja", "libreoffice-l10n-ko",
    "libreoffice-l10n-vi", "nautilus-data", "plasma-workspace-data", "vlc-l10n", "wesnoth-1.16-data",
)  # fmt: skip
ALL = "all"
ENDINGS = {".html", ".xhtml", ".rst", ".txt", ".md", ".tree", ".xhp", ".py", ".page"}
CATALOGUES, HANDBOOKS = "LC_MESSAGES", "help"  # the folders around a language's name: ko/LC_MESSAGES, help/ko
SOURCE = "C"  # the language that handbooks are translated from: English
MAGIC = 0x950412DE  # of a little-endian catalogue; GNU gettext manual, "The Format of GNU MO Files"


def text_folder() -> Path:
    """Where packages are unpacked."""
    return Path(os.environ.get("SEODANG_TEXTS", Path(tempfile.gettempdir()) / "seodang-debian-texts"))


def fetched(folder: Path) -> Path:
    """The packages' files below `folder`/LANGUAGE/PACKAGE, downloaded where they are not there."""
    for language, packages in {**PACKAGES, ALL: SHARED}.items():
        for package in packages:
            place = folder / language / package
            if place.is_dir():
                continue
            with tempfile.TemporaryDirectory() as download:
                subprocess.run(["apt-get", "download", package], cwd=download, check=True, stdout=subprocess.DEVNULL)
                (archive,) = Path(download).glob("*.deb")
                unpacked = Path(download) / "unpacked"
                subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(unpacked, place, symlinks=True)
    return folder


def texts(folder: Path, language: str) -> Iterator[bytes]:
    """All texts of a language."""
    yield from _documentation(sorted((folder / language).rglob("*")))
    shared = sorted((folder / ALL).rglob("*"))
    yield from _documentation([path for path in shared if _handbook_language(path) == language])
    for path, source in _catalogues(shared, language):
        number = 0 if source else 1
        try:
            messages = [pair[number] for pair in messages_of(path.read_bytes())]
            yield nfc("\n".join(message for message in messages if message)).encode()
        except UnicodeDecodeError:
            continue  # old encodings


def messages_of(data: bytes) -> Iterator[tuple[str, str]]:
    """(source, translation) of each message of a binary catalogue; a plural's forms stand a line each."""
    magic, _, count, sources, translations = struct.unpack_from("<5I", data)
    assert magic == MAGIC, "not a little-endian catalogue"
    for number in range(count):
        pair: list[str] = []
        for table in (sources, translations):
            length, start = struct.unpack_from("<2I", data, table + 8 * number)
            pair.append(data[start : start + length].decode("utf-8").replace("\0", "\n"))
        if pair[0]:  # the first is about the catalogue itself
            yield pair[0].rpartition("\x04")[2], pair[1]


def _handbook_language(path: Path) -> str:
    places = [place for place, part in enumerate(path.parts[:-1]) if part == HANDBOOKS]
    if not places or path.suffix not in ENDINGS:
        return ""
    name = path.parts[places[0] + 1]
    return "en" if name == SOURCE else name


def _catalogues(paths: list[Path], language: str) -> Iterator[tuple[Path, bool]]:
    """(catalogue, whether its sources are wanted): of English, one catalogue of each name."""
    seen: set[str] = set()
    for path in paths:
        if path.suffix != ".mo" or path.parent.name != CATALOGUES or path.is_symlink():
            continue
        of = path.parent.parent.name
        if language == "en" and of in PACKAGES and path.name not in seen:
            seen.add(path.name)
            yield path, True
        elif of == language:
            yield path, False


def _documentation(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        if not path.is_file() or path.is_symlink():
            continue
        compressed = path.suffix == ".gz"
        ending = path.with_suffix("").suffix if compressed else path.suffix
        if ending not in ENDINGS and "/man/" not in str(path):
            continue
        data = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
        try:
            yield nfc(data.decode("utf-8")).encode()
        except UnicodeDecodeError:
            continue  # pictures and old encodings
