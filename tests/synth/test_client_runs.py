"""The client over whole runs: budgets, dead servers, structured output, and 10,000 documents through faults and kills."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fault_server import FaultServer, running

import synth.client
import synth.limits
from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.errors import UserError
from pipeline.core.record import read_shard_result, shard_done, write_shard_result
from pipeline.core.steps import StepTask
from synth.cache import Request
from synth.client import EndpointClient, ask
from synth.completion import Completion, ContentError
from synth.config import EndpointConfig, ThinkingConfig, endpoint_binding
from synth.store import ResponseStore
from synth.thinking import WORK


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth.client, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(synth.limits, "FIRST_REST_SECONDS", 0.01)


def request(words: str, **more: Any) -> Request:
    return Request("m", ({"role": "user", "content": words},), {"temperature": 0.5}, "test@1", **more)


def client(folder: Path, writer: str = "step-00000", **settings: Any) -> EndpointClient:
    config = EndpointConfig.model_validate({"model": "m", "attempt_timeout_seconds": 30.0, **settings})
    return EndpointClient(config, ResponseStore(folder, writer), where="synth.x.endpoint")


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that is taken but takes no connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_a_dead_server_rests_while_another_works(server: FaultServer, dead_url: str, tmp_path: Path) -> None:
    words = [f"ok {number}" for number in range(60)]
    outcomes = ask([request(one) for one in words], client(tmp_path, url=(dead_url, server.url)))
    assert [one.content for one in outcomes if isinstance(one, Completion)] == [f"answer to {one}" for one in words]


def test_two_servers_share_the_work(server: FaultServer, tmp_path: Path) -> None:
    with running() as second:
        ask([request(f"ok {n}") for n in range(80)], client(tmp_path, url=(server.url, second.url), max_concurrency=4))
        counts = [sum(one.attempts.values()) for one in (server, second)]
        assert sum(counts) == 80
        assert min(counts) >= 20
        assert max(server.most_in_flight, second.most_in_flight) == 4


def test_no_server_at_all_ends_the_run(dead_url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="took no connection in 3 tries"):
        ask([request(f"ok {n}") for n in range(50)], client(tmp_path, url=dead_url, max_attempts=3))


def test_another_model_than_allowed_ends_the_run(server: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answered as model `served-model`; served_models allows big-\\*"):
        ask([request("ok")], client(tmp_path, url=server.url, served_models=("big-*",)))
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_spent_budget_ends_the_run_and_keeps_the_answers(server: FaultServer, tmp_path: Path) -> None:
    words = [request(f"ok {number}") for number in range(100)]
    usage = 13  # tokens the server counts for each
    few: dict[str, Any] = {"url": server.url, "max_concurrency": 2}
    with pytest.raises(UserError, match="the budget is spent: .* tokens are spent; .* of 100 requests were not asked"):
        ask(words, client(tmp_path, budget={"tokens": 20 * usage}, **few))
    assert 20 <= sum(server.attempts.values()) <= 22
    outcomes = ask(words, client(tmp_path, budget={"tokens": 1000 * usage}, **few))
    assert all(isinstance(one, Completion) for one in outcomes)
    assert sum(server.attempts.values()) == 100


def test_samples_of_one_question_have_seeds_of_their_own(server: FaultServer, tmp_path: Path) -> None:
    ask([request("ok", sample=n) for n in range(3)], client(tmp_path, url=server.url))
    assert len({body["seed"] for body in server.bodies}) == 3


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_structured_output_is_asked_for_and_validated(server: FaultServer, tmp_path: Path) -> None:
    words = ['object{"n": 1}', 'object{"n": "one"}', "plain"]
    outcomes = ask([request(one, schema=SCHEMA) for one in words], client(tmp_path, url=server.url))
    assert [one.structured if isinstance(one, Completion) else type(one) for one in outcomes] == [
        {"n": 1}, ContentError, ContentError,
    ]  # fmt: skip
    assert all("response_format" in body for body in server.bodies)


def test_a_server_without_structured_output_is_asked_in_words(server: FaultServer, tmp_path: Path) -> None:
    server.refuses_schemas = True
    outcomes = ask([request(f'object{{"n": {n}}}', schema=SCHEMA) for n in range(5)], client(tmp_path, url=server.url))
    assert [one.structured for one in outcomes if isinstance(one, Completion)] == [{"n": n} for n in range(5)]


DOCUMENTS = 10_000
SHARDS = 10
FAULTS = ("429", "500", "cut", "reset", "json")


def words_of(number: int) -> str:
    """Every fifth document meets a fault; one in a hundred is refused for good."""
    if number % 100 == 7:
        return "422 " * 6 + f"n{number}"
    return f"{FAULTS[number // 5 % 5]} ok n{number}" if number % 5 == 0 else f"ok n{number}"


def make_all(task: StepTask) -> None:
    """What an executor does with a step, in one process."""
    for shard in range(SHARDS):
        if not shard_done(task.folder, shard):
            write_shard_result(task.folder, shard, WORK.make_shard(task, shard))


@pytest.mark.kill
@pytest.mark.slow
def test_10000_documents_through_faults_and_kills(
    library: Any, make_task: Callable[..., StepTask], tmp_path: Path
) -> None:
    tally = tmp_path / "answered"
    helper = Path(__file__).parents[1] / "helpers" / "fault_server.py"
    serving = subprocess.Popen([sys.executable, helper, tally], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        url = f"http://127.0.0.1:{int(serving.stdout.readline())}/v1"
        config = ThinkingConfig.model_validate({
            "kind": "thinking", "from": "articles", "endpoint": "local", "languages": ("en",),
            "documents_per_shard": DOCUMENTS // SHARDS,
            "checks": {"minimum_characters": 0, "maximum_length_ratio": 1000.0, "minimum_length_ratio": 0.0, "minimum_grounding": 0.0, "maximum_copy_share": 1.0},
        })  # fmt: skip
        endpoint = EndpointConfig.model_validate({"url": url, "model": "m", "max_concurrency": 64})
        paths, _ = endpoint_binding("think", config, {"local": endpoint})
        rows = [library.row("en", f"n{n}", text=f"About canal number {n}.\n\n{words_of(n)}") for n in range(DOCUMENTS)]
        task = make_task("synth.think", config, [rows[: DOCUMENTS // 2], rows[DOCUMENTS // 2 :]], paths)
        kills = _killed_at_random(task, tally, kills=4)
        if os.fork() == 0:
            os._exit(_quietly(task))
        _, status = os.wait()
        assert status == 0
    finally:
        serving.kill()
        serving.wait()
    assert kills == 4
    kept = [row for table in read_documents(task.folder) for row in table["parents"].to_pylist()]
    dropped = [row for table in read_dropped(task.folder) for row in table["id"].to_pylist()]
    assert len(dropped) == DOCUMENTS // 100
    assert len(kept) == len({one[0] for one in kept}) == DOCUMENTS - len(dropped)
    results = [read_shard_result(task.folder, shard) for shard in range(SHARDS)]
    assert sum((Counter(one.dropped) for one in results), Counter()) == {"thinking.no_answer": len(dropped)}
    answers = Counter(tally.read_text().splitlines())
    assert len(answers) == DOCUMENTS - len(dropped)
    # Asked again: only what was in flight at a kill.
    assert answers.total() - len(answers) <= kills * 64


def _quietly(task: StepTask) -> int:
    try:
        make_all(task)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _asked(tally: Path) -> int:
    """Questions that the server has answered so far."""
    return tally.read_bytes().count(b"\n") if tally.is_file() else 0


def _killed_at_random(task: StepTask, tally: Path, kills: int) -> int:
    """Start the work and end it with kill -9 once it has asked some more, again and again, by half of it at most."""
    dice, done = Random(3), 0
    most = DOCUMENTS // (2 * kills)
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            os._exit(_quietly(task))
        enough = _asked(tally) + dice.randint(1, most)
        while _asked(tally) < enough and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        done += os.WIFSIGNALED(status)
    return done
