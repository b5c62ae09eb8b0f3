"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Curriculum = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The curriculum file, for example configs/quickstart.yaml.")
]
Steps = Annotated[
    list[str] | None, typer.Argument(metavar="[STEP]…", help="Step names or patterns such as 'clean.*'; none = all.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value of the file.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]
Executor = Annotated[str, typer.Option("--executor", help="Where data steps run: local, slurm or ray.")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Worker processes at once; 0 = the file's, or one a core.")
]
TrainedPhase = Annotated[
    str, typer.Argument(metavar="[PHASE]", help="The phase whose last checkpoint to use; none = the last.")
]
