"""Summariser and Trajectory Compressor: good answers stay, each planted fault is refused with its own reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer
from translator import completion

from pipeline.core.documents import document_id
from synth.cache import Request
from synth.client import EndpointClient, Outcome, ask
from synth.completion import ContentError, parse_completion
from synth.config import EndpointConfig
from synth.endpoint_set import Refused
from synth.store import ResponseStore
from synth.subagents import compressor, summariser
from synth.subagents.agent import read_turn
from synth.subagents.compressor import EMPTY, KeyFact, Record, grounded, record_of, rule_record
from synth.subagents.config import SearchConfig
from synth.subagents.environment import (
    TOOLS,
    Call,
    assistant,
    call_fault,
    calls_with_results,
    listed_addresses,
    search_result,
    tool_result,
)
from synth.subagents.index import Page, SearchIndex, write_index
from synth.subagents.questions import Fact
from synth.subagents.summariser import Summary, answer_in, extractive_summary, summary_of, summary_request
from synth.subagents.wording import wording

LANGUAGES = ("de", "en", "es", "ja", "ko", "vi")
CONFIG = SearchConfig.model_validate({"kind": "search", "from": "articles", "questions": 1})
PAGE = (
    "The canal was dug in two summers by men from the hills.\n\nTorvald Brenn drew the plans for the stone bridge of "
    "the town of Osby. It has 14 arches and was opened in 1871.\n\nRain often floods the meadows below the mill."
)
QUESTION = "Torvald Brenn: the town for whose stone bridge this person drew the plans"
GOOD = {
    "summary": "Torvald Brenn drew the plans for the stone bridge of the town of Osby, which has 14 arches.",
    "answer": "Torvald Brenn drew the plans for the stone bridge of the town of Osby.",
}

HALF_A_PAIR = r'<tool_call>{"name": "search", "arguments": {"query": "\ud83d"}}</tool_call>'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchIndex]:
    texts = [PAGE, "A person may plan a town. This bridge is of stone.", "The mill has plans for a new wheel."]
    pages = [
        Page(document_id("p", str(n)), f"https://page.invalid/{n}", f"page {n}", "en", "MIT", "d", text)
        for n, text in enumerate(texts)
    ]
    folder = tmp_path_factory.mktemp("index")
    write_index(folder / "00000.sqlite", pages)
    found = SearchIndex(folder)
    yield found
    found.close()


def outcome(schema: Any, content: str, finish_reason: str = "stop") -> Outcome:
    request = Request("m", ({"role": "user", "content": "q"},), {}, "p@1", schema=schema)
    try:
        return parse_completion(request, completion(content, finish_reason))
    except ContentError as error:
        return error


@pytest.mark.parametrize(
    ("content", "check"),
    [
        (json.dumps(GOOD), ""),
        (f"```json\n{json.dumps({**GOOD, 'answer': None})}\n```", ""),
        ("It was Osby.", "no_answer"),
        (json.dumps(GOOD)[:-20], "no_answer"),
        (json.dumps({"summary": GOOD["summary"]}), "no_answer"),
        (json.dumps({**GOOD, "answer": 14}), "no_answer"),
        (json.dumps({**GOOD, "confidence": 1}), "no_answer"),
        (json.dumps({**GOOD, "summary": " "}), "empty"),
        (json.dumps({**GOOD, "summary": GOOD["summary"] * 20}), "too_long"),
        (json.dumps({**GOOD, "answer": "The bridge of Osby was opened in 1817."}), "numbers"),
        (json.dumps({"summary": "Whales sing songs that other pods learn slowly.", "answer": None}), "ungrounded"),
        (json.dumps({**GOOD, "summary": f"As an AI language model I note: {GOOD['summary']}"}), "leakage"),
        (
            json.dumps({**GOOD, "summary": "Torvald Brenn zeichnete den Plan für die Brücke, the town Osby, stone."}),
            "language",
        ),
    ],
)
def test_a_models_summary_is_checked(content: str, check: str) -> None:
    found = summary_of(outcome(summariser.SCHEMA, content), PAGE, QUESTION, "en", CONFIG)
    assert (found.check if isinstance(found, Refused) else "") == check


def test_a_summary_that_was_cut_off_is_refused() -> None:
    found = summary_of(outcome(summariser.SCHEMA, json.dumps(GOOD), "length"), PAGE, QUESTION, "en", CONFIG)
    assert isinstance(found, Refused)
    assert found.check == "finish"


def test_without_a_model_the_fitting_sentence_answers_and_none_where_none_fits(index: SearchIndex) -> None:
    found = extractive_summary(PAGE, QUESTION, 120, index.weight)
    assert found.answer == "Torvald Brenn drew the plans for the stone bridge of the town of Osby."
    assert found.summary.startswith(found.answer)
    other = extractive_summary(
        "Rain often floods the meadows.\n\nThe mill has a new wheel.", QUESTION, 120, index.weight
    )
    assert other.answer is None
    assert extractive_summary("Torvald Brenn once bought a goat.", QUESTION, 120, index.weight).answer is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_result_gives_its_answer_back(language: str) -> None:
    assert answer_in(Summary("A\n\nB", "It is 7.").rendered(language), language) == "It is 7."
    assert answer_in(Summary("A", None).rendered(language), language) == ""
    assert answer_in("a whole page", language) == ""


URL, OTHER = "https://page.invalid/0", "https://page.invalid/1"
ASKED = [QUESTION, "the number of arches of this bridge"]
SEARCH = "Take the steps:\n1. Torvald Brenn: the town for whose stone bridge this person drew the plans\n2. the number of arches of this bridge\nWhat?"
HISTORY = [
    assistant("I search.", "", Call("search", {"query": "bridge"})),
    tool_result(f"1. page 0\n{URL}\nTorvald Brenn\n\n2. page 1\n{OTHER}\nA person may plan a town."),
    assistant("", "", Call("open", {"url": OTHER, "pattern": ASKED[0]})),
    tool_result(Summary("A person may plan a town.", "A person may plan a town.").rendered("en")),
    assistant("", "", Call("open", {"url": URL, "pattern": ASKED[0]})),
    tool_result(Summary(GOOD["summary"], GOOD["answer"]).rendered("en")),
]
FACT = {"fact": GOOD["answer"], "source_url": URL}


def test_without_a_model_the_record_has_what_was_answered_and_what_is_open(index: SearchIndex) -> None:
    record = rule_record(SEARCH, HISTORY, EMPTY, "en", index.weight)
    assert record.key_facts == (KeyFact(GOOD["answer"], URL),)  # asked again, the first page had not settled it
    assert record.open_questions == (ASKED[1],)
    later = [
        assistant("", "", Call("open", {"url": OTHER, "pattern": f"Osby: {ASKED[1]}"})),
        tool_result(Summary("It has 14 arches.", "It has 14 arches.").rendered("en")),
    ]
    joined = rule_record(SEARCH, later, record, "en", index.weight)
    assert joined.key_facts == (*record.key_facts, KeyFact("It has 14 arches.", OTHER))
    assert joined.open_questions == ()
    assert grounded(joined, later, record) == (joined, [])


@pytest.mark.parametrize(
    ("content", "check"),
    [
        (json.dumps({"key_facts": [FACT], "open_questions": [ASKED[1]]}), ""),
        ('{"key_facts": [}', "no_answer"),
        (json.dumps({"key_facts": [FACT]}), "no_answer"),
        (json.dumps({"key_facts": [GOOD["answer"]], "open_questions": []}), "no_answer"),
        (json.dumps({"key_facts": [{"fact": "", "source_url": URL}], "open_questions": []}), "no_answer"),
        (json.dumps({"key_facts": [{**FACT, "sure": True}], "open_questions": []}), "no_answer"),
        (json.dumps({"key_facts": [FACT], "open_questions": [], "plan": "go on"}), "no_answer"),
    ],
)
def test_a_models_record_must_fit_its_schema(content: str, check: str) -> None:
    found = record_of(outcome(compressor.SCHEMA, content))
    assert (found.check if isinstance(found, Refused) else "") == check


@pytest.mark.parametrize(
    ("fact", "url", "fault"),
    [
        (GOOD["answer"], URL, None),
        ("The stone bridge of Osby has 14 arches.", URL, None),
        (GOOD["answer"], "https://page.invalid/9", "source"),
        ("The stone bridge of Osby has 41 arches.", URL, "number"),
        ("Torvald Brenn later sailed to Iceland with his sister.", URL, "terms"),
        (GOOD["answer"], OTHER, "terms"),
        ("Torvald Brenn", OTHER, "terms"),
    ],
)
def test_facts_that_the_tools_did_not_give_are_dropped(fact: str, url: str, fault: str | None) -> None:
    record = Record((KeyFact(fact, url),), ("what else?",))
    kept, faulty = grounded(record, HISTORY, EMPTY)
    assert [one for _, one in faulty] == ([fault] if fault else [])
    assert kept == (Record((), record.open_questions) if fault else record)


def test_tools_are_valid_schemas_and_calls_are_held_to_them() -> None:
    from jsonschema import Draft202012Validator

    for tool in TOOLS:
        Draft202012Validator.check_schema(tool["parameters"])
    assert call_fault(Call("search", {"query": "x"})) == ""
    assert "required" in call_fault(Call("open", {"url": URL}))
    assert "browse" in call_fault(Call("browse", {}))
    assert call_fault(Call("search", {"query": "x", "site": "y"}))


@pytest.mark.parametrize(
    ("content", "call", "said", "is_trouble"),
    [
        ('So.\n<tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>', "search", "So.", False),
        ('<tool_call>{"name": "open", "arguments": {"url": "u", "pattern": "p"}}', "open", "", False),
        ("Answer: 14", "", "Answer: 14", False),
        ('<tool_call>{"name": "search"</tool_call>', "", '<tool_call>{"name": "search"</tool_call>', True),
        ('<tool_call>{"name": "search"}</tool_call>', "", '<tool_call>{"name": "search"}</tool_call>', True),
        ("<tool_call>[1]</tool_call>", "", "<tool_call>[1]</tool_call>", True),
        (HALF_A_PAIR, "", HALF_A_PAIR, True),  # it could not be written into a sample
    ],
)
def test_calls_are_read_from_a_models_text(content: str, call: str, said: str, is_trouble: bool) -> None:
    turn = read_turn("why", content)
    assert (turn.call.name if turn.call else "", turn.content, bool(turn.trouble)) == (call, said, is_trouble)


def test_a_result_list_gives_its_addresses_and_snippets(index: SearchIndex) -> None:
    result = search_result(index, "stone bridge plans", 5, "en")
    assert URL in listed_addresses(result)
    assert "Torvald Brenn drew the plans" in result
    assert search_result(index, "zebra", 5, "en") == wording("en").no_results
    history = [assistant("", "", Call("search", {"query": "x"})), tool_result(result)]
    assert list(calls_with_results(history)) == [(Call("search", {"query": "x"}), result)]


def test_a_value_counts_as_told_only_for_its_own_step() -> None:
    fact = Fact("Torvald Brenn", "1871", "Torvald Brenn was born in 1871.", "s", "a", "q", "e")
    assert fact.told("1871")
    assert fact.told("Rain fell. Torvald Brenn was born in the year 1871, it is said.")
    assert not fact.told("18710")
    assert not fact.told("Torvald Brenn came to the town of Osby. The bridge was opened in 1871.")
    gap = Fact("", "14", "The bridge has 14 arches and leans to the north.", "s", "a", "q", "e")
    assert gap.told("It is said: The bridge has 14 arches and leans to the north.")
    assert not gap.told("In another town there is a mill that had 14 owners in 9 years.")


def test_a_server_with_faults_gives_an_answer_or_a_typed_refusal(server: FaultServer, tmp_path: Path) -> None:
    good = f"object{json.dumps(GOOD)}"
    pages = {f"{PAGE}\n\n{good}": "", f"{PAGE}\n\n500 cut ok": "no_answer", f"{PAGE}\n\nempty": "no_answer"}
    requests = [summary_request(page, QUESTION, "en", CONFIG, "m", "d") for page in pages]
    config = EndpointConfig(url=server.url, model="m", attempt_timeout_seconds=5, deadline_seconds=20)
    outcomes = ask(requests, EndpointClient(config, ResponseStore(tmp_path, "0"), where="test"))
    found = [summary_of(one, PAGE, QUESTION, "en", CONFIG) for one in outcomes]
    assert [one.check if isinstance(one, Refused) else "" for one in found] == list(pages.values())
    assert sum(server.attempts.values()) == 1 + 3 + 1
