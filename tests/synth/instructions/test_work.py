"""Instruction sets as steps: rows that verify on their own, messages in the chat format, the same whatever the shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import pytest

from pipeline.core.chat import chat_runs
from pipeline.core.documents import read_documents, read_dropped, text_hash
from pipeline.core.steps import StepTask
from stages.tokenizer.train import tokenizer_settings
from synth.acceptance import FILTERS
from synth.instructions import work
from synth.instructions.config import FormShares, InstructionsConfig
from synth.instructions.domains import verdicts
from synth.instructions.exercise import Unmade, conversation_of
from synth.instructions.work import WORK, draw_exercise

QUICK = ("mathematics", "logic", "long-context", "instruction-following", "korean")  # without the sandbox


def config(documents: int, **more: Any) -> InstructionsConfig:
    return InstructionsConfig.model_validate(
        {"kind": "instructions", "documents": documents, "domains": QUICK, "maximum_tokens": 600, **more}
    )


def rows(task: StepTask) -> list[dict[str, Any]]:
    return [row for table in read_documents(task.folder) for row in table.to_pylist()]


def test_rows_verify_from_the_shard_alone(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.teach", config(150, documents_per_shard=60))
    results = [WORK.make_shard(task, shard) for shard in range(WORK.shard_count(task))]
    assert [result.counts["documents_in"] for result in results] == [60, 60, 30]
    found = rows(task)
    assert all(verdict.right for verdict in verdicts([conversation_of(row) for row in found]))
    assert {row["domain"] for row in found} == set(QUICK)
    for row in found:
        extra = json.loads(row["extra"])
        assert row["maker"] == f"seodang.instructions.{row['domain']}.{extra['family']}@1"
        assert (row["license"], row["source"]) == ("Apache-2.0", "teach")
        last = row["messages"][-1]
        assert bool(last["reasoning"]) == (extra["form"] == "reasoning")
        assert row["text"] == conversation_of(row).text()
        assert row["text_hash"] == text_hash(row["text"])
    dropped = {row["reason"] for table in read_dropped(task.folder) for row in table.to_pylist()}
    assert dropped <= {"instructions.duplicate", "instructions.language"}
    assert sum(sum(result.dropped.values()) for result in results) <= 0.05 * 150
    assert WORK.finish(task, results)["by_source"]["teach"]["in"] == 150


def test_samples_do_not_depend_on_the_shards(make_task: Callable[..., StepTask]) -> None:
    made = []
    for size in (7, 100):
        task = make_task(f"synth.s{size}", config(40, documents_per_shard=size))
        for shard in reversed(range(WORK.shard_count(task))):
            WORK.make_shard(task, shard)
        made.append([(row["text"], row["extra"]) for row in rows(task)])
    assert made[0] == made[1]


def test_the_same_bytes_twice(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.teach", config(30))
    path = task.folder / "documents" / "00000.parquet"
    WORK.make_shard(task, 0)
    first = path.read_bytes()
    WORK.make_shard(task, 0)
    assert path.read_bytes() == first


def test_forms_and_system_prompts_follow_their_shares() -> None:
    def forms(**more: Any) -> Counter[str]:
        one = config(1, **more)
        return Counter(draw_exercise(one, 0, index, one.forms).form for index in range(600))

    assert forms(forms={"reasoning": 1.0, "plain": 0.0}) == {"reasoning": 600}
    assert forms(forms={"reasoning": 0.0, "plain": 2.0}) == {"plain": 600}
    assert 320 <= forms()["reasoning"] <= 400  # 0.6 of 600
    half = config(1, system_permille=500)
    assert 250 <= sum(draw_exercise(half, 0, index, half.forms).has_system for index in range(600)) <= 350
    with pytest.raises(ValueError, match="share above 0"):
        FormShares(reasoning=0, plain=0)
    with pytest.raises(ValueError, match="is for the domain `long-context`"):
        config(1, **{"from": "books", "domains": ("logic",)})
    with pytest.raises(ValueError, match="minimum_level 4 is above maximum_level 2"):
        config(1, minimum_level=4, maximum_level=2)


def test_what_cannot_be_made_is_dropped_with_its_reason(
    make_task: Callable[..., StepTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = work.exercises

    def some(draws: Any) -> Any:
        return [
            Unmade("ambiguous", "2 answers fit", "Q") if draw.index % 5 == 0 else one
            for draw, one in zip(draws, whole(draws), strict=True)
        ]

    monkeypatch.setattr(work, "exercises", some)
    task = make_task("synth.teach", config(20))
    result = WORK.make_shard(task, 0)
    assert result.dropped["instructions.ambiguous"] == 4
    shown = [
        row
        for table in read_dropped(task.folder)
        for row in table.to_pylist()
        if row["reason"] == "instructions.ambiguous"
    ]
    assert {row["text"] for row in shown} == {"Q"}
    assert all(row["detail"].endswith(": 2 answers fit") for row in shown)
    assert {reason.split(".")[1] for reason in result.dropped} <= set(FILTERS["instructions"])


def test_messages_render_as_the_tokenizers_template_does(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.teach", config(40))
    WORK.make_shard(task, 0)
    template = _environment().from_string(tokenizer_settings()["chat_template"])
    thinking = Counter()
    for row in rows(task):
        messages = [{key: value for key, value in message.items() if value is not None} for message in row["messages"]]
        runs = "".join(run.text for run in chat_runs(row["messages"]))
        assert template.render(messages=messages, tools=None, add_generation_prompt=False) == runs
        thinking["<think>\n\n</think>" in runs] += 1
    assert thinking[True]
    assert thinking[False]


def _environment() -> jinja2.Environment:
    def tojson(value: Mapping[str, Any], **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = tojson
    return environment


def test_long_context_questions_are_laid_into_documents(make_task: Callable[..., StepTask], library: Any) -> None:
    texts = [library.row(lang, slug) for lang in ("en", "ko") for slug in library.slugs(lang)[:6]]
    texts[0]["license"] = None
    one = config(30, domains=("long-context",), languages=("en", "ko"), minimum_tokens=1500, maximum_tokens=2500)
    one = one.replaced(from_=("articles",))
    task = make_task("synth.long", one, [texts])
    WORK.make_shard(task, 0)
    found = rows(task)
    assert len(found) >= 28
    assert all(verdict.right for verdict in verdicts([conversation_of(row) for row in found]))
    by_id = {row["id"]: row for row in texts}
    depths: list[int] = []
    for row in found:
        question = row["messages"][-2]["content"]
        assert row["parents"]
        assert texts[0]["id"] not in row["parents"]
        assert row["license"] == "Apache-2.0 AND CC0-1.0"
        for parent in row["parents"]:
            assert by_id[parent]["lang"] == row["lang"]
            assert all(part in question for part in by_id[parent]["text"].split("\n\n"))
        depths += json.loads(row["extra"])["facts"]["depths"]
    assert min(depths) < 200
    assert max(depths) > 800


GOLDEN_HASH = "6c5167848ee569eaf8b6f4142ef71369"  # xxh3-128 of 60 samples of the quick domains


def test_golden_samples() -> None:
    """Changes with the generators, templates or the derivation of seeds: then `synth.config.VERSIONS` goes up."""
    from synth.instructions.domains import exercises
    from synth.instructions.exercise import Exercise, written

    one = config(60)
    draws = [draw_exercise(one, 0, index, one.forms) for index in range(60)]
    texts = [
        written(draw, made).text()
        for draw, made in zip(draws, exercises(draws), strict=True)
        if isinstance(made, Exercise)
    ]
    assert text_hash("\n".join(texts)) == GOLDEN_HASH
