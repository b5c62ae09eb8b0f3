"""Search sets with a model in their parts: the same words give the same, and each fault is refused with its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer
from search_model import ALL, scripted, unspoilt
from search_set import config, index_of
from translator import completion

from pipeline.core.documents import read_dropped
from pipeline.core.steps import StepTask
from synth.acceptance import FILTERS
from synth.cache import Request
from synth.client import ask
from synth.config import EndpointConfig, ReplayConfig, endpoint_binding
from synth.subagents import work
from synth.subagents.agent import CALL, Context, Oracle
from synth.subagents.compressor import EMPTY, KeyFact, Record
from synth.subagents.drawing import question_of, questions_of
from synth.subagents.outcome import is_right
from synth.subagents.planted import chain_question
from synth.subagents.questions import Draw, Fact, Question
from synth.subagents.summariser import Summary
from synth.subagents.terms import sentences
from synth.subagents.trajectory import Loop, drive
from synth.subagents.work import WORK


def dropped(task: StepTask) -> list[dict[str, Any]]:
    return [row for table in read_dropped(task.folder) for row in table.to_pylist()]


def test_a_model_that_says_the_same_in_every_part_gives_the_same(indexed: Callable[..., StepTask]) -> None:
    settings = config(compress_after_steps=4, **ALL)
    played = scripted(indexed(config()), settings, unspoilt)
    assert sum(one.failure is None for one in played) >= 14
    for one in played:
        assert {sample.maker for sample in one.samples} <= {"translator"}
        assert all(
            CALL.search(message["content"] or "") is None for sample in one.samples for message in sample.messages[2:]
        )


SPOILT: dict[str, tuple[str, Callable[[str], str], str]] = {
    "summary is no JSON": ("summariser", lambda text: text[:-5], "summariser_no_answer"),
    "answer is left out": ("summariser", lambda text: text[: text.rindex('"answer"')] + '"answer":null}', "summariser_missed"),
    "record is no JSON": ("compressor", lambda text: text.replace("{", "", 1), "record_no_answer"),
    "fact has another source": ("compressor", lambda text: text.replace("page.invalid", "page.example"), "compressor_fact_source"),
    "facts are forgotten": ("compressor", lambda text: '{"key_facts": [], "open_questions": ["all"]}', "compressor_fact_lost"),
    "answer is wrong": ("agent", lambda text: text[:-1] + ("1" if text[-1] != "1" else "2"), "wrong_answer"),
    "call is broken": ("agent", lambda text: text.replace('"name": "open"', '"name": open'), "tool_call"),
}  # fmt: skip


def test_answers_that_a_page_does_not_give_are_told_from_those_it_does(indexed: Callable[..., StepTask]) -> None:
    settings = config(question_kinds=("chain",))
    index = index_of(indexed(settings))
    question = question_of(index, settings, 0)
    assert isinstance(question, Question)
    loop = Loop(question, index, settings)
    fact = question.facts[0]
    (page,) = index.containing(fact.sentence, 5)
    other = replace(page, text=page.text.replace(fact.sentence, "Nothing."))
    for shown, answer, check in (
        (page, fact.sentence, ""),
        (page, fact.value, ""),
        (page, None, "missed"),
        (page, "It was so.", "missed"),
        (other, None, ""),
        (other, "It was so.", "invented"),
    ):
        found = loop._wrong_answer(shown, fact.ask, Summary("s", answer))
        assert (found.check if found else "") == check


@pytest.mark.parametrize("name", SPOILT)
def test_what_a_model_does_wrong_is_refused_with_its_reason(indexed: Callable[..., StepTask], name: str) -> None:
    part, fault, reason = SPOILT[name]
    settings = config(compress_after_steps=4, questions=12, **ALL)

    def spoil(request: Request, text: str) -> str:
        ends = part != "agent" or name == "call is broken" or "<tool_call>" not in text
        return fault(text) if request.prompt.startswith(f"search.{part}") and ends else text

    task = indexed(settings.replaced(agent="oracle", summariser="extractive", compressor="rules", endpoint=""))
    played = scripted(task, settings, spoil)
    found = Counter(
        reason_of for one in played for sample in one.samples if (reason_of := work._verdict(sample, False)[7:])
    )
    assert found[reason] >= 1, found
    assert set(found) <= set(FILTERS["search"])
    if name in ("answer is wrong", "record is no JSON"):
        assert all(one.failure for one in played if part == "agent" or one.measure.steps >= 5)


def test_a_set_from_a_server_that_never_summarises_gives_every_question_up_and_counts_it(
    indexed: Callable[..., StepTask], server: FaultServer
) -> None:
    settings = config(questions=6, summariser="endpoint", endpoint="writer", question_kinds=("chain",))
    endpoints = {"writer": EndpointConfig(url=server.url, model="m", attempt_timeout_seconds=5, deadline_seconds=20)}
    paths, content = endpoint_binding("s", settings, endpoints)
    assert content == {"model": "m"}
    task = indexed(settings, **paths)
    result = WORK.make_shard(task, 0)
    WORK.finish(task, [result])
    asked = sum(server.attempts.values())
    reasons = Counter(row["reason"] for row in dropped(task))
    assert set(reasons) == {"search.summariser_no_answer", "search.not_found"}
    assert result.counts["documents_out"] == 0
    assert result.counts["documents_in"] == sum(reasons.values())
    assert asked > 0
    assert WORK.make_shard(task, 0) == result
    assert sum(server.attempts.values()) == asked  # every answer is stored: nothing is asked twice


WRITTEN = [
    ({}, ""),
    ({"evidence": "The canal was dug in three summers."}, "question_evidence"),
    ({"answer": "Torvald"}, "question_answer"),
    ({"question": "Who planned the stone bridge, was it Ada Lund?"}, "question_answer"),
    ({"question": "Wer zeichnete die Pläne für die steinerne Brücke in der Stadt Osby?"}, "question_language"),
    ({"question": "As an AI language model I ask: who drew the bridge of Osby in 1871?"}, "question_leakage"),
    ({"answer": ""}, "question_no_answer"),
]


@pytest.mark.parametrize(("change", "check"), WRITTEN)
def test_a_written_question_is_held_to_its_page(
    indexed: Callable[..., StepTask], change: dict[str, str], check: str
) -> None:
    from synth.completion import ContentError, parse_completion
    from synth.endpoint_set import Refused
    from synth.subagents.written import SCHEMA, fact_of

    index = index_of(indexed(config(questions=1)))
    page = index.page(*index.identities("en")[0])
    page = replace(
        page, text="The canal was dug early.\n\nAda Lund drew the plans\nfor the stone bridge of Osby in 1871."
    )
    said = {
        "question": "Who drew the plans for the stone bridge of Osby?",
        "answer": "Ada Lund",
        "evidence": "Ada Lund drew the plans for the stone bridge of Osby in 1871.",
    }
    request = Request("m", ({"role": "user", "content": "q"},), {}, "p@1", schema=SCHEMA)
    try:
        outcome = parse_completion(request, completion(json.dumps({**said, **change})))
    except ContentError as error:
        outcome = error
    found = fact_of(outcome, page, index)
    assert (found.check if isinstance(found, Refused) else "") == check
    if isinstance(found, Fact):
        assert found.told("Ada Lund")
        assert found.told("The plans for the stone bridge were drawn by Ada Lund.")
        assert not found.told("Ada Lund was born by the sea and never learnt how to swim.")
        assert "Ada" not in found.query + found.exact_query


def test_a_set_of_questions_that_an_endpoint_writes(indexed: Callable[..., StepTask], tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text("")
    more = {"questions": 12, "question_kinds": ("written",), "maximum_hops": 3, "endpoint": "replay"}
    settings = config(**more)
    endpoints = {"replay": ReplayConfig(responses=str(recorded))}
    task = indexed(settings, **endpoint_binding("s", settings, endpoints)[0])
    index = index_of(task)
    rows: dict[str, Any] = {}

    def write(requests: list[Request]) -> list[Any]:
        """A writer who asks for the last word of a sentence by all the others."""
        from translator import replay

        for request in requests:
            page = request.messages[1]["content"].split("\n\n", 1)[1]
            evidence = max((one for one in sentences(page) if one in page), key=lambda one: (len(one) < 200, len(one)))
            answer = evidence.rstrip(".。!?")[-6:].strip()
            said = {"question": f"{evidence[: evidence.rindex(answer)]}…?", "answer": answer, "evidence": evidence}
            rows[request.key] = request.row(completion(json.dumps(said)))
        return ask(requests, replay({key: row["response"] for key, row in rows.items()}))

    drawn = questions_of(index, settings, range(12), "recorded-writer", write)
    assert all(one.draw.kind == "written" and len(one.asked) == one.draw.hops for one in drawn)
    recorded.write_text("".join(f"{json.dumps(row)}\n" for row in rows.values()))
    task = replace(task, paths=endpoint_binding("s", settings, endpoints)[0])
    result = WORK.make_shard(task, 0)
    total = WORK.finish(task, [result])["search"]
    assert sum(one["right"] for one in total.values()) >= 6
    import pyarrow.parquet as pq

    asked = pq.read_table(task.folder / "requests" / "00000.parquet").to_pylist()
    assert len(asked) == sum(len(one.asked) for one in drawn)
    assert {row["prompt"] for row in asked} == {"search.question@1"}
    assert {row["verdict"] for row in asked} <= {"kept", "search.question_answer", "search.no_question"}


@pytest.mark.parametrize(
    ("answer", "values", "is_one"),
    [
        ("1,843", ("1843",), True),
        ("1843, 12", ("1843", "12"), True),
        ("12, 1843", ("1843", "12"), False),
        ("1843 or 1844", ("1843",), False),
        ("ada lund.", ("Ada Lund",), True),
        ("Ada Lund, Osby", ("Ada Lund", "Osby"), True),
        ("Osby, Ada Lund", ("Ada Lund", "Osby"), False),
        ("It may be Ada Lund or Torvald Brenn", ("Ada Lund",), False),
    ],
)
def test_an_answer_is_the_values_in_order_and_little_else(answer: str, values: tuple[str, ...], is_one: bool) -> None:
    assert is_right(answer, values) is is_one


def test_a_missing_recording_names_the_document(indexed: Callable[..., StepTask], tmp_path: Path) -> None:
    from pipeline.core.errors import UserError

    (tmp_path / "none.jsonl").write_text("")
    settings = config(questions=2, summariser="endpoint", endpoint="replay")
    paths, _ = endpoint_binding("s", settings, {"replay": ReplayConfig(responses=str(tmp_path / "none.jsonl"))})
    with pytest.raises(UserError, match="no recorded response"):
        WORK.make_shard(indexed(settings, **paths), 0)


def test_an_agent_that_only_searches_is_compressed_too(indexed: Callable[..., StepTask]) -> None:
    settings = config(
        question_kinds=("chain",), compress_after_steps=3, maximum_steps=13, **{**ALL, "compressor": "rules"}
    )
    task = indexed(config(question_kinds=("chain",)))
    index = index_of(task)
    question = question_of(index, settings, 0)
    assert isinstance(question, Question)

    def search_on(requests: list[Request]) -> list[Any]:
        from translator import replay

        said = completion('<tool_call>{"name": "search", "arguments": {"query": "canal"}}</tool_call>')
        return ask(requests, replay({request.key: said for request in requests}))

    (made,) = drive([Loop(question, index, settings, "m")], search_on)
    assert made.failure is not None
    assert (made.failure.check, made.measure.steps, made.measure.compressions) == ("steps", 13, 2)


def test_what_the_context_lost_the_oracle_does_not_know(indexed: Callable[..., StepTask]) -> None:
    settings = config(question_kinds=("chain",), minimum_hops=3, maximum_hops=3)
    question = chain_question(settings, Draw(0, "chain", "en", 3))
    oracle = Oracle(question, settings)
    oracle.step = 1
    for record, is_known in ((Record((KeyFact(question.facts[0].sentence, "u"),), ()), True), (EMPTY, False)):
        with pytest.raises(StopIteration) as stop:
            next(oracle.turn(Context(question, "s", record, [])))
        assert (getattr(stop.value.value, "check", "") == "lost_fact") is not is_known
