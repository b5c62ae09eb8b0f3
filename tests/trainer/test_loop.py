"""The loop on a plan written by hand: every row once, honest bookkeeping, losses that add up."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from hand_plan import (
    MODEL,
    PHASE,
    ROWS,
    STEPS,
    VOCABULARY,
    interrupt_at,
    lines,
    train,
)
from pipeline.core.plans import Plan
from pipeline.core.runlog import read_lines
from trainer.checkpoint import checkpoints, load, read_info
from trainer.config import OptimizerConfig
from trainer.data import BatchReader
from trainer.loop import DivergedError, deterministic, forward_backward, train_step
from trainer.losses import compute_losses
from trainer.metrics import TokenGroups, expert_load, losses_by_group, tokens_by_group
from trainer.model.model import build_model
from trainer.optim import build_optimizer
from trainer.saving import save
from trainer.schedule import learning_rate_at


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


def test_every_measure_of_a_step_is_in_its_line(whole: Path) -> None:
    for line in read_lines(whole / "train.jsonl"):
        for name in ("loss", "mtp_loss", "balance_loss", "z", "gradient_norm", "seconds", "tokens_per_second"):
            assert 0 < line[name] < math.inf, name
        for name in ("mtp_acceptance", "router_entropy"):
            assert 0 <= line[name] <= 1, name
        assert line["flops_share"] > 0
        assert line["router_entropy"] > 0.5  # scores of new routers are nearly alike
        for name in ("loss_by_source", "loss_by_language", "loss_by_domain"):
            assert line[name], name
        groups = {"muon", "adamw-decayed", "adamw-undecayed"}
        assert groups == set(line["gradient_norms"]) == set(line["update_norms"])
        assert line["gradient_norm"] == pytest.approx(math.hypot(*line["gradient_norms"].values()))
        assert line["dead_experts"] in range(13)
        assert line["memory_bytes"] > 10 << 20
        assert line["skipped"] == ""


def test_the_model_learns(whole: Path) -> None:
    log = lines(whole)
    assert log[-1]["loss"] < log[0]["loss"] - 0.1


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
