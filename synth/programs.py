"""Programming problems from parametric families: statement, reasoning, reference program, and tests it must pass.

Contract: problem `index` is a pure function of (config, index). Each family has a reference solution that is quick, a
brute force that is plainly right, and a generator of inputs: small ones for both, large ones for the reference alone
under a time limit. Both are programs in text form and run in the sandbox only (`pipeline/core/verify/sandbox.py`), a
batch of problems a start; a problem is kept when the two agree on every small input and the reference is done with the
large ones in time (`programming.disagrees`, `programming.too_slow`, `programming.failed`). Cost: about 35 ms a problem,
most of it the large inputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from pipeline.core.verify.sandbox import Limits, run_program
from synth.config import ProgrammingConfig
from synth.families.programs import PROGRAMS, Program, filled
from synth.language import read_package_yaml
from synth.output import Facts, ShardWriter, merged_facts
from synth.selection import shards_of

BATCH = 100  # problems a start of the sandbox
SECONDS_A_PROBLEM = 2.0
LICENSE = "Apache-2.0"  # our own text
# Runs in the sandbox: reads the batch as JSON, judges each problem by itself, prints one verdict a line.
JUDGE = """
import json, sys, time

def load(source, name):
    space = {}
    exec(compile(source, name, "exec"), space)
    return space["solve"]

for line in sys.stdin:
    problem = json.loads(line)
    verdict, detail = "", ""
    try:
        quick, plain = load(problem["reference"], "reference"), load(problem["brute_force"], "brute_force")
        for given in problem["small"]:
            one, two = quick(*json.loads(json.dumps(given))), plain(*json.loads(json.dumps(given)))
            if one != two:
                verdict, detail = "disagrees", f"{given}: {one} and {two}"
                break
        started = time.process_time()
        for given in problem["large"]:
            quick(*given)
        took = time.process_time() - started
        if not verdict and took > problem["seconds"]:
            verdict, detail = "too_slow", f"{took:.2f} s"
        shown = [quick(*json.loads(json.dumps(given))) for given in problem["shown"]]
    except BaseException as error:
        verdict, detail, shown = "failed", f"{type(error).__name__}: {error}"[:300], []
    print(json.dumps([verdict, detail, shown]), flush=True)
"""


@dataclass(frozen=True)
class Problem:
    """One problem, before judgement."""

    program: Program
    language: str
    level: int
    parameters: dict[str, Any]
    seed: int

    @property
    def reference(self) -> str:
        return filled(self.program.reference, self.parameters)

    @property
    def brute_force(self) -> str:
        return filled(self.program.brute_force, self.parameters)

    def inputs(self) -> dict[str, list[list[Any]]]:
        """Inputs for the tests: shown in the statement, small, large."""
        dice = Random(self.seed)
        sizes = {"shown": (2, 6), "small": (30, 9), "large": (2, 20_000)}
        return {
            name: [self.program.draw(dice, size, self.parameters) for _ in range(count)]
            for name, (count, size) in sizes.items()
        }


def make_problem(config: ProgrammingConfig, index: int) -> Problem:
    """Problem number `index` of the set."""
    seed = derive_seed("programming", config.seed, index)
    dice = Random(seed)
    program = PROGRAMS[config.families[dice.randrange(len(config.families))]]
    language = config.languages[dice.randrange(len(config.languages))]
    level = dice.randint(config.minimum_level, config.maximum_level)
    return Problem(program, language, level, program.parameters(dice, level), seed)


@dataclass(frozen=True)
class Judged:
    """What the sandbox found."""

    reason: str  # empty: right
    detail: str
    shown: Sequence[Any]  # answers to the inputs of the statement


def judge(problems: Sequence[Problem]) -> list[Judged]:
    """Run the tests of a batch in one sandbox; a batch that breaks it is judged problem by problem."""
    lines = "\n".join(
        json.dumps(
            {
                "reference": one.reference,
                "brute_force": one.brute_force,
                "seconds": SECONDS_A_PROBLEM,
                **one.inputs(),
            }
        )
        for one in problems
    )
    seconds = 5 + SECONDS_A_PROBLEM * len(problems)
    ran = run_program(JUDGE, lines, Limits(seconds=seconds, memory_mib=1024))
    verdicts = [Judged(*json.loads(line)) for line in ran.output.splitlines()]
    if len(verdicts) == len(problems):
        return verdicts
    if len(problems) == 1:
        return [Judged("failed", f"{ran.ending}: {ran.errors[-200:]}", ())]
    return [found for one in problems for found in judge([one])]


def statement(problem: Problem, shown: Sequence[Any]) -> str:
    """The whole sample: task, examples, reasoning, program."""
    words = read_package_yaml("templates", "programs.yaml")[problem.language]
    own = words[problem.program.name]
    inputs = problem.inputs()["shown"]
    examples = "\n".join(
        words["example"].format(given=", ".join(map(json.dumps, given)), result=json.dumps(result))
        for given, result in zip(inputs, shown, strict=True)
    )
    task = filled(own["task"], problem.parameters)
    idea = filled(own["idea"], problem.parameters)
    return f"{task}\n\n{examples}\n\n{idea}\n\n```python\n{problem.reference}\n```"


class ProgrammingWork:
    """The work of a `synth.SET` step of kind `programming`."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(task.config.documents, task.config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` where there is no sandbox."""
        config: ProgrammingConfig = task.config
        writer = ShardWriter(task, shard)
        first = shard * config.documents_per_shard
        last = min(first + config.documents_per_shard, config.documents)
        seen: set[str] = set()
        for start in range(first, last, BATCH):
            problems = [make_problem(config, index) for index in range(start, min(start + BATCH, last))]
            for index, (problem, found) in enumerate(zip(problems, judge(problems), strict=True), start):
                _write(writer, problem, found, index, seen)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        return merged_facts(results)


def _write(writer: ShardWriter, problem: Problem, found: Judged, index: int, seen: set[str]) -> None:
    text = problem.reference if found.reason else statement(problem, found.shown)
    bytes_in = len(text.encode("utf-8"))
    reason, detail = found.reason, found.detail
    if not reason and text in seen:
        reason, detail = "duplicate", "the same problem stands earlier in the shard"
    seen.add(text)
    if reason:
        writer.drop(str(index), f"programming.{reason}", detail, text, bytes_in=bytes_in, lang=problem.language)
        return
    program = problem.program
    writer.keep(
        str(index),
        text,
        bytes_in=bytes_in,
        extra={
            "family": program.name,
            "level": problem.level,
            "parameters": problem.parameters,
            "brute_force": problem.brute_force,
        },
        lang=problem.language,
        domain="code",
        license=LICENSE,
        maker=f"seodang.programming.{program.name}@{program.version}",
    )


WORK = ProgrammingWork()
