"""The client against a real server: `transformers serve` on a model that our own trainer made and exported."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.core.errors import UserError
from synth.cache import Request
from synth.client import EndpointClient, ask
from synth.completion import Completion, ContentError
from synth.config import EndpointConfig
from synth.store import ResponseStore

START_SECONDS = 120
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def exported(
    mini_store: Path,
    command_line: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    done = command_line("export", "tests/mini.yaml", "--set", f"store={mini_store}")
    assert done.returncode == 0, done.stderr
    own = tmp_path_factory.mktemp("model") / "export"
    shutil.move(mini_store / "export", own)  # other tests compare what is in the store
    (folder,) = own.iterdir()
    return folder


@pytest.fixture(scope="module")
def url(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("fastapi", reason="needs transformers[serving]")
    pytest.importorskip("uvicorn", reason="needs transformers[serving]")
    pytest.importorskip("accelerate", reason="needs transformers[serving]")
    home = tmp_path_factory.mktemp("hub")
    (home / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", str(exported), "--device", "cpu", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    log = (home / "log").open("w")
    serving = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(START_SECONDS):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert serving.poll() is None, (home / "log").read_text()[-3000:]
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        serving.kill()
        serving.wait()


def request(words: str, model: str, sample: int = 0) -> Request:
    return Request(
        model, ({"role": "user", "content": words},), {"temperature": 0.8, "max_tokens": 12}, "test@1", sample
    )


def client(url: str, folder: Path, model: str) -> EndpointClient:
    config = EndpointConfig.model_validate({"url": url, "model": model, "max_concurrency": 2, "max_attempts": 2})
    return EndpointClient(config, ResponseStore(folder, "w"), where="synth.x.endpoint")


def test_answers_come_in_order_are_stored_and_not_asked_for_again(url: str, exported: Path, tmp_path: Path) -> None:
    model = str(exported)
    requests = [request(f"Number {n} of the locks", model, sample) for n in range(3) for sample in range(2)]
    first = ask(requests, client(url, tmp_path, model))
    for one, outcome in zip(requests, first, strict=True):
        # An untrained model may answer with white space alone: that is a content error, and stored as well.
        assert isinstance(outcome, ContentError) or outcome.key == one.key
    completions = [one for one in first if isinstance(one, Completion)]
    assert completions
    assert all(one.finish_reason in ("stop", "length") and one.usage["completion_tokens"] <= 12 for one in completions)
    again = ask(requests, client("http://127.0.0.1:9/v1", tmp_path, model))
    assert [getattr(one, "content", str(one)) for one in again] == [getattr(one, "content", str(one)) for one in first]


def test_a_model_the_server_does_not_have_ends_in_words(url: str, tmp_path: Path) -> None:
    def outcome() -> str:
        try:
            (found,) = ask([request("Hello", "no/such-model")], client(url, tmp_path, "no/such-model"))
        except UserError as error:
            return error.what
        assert isinstance(found, ContentError)
        return str(found)

    assert "HTTP 4" in outcome()
