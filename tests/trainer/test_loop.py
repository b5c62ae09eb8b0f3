"""The loop on a plan written by hand: every row once, the same bits after any interruption, honest bookkeeping."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mixes.plan import append_segment
from mixes.spec import PlanConfig
from pipeline.core.errors import InputError
from pipeline.core.files import hash_file
from pipeline.core.plans import Plan, Segment, ShardRef, SourcePlan, read_plan, sealed, write_segment
from pipeline.core.record import Record, output_hashes, write_record
from pipeline.core.runlog import StepLine, read_lines
from pipeline.core.shards import DOCUMENT_TABLE_SCHEMA, TokenShard, sidecar, write_shard
from pipeline.core.steps import StepOutput
from trainer.checkpoint import checkpoints, load, read_info, save
from trainer.config import LearningRate, ModelConfig, OptimizerConfig, PhaseConfig
from trainer.data import BatchReader
from trainer.evals.short_context import pack_held_out, short_context_loss
from trainer.loop import DivergedError, deterministic, forward_backward, train_step
from trainer.losses import compute_losses
from trainer.metrics import TokenGroups, expert_load, losses_by_group, tokens_by_group
from trainer.model.model import build_model
from trainer.optim import build_optimizer
from trainer.phase import TrainExecution, load_model, train_segment
from trainer.schedule import learning_rate_at

VOCABULARY = 64
EOS = 0
CONTEXT = 32
ROWS = 21
MODEL = ModelConfig(
    hidden_size=32,
    num_layers=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    window_tokens=8,
    intermediate_size=48,
    num_experts=4,
    experts_per_token=2,
    expert_intermediate_size=16,
)
PHASE = PhaseConfig(
    name="p",
    mix="m",
    context_tokens=CONTEXT,
    budget_tokens=CONTEXT * ROWS,
    rows_per_batch=4,
    learning_rate=LearningRate(peak=1e-2, warmup_steps=2, decay_fraction=0.5),
)
STEPS = 6  # of 4 rows each, the last of 1
TOKENIZER = "t" * 64


def write_tokens(store: Path, source: str, language: str, lengths: list[int], masked: bool) -> None:
    """A shard of documents that count upwards from a seeded start: something a small model can learn."""
    generator = np.random.default_rng(sum(source.encode()))
    documents = [[*((int(generator.integers(60)) + np.arange(n - 1)) % (VOCABULARY - 1) + 1), EOS] for n in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    table = pa.Table.from_pylist(
        [
            {"id": f"{source}{n}", "source": source, "lang": language, "domain": f"d{n % 2}", "start": int(start),
             "length": length, "parents": [], "license": "CC0-1.0"}
            for n, (start, length) in enumerate(zip(starts, lengths, strict=True))
        ],
        schema=DOCUMENT_TABLE_SCHEMA,
    )  # fmt: skip
    tokens = np.array([token for document in documents for token in document])
    loss = np.arange(len(tokens)) % 3 > 0 if masked else None
    write_shard(store / f"encode.{source}" / "tokens" / "00000", tokens, table, eos_id=EOS, loss=loss)


def make_segment(store: Path, name: str, previous: Plan | None, rows: int = ROWS) -> Plan:
    """Rows of two or three documents of two sources in turn, most of them not full."""
    sources = ("alpha", "beta")
    shards = [TokenShard.open(store / f"encode.{source}" / "tokens" / "00000") for source in sources]
    cursor = [0, 0]
    first_piece, pieces = [0], []
    for row in range(rows):
        room = CONTEXT
        while True:
            source = (row + len(pieces)) % 2
            document = cursor[source] % len(shards[source].ends)
            start = int(shards[source].ends[document - 1]) if document else 0
            length = int(shards[source].ends[document]) - start
            if length > room:
                break
            pieces.append((source, start, length, source, document, 0))
            cursor[source] += 1
            room -= length
        first_piece.append(len(pieces))
    columns = ("shard", "start", "length", "source", "document", "component")
    table = pa.table({column: [piece[i] for piece in pieces] for i, column in enumerate(columns)})
    tokens = Counter[int]()
    for piece in pieces:
        tokens[piece[3]] += piece[2]
    shares = tuple(
        SourcePlan("all", source, 0.5, 9.0, tokens[n], tokens[n], 0, cursor[n]) for n, source in enumerate(sources)
    )
    earlier = previous.segments if previous else ()
    segment = Segment(
        name=name,
        context_tokens=CONTEXT,
        rows=rows,
        first_row=previous.rows if previous else 0,
        seed=11,
        order_version=1,
        tokenizer=TOKENIZER,
        components=("all",),
        sources=sources,
        shards=tuple(
            ShardRef(f"encode.{source}/tokens/00000", hash_file(sidecar(shard.stem, ".bin")))
            for source, shard in zip(sources, shards, strict=True)
        ),
        shares=shares,
        tokens=sum(tokens.values()),
        padding_tokens=rows * CONTEXT - sum(tokens.values()),
        truncated_documents=0,
        folder=f"mix.{name}",
    )
    segment = sealed(segment, earlier[-1].fingerprint if earlier else "")
    folder = store / segment.folder
    folder.mkdir(parents=True)
    (folder / "vocabulary.json").write_text(json.dumps({"languages": ["en", "ko"], "domains": ["d0", "d1"]}))
    write_segment(folder, (*earlier, segment), np.array(first_piece), table)
    return read_plan(store, folder)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    store = tmp_path_factory.mktemp("store")
    write_tokens(store, "alpha", "en", [7, 12, 9, 15, 4, 11, 8], masked=False)
    write_tokens(store, "beta", "ko", [10, 6, 13, 5, 9], masked=True)
    return make_segment(store, "p", None)


def train(plan: Plan, folder: Path, **changes: object) -> Path:
    given = {
        "model_config": MODEL,
        "optimizer_config": OptimizerConfig(),
        "phase": PHASE,
        "plan": plan,
        "segment": "p",
        "vocabulary_size": VOCABULARY,
        "tokenizer_fingerprint": TOKENIZER,
        "parent_checkpoint": None,
        "folder": folder,
        "seed": 3,
        "execution": TrainExecution(checkpoint_every_steps=2),
    }
    return train_segment(**{**given, **changes})


def lines(folder: Path) -> list[dict[str, object]]:
    """The log without what a clock says."""
    timed = {"seconds", "tokens_per_second"}
    return [{k: v for k, v in line.items() if k not in timed} for line in read_lines(folder / "train.jsonl")]


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phase's folder after an uninterrupted run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    place = train(plan, folder)
    assert place == checkpoints(folder)[-1]
    return folder


def same_end(one: Path, another: Path) -> None:
    assert lines(one) == lines(another)
    first, second = (checkpoints(folder)[-1] for folder in (one, another))
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_every_row_is_trained_once(whole: Path, plan: Plan) -> None:
    log = lines(whole)
    assert [line["step"] for line in log] == list(range(1, STEPS + 1))
    assert [line["position"] for line in log] == [0, 4, 8, 12, 16, 20]
    assert [line["rows"] for line in log] == [4, 4, 4, 4, 4, 1]
    consumed = Counter[str]()
    for line in log:
        consumed.update(line["tokens_by_source"])
    assert consumed == {share.source: share.tokens_planned for share in plan.segments[0].shares}
    info = read_info(checkpoints(whole)[-1])
    assert (info.position, info.step, info.tokens, info.ends_segment) == (ROWS, STEPS, plan.segments[0].tokens, True)


def test_a_line_says_what_happened(whole: Path, plan: Plan) -> None:
    for line in lines(whole):
        assert line["phase"] == "p"
        assert line["segment"] == plan.fingerprint
        done = line["step"] - 1
        assert line["learning_rate"] == learning_rate_at(done, STEPS, PHASE.learning_rate)
        assert 0 < line["labelled_tokens"] < line["tokens"]
        assert set(line["loss_by_source"]) <= {"alpha", "beta"}
        assert set(line["loss_by_domain"]) <= {"d0", "d1"}
        # Each language is one source here.
        assert line["loss_by_language"].get("ko") == line["loss_by_source"].get("beta")
        low, high = min(line["loss_by_source"].values()), max(line["loss_by_source"].values())
        assert low - 1e-6 <= line["loss"] <= high + 1e-6
        assert 1.0 <= line["load_max_over_mean"] <= 2.0  # top 2 of 4
        assert line["gradient_norm"] > 0
    assert abs(lines(whole)[0]["loss"] - math.log(VOCABULARY)) < 0.3


def test_the_model_learns(whole: Path) -> None:
    log = lines(whole)
    assert log[-1]["loss"] < log[0]["loss"] - 0.1


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_stopped_and_resumed_is_the_same(plan: Plan, whole: Path, tmp_path: Path, stop_after: int) -> None:
    def stop(line: StepLine, done: int, steps: int) -> None:
        assert steps == STEPS
        if done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, on_step=stop)
    assert len(lines(tmp_path)) == stop_after
    train(plan, tmp_path)
    same_end(tmp_path, whole)


def test_trained_again_does_nothing(plan: Plan, whole: Path) -> None:
    def never(line: StepLine, done: int, steps: int) -> None:
        raise AssertionError("no step is due")

    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert train(plan, whole, on_step=never) == checkpoints(whole)[-1]
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_checkpointing_changes_nothing(plan: Plan, whole: Path, tmp_path: Path) -> None:
    train(plan, tmp_path, execution=TrainExecution(checkpoint_every_steps=1, keep_checkpoints=1))
    same_end(tmp_path, whole)
    assert len(checkpoints(tmp_path)) == 1


def test_three_checkpoints_when_not_told(plan: Plan, tmp_path: Path) -> None:
    train(plan, tmp_path, execution=TrainExecution(keep_checkpoints=9))
    assert [read_info(place).step for place in checkpoints(tmp_path)] == [2, 4, 6]


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from pipeline.core.plans import read_plan
from trainer.config import ModelConfig, OptimizerConfig, PhaseConfig
from trainer.phase import TrainExecution, train_segment
store, folder, model, phase = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
train_segment(
    model_config=ModelConfig.model_validate_json(model), optimizer_config=OptimizerConfig(),
    phase=PhaseConfig.model_validate_json(phase), plan=read_plan(store, store / "mix.p"), segment="p",
    vocabulary_size=64, tokenizer_fingerprint="t" * 64, parent_checkpoint=None, folder=folder, seed=3,
    execution=TrainExecution(checkpoint_every_steps=2),
)
"""


@pytest.mark.kill
def test_killed_at_any_moment_and_resumed_is_the_same(plan: Plan, whole: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-c", SCRIPT, str(plan.store), str(tmp_path), MODEL.model_dump_json(), PHASE.model_dump_json(),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    seconds = random.Random(0)
    for steps in (1, 2, 4, 5):  # killed a moment after this many lines
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and len(lines(tmp_path)) < steps:
            time.sleep(0.001)
        time.sleep(seconds.uniform(0, 0.03))
        process.kill()
        process.wait()
    subprocess.run(command, env=environment, check=True)
    same_end(tmp_path, whole)
    assert not list(tmp_path.rglob(".partial-*"))


def test_the_next_segment_goes_on_where_this_one_ended(plan: Plan, whole: Path, tmp_path: Path) -> None:
    """A second round in the same folder: steps count on, rows of the second segment only, each its own schedule."""
    for path in whole.rglob("*"):
        target = tmp_path / path.relative_to(whole)
        target.mkdir(parents=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    longer = read_plan(plan.store, plan.store / "mix.p+1") if (plan.store / "mix.p+1").is_dir() else None
    longer = longer or make_segment(plan.store, "p+1", plan, rows=8)
    first_end = checkpoints(tmp_path)[-1]
    second_end = train(longer, tmp_path, segment="p+1")
    log = lines(tmp_path)
    assert log[:STEPS] == lines(whole)
    assert [(line["step"], line["position"]) for line in log[STEPS:]] == [(7, ROWS), (8, ROWS + 4)]
    assert {line["segment"] for line in log[STEPS:]} == {longer.fingerprint}
    assert log[-1]["learning_rate"] == learning_rate_at(1, 2, PHASE.learning_rate)
    assert read_info(second_end).tokens == sum(segment.tokens for segment in longer.segments)
    # The first segment asked for again, as after a restart: its own last checkpoint, and nothing is cut.
    assert train(longer, tmp_path) == first_end
    assert lines(tmp_path) == log


def test_the_next_phase_takes_weights_and_moments(plan: Plan, whole: Path, tmp_path: Path) -> None:
    longer = make_segment(plan.store, "q", plan, rows=4)
    parent = checkpoints(whole)[-1]
    phase = PHASE.replaced(name="q", learning_rate=LearningRate(peak=1e-12))
    place = train(longer, tmp_path, segment="q", phase=phase, parent_checkpoint=parent, seed=99)
    before, after = load(parent), load(place)
    for name, tensor in before.model.items():
        if not name.endswith("expert_bias"):  # those move by their own rate
            assert torch.allclose(after.model[name], tensor, atol=1e-6), name
    step_counts = {float(moments["step"]) for moments in after.optimizer["adamw"].values()}
    assert step_counts == {STEPS + 1.0}
    assert after.info.parent == before.info.identity
    assert (after.info.step, after.info.position) == (1, ROWS + 4)
    assert lines(tmp_path)[0]["step"] == 1


def test_microbatches_add_up_to_the_batch(plan: Plan) -> None:
    model = build_model(MODEL, VOCABULARY, seed=0).double()
    batch = BatchReader(plan, "cpu").batch(3, 5)
    gradients, losses = [], []
    for rows in (5, 2, 1):
        model.zero_grad()
        losses.append(forward_backward(model, batch, rows))
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    labelled = [int(row.sum()) for row in losses[0].labelled_RT]
    assert len(set(labelled)) > 1, "rows of equal weight would hide a mean of means"
    for other, gradient in zip(losses[1:], gradients[1:], strict=True):
        assert other.main == pytest.approx(losses[0].main, rel=1e-12)
        assert other.mtp == pytest.approx(losses[0].mtp, rel=1e-12)
        assert other.balance == pytest.approx(losses[0].balance, rel=1e-6)  # its scores are float32 products
        assert np.allclose(other.token_losses_RT, losses[0].token_losses_RT, rtol=1e-12)
        for name, value in gradient.items():
            assert (value - gradients[0][name]).norm() <= 1e-7 * gradients[0][name].norm(), name


def test_one_microbatch_is_the_plain_loss(plan: Plan) -> None:
    model = build_model(MODEL, VOCABULARY, seed=0)
    batch = BatchReader(plan, "cpu").batch(0, 4)
    compute_losses(model, batch.token_ids_RT, batch.document_ids_RT, batch.loss_mask_RT).total.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    forward_backward(model, batch, 4)
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, expected[name], rtol=1e-6, atol=1e-9), name


def test_batches_carry_sources_languages_and_domains(plan: Plan) -> None:
    batch = BatchReader(plan, "cpu").batch(0, ROWS)
    padding = batch.document_ids_RT.numpy() == -1
    counts = {}
    for kind in (batch.sources, batch.languages, batch.domains):
        assert (kind.ids_RT[padding] == -1).all()
        assert (kind.ids_RT[~padding] >= 0).all()
        found, tokens = np.unique(kind.ids_RT[~padding], return_counts=True)
        counts |= {kind.names[index]: int(n) for index, n in zip(found, tokens, strict=True)}
    planned = {share.source: share.tokens_planned for share in plan.segments[0].shares}
    assert {name: counts[name] for name in planned} == planned
    assert (counts["en"], counts["ko"]) == (planned["alpha"], planned["beta"])
    assert counts["d0"] + counts["d1"] == plan.segments[0].tokens


def test_a_loss_that_is_no_number_stops_before_the_update(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, on_step=interrupt_at(3))
    (place,) = checkpoints(tmp_path)
    stored = load(place)
    stored.model["norm.weight"][0] = float("nan")
    save(tmp_path, stored.info, stored.model, stored.optimizer, keep=1)
    with pytest.raises(DivergedError, match=r"loss is nan.* in rows 8 to 11 of the plan, at learning rate 0\.01;"):
        train(plan, tmp_path)
    assert len(lines(tmp_path)) == 2
    assert [read_info(place).step for place in checkpoints(tmp_path)] == [2]


def test_a_step_that_diverges_touches_nothing(plan: Plan) -> None:
    model = build_model(MODEL, VOCABULARY, seed=0)
    optimizer = build_optimizer(model, OptimizerConfig())
    with torch.no_grad():
        model.layers[2].feed_forward.experts.down[1, 0, 0] = float("inf")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DivergedError, match="were not updated"):
        train_step(model, optimizer, BatchReader(plan, "cpu").batch(0, 4), learning_rate=1e-3, rows_per_microbatch=4)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_lost_log_is_refused(plan: Plan, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, on_step=interrupt_at(3))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(InputError, match="the run log ends at step 0, the checkpoint stands at step 2"):
        train(plan, tmp_path)


def interrupt_at(step: int):
    def on_step(line: StepLine, done: int, steps: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


def test_a_line_that_was_tampered_with_fails_the_audit(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path, on_step=interrupt_at(3))
    log = tmp_path / "train.jsonl"
    stored = [json.loads(raw) for raw in log.read_bytes().splitlines()]
    stored[0]["tokens_by_source"]["alpha"] -= 1
    log.write_text("".join(json.dumps(line) + "\n" for line in stored))
    with pytest.raises(AssertionError, match="tokens by source"):
        train(plan, tmp_path)
    assert not any(read_info(place).ends_segment for place in checkpoints(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_fingerprint": "u" * 64}, "encoded with tokenizer tttttttt"),
        ({"phase": PHASE.replaced(context_tokens=64, budget_tokens=10_000)}, "rows of 32 tokens"),
        ({"segment": "pp"}, "unknown plan segment `pp`"),
        ({"model_config": MODEL.replaced(num_experts=8)}, r"`model\.num_experts` differs"),
        ({"vocabulary_size": 128}, "`vocabulary_size` differs"),
    ],
)
def test_what_does_not_fit_is_refused(plan: Plan, whole: Path, changes: dict[str, object], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with pytest.raises(ValueError, match=message):
        train(plan, whole, **changes)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_another_plans_checkpoint_is_refused(plan: Plan, whole: Path, tmp_path: Path) -> None:
    other = Plan(plan.store, (sealed(replace(plan.segments[0], seed=12, fingerprint=""), ""),))
    with pytest.raises(InputError, match="`plan` differs"):
        train(other, tmp_path, parent_checkpoint=checkpoints(whole)[-1])


def test_a_segment_out_of_turn_is_refused(plan: Plan, whole: Path, tmp_path: Path) -> None:
    later = make_segment(plan.store, "r", plan, rows=4)
    with pytest.raises(InputError, match="starts at row 21, there is no checkpoint"):
        train(later, tmp_path, segment="r")
    with pytest.raises(InputError, match="starts at row 21, the checkpoint stands at row 16"):
        train(later, tmp_path, segment="r", parent_checkpoint=checkpoints(whole)[0])


def test_a_loaded_model_is_the_trained_one(plan: Plan, whole: Path) -> None:
    model, info = load_model(checkpoints(whole)[-1])
    rows = pack_held_out([TokenShard.open(plan.store / "encode.alpha/tokens/00000").document(0)], CONTEXT, 1)
    assert short_context_loss(model, rows) < short_context_loss(build_model(MODEL, VOCABULARY, seed=3), rows)
    assert info.tokenizer == TOKENIZER


def test_deterministic_mode_ends_with_its_block() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_expert_bias_moves_once_a_step(whole: Path) -> None:
    """Biases move by whole multiples of the rate, at most once a step; double counting or a lost buffer shows."""
    biases = [t for name, t in load(checkpoints(whole)[-1]).model.items() if name.endswith("expert_bias")]
    moves = torch.stack(biases) / MODEL.expert_bias_rate
    assert torch.allclose(moves, moves.round(), atol=1e-3)
    assert 0 < moves.abs().max() <= STEPS


def test_group_means_are_over_labelled_tokens() -> None:
    groups = TokenGroups(("b", "a", "never"), np.array([[0, 0, 1], [1, -1, 0]]))
    losses = np.array([[1.0, 2.0, 4.0], [6.0, 100.0, 50.0]], np.float32)
    labelled = np.array([[True, True, True], [True, True, False]])
    assert losses_by_group(losses, labelled, groups) == {"a": 5.0, "b": 1.5}
    assert list(losses_by_group(losses, labelled, groups)) == ["a", "b"]
    assert tokens_by_group(groups) == {"a": 2, "b": 3}
    assert losses_by_group(losses, np.zeros_like(labelled), groups) == {}


def test_expert_load() -> None:
    assert expert_load({1: torch.tensor([2, 2]), 3: torch.tensor([0, 4])}) == (2.0, 1)
    assert expert_load({1: torch.tensor([0, 0])}) == (0.0, 2)
    assert expert_load({}) == (0.0, 0)


def test_a_plan_the_planner_made(tmp_path: Path) -> None:
    """The planner's shares, loader's rows and the audit agree, and its rows train to the last."""
    write_tokens(tmp_path, "alpha", "en", [7, 40, 9, 15, 4, 70, 8, 21, 33, 5] * 4, masked=False)
    write_tokens(tmp_path, "beta", "ko", [10, 6, 13, 5, 90] * 6, masked=True)
    encoded = {}
    for source in ("alpha", "beta"):
        folder = tmp_path / f"encode.{source}"
        files = output_hashes(folder)
        write_record(
            folder,
            Record(
                f"encode.{source}", "stages.encode", 1, "f" * 64, {}, {"tokenizer": TOKENIZER}, {}, {}, {}, {}, files
            ),
            {},
        )
        encoded[f"encode.{source}"] = StepOutput(f"encode.{source}", folder)
    components = {
        "long": {"from": ("alpha",), "weight": 0.5, "max_repeats": 2.0, "whole": True},
        "rest": {"from": ("*",), "weight": 0.5, "max_repeats": 2.0},
    }
    config = PlanConfig.model_validate(
        {
            "mix": {"components": components},
            "phase": "p",
            "context_tokens": CONTEXT,
            "budget_tokens": CONTEXT * 16,
            "rows_per_batch": 4,
            "seed": 2,
        }
    )
    append_segment(tmp_path, encoded, config, None, tmp_path / "mix.p")
    plan = read_plan(tmp_path, tmp_path / "mix.p")
    place = train(plan, tmp_path / "train")
    assert read_info(place).tokens == plan.segments[0].tokens
    assert len(lines(tmp_path / "train")) == math.ceil(plan.rows / 4)
    assert {source for line in lines(tmp_path / "train") for source in line["loss_by_source"]} == {"alpha", "beta"}
