"""The files of a source: which they are, what they hold, and which parts of them share an output shard.

Large files are cut: a part is a byte range, and a record belongs to the part that its first byte (of a line, a row
group, an archive member, a frame) lies in. Files whose records cannot be found from the middle stay whole.
Contract: every answer is a pure function of the files' relative names, sizes and contents; where they lie is execution.
A file's name is its path below the fixed part of the glob that found it, so that ids stay when a corpus moves. Content
hashes are cached by (path, size, modification time) in a JSON file when one is given.
"""

from __future__ import annotations

import glob
import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import xxhash

from pipeline.core.errors import InputError
from pipeline.core.files import hash_file, open_raw, read_json, write_json
from pipeline.core.fingerprint import fingerprint
from stages.config import PYTHON_STDLIB, Kind, ReadConfig
from stages.line_ranges import can_be_cut as lines_can_be_cut

CACHE = "content-hashes.json"
SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", ".git"})
TOPICS = "pydoc_data/topics.py"  # the language reference as text, one English document a topic
_MAGIC = "*?["
_STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")  # of fsspec's file systems


@dataclass(frozen=True)
class SourceFile:
    """One input file: its name within the source (identity), where it lies (execution) and its size in bytes."""

    name: str
    url: str
    size_bytes: int


@dataclass(frozen=True)
class Part:
    """The bytes [start, end) of a file; `end` is None for the last part, which ends with the file."""

    file: SourceFile
    start: int = 0
    end: int | None = None


def expand_paths(read: ReadConfig, base: Path, *, where: str = "") -> tuple[SourceFile, ...]:
    """The files that `read.paths` match, sorted by name.

    Args:
        read: The source's read options.
        base: Folder that relative patterns start from.
        where: Place in the configuration, for the message.

    Raises:
        InputError: A pattern matches nothing, or two files have the same name within the source.
    """
    if read.kind == PYTHON_STDLIB:
        found = _stdlib_files(read)
    elif not read.paths:
        raise InputError("the source has no `paths`", where=where, fix="name files or globs under `read: paths:`")
    else:
        found = [file for pattern in read.paths for file in _matches(pattern, base, read, where)]
    named = {file.name: file for file in found}
    if len(named) < len({file.url for file in found}):
        raise InputError(
            "two files of the source have the same name below their globs",
            where=where,
            fix="use one glob that starts at their common folder",
        )
    files = [named[name] for name in sorted(named)]
    return tuple(_limited(files, read))


def step_paths(files: Sequence[SourceFile]) -> dict[str, tuple[str, ...]]:
    """The files as `paths` of a step's task: parallel roles `source`, `source_names` and `source_bytes`."""
    return {
        "source": tuple(file.url for file in files),
        "source_names": tuple(file.name for file in files),
        "source_bytes": tuple(str(file.size_bytes) for file in files),
    }


def files_of(paths: Mapping[str, tuple[str, ...]]) -> tuple[SourceFile, ...]:
    """The inverse of `step_paths`."""
    rows = zip(paths["source_names"], paths["source"], paths["source_bytes"], strict=True)
    return tuple(SourceFile(name, url, int(size)) for name, url, size in rows)


def source_content(files: Sequence[SourceFile], cache_folder: Path | None = None) -> str:
    """Fingerprint of the sorted (relative name, size, content hash); hashes are cached below `cache_folder`."""
    cache_path = cache_folder / CACHE if cache_folder is not None else None
    cache: dict[str, str] = read_json(cache_path) if cache_path is not None and cache_path.is_file() else {}
    rows, added = [], False
    for file in sorted(files, key=lambda one: one.name):
        key = _cache_key(file)
        found = cache.get(key) if key is not None else None
        if found is None:
            found = _hash(file.url)
            if key is not None:
                cache[key] = found
                added = True
        rows.append([file.name, file.size_bytes, found])
    if added and cache_path is not None:
        write_json(cache_path, cache)
    return fingerprint("source", rows)


def file_content(paths: Sequence[str]) -> str:
    """Fingerprint of files that a block reads (models, lists): names without folders, and content hashes."""
    return fingerprint("files", [[PurePosixPath(path).name, _hash(path)] for path in sorted(paths)])


def whole_files(files: Sequence[SourceFile]) -> list[Part]:
    """Each file as one part."""
    return [Part(file) for file in files]


def shard_parts(files: Sequence[SourceFile], kind: Kind, shard_bytes: int) -> list[tuple[Part, ...]]:
    """Neighbouring files, by name, grouped up to `shard_bytes`; a larger one is cut into parts of a shard each."""
    groups: list[list[Part]] = []
    filled = 0
    for file in sorted(files, key=lambda one: one.name):
        for part in _parts(file, kind, shard_bytes):
            if not groups or filled + file.size_bytes > shard_bytes:
                groups.append([])
                filled = 0
            groups[-1].append(part)
            filled += file.size_bytes
    return [tuple(group) for group in groups]


def _parts(file: SourceFile, kind: Kind, shard_bytes: int) -> list[Part]:
    if file.size_bytes <= shard_bytes or not _can_be_cut(file.name, kind):
        return [Part(file)]
    starts = range(0, file.size_bytes, shard_bytes)
    return [Part(file, start, stop) for start, stop in zip(starts, [*starts[1:], None], strict=True)]


def _can_be_cut(name: str, kind: Kind) -> bool:
    """Row groups, lines that are not in one gzip or bzip2 stream, and compressed archive members can be found."""
    if kind == "jsonl":
        return lines_can_be_cut(name)
    return kind == "parquet" or (kind == "warc" and name.endswith((".gz", ".zst")))


def _matches(pattern: str, base: Path, read: ReadConfig, where: str) -> list[SourceFile]:
    if "://" in pattern:
        found = _remote(pattern, where)
    else:
        root, names = _local(pattern, base)
        found = [SourceFile(name, str(root / name), (root / name).stat().st_size) for name in names]
    if read.kind == "source-tree":
        found = [file for file in found if file.name.endswith(read.endings) and not _skipped(file.name)]
    if not found:
        kinds = f" ending in {', '.join(read.endings)}" if read.kind == "source-tree" else ""
        raise InputError(
            f"no file{kinds} matches `{pattern}`",
            where=where or f"looked below {base}",
            fix="check the path; relative ones start at the folder you run from",
        )
    return found


def _local(pattern: str, base: Path) -> tuple[Path, list[str]]:
    """(fixed folder, sorted relative names). A folder alone means every file below it."""
    path = base / pattern
    if path.is_dir():
        return path, sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    parts = Path(pattern).parts
    fixed = 0
    while fixed < len(parts) - 1 and not any(char in parts[fixed] for char in _MAGIC):
        fixed += 1
    root = base.joinpath(*parts[:fixed])
    names = glob.glob(os.path.join(*parts[fixed:]), root_dir=root, recursive=True)
    return root, sorted(Path(name).as_posix() for name in names if (root / name).is_file())


def _remote(pattern: str, where: str) -> list[SourceFile]:
    """The files that an fsspec URL matches. Raises `InputError` when its file system cannot be reached or used."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(pattern)
        known = any(char in path for char in _MAGIC)
        found = sorted(system.glob(path) if known else [path] if system.exists(path) else [])
        files = [(name, system.size(name)) for name in found if system.isfile(name)]
    except (ImportError, ValueError) as error:  # no such protocol, or one whose package is not installed
        raise InputError(
            f"`{pattern}` cannot be read: {error}", where=where, fix="install the package that fsspec names"
        ) from None
    except OSError as error:
        raise InputError(f"`{pattern}` cannot be reached: {error}", where=where, fix="check the address") from None
    magic = min((path.index(char) for char in _MAGIC if char in path), default=len(path))
    root = path[: path.rfind("/", 0, magic) + 1]
    for name, size in files:
        if size is None:
            message = f"`{system.unstrip_protocol(name)}` does not say how long it is"
            raise InputError(message, where=where, fix="download it, or serve it with a Content-Length")
    return [SourceFile(name.removeprefix(root), system.unstrip_protocol(name), int(size)) for name, size in files]


def _stdlib_files(read: ReadConfig) -> list[SourceFile]:
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("config-"))
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith((".py", ".txt", ".rst")) and path.is_file():
                found.append(SourceFile(path.relative_to(root).as_posix(), str(path), path.stat().st_size))
    if not found:
        raise InputError("this interpreter has no readable library files", where=str(root), fix="use another source")
    return found


def _limited(files: list[SourceFile], read: ReadConfig) -> list[SourceFile]:
    """A fixed sample of whole files: running text of the library first, then by hash of the name."""
    if read.maximum_bytes is None:
        return files
    left = read.maximum_bytes
    taken = []
    for file in sorted(files, key=lambda one: (not _is_prose(one.name), xxhash.xxh3_64_intdigest(one.name.encode()))):
        if file.size_bytes <= left:
            taken.append(file)
            left -= file.size_bytes
    if not taken:
        smallest = min(file.size_bytes for file in files)
        raise InputError(
            f"no file fits into `maximum_bytes: {read.maximum_bytes}`", fix=f"the smallest has {smallest} bytes"
        )
    return sorted(taken, key=lambda one: one.name)


def _is_prose(name: str) -> bool:
    return name == TOPICS or name.endswith((".txt", ".rst"))


def _skipped(name: str) -> bool:
    return any(part in SKIPPED_FOLDERS for part in PurePosixPath(name).parts[:-1])


def _cache_key(file: SourceFile) -> str | None:
    """What a file's content hash is remembered by; None where nothing tells whether the file has changed."""
    if "://" not in file.url:
        found = os.stat(file.url)
        # A copy may keep the time of its original; when this file was last changed it cannot.
        return f"{file.url}\x1f{file.size_bytes}\x1f{found.st_mtime_ns}\x1f{found.st_ctime_ns}"
    import fsspec

    system, path = fsspec.core.url_to_fs(file.url)
    info = system.info(path)
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name)), None)
    return None if stamp is None else f"{file.url}\x1f{file.size_bytes}\x1f{stamp}"


def _hash(url: str) -> str:
    if "://" not in url:
        return hash_file(Path(url))
    digest = xxhash.xxh3_128()
    with open_raw(url) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
