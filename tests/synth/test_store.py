"""The response store through torn writes, merges and other runs, and what structured output must fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.cache import Request
from synth.completion import ContentError, structured_output
from synth.config import BudgetConfig, EndpointConfig
from synth.spending import Spending, Spent
from synth.store import INDEX, MOST_SEGMENTS, ResponseStore, Stored, merge


def request(words: str) -> Request:
    return Request("m", ({"role": "user", "content": words},), {"temperature": 0.5}, "test@1")


def answer(number: int) -> Stored:
    return Stored({"n": number}, number + 1, 10 * number)


def filled(folder: Path, writer: str, words: list[str]) -> None:
    store = ResponseStore(folder, writer)
    for number, one in enumerate(words):
        store.put(request(one), answer(number))
    store.close()


def test_the_store_survives_a_torn_write(tmp_path: Path) -> None:
    filled(tmp_path, "w", ["a", "b"])
    path = tmp_path / "w.jsonl"
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 10, len(whole) // 2 + 3):
        path.write_bytes(whole[:cut])
        again = ResponseStore(tmp_path, "w")
        assert again.get(request("a").key) == answer(0)
        assert again.get(request("b").key) is None
        again.put(request("b"), answer(1))
        assert again.get(request("b").key) == answer(1)
        assert path.read_bytes() == whole
    assert ResponseStore(tmp_path, "other").get(request("b").key) == answer(1)


def test_what_is_put_is_on_the_systems_side_at_once(tmp_path: Path) -> None:
    """Nothing is flushed or closed here, as after kill -9."""
    store = ResponseStore(tmp_path, "w")
    store.put(request("a"), answer(0))
    assert ResponseStore(tmp_path, "other").get(request("a").key) == answer(0)


@settings(max_examples=20, deadline=None)
@given(words=st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=40), cut=st.integers(0, 40))
def test_a_merged_store_answers_as_before(words: list[str], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    filled(folder, "run-00000", words[:cut])
    filled(folder, "run-00001", words[cut:])
    filled(folder, "other-00000", ["of another run"])
    open_before = ResponseStore(folder, "late")
    merge(folder, "run-*")
    assert sorted(path.name for path in folder.glob("*.jsonl")) == ["other-00000.jsonl"]
    expected = {word: answer(number) for part in (words[:cut], words[cut:]) for number, word in enumerate(part)}
    merged = ResponseStore(folder, "new")
    assert {word: merged.get(request(word).key) for word in words} == expected
    assert merged.get(request("never asked").key) is None
    assert open_before.get(request("of another run").key) == answer(0)


def test_many_segments_become_one(tmp_path: Path) -> None:
    for number in range(MOST_SEGMENTS + 1):
        filled(tmp_path, f"run{number}-00000", [f"word {number}", "said by all"])
        merge(tmp_path, f"run{number}-*")
    assert len(list((tmp_path / INDEX).glob("*.keys"))) == 1
    store = ResponseStore(tmp_path, "new")
    assert all(store.get(request(f"word {number}").key) == answer(0) for number in range(MOST_SEGMENTS + 1))
    assert store.get(request("said by all").key) == answer(1)


def test_a_budget_counts_all_tasks_of_a_step_over_its_runs(tmp_path: Path) -> None:
    price = {"prompt_per_million_tokens": 1.0, "completion_per_million_tokens": 10.0}
    endpoint = EndpointConfig.model_validate(
        {"url": "http://x/v1", "model": "m", "price": price, "budget": {"tokens": 1000, "money": 0.005}}
    )
    first, second = (Spending(tmp_path, f"step-0000{n}", endpoint) for n in range(2))
    Spending(tmp_path, "another-00000", endpoint).add(Spent(10_000, 0))
    first.add(Spent(100, 300))
    assert first.exhausted() == ""
    second.add(Spent(100, 200))
    assert second.exhausted() == "0.01 of 0.01 USD are spent"
    again = Spending(tmp_path, "step-00000", endpoint.replaced(budget=BudgetConfig(tokens=700)))
    assert again.exhausted() == "700 of 700 tokens are spent"
    assert again.total() == Spent(200, 500)


SCHEMA = {
    "type": "object",
    "properties": {"facts": {"type": "array", "items": {"type": "string"}}},
    "required": ["facts"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "content",
    [
        '{"facts": ["a"]}',
        'Here it is:\n```json\n{"facts": ["a"]}\n```\nDone.',
        'Of {braces} and [] first, then {"facts": ["a"]}',
        '{"facts": [1]} no: {"facts": ["a"]}',
    ],
)
def test_structured_output_is_found(content: str) -> None:
    assert structured_output(content, SCHEMA) == {"facts": ["a"]}


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        ("none", "no JSON"),
        ('{"facts": ["a", ', "broken"),
        ('{"facts": [1]}', "facts/0: 1 is not of type 'string'"),
        ('{"facts": [], "more": 1}', "the whole"),
        (r'{"facts": ["\ud83d"]}', "half of a surrogate pair"),
        ('{"facts": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_structured_output_that_does_not_fit_is_refused(content: str, trouble: str) -> None:
    with pytest.raises(ContentError, match=trouble):
        structured_output(content, SCHEMA)
