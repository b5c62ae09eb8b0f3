"""Losses: next token, the token after it (MTP), balance of experts, size of logits; logits only a chunk at a time.

Contract: a position is labelled when its target lies in the same document and counts in the loss; losses are means
over labelled positions (0 when there is none). Log-sum-exp is at least float32.
Cost: memory chunk x V for logits plus one gradient of the head, instead of T x V; the head's gradients are made
while the chunk is at hand, so the product with the head is never repeated.
Source: DeepSeek-V3 (arXiv 2412.19437): MTP equations 24 and 25, balance equations 17 to 20.
Shapes: B rows, T tokens, N = B*T positions, n labelled positions of a chunk, C width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.exchange import ContextShare, gather_row
from trainer.model.layout import PADDING_ID
from trainer.model.model import LayerRouting, MoEModel
from trainer.model.onednn import filled_rows, multiply, multiply_rows, serves

UNLABELLED = -1
# Rows of logits at a time. Measured on a CPU core: 128 is fastest at vocabulary 8,192, where the chunk stays in cache,
# and within 15% of the best matrix product rate at 65,536.
CHUNK_ROWS = 128
CHUNK_ENTRIES = 8192  # of the vocabulary whose gradient is made at a time before it is added to the sum


@dataclass(frozen=True)
class LossOutput:
    """`total` is what to differentiate: main + mtp_loss * mtp + balance_loss * balance + z_loss * z."""

    total: Tensor
    main_and_z: Tensor  # main + z_loss * z, to be differentiated
    main: Tensor  # nats per labelled token
    mtp: Tensor  # nats per labelled token; 0 without an MTP module
    balance: Tensor  # sum over sparse layers; each layer's share is 1 when perfectly balanced
    z: Tensor  # mean squared log-sum-exp of the main logits
    token_losses_BT: Tensor  # float, detached: nats at the predicting position, 0 where unlabelled
    labelled_BT: Tensor  # bool
    labelled_tokens: int
    mtp_labelled_tokens: int
    mtp_agreed: int  # of those, how many times the module's first choice is the one the model makes a token later
    routing: tuple[LayerRouting, ...]

    @property
    def router_entropy(self) -> float:
        """Mean over sparse layers; 0 without any."""
        entropies = [float(layer.entropy) for layer in self.routing]
        return sum(entropies) / len(entropies) if entropies else 0.0


def compute_losses(model: MoEModel, token_ids_BT: Tensor, document_ids_BT: Tensor, loss_mask_BT: Tensor) -> LossOutput:
    """Run the model on packed rows and compare with their own next tokens.

    `loss_mask_BT` bool says which tokens count as targets; `document_ids_BT` as for the model. Gradients are
    prepared only where autograd is enabled.
    """
    config = model.config
    output = model(token_ids_BT, document_ids_BT)
    share = model.share
    labels_BT = _part(shifted_labels(token_ids_BT, document_ids_BT, loss_mask_BT, ahead=1), share)
    main = head_cross_entropy(output.hidden_BTC, model.head.weight, labels_BT, config.z_loss)
    balance = sum((layer.balance_loss for layer in output.routing), start=main.mean.new_zeros(()))
    total = main.total + config.balance_loss * balance

    mtp, mtp_labelled_tokens, mtp_agreed = main.mean.new_zeros(()), 0, 0
    if model.mtp is not None:
        mtp_labels_BT = _part(shifted_labels(token_ids_BT, document_ids_BT, loss_mask_BT, ahead=2), share)
        ahead = head_cross_entropy(model.forward_mtp(output, token_ids_BT), model.head.weight, mtp_labels_BT)
        mtp, mtp_labelled_tokens = ahead.mean, int((mtp_labels_BT != UNLABELLED).sum())
        following_BT = _following(main.choices_BT, share)
        mtp_agreed = int(((ahead.choices_BT == following_BT) & (mtp_labels_BT != UNLABELLED)).sum())
        total = total + config.mtp_loss * mtp

    labelled_BT = labels_BT != UNLABELLED
    return LossOutput(
        total=total,
        main_and_z=main.total,
        main=main.mean,
        mtp=mtp,
        balance=balance,
        z=main.z,
        token_losses_BT=main.losses_BT,
        labelled_BT=labelled_BT,
        labelled_tokens=int(labelled_BT.sum()),
        mtp_labelled_tokens=mtp_labelled_tokens,
        mtp_agreed=mtp_agreed,
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


def _part(values_BS: Tensor, share: ContextShare | None) -> Tensor:
    return values_BS if share is None else share.part(values_BS)


def _following(choices_BT: Tensor, share: ContextShare | None) -> Tensor:
    """The choice at the next place of the row: greedy drafting keeps a draft that is the same."""
    row_BS = choices_BT if share is None else gather_row(choices_BT, share)
    return _part(F.pad(row_BS[:, 1:], (0, 1), value=UNLABELLED), share)


class HeadLoss(NamedTuple):
    """Cross-entropy of the head's logits with the labels."""

    total: Tensor  # mean + z_loss * z, to be differentiated
    mean: Tensor  # over labelled positions; to be differentiated where there is no z
    z: Tensor  # detached mean of squared log-sum-exp
    losses_BT: Tensor  # detached, 0 where unlabelled
    choices_BT: Tensor  # int64: the most likely token, UNLABELLED where unlabelled


def head_cross_entropy(hidden_BTC: Tensor, head_VC: Tensor, labels_BT: Tensor, z_loss: float = 0.0) -> HeadLoss:
    """The loss of `hidden` through the head; products in the precision of `hidden`, gradients in each one's own."""
    hidden_NC, labels_N = hidden_BTC.flatten(0, 1), labels_BT.flatten()
    if torch.is_grad_enabled():
        total, mean, z, losses_N, choices_N = _HeadCrossEntropy.apply(hidden_NC, head_VC, labels_N, z_loss)
    else:
        losses_N = hidden_NC.new_zeros(labels_N.shape, dtype=_loss_dtype(hidden_NC))
        choices_N, z_N = torch.full_like(labels_N, UNLABELLED), torch.zeros_like(losses_N)
        low_VC = head_VC.to(hidden_NC.dtype)
        for rows_n in _labelled_chunks(labels_N):
            chunk = _chunk_losses(hidden_NC[rows_n], low_VC, labels_N[rows_n])
            losses_N[rows_n], choices_N[rows_n], z_N[rows_n] = chunk.losses_n, chunk.choices_n, chunk.logsumexp_n**2
        mean, z = losses_N.sum() / _count(labels_N), z_N.sum() / _count(labels_N)
        total = mean + z_loss * z
    return HeadLoss(total, mean, z, losses_N.view_as(labels_BT), choices_N.view_as(labels_BT))


class _HeadCrossEntropy(torch.autograd.Function):
    """Loss of hidden @ head^T; both gradients of mean + z_loss * z are made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NC: Tensor, head_VC: Tensor, labels_N: Tensor, z_loss: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        dtype = _loss_dtype(hidden_NC)
        low_VC = head_VC.to(hidden_NC.dtype)
        losses_N = hidden_NC.new_zeros(labels_N.shape, dtype=dtype)
        z_N, choices_N = torch.zeros_like(losses_N), torch.full_like(labels_N, UNLABELLED)
        hidden_gradient = torch.zeros_like(hidden_NC)
        head_gradient = torch.zeros_like(head_VC, dtype=dtype)
        count = _count(labels_N).to(dtype)  # an integer's reciprocal would be float32
        # On a processor the sum of a stretch stays in cache; an accelerator is better off with one product.
        entries = CHUNK_ENTRIES if hidden_NC.device.type == "cpu" else len(head_VC)
        for rows_n in _labelled_chunks(labels_N):
            hidden_nC, labels_n = hidden_NC[rows_n], labels_N[rows_n]
            chunk = _chunk_losses(hidden_nC, low_VC, labels_n)
            losses_N[rows_n], choices_N[rows_n], z_N[rows_n] = chunk.losses_n, chunk.choices_n, chunk.logsumexp_n**2
            # d (mean + z_loss * z) / d logits: (softmax * (1 + 2 z_loss * log-sum-exp) - one-hot) / count
            scale_n = (1 + 2 * z_loss * chunk.logsumexp_n) / (chunk.sums_n * count)
            gradient_nV = chunk.exponentials_nV.mul_(scale_n[:, None])
            gradient_nV[torch.arange(len(labels_n), device=labels_n.device), labels_n] -= 1 / count
            gradient_nV = gradient_nV.to(hidden_NC.dtype)
            filled_nV = filled_rows(gradient_nV)
            hidden_gradient[rows_n] = multiply(filled_nV, low_VC.t())[: len(gradient_nV)]
            if hidden_nC.dtype == dtype and not serves(hidden_nC):
                head_gradient.addmm_(gradient_nV.t(), hidden_nC)
            else:  # sums over chunks stay in float32
                filled_nC = filled_rows(hidden_nC)
                for slice_VC, slice_Vn in zip(
                    head_gradient.split(entries), filled_nV.t().split(entries), strict=True
                ):  # fmt: skip
                    slice_VC += multiply(slice_Vn, filled_nC.t())
        ctx.save_for_backward(hidden_gradient, head_gradient.to(head_VC.dtype))
        mean, z = losses_N.sum() / count, z_N.sum() / count
        outputs = mean + z_loss * z, mean.clone(), z, losses_N, choices_N
        ctx.has_z = z_loss > 0
        ctx.mark_non_differentiable(*outputs[2:])
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient, head_gradient = ctx.saved_tensors
        # Without z, total and mean are one value, so whichever was differentiated counts.
        scale = gradients[0] if ctx.has_z else gradients[0] + gradients[1]
        return (
            hidden_gradient * scale.to(hidden_gradient.dtype),
            head_gradient * scale.to(head_gradient.dtype),
            None,
            None,
        )


class _Chunk(NamedTuple):
    losses_n: Tensor
    logsumexp_n: Tensor
    choices_n: Tensor
    exponentials_nV: Tensor  # exp(logit - max)
    sums_n: Tensor  # of the exponentials


def _chunk_losses(hidden_nC: Tensor, head_VC: Tensor, labels_n: Tensor) -> _Chunk:
    """Losses of a chunk and what its softmax is made of; at least float32."""
    logits_nV = multiply_rows(hidden_nC, head_VC).to(_loss_dtype(hidden_nC))
    highest_n1, choices_n1 = logits_nV.max(-1, keepdim=True)
    target_n = (logits_nV.gather(1, labels_n[:, None]) - highest_n1).squeeze(1)
    exponentials_nV = logits_nV.sub_(highest_n1).exp_()
    sums_n = exponentials_nV.sum(-1)
    log_n = sums_n.log()
    return _Chunk(log_n - target_n, log_n + highest_n1.squeeze(1), choices_n1.squeeze(1), exponentials_nV, sums_n)


def _labelled_chunks(labels_N: Tensor) -> tuple[Tensor, ...]:
    """Indices of labelled positions, a chunk at a time."""
    return (labels_N != UNLABELLED).nonzero().squeeze(1).split(CHUNK_ROWS)


def _count(labels_N: Tensor) -> Tensor:
    return (labels_N != UNLABELLED).sum().clamp(min=1)


def _loss_dtype(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)
