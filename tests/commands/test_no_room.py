"""A disk that is full is no defect of ours: the place and what to do, exit code 2, and nothing half-written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.core.errors import InputError
from pipeline.core.files import atomic_path, write_text
from pipeline.core.record import read_record


def no_room(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_without_room_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(OSError, match="No space left") as error:
        write_text(tmp_path / "found.json", "{}")
    assert error.value.filename == str(tmp_path / "found.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 2), (errno.EDQUOT, 2), (errno.EROFS, 2), (errno.EIO, 1)])
def test_the_command_line_tells_a_full_disk_from_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    def app() -> None:
        with atomic_path(tmp_path / "found.json"):
            raise OSError(number, "it is so")

    monkeypatch.setattr(cli, "app", app)
    if code == 1:
        with pytest.raises(OSError, match="it is so"):
            cli.main()
        return
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'found.json'}: it is so\nhint: make room")


def test_a_record_that_is_cut_is_told(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"version": 1,')
    with pytest.raises(InputError, match=r"record.json: unreadable record") as error:
        read_record(tmp_path)
    assert str(tmp_path) in error.value.fix


@pytest.mark.parametrize("stored", ["[]", "null", '{"version": 1}', '{"version": 1, "more": 2}'])
def test_json_that_is_no_record_is_told(stored: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(stored)
    with pytest.raises(InputError, match=r"record.json: (no record but|incomplete record)") as error:
        read_record(tmp_path)
    assert str(tmp_path) in error.value.fix
