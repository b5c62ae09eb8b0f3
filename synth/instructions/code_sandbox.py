"""What is done with programs of instruction samples, all of it in the sandbox, many a start.

Contract: `probe` finds for a program a mutant that runs and answers wrongly, what it answers, and how the right one
goes line by line on short inputs; `check` says whether an answer's program, value or tests are right. Each call has a
limit of processor time, which other work on the machine does not use up, so that what is found does not depend on it;
jobs whose batch breaks the sandbox are run again one by one. Cost: 1-5 ms a job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.verify.sandbox import Limits, run_program

SECONDS_A_JOB = 1.0
LONGEST_TRACE = 48  # lines: what fits a thought
# Shared by both scripts: loads a program, runs something within a time, copies arguments.
COMMON = """
import json, signal, sys

class TooLong(BaseException):
    pass

def late(number, frame):
    raise TooLong("no end in time")

signal.signal(signal.SIGPROF, late)

def load(source):
    space = {}
    exec(compile(source, "program", "exec"), space)
    return space

def call(function, given, seconds=0.25):
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return function(*json.loads(json.dumps(given)))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
"""
PROBE = (
    COMMON
    + """
def traced(source, given, most):
    lines, before = [], {}
    def follow(frame, event, _):
        if frame.f_code.co_filename != "program" or frame.f_code.co_name != "solve":
            return None
        now = {name: repr(value) for name, value in frame.f_locals.items()}
        changed = [f"{name} = {text}" for name, text in now.items() if before.get(name) != text]
        if changed and len(lines) <= most:
            lines.append(", ".join(changed))
        before.clear()
        before.update(now)
        return follow
    function = load(source)["solve"]
    sys.settrace(follow)
    try:
        result = call(function, given, 1.0)
    finally:
        sys.settrace(None)
    return lines, result

for line in sys.stdin:
    job = json.loads(line)
    found = {"mutant": None, "trace": None}
    right = load(job["reference"])["solve"]
    for number, source in enumerate(job["mutants"]):
        try:
            wrong = load(source)["solve"]
            for given in job["small"]:
                wanted, got = call(right, given), call(wrong, given)
                if isinstance(got, int) and got != wanted:
                    found["mutant"] = [number, given, wanted, got]
                    break
        except BaseException:
            continue
        if found["mutant"]:
            break
    for given in job["short"]:
        lines, result = traced(job["reference"], given, job["most"])
        if 2 < len(lines) <= job["most"]:
            found["trace"] = [given, lines, result]
            break
    found["values"] = [call(right, given) for given in job["shown"]]
    print(json.dumps(found), flush=True)
"""
)
CHECK = (
    COMMON
    + """
def verdict(job):
    if job["kind"] == "agree":
        one, two = load(job["source"])["solve"], load(job["brute_force"])["solve"]
        for given in job["small"]:
            a, b = call(one, given), call(two, given, 1.0)
            if a != b or type(a) is not type(b):
                return f"{given}: {a}, expected {b}"
    elif job["kind"] == "value":
        value = call(load(job["source"])["solve"], job["given"])
        if value != job["value"]:
            return f"{job['value']}, expected {value}"
    else:
        signal.setitimer(signal.ITIMER_PROF, 1.0)
        exec(job["tests"], load(job["source"]))
        try:
            exec(job["tests"], load(job["mutant"]))
        except AssertionError:
            return ""
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return "the tests do not fail for the wrong program"
    return ""

for line in sys.stdin:
    try:
        found = verdict(json.loads(line))
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps(found), flush=True)
"""
)


def probe(jobs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """For each job `{mutant: [number, given, wanted, got] | None, trace: [given, lines, result] | None, values}`; None
    where the sandbox ended first."""
    return _run(PROBE, jobs)


def check(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with each job, or an empty text."""
    return [found if isinstance(found, str) else "the sandbox ended" for found in _run(CHECK, jobs)]


def _run(script: str, jobs: Sequence[Mapping[str, Any]]) -> list[Any]:
    if not jobs:
        return []
    limits = Limits(seconds=5 + SECONDS_A_JOB * len(jobs), memory_mib=1024)
    ran = run_program(script, "\n".join(map(json.dumps, jobs)), limits)
    lines = ran.output.splitlines()
    if len(lines) == len(jobs):
        return [json.loads(line) for line in lines]
    return [None] if len(jobs) == 1 else [found for job in jobs for found in _run(script, [job])]
