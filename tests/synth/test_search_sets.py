"""Search sets: the loop runs to right answers, its contexts stay short, its transcripts are chats of the tokenizer, and
a model in any of the parts is held to the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from search_set import LANGUAGES, config, index_of

from pipeline.core.chat import chat_runs
from pipeline.core.documents import read_documents
from pipeline.core.errors import ConfigError
from pipeline.core.steps import StepTask
from pipeline.recipe import open_curriculum
from synth.subagents.drawing import question_of
from synth.subagents.environment import TOOLS
from synth.subagents.planted import chain_question, planted
from synth.subagents.questions import Draw, Question, steps_of
from synth.subagents.wording import wording
from synth.subagents.work import WORK

GOLDEN = Path(__file__).resolve().parents[1] / "golden.yaml"


def written(task: StepTask) -> list[dict[str, Any]]:
    return [row for table in read_documents(task.folder) for row in table.to_pylist()]


def test_the_whole_loop_without_a_model(indexed: Callable[..., StepTask], library: Any) -> None:
    task = indexed(config(compress_after_steps=4))
    result = WORK.make_shard(task, 0)
    assert result.counts["documents_in"] == result.counts["documents_out"] + sum(result.dropped.values())
    measures = WORK.finish(task, [result])["search"]
    assert set(measures) == set(LANGUAGES)
    total = {name: sum(one[name] for one in measures.values()) for name in measures["en"]}
    # The samples are a small corpus: a sentence that only looks alike may be taken for an answer, and is told.
    assert total["right"] >= 0.85 * total["questions"]
    assert total["facts_kept"] >= 0.95 * total["facts"]
    assert total["compressions"] >= 10
    assert total["dropped_source"] + total["dropped_number"] + total["dropped_terms"] == 0
    assert total["peak_tokens"] < 0.5 * total["peak_tokens_plain"]
    assert total["read_tokens"] < 0.5 * total["read_tokens_plain"]
    documents = {library.row(lang, slug)["id"] for lang in LANGUAGES for slug in library.slugs(lang)}
    rows = written(task)
    assert {json.loads(row["extra"])["part"] for row in rows} == {"agent", "summariser", "compressor"}
    for row in rows:
        extra = json.loads(row["extra"])
        assert row["parents"]
        assert set(row["parents"]) <= documents
        assert row["license"] in ("CC0-1.0", "Apache-2.0 AND CC0-1.0")
        assert row["maker"].startswith("seodang.search.")
        assert ("tools" in extra) == (extra["part"] == "agent")
        assert row["messages"][0]["role"] == "system"
        assert row["messages"][-1]["role"] in ("assistant", "tool")


def test_every_answer_can_be_read_off_the_transcript(indexed: Callable[..., StepTask]) -> None:
    task = indexed(config(compress_after_steps=4, write=("agent",)))
    WORK.make_shard(task, 0)
    index = index_of(task)
    rows = written(task)
    finals = [row for row in rows if row["messages"][-1]["role"] == "assistant"]
    assert len(finals) >= 14
    with_record = 0
    for row in rows:
        head, tail = row["messages"][1]["content"], row["messages"][2:]
        say = wording(row["lang"])
        if say.record in head:
            with_record += 1
            record = json.loads(head.rpartition("\n")[2])
            for fact in record["key_facts"]:
                page = index.open(fact["source_url"])
                assert page is not None
                assert fact["fact"] in page.text
        for message in tail:
            for call in message["tool_calls"] or ():
                arguments = json.loads(call["arguments"])
                assert set(arguments) == ({"query"} if call["name"] == "search" else {"url", "pattern"})
    for row in finals:
        shown = "\n".join(message["content"] or "" for message in row["messages"][:-1])
        answer = row["messages"][-1]["content"].rpartition(wording(row["lang"]).answer_line)[2]
        for value in answer.split(","):
            assert value.strip() in shown  # nothing the oracle knows and the tools did not say
    assert with_record >= 10


def test_transcripts_are_chats_of_the_tokenizer_with_their_tools(indexed: Callable[..., StepTask]) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    from stages.tokenizer.train import TEMPLATE

    task = indexed(config(questions=6, compress_after_steps=4))
    WORK.make_shard(task, 0)
    template = TEMPLATE.read_text(encoding="utf-8").rstrip("\n")
    for row in written(task):
        extra = json.loads(row["extra"])
        tools = extra.get("tools", [])
        assert tools == (list(TOOLS) if extra["part"] == "agent" else [])
        messages = [plain_message(message) for message in row["messages"]]
        rendered, _ = render_jinja_template([messages], tools=tools or None, chat_template=template)
        runs = chat_runs(row["messages"], tools)
        assert "".join(run.text for run in runs).rstrip("\n") == rendered[0].rstrip("\n")
        counted = "".join(run.text for run in runs if run.counts)
        assert ("<tool_call>" in counted) == any(one["tool_calls"] for one in row["messages"])
        assert "<tool_result>" not in counted


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None}


def test_samples_do_not_depend_on_shards_or_their_order(indexed: Callable[..., StepTask], tmp_path: Path) -> None:
    whole = indexed(config(compress_after_steps=4))
    WORK.make_shard(whole, 0)
    expected = written(whole)
    settings = config(compress_after_steps=4, questions_per_shard=5)
    parts = StepTask("synth.s", "f" * 64, settings, whole.inputs, tmp_path / "parts", tmp_path, {})
    assert WORK.shard_count(parts) == 4
    for shard in (3, 1, 0, 2):
        WORK.make_shard(parts, shard)
    assert written(parts) == expected


def test_index_files_share_the_pages_among_them(indexed: Callable[..., StepTask]) -> None:
    one = indexed(config(question_kinds=("chain",)))
    pages = {page.id: page for page in all_pages(one)}
    several = indexed(config(question_kinds=("chain",), documents_per_shard=30))
    assert len(list((several.inputs["index"].folder / "index").glob("*.sqlite"))) == 3
    assert {page.id: page for page in all_pages(several)} == pages
    facts = [fact for number in range(18) for fact in question_facts(one, number)]
    holding = Counter(fact.sentence for fact in facts for page in pages.values() if fact.sentence in page.text)
    assert holding == Counter(fact.sentence for fact in facts)  # each on one page


def test_the_list_of_pages_leads_from_each_to_its_document(indexed: Callable[..., StepTask], library: Any) -> None:
    import pyarrow.parquet as pq

    task = indexed(config(question_kinds=("chain",), page_characters=1500))
    rows = pq.read_table(task.inputs["index"].folder / "pages" / "00000.parquet").to_pylist()
    documents = {library.row(lang, slug)["id"] for lang in LANGUAGES for slug in library.slugs(lang)}
    assert sorted(row["id"] for row in rows) == sorted(page.id for page in all_pages(task))
    assert {row["id"] for row in rows if not row["parents"]} == documents
    assert {parent for row in rows for parent in row["parents"] or ()} <= documents
    planted_rows = [row for row in rows if row["planted"]]
    assert len(planted_rows) == sum(len(question_facts(task, number)) for number in range(18))
    assert {row["license"] for row in planted_rows} == {"Apache-2.0 AND CC0-1.0"}


def test_a_takedown_finds_the_index_and_what_was_made_from_it(
    indexed: Callable[..., StepTask], library: Any, tmp_path: Path
) -> None:
    from pipeline.core.takedown import Takedown
    from pipeline.report.whereabouts import whereabouts

    task = indexed(config(questions=6))
    WORK.make_shard(task, 0)
    made = written(task)
    parent = made[0]["parents"][0]
    found = whereabouts(tmp_path, Takedown(kind="id", pattern=parent, reason="asked", asked="2026-01-01"))
    assert {one.table for one in found.holdings} >= {"documents", "pages"}
    assert {row["id"] for row in made if parent in row["parents"]} <= {one.id for one in found.documents}


def all_pages(task: StepTask) -> list[Any]:
    index = index_of(task)
    rows = [one.execute("SELECT url FROM pages").fetchall() for one in index._files]
    return [index.open(url) for part in rows for (url,) in part]


def question_facts(task: StepTask, number: int) -> Sequence[Any]:
    index = index_of(task)
    question = question_of(index, task.config, number)
    return question.facts if isinstance(question, Question) else ()


@pytest.mark.parametrize("language", LANGUAGES)
def test_chains_have_a_wording_of_its_own_for_each_step(language: str) -> None:
    for number in range(20):
        question = chain_question(config(), Draw(number, "chain", language, 9))
        assert steps_of(question.text) == [fact.step for fact in question.facts]
        assert len({fact.step for fact in question.facts}) == 9
        for fact, following in zip(question.facts, question.facts[1:], strict=False):
            assert fact.value == following.subject
            assert fact.told(fact.sentence)
            assert not fact.told(following.sentence)
        assert question.values == (question.facts[-1].value,)


def test_a_planted_sentence_is_a_paragraph_outside_of_code() -> None:
    text = "One.\n\n```\na\n\nb\n```\n\nTwo."
    for seed in range(8):
        made = planted(text, "Here.", seed)
        assert made.replace("Here.\n\n", "", 1) == text or made == f"{text}\n\nHere."
        assert "a\n\nHere." not in made


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"agent": "endpoint"}, "`endpoint` must name"),
        ({"endpoint": "writer"}, "nothing is asked of"),
        ({"minimum_hops": 5, "maximum_hops": 3}, "minimum_hops 5 is above"),
    ],
)
def test_settings_that_do_not_fit_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**more)


def test_the_loop_does_not_change_the_index_but_the_pages_do(tmp_path: Path) -> None:
    def fingerprints(*overrides: str) -> tuple[str, str]:
        graph = open_curriculum(GOLDEN, [f"store={tmp_path}", *overrides]).graph
        assert graph.node("synth.search").step.inputs == {"index": "index.search"}
        return graph.node("index.search").fingerprint, graph.node("synth.search").fingerprint

    index, search = fingerprints()
    assert fingerprints("synth.search.compress_after_steps=5")[0] == index
    assert fingerprints("synth.search.compress_after_steps=5")[1] != search
    changed = fingerprints("synth.search.page_characters=1000")
    assert changed[0] != index
    assert changed[1] != search


def test_a_set_that_asks_is_bound_to_its_endpoint(tmp_path: Path) -> None:
    model = "synth.search.endpoint=replay"
    step = (
        open_curriculum(GOLDEN, [f"store={tmp_path}", model, "synth.search.summariser=endpoint"])
        .graph.node("synth.search")
        .step
    )
    assert step.content["model"] == "recorded-writer"
    assert "endpoint" in step.paths
    with pytest.raises(ConfigError, match="unknown endpoint"):
        open_curriculum(GOLDEN, [f"store={tmp_path}", "synth.search.endpoint=x", "synth.search.summariser=endpoint"])
