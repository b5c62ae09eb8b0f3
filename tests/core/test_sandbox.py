"""The sandbox: what honest programs print comes back, what hostile ones try fails, and nothing outlives the call."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.core.verify import sandbox
from pipeline.core.verify.sandbox import Limits, run_program, sandbox_command

pytestmark = pytest.mark.usefixtures("sandboxed")


def test_a_program_reads_and_prints() -> None:
    ran = run_program("print(sum(map(int, input().split())))", "3 4 5\n")
    assert (ran.ending, ran.output, ran.errors) == ("ok", "12\n", "")


def test_an_error_comes_back_with_its_message() -> None:
    ran = run_program("print(1)\nraise ValueError('no')")
    assert (ran.ending, ran.output) == ("error", "1\n")
    assert "ValueError: no" in ran.errors


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("x = bytearray(10**10)", "memory"),
        ("while True: print('a' * 10**6)", "output"),
    ],
)
def test_limits_hold(source: str, ending: str) -> None:
    assert run_program(source, limits=Limits(seconds=1.5, memory_mib=256, output_mib=4)).ending == ending


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
        "open('/etc/seodang-was-here', 'w')",
        "import os; os.setuid(0)",
        "import os; os.kill(1, 9) if os.getppid() > 1 else open('/root/x')",
        "import os; os.listdir('/root')",
        "import os; os.environ['HOME']",
    ],
)
def test_what_it_may_not_do_fails(attempt: str) -> None:
    assert run_program(attempt).ending == "error"


def test_a_fork_bomb_is_stopped_and_leaves_nobody_behind() -> None:
    bomb = "import os, time\nfor _ in range(300):\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)\nprint('all')"
    ran = run_program(bomb, limits=Limits(seconds=5, processes=12))
    assert ran.ending == "error"
    assert "all" not in ran.output
    left = subprocess.run(["ps", "-eo", "uid,args"], capture_output=True, text=True, check=False).stdout
    assert not [line for line in left.splitlines() if line.split()[0] == "65534" and "program.py" in line]


def test_it_refuses_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.shutil, "which", lambda *_, **__: None)
    sandbox_command.cache_clear()
    try:
        with pytest.raises(UserError, match="install bubblewrap"):
            run_program("print(1)")
    finally:
        sandbox_command.cache_clear()


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.tempfile, "tempdir", "/tmp")
    before = set(os.listdir("/tmp"))
    run_program("open('x', 'w').write('y')")
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("seodang-")]
