"""A sandbox for Python programs that we did not write: no network, nothing to write but an empty folder, hard limits.

Contract: `run_program` gives what a program printed, or why it ended. It runs in namespaces of its own as nobody:
through bubblewrap where there is one, else through `unshare` and `setpriv` (root only); where neither works it raises
`UserError` and runs nothing. Limits of memory, CPU time, file size and processes are set before the program starts;
the whole process tree ends with the time. Without bubblewrap a program can read what every user of the machine may
read. Cost: 20-90 ms a start, so tests go in as one batch. Source of the options: bubblewrap's and util-linux's manuals.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pipeline.core.errors import UserError

NOBODY = 65534
MIB = 1 << 20
Ending = Literal["ok", "error", "timeout", "memory", "output"]


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float = 10.0  # of the clock; CPU time is limited to the next whole second
    memory_mib: int = 512
    output_mib: int = 16  # of what it prints
    processes: int = 16


@dataclass(frozen=True)
class Ran:
    """How a program ended and what it printed."""

    ending: Ending
    output: str
    errors: str


def run_program(source: str, given: str = "", limits: Limits | None = None) -> Ran:
    """Run Python source with `given` as its standard input. Raises `UserError` where there is no sandbox."""
    limits = limits or Limits()
    command = sandbox_command()
    with tempfile.TemporaryDirectory(prefix="seodang-") as folder:
        place = Path(folder)
        place.chmod(0o711)
        program, answer, trouble = place / "program.py", place / "output", place / "errors"
        program.write_text(source, encoding="utf-8")
        program.chmod(0o644)
        work = place / "work"
        work.mkdir()
        work.chmod(0o777)
        with answer.open("wb") as output, trouble.open("wb") as errors:
            process = subprocess.Popen(
                [part.format(program=program, work=work) for part in command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0"},
                cwd=work,
                start_new_session=True,
                preexec_fn=lambda: _limit(limits),
            )
            timed_out = _wait(process, given, limits.seconds)
        printed = answer.read_text(encoding="utf-8", errors="replace")
        said = trouble.read_text(encoding="utf-8", errors="replace")
    return Ran(_ending(process.returncode, said, timed_out, len(printed), limits), printed, said)


def _wait(process: subprocess.Popen[bytes], given: str, seconds: float) -> bool:
    """Whether the time ran out; the whole tree is ended then."""
    try:
        process.communicate(given.encode("utf-8"), timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _ending(status: int, errors: str, timed_out: bool, printed: int, limits: Limits) -> Ending:
    if timed_out or status in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        return "timeout"
    if status in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ) or printed >= limits.output_mib * MIB:
        return "output"
    if status == 0:
        return "ok"
    return "memory" if "MemoryError" in errors else "error"


def _limit(limits: Limits) -> None:
    """Set in the child before anything of the sandbox runs; inherited by all of it."""
    cpu_seconds = int(limits.seconds) + 1
    for kind, amount in (
        (resource.RLIMIT_AS, limits.memory_mib * MIB),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.output_mib * MIB),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, limits.processes),  # counts once the user is nobody: root has no such limit
    ):
        resource.setrlimit(kind, (amount, amount))


@cache
def sandbox_command() -> tuple[str, ...]:
    """The command with `{program}` and `{work}` to be filled. Raises `UserError` where there is no sandbox."""
    python = _interpreter()
    for command in (_bubblewrap(python), _namespaces(python)):
        if command and _works(command):
            return command
    raise UserError(
        "no sandbox for programs on this machine",
        where="programming sets",
        fix="install bubblewrap (apt install bubblewrap), or run as root where unshare and setpriv work",
    )


def _interpreter() -> str:
    """A Python that nobody may run: this one, unless it lies in somebody's home."""
    own = Path(sys.executable).resolve()
    readable = all(parent.stat().st_mode & 0o005 == 0o005 for parent in own.parents)
    return str(own) if readable else shutil.which("python3", path="/usr/bin:/usr/local/bin") or ""


def _as_nobody() -> list[str]:
    if os.geteuid() != 0:
        return []
    user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    return ["setpriv", *user, "--no-new-privs", "--inh-caps=-all"]


def _bubblewrap(python: str) -> tuple[str, ...]:
    if not (python and shutil.which("bwrap")):
        return ()
    system = [part for name in ("lib", "lib64", "bin") for part in ("--symlink", f"usr/{name}", f"/{name}")]
    prefix = str(Path(python).parent.parent)
    own = [] if prefix == "/usr" else ["--ro-bind", prefix, prefix]
    shut = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"]
    places = ["--ro-bind", "/usr", "/usr", *system, *own, "--proc", "/proc", "--dev", "/dev"]
    files = ["--ro-bind", "{program}", "/program.py", "--tmpfs", "/work", "--chdir", "/work"]
    user = ["--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL"]
    return (*_as_nobody(), "bwrap", *shut, *places, *files, *user, python, "-I", "/program.py")


def _namespaces(python: str) -> tuple[str, ...]:
    needed = ("unshare", "setpriv")
    if os.geteuid() != 0 or not python or not all(map(shutil.which, needed)):
        return ()
    shut = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    return (*shut, "--", *_as_nobody(), "--bounding-set=-all", python, "-I", "{program}")


def _works(command: tuple[str, ...]) -> bool:
    """Whether the sandbox starts, and whether it is one: no network and no right to write."""
    probe = (
        "import os, socket\n"
        "try:\n    socket.create_connection(('127.0.0.1', 9), 1)\nexcept OSError as error:\n    print(error.errno)\n"
        "print(os.getuid(), os.access('/etc', os.W_OK))"
    )
    with tempfile.TemporaryDirectory(prefix="seodang-") as folder:
        place = Path(folder)
        place.chmod(0o711)
        program = place / "program.py"
        program.write_text(probe, encoding="utf-8")
        program.chmod(0o644)
        filled = [part.format(program=program, work=folder) for part in command]
        done = subprocess.run(filled, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode == 0 and done.stdout.split()[1:] == [str(NOBODY), "False"]
