"""Problems of reasoning-gym as a set: drawn, asked back from the library's own verifier, written, kept or dropped.

Contract: sample `index` is a pure function of (config, index, version of the library): family and seed come from a seed
derived of the set's seed and the index. A sample stays when its answer scores exactly 1.0, none of the planted wrong
answers does, and its way, where the family tells one (`synth/gym/ways.py`), is right; otherwise it goes as `gym.CHECK`:
`no_entry`, `not_exact`, `accepts_wrong`, `wrong_step`, `duplicate` (of its shard). Nothing is dropped by the clock:
slow families are not let in. A row holds the conversation as `messages` and the rest of its entry in `extra`, so that
`score_of` judges it from the row alone. English, at the library's default difficulty. Cost: about 1.2 milliseconds a
sample on one core in the mean of all families; `countdown` and `sudoku` 15, most others 0.05 to 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from random import Random
from typing import Any

from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from synth.gym.config import GymConfig, GymFamily
from synth.gym.library import LICENSE, PACKAGE, NoEntryError, entry_of, library_version, score
from synth.gym.ways import way, wrong_step
from synth.output import Facts, ShardWriter, merged_facts
from synth.selection import shards_of

KIND = "gym"
LANGUAGE = "en"
STRANGERS = 2  # entries of the family whose answers are planted into every other one
MATHEMATICS = frozenset(
    {
        "base_conversion", "basic_arithmetic", "bitwise_arithmetic", "chain_sum", "count_bits", "count_primes",
        "countdown", "dice", "gcd", "gsm_symbolic", "lcm", "products", "simple_equations",
    }
)  # fmt: skip
LOGIC = frozenset({"circuit_logic", "jugs", "kakurasu", "maze", "mini_sudoku", "path_star", "sudoku", "tower_of_hanoi"})


def domain_of(family: GymFamily) -> str:
    """`mathematics`, `logic`, or `code` for what one would write a few lines of program for."""
    return "mathematics" if family in MATHEMATICS else "logic" if family in LOGIC else "code"


def draw(config: GymConfig, index: int) -> tuple[GymFamily, dict[str, Any]]:
    """Family and entry of sample number `index` of the set. Raises `NoEntryError` where there is none."""
    dice = Random(derive_seed(KIND, config.seed, index))
    family = config.families[dice.randrange(len(config.families))]
    return family, entry_of(family, dice.getrandbits(31))


def wrong_answers(family: GymFamily, answer: str) -> Iterator[str]:
    """Texts that are not the answer: parts of it, text around it, answers to other problems, constants, garbage."""
    planted = (
        "", f"{answer} or so it seems", f"The answer is {answer}", f"{answer} {answer}", f"{answer}\n{answer}",
        answer[:-1], answer[1:], answer[: len(answer) // 2], *strangers(family), "0", "1", "True", "False", "[]",
        "lorem ipsum 7",
    )  # fmt: skip
    right = answer.strip().casefold()
    for text in planted:
        if text.strip().casefold() != right:
            yield text


@cache
def strangers(family: GymFamily) -> tuple[str, ...]:
    """Answers to fixed other problems of the family."""
    found: list[str] = []
    for number in count():
        try:
            found.append(entry_of(family, derive_seed(KIND, "stranger", number) % 2**31)["answer"])
        except NoEntryError:
            continue
        if len(found) == STRANGERS:
            break
    return tuple(found)


def fault(family: GymFamily, entry: Mapping[str, Any]) -> tuple[str, str]:
    """(reason, detail) of what is wrong with an entry; empty where it is right."""
    answer = entry["answer"]
    given = score(family, answer, entry)
    if given != 1.0:
        return "not_exact", f"the library's own answer scores {given}"
    for text in wrong_answers(family, answer):
        if (given := score(family, text, entry)) >= 1.0:
            return "accepts_wrong", f"`{text[:80]}` scores {given}"
    wrong = wrong_step(family, entry, way(family, entry))
    return ("wrong_step", wrong) if wrong else ("", "")


def written(entry: Mapping[str, Any], steps: str) -> str:
    """The plain text of a sample."""
    answer = entry["answer"]
    last = f"Answer:\n{answer}" if "\n" in answer else f"Answer: {answer}"
    return "\n\n".join(part for part in (entry["question"], steps, last) if part)


def score_of(row: Mapping[str, Any]) -> float:
    """The verifier's score of a document row's answer, from the row alone."""
    extra = json.loads(row["extra"])
    turns = {message["role"]: message["content"] for message in row["messages"]}
    return score(extra["family"], turns["assistant"], {"question": turns["user"], **extra["entry"]})


class GymWork:
    """The work of a `synth.SET` step of kind `gym`."""

    def shard_count(self, task: StepTask) -> int:
        return shards_of(task.config.documents, task.config.documents_per_shard)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        """Raises `UserError` where the library is not installed."""
        config: GymConfig = task.config
        writer = ShardWriter(task, shard)
        first = shard * config.documents_per_shard
        version = library_version()
        seen: set[str] = set()
        for index in range(first, min(first + config.documents_per_shard, config.documents)):
            try:
                family, entry = draw(config, index)
            except NoEntryError as error:
                writer.drop(str(index), f"{KIND}.no_entry", str(error), "", bytes_in=0, lang=LANGUAGE)
            else:
                _write(writer, family, entry, index, version, seen)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        return merged_facts(results)


def _write(
    writer: ShardWriter, family: GymFamily, entry: Mapping[str, Any], index: int, version: str, seen: set[str]
) -> None:
    steps = way(family, entry)
    text = written(entry, steps)
    bytes_in = len(text.encode("utf-8"))
    reason, detail = fault(family, entry)
    if not reason and entry["question"] in seen:
        reason, detail = "duplicate", "the same problem stands earlier in the shard"
    seen.add(entry["question"])
    if reason:
        writer.drop(str(index), f"{KIND}.{reason}", f"{family}: {detail}", text, bytes_in=bytes_in, lang=LANGUAGE)
        return
    rest = {name: value for name, value in entry.items() if name != "question"}
    writer.keep(
        str(index),
        text,
        bytes_in=bytes_in,
        # Numbers beyond 64 bits stay numbers, which orjson would refuse.
        extra=json.dumps({"family": family, "index": index, "entry": rest}, ensure_ascii=False, sort_keys=True),
        messages=[
            {"role": "user", "content": entry["question"]},
            {"role": "assistant", "reasoning": steps or None, "content": entry["answer"]},
        ],
        lang=LANGUAGE,
        domain=domain_of(family),
        license=LICENSE,
        maker=f"{PACKAGE}.{family}@{version}",
    )


WORK = GymWork()
