"""Synthetic reasoning: problems with worked solutions from parametric families, each one verified before it is kept.

Contract: sample `index` is a pure function of (config, index): family, language, level and numbers come from a seed
derived of the set's seed and the index. Shard k holds the samples [k * size, (k + 1) * size). A sample is kept when an
independent solver gets the same answer and every equation its text states is exactly right; otherwise it is dropped
with the reason `reasoning.CHECK` (no wrong one has been; the check is there to stay so). A problem that stands earlier
in the same shard is dropped as `reasoning.duplicate`. Cost: 0.1-0.4 milliseconds a sample
on one core, verification included; long-input problems in proportion to their length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from pipeline.core.verify.math import Verdict, verify_solution
from pipeline.core.verify.oracles import ORACLES
from synth.config import ProblemsConfig, ReasoningConfig
from synth.families import FAMILIES
from synth.families.base import Family, Size, Worked, phrases
from synth.language import facts
from synth.output import Facts, ShardWriter, merged_facts
from synth.selection import shards_of

DIGITS = re.compile(r"\d+")
LICENSE = "Apache-2.0"  # our own text


@dataclass(frozen=True)
class Sample:
    """One problem with its solution, before judgement."""

    family: Family
    language: str
    level: int
    parameters: Mapping[str, Any]
    worked: Worked

    @property
    def text(self) -> str:
        return self.worked.text(phrases(self.language, self.family.name).answer_label)


def make_sample(config: ProblemsConfig, index: int) -> Sample:
    """Sample number `index` of the set."""
    dice = Random(derive_seed("reasoning", config.seed, index))
    family = FAMILIES[config.families[dice.randrange(len(config.families))]]
    language = config.languages[dice.randrange(len(config.languages))]
    level = _level(dice, config)
    tokens = dice.randint(config.minimum_tokens, config.maximum_tokens)
    size = Size(int(tokens * facts(language).characters_per_token))
    parameters = family.draw(dice, level, size)
    return Sample(family, language, level, parameters, family.work(parameters, phrases(language, family.name)))


def _level(dice: Random, config: ProblemsConfig) -> int:
    if not config.level_weights:
        return dice.randint(config.minimum_level, config.maximum_level)
    place = dice.randrange(sum(config.level_weights))
    for level, weight in enumerate(config.level_weights, start=config.minimum_level):
        if place < weight:
            return level
        place -= weight
    raise AssertionError("the place is below the sum of the weights")


def verify(family: str, language: str, parameters: Mapping[str, Any], text: str, equations: int) -> Verdict:
    """Judge a sample from its text and the problem's numbers alone."""
    say = phrases(language, family)
    if family == "signposts":
        path = _followed(text, int(parameters["hops"]))
        if isinstance(path, Verdict):
            return path
        parameters = {**parameters, "path": path}
    verdict = verify_solution(text, say.answer_label, ORACLES[family](parameters), equations)
    if verdict.right and family == "ledger":
        return _evidence(text, say.things("names")[int(parameters["who"])], parameters["amounts"])
    return verdict


def _evidence(text: str, who: str, amounts: Sequence[int]) -> Verdict:
    """The person's lines in the book are exactly the entries that count, in order, each with its amount."""
    lines = text.split("\n\n", 1)[0].split("\n")[1:]
    own = [line for line in lines if who in line]
    if len(own) != len(amounts):
        return Verdict(False, "evidence", f"{len(own)} lines name {who}, {len(amounts)} count")
    for line, amount in zip(own, amounts, strict=True):
        if str(amount) not in "".join(c if c.isdigit() else " " for c in line).split():
            return Verdict(False, "evidence", f"{amount} is not in `{line}`")
    return Verdict(True)


def _followed(text: str, hops: int) -> list[int] | Verdict:
    """The rooms one passes, read off the signs in the text; the worked steps must say the same."""
    problem, steps, _ = text.split("\n\n")
    question, *lines = problem.split("\n")
    signs = [list(map(int, DIGITS.findall(line))) for line in lines]
    following = {sign[0]: sign[1] for sign in signs if len(sign) == 2}
    if len(following) != len(lines):
        return Verdict(False, "evidence", f"{len(lines)} signs, {len(following)} rooms")
    path = [next(number for number in map(int, DIGITS.findall(question)) if number in following)]
    for _ in range(hops):
        path.append(following[path[-1]])
    told = [list(map(int, DIGITS.findall(line))) for line in steps.split("\n")]
    expected = [[number, *pair] for number, pair in enumerate(pairwise(path), start=1)]
    return path if told == expected else Verdict(False, "wrong_step", f"the signs say {path}")


class ReasoningWork:
    """The work of a `synth.SET` step of kind `reasoning`."""

    def shard_count(self, task: StepTask) -> int:
        config: ReasoningConfig = task.config
        return shards_of(config.documents, config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        config: ReasoningConfig = task.config
        writer = ShardWriter(task, shard)
        first = shard * config.documents_per_shard
        seen: set[str] = set()
        for index in range(first, min(first + config.documents_per_shard, config.documents)):
            _write(writer, make_sample(config, index), index, seen)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        return merged_facts(results)


def _write(writer: ShardWriter, sample: Sample, index: int, seen: set[str]) -> None:
    text = sample.text
    bytes_in = len(text.encode("utf-8"))
    verdict = verify(sample.family.name, sample.language, sample.parameters, text, sample.worked.equations)
    if verdict.right and sample.worked.problem in seen:
        verdict = Verdict(False, "duplicate", "the same problem stands earlier in the shard")
    seen.add(sample.worked.problem)
    if not verdict.right:
        reason = f"reasoning.{verdict.reason}"
        writer.drop(str(index), reason, verdict.detail, text, bytes_in=bytes_in, lang=sample.language)
        return
    writer.keep(
        str(index),
        text,
        bytes_in=bytes_in,
        extra={
            "family": sample.family.name,
            "level": sample.level,
            "parameters": sample.parameters,
            "answer": sample.worked.answer,
            "equations": sample.worked.equations,
        },
        lang=sample.language,
        domain=sample.family.domain,
        license=LICENSE,
        maker=sample.family.maker,
    )


WORK = ReasoningWork()
