"""Code: the parametric programming problems as instructions to write, mend, complete, follow or test a program.

Contract: every program and every value in a question or answer was run in the sandbox. `write`, `fix` and `complete`
are right when the answer's program agrees with the brute force on small inputs (and the reference with it on large
ones, `synth.programs.judge`); `predict` when running gives the value; `tests` when the right program passes them and
the wrong one shown fails. The thinking of `fix` names a failing input and the wrong line, that of `predict` is the run
itself, line by line. Cost: 40-60 ms a sample, most of it the large inputs. No sandbox: `UserError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pipeline.core.verify.math import Verdict
from synth.families.base import Phrases
from synth.families.programs import PROGRAMS, filled
from synth.instructions.code_sandbox import LONGEST_TRACE, check, probe
from synth.instructions.exercise import Conversation, Draw, Exercise, Unmade, say_in
from synth.language import read_package_yaml
from synth.programs import Problem, judge

TASKS = ("write", "fix", "complete", "predict", "tests")
CODE = re.compile(r"```python\n(.*?)\n```", re.S)
VALUE = re.compile(r"-?\d+")
# One place of a program changed as people get it wrong; the sandbox says whether the result is wrong.
MUTATIONS = (
    ("<=", "<"), (" < ", " <= "), (" > ", " >= "), (" + 1", " + 2"), (" - 1", " - 2"), ("max(", "min("),
    (" = 0", " = 1"), ("+=", "-="), ("[-1]", "[0]"), ("[0]", "[-1]"), (" % ", " // "), ("{0: 1}", "{}"),
    ("pop()", "popleft()"),
)  # fmt: skip
MUTANTS = 8  # tried of each program
SHORT_INPUTS = 6  # among which one with a short run is looked for
TESTS = 4


class Code:
    """The domain's generator and filter."""

    families: Sequence[str] = TASKS

    def make(self, draws: Sequence[Draw]) -> list[Exercise | Unmade]:
        """Raises `UserError` where there is no sandbox."""
        drawn = [_drawn(draw) for draw in draws]
        jobs = [_probe_job(problem, dice) for problem, _, dice in drawn]
        found = probe(jobs)
        judged = judge([problem for problem, _, _ in drawn])
        return [
            Unmade("tests", f"{verdict.reason}: {verdict.detail}", problem.reference)
            if verdict.reason or facts is None
            else _exercise(draw, problem, task, facts, job["mutants"])
            for draw, (problem, task, _), job, facts, verdict in zip(draws, drawn, jobs, found, judged, strict=True)
        ]

    def verify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        jobs = [_check_job(one) for one in conversations]
        found = iter(check([job for job in jobs if not isinstance(job, Verdict)]))
        return [job if isinstance(job, Verdict) else _verdict(next(found)) for job in jobs]


def _verdict(trouble: str) -> Verdict:
    return Verdict(False, "wrong_answer", trouble) if trouble else Verdict(True)


def _drawn(draw: Draw) -> tuple[Problem, str, Random]:
    dice = draw.dice()
    program = dice.choice(tuple(PROGRAMS.values()))
    problem = Problem(program, draw.language, draw.level, program.parameters(dice, draw.level), draw.seed)
    return problem, dice.choice(TASKS), dice


def _probe_job(problem: Problem, dice: Random) -> dict[str, Any]:
    inputs = problem.inputs()
    mutants = _mutants(problem.reference)
    dice.shuffle(mutants)
    short = [problem.program.draw(dice, 4, problem.parameters) for _ in range(SHORT_INPUTS)]
    return {
        "reference": problem.reference,
        "mutants": mutants[:MUTANTS],
        "small": inputs["small"],
        "shown": [*inputs["shown"], *inputs["small"][:TESTS]],
        "short": short,
        "most": LONGEST_TRACE,
    }


def _mutants(source: str) -> list[str]:
    found: list[str] = []
    for old, new in MUTATIONS:
        for match in re.finditer(re.escape(old), source):
            found.append(source[: match.start()] + new + source[match.end() :])
    return found


def _exercise(draw: Draw, problem: Problem, task: str, found: Mapping[str, Any], mutants: Sequence[str]) -> Exercise:
    say = say_in("code", draw.language)
    mutant: list[Any] | None = found["mutant"]
    if (task in ("fix", "tests") and mutant is None) or (task == "predict" and found["trace"] is None):
        task = "write"
    facts: dict[str, Any] = {
        "task": task,
        "program": problem.program.name,
        "parameters": problem.parameters,
        "seed": problem.seed,
    }
    wrong = mutants[int(mutant[0])] if mutant is not None and task in ("fix", "tests") else ""
    make = {"write": _write, "fix": _fix, "complete": _complete, "predict": _predict, "tests": _tests}[task]
    question, steps, answer, more = make(problem, say, found, wrong)
    plain = answer if task in ("predict", "tests") else f"{steps}\n\n{answer}"
    system = say.things("system")[draw.seed % len(say.things("system"))]
    return Exercise(task, question, steps, answer, plain, facts | more, system)


Parts = tuple[str, str, str, dict[str, Any]]  # question, steps, answer, further facts


def _block(source: str) -> str:
    return f"```python\n{source}\n```"


def _words(problem: Problem) -> Mapping[str, Any]:
    return read_package_yaml("templates", "programs.yaml")[problem.language]


def _task_text(problem: Problem) -> str:
    return filled(_words(problem)[problem.program.name]["task"], problem.parameters)


def _idea(problem: Problem) -> str:
    return filled(_words(problem)[problem.program.name]["idea"], problem.parameters)


def _given(given: Sequence[Any]) -> str:
    return ", ".join(map(json.dumps, given))


def _example(problem: Problem, given: Sequence[Any], result: Any) -> str:
    return _words(problem)["example"].format(given=_given(given), result=json.dumps(result))


def _write(problem: Problem, say: Phrases, found: Mapping[str, Any], wrong: str) -> Parts:
    del wrong
    shown = problem.inputs()["shown"]
    examples = [_example(problem, given, value) for given, value in zip(shown, found["values"], strict=False)]
    question = "\n".join([say("write"), "", _task_text(problem), "", *examples])
    return question, _idea(problem), _block(problem.reference), {}


def _fix(problem: Problem, say: Phrases, found: Mapping[str, Any], wrong: str) -> Parts:
    _, given, wanted, got = found["mutant"]
    question = "\n\n".join([say("fix"), _task_text(problem), _block(wrong)])
    bad, good = next(
        (a.strip(), b.strip()) for a, b in zip(wrong.split("\n"), problem.reference.split("\n"), strict=True) if a != b
    )
    steps = "\n".join(
        [say("fails", given=_given(given), got=got, wanted=wanted), say("line", bad=bad, good=good), _idea(problem)]
    )
    return question, steps, _block(problem.reference), {"wrong": wrong, "given": given}


def _complete(problem: Problem, say: Phrases, found: Mapping[str, Any], wrong: str) -> Parts:
    del found, wrong
    rows = problem.reference.split("\n")
    first = next(number for number, row in enumerate(rows) if row.startswith("def solve"))
    kept = rows[: first + 1 + (len(rows) - first - 1) // 2]
    start = "\n".join([*kept, "    ..."])
    question = "\n\n".join([say("complete"), _task_text(problem), _block(start)])
    return question, _idea(problem), _block(problem.reference), {"start": start}


def _predict(problem: Problem, say: Phrases, found: Mapping[str, Any], wrong: str) -> Parts:
    del wrong
    given, lines, result = found["trace"]
    question = "\n\n".join([say("predict", given=_given(given)), _block(problem.reference)])
    steps = "\n".join([say("follow"), *(f"- `{line}`" for line in lines)])
    return question, steps, say("gives", given=_given(given), result=result), {"given": given}


def _tests(problem: Problem, say: Phrases, found: Mapping[str, Any], wrong: str) -> Parts:
    _, given, wanted, got = found["mutant"]
    shown = problem.inputs()["shown"]
    pairs = list(zip([*shown, *problem.inputs()["small"][:TESTS]], found["values"], strict=True))[: TESTS - 1]
    pairs = [*(pair for pair in pairs if pair[0] != given), (given, wanted)]
    question = "\n\n".join([say("tests"), _task_text(problem), _block(wrong)])
    steps = "\n".join(
        [
            *(_example(problem, one, value) for one, value in pairs),
            say("fails", given=_given(given), got=got, wanted=wanted),
        ]
    )
    asserts = "\n".join(f"assert solve({_given(one)}) == {value}" for one, value in pairs)
    return question, steps, _block(asserts), {"wrong": wrong}


def _check_job(one: Conversation) -> Verdict | dict[str, Any]:
    """What the sandbox has to run for a conversation, or what is wrong before."""
    facts = one.facts
    problem = Problem(PROGRAMS[facts["program"]], one.language, 1, dict(facts["parameters"]), facts["seed"])
    stated = [problem.reference] if one.family == "predict" else [_task_text(problem)]
    stated += [facts[name] for name in ("wrong", "start") if name in facts]
    if any(part not in one.question for part in stated):
        return Verdict(False, "question", "the question does not state the problem")
    if one.family == "predict":
        if _given(facts["given"]) not in one.question:
            return Verdict(False, "question", "the question does not name the input")
        numbers = VALUE.findall(one.content.replace(_given(facts["given"]), ""))
        if not numbers:
            return Verdict(False, "no_answer", one.content[:100])
        return {"kind": "value", "source": problem.reference, "given": facts["given"], "value": int(numbers[-1])}
    blocks = CODE.findall(one.content)
    if len(blocks) != 1:
        return Verdict(False, "no_answer", f"{len(blocks)} programs in the answer")
    if one.family == "tests":
        return {"kind": "tests", "source": problem.reference, "mutant": facts["wrong"], "tests": blocks[0]}
    own = one.form == "reasoning" and not one.has_free_steps
    if one.family == "fix" and own and _given(facts["given"]) not in one.reasoning:
        return Verdict(False, "evidence", "the failing input is not named")
    small = problem.inputs()["small"]
    return {"kind": "agree", "source": blocks[0], "brute_force": problem.brute_force, "small": small}


CODE_DOMAIN = Code()
