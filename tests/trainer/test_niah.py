"""Needles: exact lengths and places, one of them in each haystack, and scores that a known answerer earns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.core.errors import InputError
from trainer.config import ModelConfig
from trainer.evals.niah import (
    WORDINGS,
    build_haystacks,
    grid_depths,
    grid_lengths,
    score_haystacks,
)
from trainer.evals.short_context import pack_held_out, short_context_loss
from trainer.losses import compute_losses
from trainer.model.model import build_model

BYTES = 256
FILLER = (
    "The wind turned in the night. By morning the harbour was quiet! Who had moved the boats?\n",
    "오늘은 비가 온다. 내일은 맑겠다.",
)


def encode(text: str) -> list[int]:
    return list(text.encode())


class Answerer(nn.Module):
    """Gives fixed next-token choices: `choose` maps a row of ids to the id it would write after each position."""

    def __init__(self, choose) -> None:
        super().__init__()
        self.choose = choose
        self.head = nn.Linear(BYTES, BYTES, bias=False)
        nn.init.eye_(self.head.weight)
        self.calls = 0

    def forward(self, token_ids_BT: Tensor, document_ids_BT: Tensor):
        self.calls += 1
        chosen = torch.tensor([self.choose(row.tolist()) for row in token_ids_BT])
        hidden = nn.functional.one_hot(chosen, BYTES).float() * 20
        return type("Output", (), {"hidden_BTC": hidden})()

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)


def retrieve(row: list[int]) -> list[int]:
    """After each position, what followed the last earlier place with the same ten ids before it."""
    seen: dict[tuple[int, ...], int] = {}
    chosen = []
    for index in range(len(row)):
        key = tuple(row[max(0, index - 9) : index + 1])
        chosen.append(seen.get(key, 0))
        if index + 1 < len(row):
            seen[key] = row[index + 1]
    return chosen


def blind(row: list[int]) -> list[int]:
    return [0] * len(row)


LENGTHS, DEPTHS = (200, 400), (0.0, 0.5, 1.0)


def grid(model: nn.Module, needles_per_cell: int = 2):
    cases = build_haystacks(encode, FILLER, lengths=LENGTHS, depths=DEPTHS, needles_per_cell=needles_per_cell, seed=5)
    return score_haystacks(model, cases, LENGTHS, DEPTHS)


def test_who_retrieves_finds_all() -> None:
    result = grid(Answerer(retrieve))
    assert result.exact == ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    assert result.mean == 1.0
    assert result.by_length == (1.0, 1.0)
    assert result.n == 2
    assert result.by_language == dict.fromkeys(sorted(WORDINGS), 1.0)
    assert all(value > -1e-3 for row in result.log_probability for value in row)


def test_who_is_blind_finds_none() -> None:
    result = grid(Answerer(blind))
    assert result.mean == 0.0
    assert all(value < -15 for row in result.log_probability for value in row)


def test_one_wrong_digit_is_not_found() -> None:
    def last_digit_wrong(row: list[int]) -> list[int]:
        chosen = retrieve(row)
        chosen[-2] = ord("x")  # the last id is the last digit; the one before it predicts it
        return chosen

    assert grid(Answerer(last_digit_wrong)).mean == 0.0


def test_cells_are_where_they_belong() -> None:
    def only_late(row: list[int]) -> list[int]:
        return retrieve([0] * (len(row) * 3 // 5) + row[len(row) * 3 // 5 :])

    result = grid(Answerer(only_late), needles_per_cell=3)
    assert [row[0] for row in result.exact] == [0.0, 0.0]
    assert [row[2] for row in result.exact] == [1.0, 1.0]


def test_same_length_haystacks_share_a_forward_pass() -> None:
    model = Answerer(blind)
    grid(model)
    assert model.calls == len(LENGTHS)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(170, 600), depth=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_a_haystack_is_exact(length: int, depth: float, seed: int) -> None:
    cases = build_haystacks(encode, FILLER, lengths=(length,), depths=(depth,), needles_per_cell=6, seed=seed)
    assert [case.language for case in cases] == sorted(WORDINGS)
    for case in cases:
        assert len(case.token_ids) == length
        data = bytes(case.token_ids)
        answer = data[-case.answer_tokens :]
        assert answer.strip().isdigit()
        assert len(answer.strip()) == 5
        # Once in the needle, once as the answer, and the question's words twice too.
        assert data.count(answer.strip()) == 2
        question = data[: -case.answer_tokens].rpartition(b"\n")[2]
        assert data.count(b"\n" + question) == 2


def test_depth_orders_the_needle() -> None:
    cases = build_haystacks(encode, FILLER, lengths=(1000,), depths=(0, 0.25, 0.5, 1), needles_per_cell=1, seed=0)
    places = [bytes(c.token_ids).find(bytes(c.token_ids[-5:])) / 1000 for c in cases]
    assert places == sorted(places)
    assert places[0] < 0.1
    assert abs(places[2] - 0.5) < 0.1
    assert places[3] > 0.8


def test_cases_repeat_and_seeds_differ() -> None:
    def built(seed: int) -> list[tuple[int, ...]]:
        cases = build_haystacks(encode, FILLER, lengths=(300,), depths=(0.5,), needles_per_cell=4, seed=seed)
        return [case.token_ids for case in cases]

    assert built(1) == built(1)
    assert not set(built(1)) & set(built(2))


def test_grid_axes() -> None:
    assert grid_lengths(1024, 4) == (256, 512, 768, 1024)
    assert grid_depths(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert grid_depths(1) == (0.5,)


@pytest.mark.parametrize(("texts", "length", "message"), [((), 300, "no held-out text"), (FILLER, 60, "no room")])
def test_impossible_haystacks_are_refused(texts: tuple[str, ...], length: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_haystacks(encode, texts, lengths=(length,), depths=(0.5,), needles_per_cell=1, seed=0)


def tiny_model():
    config = ModelConfig(
        hidden_size=32, num_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=16, window_tokens=8,
        intermediate_size=48, num_experts=4, experts_per_token=2, expert_intermediate_size=16,
    )  # fmt: skip
    return build_model(config, BYTES, seed=1)


def test_a_real_model_untrained_finds_nothing_and_keeps_its_mode() -> None:
    model = tiny_model().train()
    result = grid(model, needles_per_cell=1)
    assert result.mean == 0.0
    # Near uniform: ln 256 = 5.55 nats a byte.
    assert all(-6.5 < value < -4.5 for row in result.log_probability for value in row)
    assert model.training
    assert all(int(layer.router.load.sum()) == 0 for layer in model.sparse_layers().values())


def test_short_context_loss_is_the_training_loss_of_the_same_rows() -> None:
    model = tiny_model()
    documents = [np.random.default_rng(n).integers(0, BYTES, n) for n in (40, 3, 25, 1, 30)]
    rows = pack_held_out(documents, context_tokens=32, most_rows=10)
    assert rows.token_ids_RT.shape == (4, 32)
    assert (rows.document_ids_RT == -1).sum() == 4 * 32 - 99
    assert rows.token_ids_RT.flat[:99].tolist() == list(itertools.chain.from_iterable(d.tolist() for d in documents))
    tokens, ids = torch.from_numpy(rows.token_ids_RT), torch.from_numpy(rows.document_ids_RT)
    expected = compute_losses(model.eval(), tokens, ids, ids != -1).main.item()
    assert short_context_loss(model, rows) == pytest.approx(expected, rel=1e-6)


def test_short_context_needs_something_to_predict() -> None:
    with pytest.raises(InputError, match="no held-out document"):
        pack_held_out([np.empty(0, np.int64)], 8, 4)
    with pytest.raises(InputError, match="no token to predict"):
        short_context_loss(tiny_model(), pack_held_out([np.array([1])], 8, 4))


def test_most_rows_cuts() -> None:
    rows = pack_held_out([np.arange(100)], context_tokens=8, most_rows=3)
    assert rows.token_ids_RT.shape == (3, 8)
    assert (rows.document_ids_RT == 0).all()
