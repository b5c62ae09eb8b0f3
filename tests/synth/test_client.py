"""The client against a local server that misbehaves on demand, and the response store through a torn write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_server import SECRET, FaultServer

import synth.client
from pipeline.core.documents import read_documents
from pipeline.core.errors import UserError
from pipeline.core.steps import StepTask
from synth.cache import Request
from synth.client import EndpointClient, ask, retry_after_seconds
from synth.completion import Completion, ContentError, parse_completion
from synth.config import EndpointConfig, ThinkingConfig, endpoint_binding
from synth.limits import Server, Slots
from synth.store import ResponseStore
from synth.thinking import WORK


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth.client, "FIRST_WAIT_SECONDS", 0.01)


def request(words: str, sample: int = 0) -> Request:
    return Request("m", ({"role": "user", "content": words},), {"temperature": 0.5}, "test@1", sample)


def client(server: FaultServer, folder: Path, writer: str = "w", **more: Any) -> EndpointClient:
    settings = {"attempt_timeout_seconds": 30.0, "deadline_seconds": 120.0, **more}
    config = EndpointConfig.model_validate({"url": server.url, "model": "m", **settings})
    return EndpointClient(config, ResponseStore(folder, writer), where="synth.x.endpoint")


def test_every_passing_fault_is_survived_in_order(server: FaultServer, tmp_path: Path) -> None:
    faults = ["ok", "429 ok", "500 ok", "cut ok", "json ok", "reset ok", "503 cut 429 ok", "later ok"]
    outcomes = ask([request(words) for words in faults], client(server, tmp_path))
    assert [outcome.thought for outcome in outcomes if isinstance(outcome, Completion)] == [
        f"thought on {w}" for w in faults
    ]
    assert server.attempts == {words: len(words.split()) for words in faults}
    first = outcomes[0]
    assert isinstance(first, Completion)
    assert (first.content, first.model, first.usage) == (
        "answer to ok",
        "served-model",
        {"completion_tokens": 7, "prompt_tokens": 6, "total_tokens": 13},
    )


def test_a_server_that_hangs_is_asked_again(server: FaultServer, tmp_path: Path) -> None:
    """It answers after 30 seconds at the earliest, so that an attempt of one second is over before on any machine."""
    (outcome,) = ask([request("hang ok")], client(server, tmp_path, attempt_timeout_seconds=1.0))
    assert isinstance(outcome, Completion)
    assert server.attempts["hang ok"] >= 2


def test_content_failures_come_back_for_their_document_only(server: FaultServer, tmp_path: Path) -> None:
    outcomes = ask([request(words) for words in ("ok a", "422", "empty", "ok b")], client(server, tmp_path))
    assert [type(outcome) for outcome in outcomes] == [Completion, ContentError, ContentError, Completion]
    assert server.attempts["422"] == 1


def test_refusal_of_the_key_ends_the_run_without_showing_it(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    with pytest.raises(UserError) as caught:
        ask([request("401")], client(server, tmp_path, key_env="SOME_KEY"))
    assert server.authorizations == {f"Bearer {SECRET}"}
    assert SECRET not in caught.value.render()
    assert "[redacted]" in caught.value.render()
    assert server.attempts["401"] == 1


def test_a_missing_key_is_a_user_error(server: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NO_SUCH_KEY_VARIABLE"):
        ask([request("ok")], client(server, tmp_path, key_env="NO_SUCH_KEY_VARIABLE"))


def test_what_was_answered_is_stored_when_the_rest_fails(server: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 of 3 requests got no answer"):
        ask([request(words) for words in ("ok 1", "500 500 500 500", "ok 2")], client(server, tmp_path, max_attempts=3))
    before = dict(server.attempts)
    outcomes = ask(
        [request(words) for words in ("ok 1", "500 500 500 500", "ok 2")][::2], client(server, tmp_path, "again")
    )
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert server.attempts == before


def test_equal_requests_are_asked_once_and_samples_apart(server: FaultServer, tmp_path: Path) -> None:
    same = [request("ok") for _ in range(20)]
    outcomes = ask([*same, request("ok", sample=1)], client(server, tmp_path))
    assert len(outcomes) == 21
    assert server.attempts["ok"] == 2


def test_concurrency_stays_below_the_ceiling(server: FaultServer, tmp_path: Path) -> None:
    ask([request(f"ok {n}") for n in range(60)], client(server, tmp_path, max_concurrency=5))
    assert 2 <= server.most_in_flight <= 5


def test_a_waiting_request_holds_no_slot(server: FaultServer, tmp_path: Path) -> None:
    """With one slot, a request told to wait 0.3 s lets others through meanwhile."""
    words = ["later ok", *(f"ok {n}" for n in range(10))]
    ask([request(one) for one in words], client(server, tmp_path, max_concurrency=1))
    asked = [str(body["messages"]).count("later") for body in server.bodies]
    again = asked.index(1, asked.index(1) + 1)
    assert len(asked) == 12
    assert again - asked.index(1) > 1, "nobody was asked between the request and its repetition"
    assert server.times[again] - server.times[asked.index(1)] >= 0.3


def test_400_requests_with_20_percent_faults_lose_nothing(server: FaultServer, tmp_path: Path) -> None:
    faults = ["429", "500", "cut", "reset", "json"]
    words = [f"{faults[n % 5]} ok {n}" if n % 5 == n % 25 // 5 else f"ok {n}" for n in range(400)]
    patient = client(server, tmp_path)
    outcomes = ask([request(one) for one in words], patient)
    assert [o.content for o in outcomes if isinstance(o, Completion)] == [f"answer to {one}" for one in words]
    rows = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["key"] for row in rows}) == 400


def test_a_thinking_set_from_a_live_endpoint_and_again_from_its_store(
    server: FaultServer, library: Any, make_task: Callable[..., StepTask]
) -> None:
    config = ThinkingConfig.model_validate({
        "kind": "thinking", "from": "articles", "endpoint": "local", "languages": ("en",),
        "checks": {"minimum_characters": 0, "maximum_length_ratio": 1000.0, "minimum_grounding": 0.0, "maximum_copy_share": 1.0},
    })  # fmt: skip
    endpoint = EndpointConfig.model_validate({"url": server.url, "model": "m", "attempt_timeout_seconds": 30.0})
    paths, content = endpoint_binding("think", config, {"local": endpoint})
    assert content == {"model": "m"}
    rows = [
        library.row("en", slug, text=f"A short text about {slug}, asked of a server.") for slug in ("canals", "ferries")
    ]
    task = make_task("synth.think", config, [rows], paths)
    made = []
    for _ in range(2):
        result = WORK.make_shard(task, 0)
        assert result.dropped == {}
        made.append((task.folder / "documents" / "00000.parquet").read_bytes())
    assert made[0] == made[1]
    assert sum(server.attempts.values()) == 2
    (table,) = read_documents(task.folder)
    assert table["maker"].to_pylist() == ["served-model"] * 2


@pytest.mark.parametrize(
    ("message", "reasoning", "content"),
    [
        ({"content": "<think>\nfirst\n</think>\n\nthen"}, "first", "then"),
        ({"content": "<think>cut at the limit"}, "cut at the limit", ""),
        ({"content": "then", "reasoning": "first"}, "first", "then"),
        ({"content": None, "reasoning_content": "first"}, "first", ""),
        ({"content": "only <think> inside"}, "", "only <think> inside"),
    ],
)
def test_reasoning_is_kept_apart(message: dict[str, Any], reasoning: str, content: str) -> None:
    found = parse_completion(request("k"), {"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (found.reasoning, found.content) == (reasoning, content)
    assert found.thought == (reasoning or content)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": ""}}]},
        {"choices": [{"message": {"content": [1]}}]},
    ],
)
def test_what_is_no_completion_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ContentError):
        parse_completion(request("k"), body)


def test_retry_after_in_both_forms() -> None:
    assert retry_after_seconds("2.5") == 2.5
    assert retry_after_seconds("-3") == 0.0
    assert retry_after_seconds("99999") == 600.0
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_seconds("Wed, 21 Oct 2099 07:28:00 GMT") == 600.0
    assert retry_after_seconds("") == retry_after_seconds("soon") == 0.0


def test_the_limit_doubles_then_rises_by_one_a_round_and_falls_once_a_burst() -> None:
    server = Server("a", 100)
    for _ in range(16):
        server.succeeded()
    assert server.value == 32.0
    for _ in range(5):
        server.overloaded(10.0)
    assert server.value == pytest.approx(32 * 0.7)
    for _ in range(22):
        server.succeeded()
    assert 23.2 < server.value < 23.4
    server.overloaded(11.1)
    assert server.value == pytest.approx(23.3 * 0.7, abs=0.1)


def test_a_cancelled_waiter_gives_its_slot_on() -> None:
    async def story() -> int:
        slots = Slots([server := Server("a", 1)], patience=3)

        async def hold() -> None:
            slots.give_back(await slots.take())

        first = await slots.take()
        waiting = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        slots.give_back(first)
        waiting[1].cancel()
        await asyncio.wait_for(waiting[2], 1)
        await asyncio.wait_for(hold(), 1)
        return server.in_flight

    assert asyncio.run(story()) == 0


def test_slots_go_to_the_least_busy_server_that_takes_connections() -> None:
    async def story() -> list[str]:
        first, second = Server("a", 4), Server("b", 2)
        slots = Slots([first, second], patience=3)
        taken = [(await slots.take()).url for _ in range(6)]
        for server in (first, second):
            while server.in_flight:
                slots.give_back(server)
        first.refused_connection(asyncio.get_running_loop().time())
        return [*taken, (await slots.take()).url, (await slots.take()).url]

    assert asyncio.run(story()) == ["a", "b", "a", "a", "b", "a", "b", "b"]
