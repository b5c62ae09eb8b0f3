"""Self-drafting: the MTP module proposes tokens, the model checks all of them in one pass.

Contract: drafts change the speed, never the result: greedy output is that of plain generation, sampled output has its
distribution, rows of a batch are accepted and refused by themselves. The first draft of a step is the MTP module's
answer to the trunk's hidden state; further ones go on from the module's own.
Cost of a step: one pass of the trunk over 1 + D tokens a row, D passes of the MTP module and of the head. Drafts may be
drawn from the most frequent tokens only (U of them), which makes the head's part U / V of itself: a token that is not
among them cannot be drafted, and is never lost.
Source: speculative sampling, Leviathan et al. (arXiv 2211.17192), algorithm 1; MTP as drafter, DeepSeek-V3
(arXiv 2412.19437, section 5.4.3); drafts from frequent tokens, FR-Spec (arXiv 2502.14856).
Shapes: B rows, P positions that the MTP module has not read yet, D drafts a step, C width, V vocabulary, U token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.core.errors import UserError
from trainer import generate as generation
from trainer.generate import Continuation, check_prompts, evaluating, left_padded, prefill
from trainer.model.model import MoEModel
from trainer.sampling import RowSampler, SamplingConfig, probabilities


def generate_drafting(
    model: MoEModel,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    drafts: int = 1,
    drafted_ids: Sequence[int] = (),
) -> list[Continuation]:
    """Continue all prompts together with `drafts` proposals a step, drawn from `drafted_ids` (empty: from all tokens).

    Raises UserError on an empty or too long prompt, for less than one draft, and when the model has no MTP module.
    """
    if model.mtp is None:
        raise UserError("the model has no MTP module to draft with", where="mtp_layers", fix="use plain generation")
    if drafts < 1:
        raise UserError(f"{drafts} drafts a step", where="drafts", fix="use at least 1, or plain generation")
    check_prompts(model, prompts, sampling)
    with evaluating(model):
        return _Drafting(model, prompts, sampling, drafts, drafted_ids).run()


@dataclass
class _Row:
    """One prompt on its way. `next_id` is chosen but not read by the trunk yet."""

    sampler: RowSampler
    continuation: Continuation = field(default_factory=Continuation)
    is_running: bool = True
    next_id: int = 0
    draft_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Unread:
    """Positions that the MTP module has not read: the trunk's hidden states and the tokens after them."""

    hidden_BPC: Tensor
    following_BP: Tensor
    counts: tuple[int, ...]  # how many of the P positions are a row's own; the rest is not to be kept


def remainder(target_V: Tensor, draft_V: Tensor) -> Tensor:
    """What a token is drawn from in the place of a refused draft: what the target has more, summing to 1.

    Where the two differ by rounding alone, nothing may be left: then it is the target itself.
    """
    rest_V = (target_V - draft_V).clamp(min=0)
    total = float(rest_V.sum())
    return rest_V / total if total > 0 else target_V


class _Drafting:
    """The state of one drafted generation."""

    def __init__(
        self,
        model: MoEModel,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        drafts: int,
        drafted_ids: Sequence[int],
    ) -> None:
        self.model = model
        self.sampling = sampling
        self.drafts = drafts
        self.token_ids_BM, padding_B = left_padded(prompts, model.embedding.weight.device)
        self.cache = model.new_cache(padding_B)
        self.mtp_cache = model.new_mtp_cache(padding_B)
        self.drafted_U = torch.tensor(sorted(drafted_ids), device=self.token_ids_BM.device, dtype=torch.int64)
        self.drafted_head_UC = model.head.weight[self.drafted_U]
        self.rows = [_Row(RowSampler(sampling, number)) for number in range(len(prompts))]

    def run(self) -> list[Continuation]:
        hidden_BMC = prefill(self.model, self.token_ids_BM, self.cache)
        for row, target_V in zip(self.rows, self._distributions(hidden_BMC[:, -1]), strict=True):
            row.next_id = row.sampler.draw(target_V)
            row.is_running = row.continuation.keep(row.next_id, self.sampling)
        following_BM = torch.cat([self.token_ids_BM[:, 1:], self._ids([[row.next_id] for row in self.rows])], dim=1)
        unread = _Unread(hidden_BMC, following_BM, (hidden_BMC.shape[1],) * len(self.rows))
        while any(row.is_running for row in self.rows):
            unread = self._step(unread)
        return [row.continuation for row in self.rows]

    def _step(self, unread: _Unread) -> _Unread:
        """Draft, let the trunk read, keep what it agrees with."""
        drafted_DBV = self._draft(unread)
        read_BP = self._ids([[row.next_id, *row.draft_ids] for row in self.rows])
        hidden_BPC = self.model.forward_cached(read_BP, self.cache)
        target_BPV = self._distributions(hidden_BPC.flatten(0, 1)).unflatten(0, hidden_BPC.shape[:2])
        kept = [
            self._verify(row, target_BPV[number], [draft_BV[number] for draft_BV in drafted_DBV])
            for number, row in enumerate(self.rows)
        ]
        self.cache.take_back([1 + self.drafts - count for count in kept])
        following = [
            [*row.draft_ids[: max(count - 1, 0)], *[row.next_id] * (2 + self.drafts - max(count, 1))]
            for row, count in zip(self.rows, kept, strict=True)
        ]
        return _Unread(hidden_BPC, self._ids(following), tuple(kept))

    def _draft(self, unread: _Unread) -> list[Tensor]:
        """The MTP module's distributions [B,V] of the D next tokens, drawn from into each row's `draft_ids`."""
        hidden_BC = self._read(unread)
        found: list[Tensor] = []
        for row in self.rows:
            row.draft_ids = []
        while True:
            found.append(self._draft_distributions(hidden_BC))
            for row, draft_V in zip(self.rows, found[-1], strict=True):
                row.draft_ids.append(row.sampler.draw(draft_V) if row.is_running else 0)
                row.continuation.drafted += row.is_running
            if len(found) == self.drafts:
                break
            embeddings = self.model.embed(self._ids([row.draft_ids[-1:] for row in self.rows]))
            hidden_BC = self._mtp(hidden_BC[:, None], embeddings)[:, -1]
        # What the module has read of its own drafts, the trunk will tell it better.
        self.mtp_cache.take_back([self.drafts - 1] * len(self.rows))
        return found

    def _read(self, unread: _Unread) -> Tensor:
        """The module's hidden state [B,C] at each row's last own position."""
        embeddings = self.model.embed(unread.following_BP)
        size = generation.PREFILL_TOKENS
        pieces = zip(unread.hidden_BPC.split(size, dim=1), embeddings.split(size, dim=1), strict=True)
        read_BPC = torch.cat([self._mtp(hidden, embedding) for hidden, embedding in pieces], dim=1)
        positions = read_BPC.shape[1]
        self.mtp_cache.take_back([positions - count for count in unread.counts])
        last_B = torch.tensor(unread.counts, device=read_BPC.device) - 1
        return read_BPC[torch.arange(len(self.rows), device=read_BPC.device), last_B]

    def _mtp(self, hidden_BPC: Tensor, embeddings_BPC: Tensor) -> Tensor:
        assert self.model.mtp is not None
        return self.model.mtp.forward_cached(hidden_BPC, embeddings_BPC, self.mtp_cache)

    def _verify(self, row: _Row, target_PV: Tensor, drafted: Sequence[Tensor]) -> int:
        """Keep drafts while they hold, then choose the row's next token; how many of the tokens read stay.

        A draft stays with probability min(1, p/q); the token in the place of the first that does not is drawn from
        what p has more than q.
        """
        if not row.is_running:
            return 0
        row.continuation.passes += 1
        for place, (draft_id, draft_V) in enumerate(zip(row.draft_ids, drafted, strict=True)):
            target_V = target_PV[place]
            # In float64: a number just below 1 is 1 in float32, and would refuse a draft that is as likely as can be.
            if row.sampler.uniform() * float(draft_V[draft_id]) >= float(target_V[draft_id]):
                return self._choose(row, remainder(target_V, draft_V), place)
            row.continuation.accepted += 1
            row.is_running = row.continuation.keep(draft_id, self.sampling)
            if not row.is_running:
                return 0
        return self._choose(row, target_PV[-1], len(drafted))

    def _choose(self, row: _Row, distribution_V: Tensor, accepted: int) -> int:
        row.next_id = row.sampler.draw(distribution_V)
        row.is_running = row.continuation.keep(row.next_id, self.sampling)
        return accepted + 1

    def _distributions(self, hidden_BC: Tensor) -> Tensor:
        return probabilities(self.model.logits(hidden_BC), self.sampling)

    def _draft_distributions(self, hidden_BC: Tensor) -> Tensor:
        if not len(self.drafted_U):
            return self._distributions(hidden_BC)
        drafted_BU = probabilities(hidden_BC @ self.drafted_head_UC.T.to(hidden_BC.dtype), self.sampling)
        whole_BV = drafted_BU.new_zeros(len(self.rows), self.model.vocabulary_size)
        whole_BV[:, self.drafted_U] = drafted_BU
        return whole_BV

    def _ids(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, device=self.token_ids_BM.device)
