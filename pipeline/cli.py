"""The command line: `seodang VERB CONFIG [STEP…]`.

Human text goes to stderr, data to stdout (`--json`). Exit codes: 0 done, 1 a defect of ours (with traceback), 2 a
mistake in what was given, 130 interrupted. The verbs are in `pipeline.verbs`; what they do is in `pipeline.commands`,
imported when a verb runs, so that `--help` stays quick.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType

import typer

from pipeline.verbs import data, mixes, models, training

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # a disk that is full, or cannot be written: no defect of ours
INTERRUPTED = 130  # exit code of a process ended by Ctrl-C: 128 + SIGINT

app = typer.Typer(
    name="seodang",
    help="From raw web pages to a long-context Mixture-of-Experts model, on one curriculum file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verbs in (data, mixes, training):
    app.add_typer(verbs.app)
app.add_typer(models.classifier, name="classifier")
app.add_typer(models.tokenizer, name="tokenizer")


def main() -> None:
    """Entry point: turns errors into exit codes."""
    from pipeline.core.errors import UserError

    # Waiting threads of torch's and numba's pools sleep instead of spinning: beside other work a spinning pool is
    # several times slower, alone it gains nothing here. Must be set before either library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, _interrupted)
    try:
        app()
    except UserError as error:
        print(f"error: {error.render()}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(
            f"error: {place}{error.strerror}\nhint: make room or mend the disk, then run the same command again: "
            "it goes on where it stopped",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("interrupted: run the same command again to go on where it stopped", file=sys.stderr)
        raise


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End on Ctrl-C as an exit: the command library would turn a KeyboardInterrupt into its own message."""
    del number, frame
    raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    main()
