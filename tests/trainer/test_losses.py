"""Losses against full logits and cross_entropy; labels by hand; gradients that flow."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import losses
from trainer.config import ModelConfig
from trainer.losses import UNLABELLED, compute_losses, head_cross_entropy, shifted_labels
from trainer.model.model import MoEModel, build_model


def batch(model: MoEModel) -> tuple[Tensor, Tensor, Tensor]:
    """Two packed rows with documents, padding and tokens that do not count."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, model.vocabulary_size, (2, 24), generator=generator)
    documents = torch.tensor([[0] * 10 + [1] * 14, [2] * 2 + [3] * 1 + [4] * 15 + [-1] * 6], dtype=torch.int32)
    mask = torch.rand(ids.shape, generator=generator) < 0.8
    return ids, documents, mask


def test_labels_by_hand() -> None:
    ids = torch.tensor([[10, 11, 12, 13, 14, 15, 0]])
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, -1]])
    mask = torch.tensor([[True, True, True, True, False, True, True]])
    u = UNLABELLED
    assert shifted_labels(ids, documents, mask, ahead=1).tolist() == [[11, 12, u, u, 15, u, u]]
    assert shifted_labels(ids, documents, mask, ahead=2).tolist() == [[12, u, u, 15, u, u, u]]


def test_padding_is_no_document() -> None:
    ids, documents = torch.ones(1, 4, dtype=torch.int64), torch.full((1, 4), -1)
    assert (shifted_labels(ids, documents, torch.ones(1, 4, dtype=torch.bool), ahead=1) == UNLABELLED).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows_per_chunk", [1, 7, 1000])
def test_chunks_give_the_loss_and_gradients_of_full_logits(
    dtype: torch.dtype, rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_ROWS", rows_per_chunk)
    hidden = torch.randn(2, 20, 8, dtype=dtype, requires_grad=True)
    head = torch.randn(50, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 50, (2, 20))
    labels[0, 3:9] = UNLABELLED
    found = head_cross_entropy(hidden, head, labels)
    mean, token_losses = found.mean, found.losses_BT
    logits = (hidden @ head.t()).flatten(0, 1)
    reference = F.cross_entropy(logits, labels.flatten(), ignore_index=UNLABELLED)
    torch.testing.assert_close(mean, reference)
    each = F.cross_entropy(logits, labels.flatten(), ignore_index=UNLABELLED, reduction="none")
    torch.testing.assert_close(token_losses.flatten(), each.detach())
    mine = torch.autograd.grad(3 * mean, (hidden, head))
    theirs = torch.autograd.grad(3 * reference, (hidden, head))
    torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        evaluated = head_cross_entropy(hidden, head, labels)
    torch.testing.assert_close(evaluated.mean, mean)
    torch.testing.assert_close(evaluated.losses_BT, token_losses)
    assert torch.equal(evaluated.choices_BT, found.choices_BT)
    chosen = logits.argmax(-1).where(labels.flatten() != UNLABELLED, UNLABELLED)
    assert torch.equal(found.choices_BT.flatten(), chosen)


def test_logits_in_bfloat16_are_summed_in_float32() -> None:
    hidden = torch.randn(1, 30, 8).bfloat16().requires_grad_()
    head = torch.randn(50, 8).bfloat16().requires_grad_()
    labels = torch.randint(0, 50, (1, 30))
    found = head_cross_entropy(hidden, head, labels)
    mean, token_losses = found.mean, found.losses_BT
    assert mean.dtype == token_losses.dtype == torch.float32
    exact = F.cross_entropy((hidden.double() @ head.double().t())[0], labels[0])
    assert abs(mean.item() - exact.item()) < 0.02
    gradients = torch.autograd.grad(mean, (hidden, head))
    assert all(gradient.dtype == torch.bfloat16 for gradient in gradients)


def test_nothing_to_learn_costs_nothing(model: MoEModel) -> None:
    ids, documents, mask = batch(model)
    out = compute_losses(model, ids, documents, torch.zeros_like(mask))
    assert (out.main.item(), out.mtp.item(), out.labelled_tokens) == (0, 0, 0)
    out.total.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_the_whole_loss_is_its_definition(model: MoEModel, config: ModelConfig) -> None:
    """Total, its parts and every gradient against autograd through full logits, in double precision."""
    model.double()
    ids, documents, mask = batch(model)
    out = compute_losses(model, ids, documents, mask)
    mine = torch.autograd.grad(out.total, list(model.parameters()))

    output = model(ids, documents)
    labels = shifted_labels(ids, documents, mask, ahead=1)
    main = F.cross_entropy(model.logits(output.hidden_BTC).flatten(0, 1), labels.flatten(), ignore_index=UNLABELLED)
    mtp_labels = shifted_labels(ids, documents, mask, ahead=2)
    mtp_logits = model.logits(model.forward_mtp(output, ids))
    mtp = F.cross_entropy(mtp_logits.flatten(0, 1), mtp_labels.flatten(), ignore_index=UNLABELLED)
    balance = torch.stack([layer.balance_loss for layer in output.routing]).sum()
    total = main + config.mtp_loss * mtp + config.balance_loss * balance
    theirs = torch.autograd.grad(total, list(model.parameters()))

    torch.testing.assert_close(
        torch.stack([out.total, out.main, out.mtp, out.balance]), torch.stack([total, main, mtp, balance])
    )
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)
    assert out.labelled_tokens == int((labels != UNLABELLED).sum())
    assert out.mtp_labelled_tokens == int((mtp_labels != UNLABELLED).sum())
    assert out.token_losses_BT.sum() / out.labelled_tokens == pytest.approx(out.main.item())
    assert not out.token_losses_BT[~out.labelled_BT].any()


def test_the_balance_loss_reaches_the_router(config: ModelConfig) -> None:
    """An auxiliary loss whose gradient never flows is a known bug elsewhere."""
    ids = torch.randint(0, 32, (1, 30))
    gradients = []
    for coefficient in (0.0, 10.0):
        model = build_model(config.replaced(balance_loss=coefficient), 32, seed=0)
        total = compute_losses(model, ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool)).total
        gradients.append(torch.autograd.grad(total, model.sparse_layers()[4].router.weight)[0])
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def test_mtp_predictions_do_not_cross_documents(model: MoEModel) -> None:
    """Packed with others, a document's MTP loss terms are those it has alone."""
    model.double().eval()
    lengths = (9, 12)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, model.vocabulary_size, (1, sum(lengths)), generator=generator)
    documents = torch.tensor([[0] * lengths[0] + [1] * lengths[1]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    packed = compute_losses(model, ids, documents, mask)
    parts = [
        compute_losses(model, row, torch.zeros_like(row), torch.ones_like(row, dtype=torch.bool))
        for row in ids.split(lengths, dim=1)
    ]
    assert packed.mtp_labelled_tokens == sum(part.mtp_labelled_tokens for part in parts) == sum(lengths) - 4
    weighted = sum(part.mtp.item() * part.mtp_labelled_tokens for part in parts) / packed.mtp_labelled_tokens
    assert packed.mtp.item() == pytest.approx(weighted, rel=1e-6)  # RoPE tables are float32


def test_peak_memory_is_far_below_full_logits() -> None:
    """Counted allocations, not the process: no tensor of the loss is as large as the logits would be."""
    tokens, vocabulary = 4096, 8192
    hidden = torch.randn(1, tokens, 8, requires_grad=True)
    head = torch.randn(vocabulary, 8, requires_grad=True)
    labels = torch.randint(0, vocabulary, (1, tokens))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        head_cross_entropy(hidden, head, labels).mean.backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events() or [])
    assert largest <= tokens * vocabulary * 4 / 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_z_loss_is_the_mean_squared_log_sum_exp(dtype: torch.dtype) -> None:
    hidden = torch.randn(1, 20, 8, dtype=dtype, requires_grad=True)
    head = torch.randn(50, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 50, (1, 20))
    labels[0, 4:7] = UNLABELLED
    found = head_cross_entropy(hidden, head, labels, z_loss=0.3)
    logits = (hidden @ head.t())[0]
    z = (logits.logsumexp(-1) ** 2)[labels[0] != UNLABELLED].mean()
    reference = F.cross_entropy(logits, labels[0], ignore_index=UNLABELLED) + 0.3 * z
    torch.testing.assert_close(found.z, z.detach())
    torch.testing.assert_close(found.total, reference)
    mine, theirs = (torch.autograd.grad(value, (hidden, head)) for value in (found.total, reference))
    torch.testing.assert_close(mine, theirs)


def test_drafts_agree_where_both_choose_the_same_token(model: MoEModel) -> None:
    """Against full logits: the module's choice at t and the model's at t+1 are of the same place."""
    ids, documents, mask = batch(model)
    out = compute_losses(model, ids, documents, mask)
    output = model(ids, documents)
    drafts = model.logits(model.forward_mtp(output, ids)).argmax(-1)
    choices = model.logits(output.hidden_BTC).argmax(-1)
    labelled = shifted_labels(ids, documents, mask, ahead=2) != UNLABELLED
    assert out.mtp_agreed == int((labelled[:, :-1] & (drafts[:, :-1] == choices[:, 1:])).sum())
