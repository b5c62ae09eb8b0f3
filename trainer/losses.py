"""Losses: next token, the token after it (MTP), and balance of experts; logits only a chunk at a time.

Contract: a position is labelled when its target lies in the same document and counts in the loss; losses are means
over labelled positions (0 when there is none). Log-sum-exp is at least float32.
Cost: memory chunk x V for logits plus one gradient of the head, instead of T x V; the head's gradients are made
while the chunk is at hand, so the product with the head is never repeated.
Source: DeepSeek-V3 (arXiv 2412.19437): MTP equations 24 and 25, balance equations 17 to 20.
Shapes: B rows, T tokens, N = B*T positions, n labelled positions of a chunk, C width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.model.layout import PADDING_ID
from trainer.model.model import LayerRouting, MoEModel

UNLABELLED = -1
# Rows of logits at a time. Measured on a CPU core: 128 is fastest at vocabulary 8,192, where the chunk stays in cache,
# and within 15% of the best matrix product rate at 65,536.
CHUNK_ROWS = 128


@dataclass(frozen=True)
class LossOutput:
    """`total` is what to differentiate: main + mtp_loss * mtp + balance_loss * balance."""

    total: Tensor
    main: Tensor  # nats per labelled token
    mtp: Tensor  # nats per labelled token; 0 without an MTP module
    balance: Tensor  # sum over sparse layers; each layer's share is 1 when perfectly balanced
    token_losses_BT: Tensor  # float, detached: nats at the predicting position, 0 where unlabelled
    labelled_BT: Tensor  # bool
    labelled_tokens: int
    mtp_labelled_tokens: int
    routing: tuple[LayerRouting, ...]


def compute_losses(model: MoEModel, token_ids_BT: Tensor, document_ids_BT: Tensor, loss_mask_BT: Tensor) -> LossOutput:
    """Run the model on packed rows and compare with their own next tokens.

    `loss_mask_BT` bool says which tokens count as targets; `document_ids_BT` as for the model. Gradients are
    prepared only where autograd is enabled.
    """
    output = model(token_ids_BT, document_ids_BT)
    labels_BT = shifted_labels(token_ids_BT, document_ids_BT, loss_mask_BT, ahead=1)
    main, token_losses_BT = head_cross_entropy(output.hidden_BTC, model.head.weight, labels_BT)
    balance = sum((layer.balance_loss for layer in output.routing), start=main.new_zeros(()))
    total = main + model.config.balance_loss * balance

    mtp, mtp_labelled_tokens = main.new_zeros(()), 0
    if model.mtp is not None:
        mtp_labels_BT = shifted_labels(token_ids_BT, document_ids_BT, loss_mask_BT, ahead=2)
        mtp, _ = head_cross_entropy(model.forward_mtp(output, token_ids_BT), model.head.weight, mtp_labels_BT)
        mtp_labelled_tokens = int((mtp_labels_BT != UNLABELLED).sum())
        total = total + model.config.mtp_loss * mtp

    labelled_BT = labels_BT != UNLABELLED
    return LossOutput(
        total=total,
        main=main,
        mtp=mtp,
        balance=balance,
        token_losses_BT=token_losses_BT,
        labelled_BT=labelled_BT,
        labelled_tokens=int(labelled_BT.sum()),
        mtp_labelled_tokens=mtp_labelled_tokens,
        routing=output.routing,
    )


def shifted_labels(token_ids_BT: Tensor, document_ids_BT: Tensor, loss_mask_BT: Tensor, ahead: int) -> Tensor:
    """Targets [B,T]: the token `ahead` positions on, or UNLABELLED where it is of another document,
    padding, not counted, or beyond the row.
    """
    labels_BT = torch.full_like(token_ids_BT, UNLABELLED)
    same_document = (document_ids_BT[:, :-ahead] == document_ids_BT[:, ahead:]) & (
        document_ids_BT[:, ahead:] != PADDING_ID
    )
    counts = same_document & loss_mask_BT[:, ahead:]
    labels_BT[:, :-ahead] = torch.where(counts, token_ids_BT[:, ahead:], UNLABELLED)
    return labels_BT


def head_cross_entropy(hidden_BTC: Tensor, head_VC: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over labelled positions, and the detached losses [B,T] of each."""
    hidden_NC, labels_N = hidden_BTC.flatten(0, 1), labels_BT.flatten()
    if torch.is_grad_enabled():
        mean, losses_N = _HeadCrossEntropy.apply(hidden_NC, head_VC, labels_N)
        return mean, losses_N.view_as(labels_BT)
    losses_N = hidden_NC.new_zeros(labels_N.shape, dtype=_loss_dtype(hidden_NC))
    for rows_n in _labelled_chunks(labels_N):
        losses_N[rows_n] = _chunk_losses(hidden_NC[rows_n], head_VC, labels_N[rows_n])[0]
    return losses_N.sum() / _count(labels_N), losses_N.view_as(labels_BT)


class _HeadCrossEntropy(torch.autograd.Function):
    """(mean loss, loss per position) of hidden @ head^T; both gradients of the mean are made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, head_VC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        dtype = _loss_dtype(hidden_NC)
        losses_N = hidden_NC.new_zeros(labels_N.shape, dtype=dtype)
        hidden_gradient = torch.zeros_like(hidden_NC)
        head_gradient = torch.zeros_like(head_VC, dtype=dtype)
        count = _count(labels_N)
        for rows_n in _labelled_chunks(labels_N):
            hidden_nC, labels_n = hidden_NC[rows_n], labels_N[rows_n]
            losses_N[rows_n], exponentials_nV, sums_n = _chunk_losses(hidden_nC, head_VC, labels_n)
            # d mean / d logits: (softmax - one-hot) / count
            gradient_nV = exponentials_nV.div_((sums_n * count)[:, None])
            gradient_nV[torch.arange(len(labels_n), device=labels_n.device), labels_n] -= 1 / count
            gradient_nV = gradient_nV.to(hidden_NC.dtype)
            hidden_gradient[rows_n] = gradient_nV @ head_VC
            if head_VC.dtype == dtype:
                head_gradient.addmm_(gradient_nV.t(), hidden_nC)
            else:  # sums over chunks stay in float32
                head_gradient += gradient_nV.t() @ hidden_nC
        ctx.save_for_backward(hidden_gradient, head_gradient.to(head_VC.dtype))
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum() / count, losses_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, head_gradient = ctx.saved_tensors
        scale = gradients[0]
        return hidden_gradient * scale.to(hidden_gradient.dtype), head_gradient * scale.to(head_gradient.dtype), None


def _chunk_losses(hidden_nC: Tensor, head_VC: Tensor, labels_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [n], and what softmax is made of: exp(logit - max) [n,V] and its sums [n]; at least float32."""
    logits_nV = (hidden_nC @ head_VC.t()).to(_loss_dtype(hidden_nC))
    highest_n1 = logits_nV.amax(-1, keepdim=True)
    target_n = (logits_nV.gather(1, labels_n[:, None]) - highest_n1).squeeze(1)
    exponentials_nV = logits_nV.sub_(highest_n1).exp_()
    sums_n = exponentials_nV.sum(-1)
    return sums_n.log() - target_n, exponentials_nV, sums_n


def _labelled_chunks(labels_N: Tensor) -> tuple[Tensor, ...]:
    """Indices of labelled positions, a chunk at a time."""
    return (labels_N != UNLABELLED).nonzero().squeeze(1).split(CHUNK_ROWS)


def _count(labels_N: Tensor) -> Tensor:
    return (labels_N != UNLABELLED).sum().clamp(min=1)


def _loss_dtype(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)
