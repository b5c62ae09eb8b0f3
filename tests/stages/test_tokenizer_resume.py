"""A training that stops at any moment goes on from its checkpoint, and ends with the same bytes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_run import TokenizerRun, corpus

from stages.tokenizer import checkpoint, merging
from stages.tokenizer.checkpoint import SUPERWORDS, WORDS, Attempt, Checkpoint
from stages.tokenizer.counts import Group, Run, count_texts
from stages.tokenizer.merging import Progress, Rules, Sequences, merge
from stages.tokenizer.spelling import alphabet
from stages.tokenizer.superbpe import Plan, Start, train_runs
from stages.tokenizer.train import CHECKPOINT, TokenizerConfig, TrainTokenizerConfig
from stages.tokenizer.words import count_words

ROOT = Path(__file__).resolve().parents[2]
LETTERS = [bytes([letter]) for letter in b"abc "]
PLAN = Plan(600, 60, ratios={"en": 2, "ko": 3, "multilingual": 1})


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture
def kept_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "SLICE_MERGES", 5)
    monkeypatch.setattr(checkpoint, "KEPT_SECONDS", 0.0)


def runs_of(count: int = 60) -> list[Run]:
    return [
        run
        for language in ("en", "ko", "es")
        for run in count_texts(Group(language, ""), (row["text"].encode() for row in corpus(count, (language,))))
    ]


def stopping_after(calls: int, seen: list[tuple[str, int]]) -> Callable[[str, int, int], None]:
    def told(stage: str, tokens: int, of: int) -> None:
        seen.append((stage, tokens))
        if len(seen) == calls:
            raise Stopped

    return told


@pytest.mark.usefixtures("kept_always")
def test_a_stopped_training_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    runs = runs_of()
    seen: list[tuple[str, int]] = []
    whole = train_runs(lambda: iter(runs), PLAN, told=stopping_after(0, seen))
    assert whole.complete
    file = tmp_path / CHECKPOINT
    in_both = [stage for stage, _ in seen].index(SUPERWORDS) + 4
    for calls in (1, in_both // 2, in_both - 4, in_both, len(seen) - 1):
        file.unlink(missing_ok=True)
        with pytest.raises(Stopped):
            train_runs(lambda: iter(runs), PLAN, told=stopping_after(calls, []), checkpoint=Checkpoint.opened(file))
        opened = Checkpoint.opened(file)
        stage, tokens = seen[calls - 1]
        first = 320 if stage == WORDS else 540
        assert len({result for _, _, result in opened.stages[stage].merges.tolist()}) == tokens - first
        assert train_runs(lambda: iter(runs), PLAN, checkpoint=opened) == whole


@pytest.mark.usefixtures("kept_always")
def test_a_training_stopped_again_and_again_ends(tmp_path: Path) -> None:
    runs = runs_of()
    whole = train_runs(lambda: iter(runs), PLAN)
    file = tmp_path / CHECKPOINT
    for stops in range(100):
        # A replay is told of too: the next stop is a little further on.
        told = stopping_after(10 + 6 * stops, [])
        try:
            found = train_runs(lambda: iter(runs), PLAN, told=told, checkpoint=Checkpoint.opened(file))
        except Stopped:
            continue
        assert stops >= 5
        assert found == whole
        return
    raise AssertionError("never ended")


@pytest.mark.usefixtures("kept_always")
def test_a_second_attempt_at_superwords_is_gone_on_with(tmp_path: Path) -> None:
    runs = [run for run in runs_of() if run.group.language != "ko"]
    plan = Plan(440, 44, ratios=PLAN.ratios, fills=True)
    seen: list[tuple[str, int]] = []
    whole = train_runs(lambda: iter(runs), plan, told=stopping_after(0, seen))
    assert whole.by_class == {"en": 30, "ko": 0, "multilingual": 14}
    file = tmp_path / CHECKPOINT
    told = stopping_after(len(seen) - 1, [])
    with pytest.raises(Stopped):
        train_runs(lambda: iter(runs), plan, told=told, checkpoint=Checkpoint.opened(file))
    opened = Checkpoint.opened(file)
    assert opened.attempt == Attempt(2, (30, 0, 14))
    assert train_runs(lambda: iter(runs), plan, checkpoint=opened) == whole


@pytest.mark.usefixtures("kept_always")
@pytest.mark.parametrize("calls", [3, 20, 40])
def test_a_training_that_extends_an_older_vocabulary_goes_on_too(calls: int, tmp_path: Path) -> None:
    runs = runs_of()
    older = merge(count_words(lambda: iter(runs)).sequences, alphabet(), (), Rules(380))
    start = Start(tuple(older.tokens), tuple(older.merges))
    file = tmp_path / CHECKPOINT
    told = stopping_after(calls, [])
    with pytest.raises(Stopped):
        train_runs(lambda: iter(runs), PLAN, start, told, Checkpoint.opened(file))
    resumed = train_runs(lambda: iter(runs), PLAN, start, checkpoint=Checkpoint.opened(file))
    assert resumed == train_runs(lambda: iter(runs), PLAN)  # from the single bytes: the same merges


def sequences(weighed: dict[str, tuple[int, int]]) -> Sequences:
    lengths = np.array([len(text) for text in weighed], np.int32)
    ids = np.array([b"abc ".index(letter) for text in weighed for letter in text.encode()], np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return Sequences(ids, starts, lengths, np.array(list(weighed.values()), np.int64))


@settings(max_examples=150, deadline=None)
@given(
    weighed=st.dictionaries(
        st.text("abc ", min_size=2, max_size=12),
        st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any),
        min_size=2,
        max_size=8,
    ),
    quotas=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    stop=st.integers(0, 12),
    words=st.sampled_from([0, 2]),
)
def test_refused_pairs_stay_refused_when_going_on(
    weighed: dict[str, tuple[int, int]], quotas: tuple[int, int], stop: int, words: int
) -> None:
    rules = Rules(16, classes=(0, 1), quotas=quotas, minimum_words=words, maximum_words=3 if words else 1 << 30)
    reached: list[Progress] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merging, "SLICE_MERGES", 1)
        whole = merge(sequences(weighed), LETTERS, (), rules, lambda tokens, progress: reached.append(progress()))
    resumed = merge(sequences(weighed), LETTERS, (), rules, reached=reached[min(stop, len(reached) - 1)])
    assert resumed == whole


DRIVER = """
import sys, time
from pathlib import Path
from tokenizer_run import TokenizerRun, corpus
from stages.tokenizer import checkpoint, counts, merging
from stages.tokenizer.train import TokenizerConfig, TrainTokenizerConfig
merging.SLICE_MERGES, checkpoint.KEPT_SECONDS, counts.RUN_WORDS = 1, 0.0, 40
tell = checkpoint.Checkpoint.tell

def tell_slowly(*told):
    time.sleep(0.02)  # the ~280 merges take 6 s at the least, so that no machine is done before it is killed
    tell(*told)

checkpoint.Checkpoint.tell = tell_slowly
config = TokenizerConfig(train=TrainTokenizerConfig(vocabulary=600, superword_share=0.1))
TokenizerRun(Path(sys.argv[1]), [corpus()[shard::12] for shard in range(12)], config).make()
"""


def driver(store: Path) -> subprocess.Popen[bytes]:
    paths = [str(ROOT), str(ROOT / "tests" / "helpers"), str(ROOT / "tests")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(store)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_another(files: str, store: Path, process: subprocess.Popen[bytes]) -> None:
    """Until one of such files is new or written anew, or the run is over."""

    def written() -> set[tuple[Path, int]]:
        found: set[tuple[Path, int]] = set()
        for file in store.glob(files):
            with contextlib.suppress(FileNotFoundError):  # renamed since
                found.add((file, file.stat().st_mtime_ns))
        return found

    before = written()
    while written() <= before and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_killed_while_counting_and_training_the_rerun_gives_the_same_bytes(
    tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    config = TokenizerConfig(train=TrainTokenizerConfig(vocabulary=600, superword_share=0.1))
    # One shard in one run of counts there, many here: neither sharding, runs nor kills change a byte.
    whole = TokenizerRun(tmp_path / "whole", [corpus()], config).make()
    seed = int(os.environ.get("SEODANG_KILL_SEED", "20260101"))
    record_property("seed", seed)
    moments = random.Random(seed)
    store = tmp_path / "killed"
    for files in ("*/*", f"tokenizer-*/{CHECKPOINT}") * 6:  # while it counts, and while it trains, further in each time
        process = driver(store)
        wait_for_another(files, store, process)
        time.sleep(moments.uniform(0.0, 0.1))
        assert process.poll() is None, "the run ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert list(store.glob(f"tokenizer-*/{CHECKPOINT}")), "no kill left a checkpoint behind"
    process = driver(store)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    (folder,) = (path.parent for path in store.glob("tokenizer-*/tokenizer.json"))
    assert not (folder / CHECKPOINT).exists()
    assert not list(folder.glob(".partial-*"))
    for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.tiktoken", "tokenizer.tiktoken.json"):
        assert (folder / file).read_bytes() == (whole.folder() / file).read_bytes()
