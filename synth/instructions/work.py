"""Instruction data that our own solvers answer: drawn, made, written as messages, verified, kept or dropped.

Contract: sample `index` is a pure function of (config, index): domain, language, level, form and numbers come from a
seed derived of the set's seed and the index. Every sample is judged from its written form (`domains.verdicts`) and
dropped as `instructions.REASON` when it does not pass; a question that stands earlier in its shard is dropped as
`instructions.duplicate`. A row holds the conversation as `messages` and, plainly rendered, as `text`; what its verifier
needs is in `extra`. Cost: by domain, 0.3 ms (mathematics) to 60 ms (code, in the sandbox) a sample on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from pipeline.core.verify.math import Verdict
from synth.instructions.config import ExerciseConfig, Form, FormShares, InstructionsConfig
from synth.instructions.domains import exercises, verdicts
from synth.instructions.exercise import Conversation, Draw, Unmade, written
from synth.instructions.haystack import Haystack
from synth.licences import joined_licence
from synth.output import Facts, ShardWriter, merged_facts
from synth.selection import shards_of

BATCH = 100  # exercises that are made and judged together
LICENSE = "Apache-2.0"  # our own text
KIND = "instructions"
VERSION = 1  # of the makers, in their names


def draw_exercise(config: ExerciseConfig, seed: int, index: int, form: Form | FormShares) -> Draw:
    """Number `index` of a set's draws."""
    own = derive_seed(KIND, seed, index)
    dice = Random(own)
    domain = config.domains[dice.randrange(len(config.domains))]
    language = config.languages[dice.randrange(len(config.languages))]
    level = dice.randint(config.minimum_level, config.maximum_level)
    tokens = dice.randint(config.minimum_tokens, config.maximum_tokens)
    share = dice.random()
    return Draw(
        index=index,
        seed=dice.getrandbits(62),
        domain=domain,
        language="ko" if domain == "korean" else language,
        level=level,
        tokens=tokens,
        form=_form(form, share),
        has_system=dice.randrange(1000) < config.system_permille,
    )


def _form(form: Form | FormShares, share: float) -> Form:
    if isinstance(form, FormShares):
        return "reasoning" if share * (form.reasoning + form.plain) < form.reasoning else "plain"
    return form


class InstructionsWork:
    """The work of a `synth.SET` step of kind `instructions`."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(task.config.documents, task.config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` where programs are wanted and there is no sandbox, or no source matches `from`."""
        config: InstructionsConfig = task.config
        writer = ShardWriter(task, shard)
        haystack = Haystack(task) if config.from_ else None
        first = shard * config.documents_per_shard
        last = min(first + config.documents_per_shard, config.documents)
        seen: set[str] = set()
        for start in range(first, last, BATCH):
            indices = range(start, min(start + BATCH, last))
            draws = [draw_exercise(config, config.seed, index, config.forms) for index in indices]
            _write_batch(writer, [haystack.laid(draw) if haystack else draw for draw in draws], seen)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        return merged_facts(results)


def _write_batch(writer: ShardWriter, draws: Sequence[Draw], seen: set[str]) -> None:
    made = exercises(draws)
    conversations = [
        None if isinstance(one, Unmade) else written(draw, one) for draw, one in zip(draws, made, strict=True)
    ]
    found = iter(verdicts([one for one in conversations if one is not None]))
    for draw, one, conversation in zip(draws, made, conversations, strict=True):
        if conversation is None:
            assert isinstance(one, Unmade)
            detail = f"{draw.domain}: {one.detail}"
            size = len(one.text.encode("utf-8"))
            writer.drop(str(draw.index), f"{KIND}.{one.reason}", detail, one.text, bytes_in=size, lang=draw.language)
        else:
            _write(writer, draw, conversation, next(found), seen)


def _write(writer: ShardWriter, draw: Draw, one: Conversation, verdict: Verdict, seen: set[str]) -> None:
    text = one.text()
    bytes_in = len(text.encode("utf-8"))
    if verdict.right and one.question in seen:
        verdict = Verdict(False, "duplicate", "the same question stands earlier in the shard")
    seen.add(one.question)
    if not verdict.right:
        detail = f"{one.domain}, {one.family}: {verdict.detail}"
        reason = f"{KIND}.{verdict.reason}"
        writer.drop(str(draw.index), reason, detail, text, bytes_in=bytes_in, lang=one.language)
        return
    writer.keep(
        str(draw.index),
        text,
        bytes_in=bytes_in,
        extra={"family": one.family, "level": draw.level, "form": one.form, "facts": one.facts},
        messages=one.messages(),
        lang=one.language,
        domain=one.domain,
        license=joined_licence((LICENSE, *(passage.license for passage in draw.passages))),
        parents=[passage.id for passage in draw.passages],
        maker=f"seodang.{KIND}.{one.domain}.{one.family}@{VERSION}",
    )


WORK = InstructionsWork()
