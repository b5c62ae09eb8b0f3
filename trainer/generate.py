"""Generation: greedy or sampled, batched, with a key-value cache and, if wanted, drafts by the MTP module.

Contract: a row's continuation depends on its prompt, the sampling settings and the row's number only, not on the
other rows (up to rounding). Drafts change the speed, never the result: greedy output is that of plain decoding,
sampled output has its distribution.
Cost: prompts are read PREFILL_TOKENS at a time, so no mask is larger than that times the context.
Source: speculative sampling, Leviathan et al. (arXiv 2211.17192), algorithm 1; MTP as drafter, DeepSeek-V3.
Shapes: B rows, M new tokens, C width, V vocabulary.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.config import Config
from pipeline.core.errors import UserError
from pipeline.core.rng import derive_seed
from trainer.model.cache import LayerCache
from trainer.model.model import MoEModel

PREFILL_TOKENS = 256


class SamplingConfig(Config):
    """How the next token is chosen."""

    max_new_tokens: int = Field(default=64, gt=0)
    temperature: float = Field(default=0.0, ge=0)  # 0 is greedy
    top_p: float = Field(default=1.0, gt=0, le=1)  # share of probability kept, the most likely tokens first
    seed: int = Field(default=0, ge=0)
    stop_token_ids: tuple[int, ...] = ()  # generation of a row ends after one of these, which is kept


@dataclass
class Continuation:
    """What was generated for one prompt."""

    token_ids: list[int] = field(default_factory=list)
    drafted: int = 0  # tokens the MTP module proposed
    accepted: int = 0  # of those, how many were kept


def generate(model: MoEModel, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> list[Continuation]:
    """Continue all prompts together, one token a step. Raises UserError on an empty or too long prompt."""
    _check_prompts(model, prompts, sampling)
    with evaluating(model):
        token_ids_BM, padding_B = _left_padded(prompts, model.embedding.weight.device)
        cache = model.new_cache()
        hidden_BC = _prefill(model, token_ids_BM, padding_B, cache)[:, -1]
        samplers = [_Sampler(sampling, row) for row in range(len(prompts))]
        continuations = [Continuation() for _ in prompts]
        running = [True] * len(prompts)
        while True:
            probabilities_BV = _probabilities(model.logits(hidden_BC), sampling)
            chosen = [sampler.draw(row_V) for sampler, row_V in zip(samplers, probabilities_BV, strict=True)]
            for row, token_id in enumerate(chosen):
                if running[row]:
                    continuations[row].token_ids.append(token_id)
                    running[row] = _goes_on(continuations[row], sampling)
            if not any(running):
                return continuations
            new_B1 = torch.tensor(chosen, device=token_ids_BM.device)[:, None]
            hidden_BC = model.forward_cached(new_B1, padding_B, cache)[:, -1]


def generate_drafting(model: MoEModel, prompt: Sequence[int], sampling: SamplingConfig) -> Continuation:
    """Continue one prompt, letting the MTP module propose a token a step and the model check it in the same pass.

    Raises UserError when the model has no MTP module.
    """
    if model.mtp is None:
        raise UserError("the model has no MTP module to draft with", where="mtp_layers", fix="use plain generation")
    _check_prompts(model, [prompt], sampling)
    with evaluating(model):
        return _Drafting(model, prompt, sampling).run()


class _Drafting:
    """The state of one drafted generation. Positions below `self.cache[0].end_position` are in the trunk's cache."""

    def __init__(self, model: MoEModel, prompt: Sequence[int], sampling: SamplingConfig) -> None:
        self.model = model
        self.sampling = sampling
        self.sampler = _Sampler(sampling, row=0)
        self.token_ids_1M, self.padding_1 = _left_padded([prompt], model.embedding.weight.device)
        self.cache = model.new_cache()
        self.mtp_cache = LayerCache(window_tokens=None)
        self.continuation = Continuation()

    def run(self) -> Continuation:
        hidden_1MC = _prefill(self.model, self.token_ids_1M, self.padding_1, self.cache)
        token_id = self.sampler.draw(self._distribution(hidden_1MC[:, -1]))
        following = [*self.token_ids_1M[0, 1:].tolist(), token_id]
        while self._keep(token_id):
            draft_V = self._draft(hidden_1MC, following)
            draft_id = self.sampler.draw(draft_V)
            self.continuation.drafted += 1
            hidden_1MC = self._trunk([token_id, draft_id])
            token_id, is_accepted = self._verify(self._distribution(hidden_1MC[:, 0]), draft_V, draft_id)
            if not is_accepted:
                for layer_cache in self.cache:
                    layer_cache.take_back(1)
                hidden_1MC, following = hidden_1MC[:, :1], [token_id]
                continue
            self.continuation.accepted += 1
            if not self._keep(draft_id):
                break
            token_id = self.sampler.draw(self._distribution(hidden_1MC[:, 1]))
            following = [draft_id, token_id]
        return self.continuation

    def _verify(self, target_V: Tensor, draft_V: Tensor, draft_id: int) -> tuple[int, bool]:
        """Keep the draft with probability min(1, p/q); otherwise draw from what p has more than q."""
        if self.sampler.uniform() * draft_V[draft_id] < target_V[draft_id]:
            return draft_id, True
        rest_V = (target_V - draft_V).clamp(min=0)
        return self.sampler.draw(rest_V / rest_V.sum()), False

    def _draft(self, hidden_1MC: Tensor, following: list[int]) -> Tensor:
        """The MTP module's distribution of the token after the last of `following`."""
        assert self.model.mtp is not None
        embeddings = self.model.embed(torch.tensor([following], device=hidden_1MC.device))
        pieces = zip(hidden_1MC.split(PREFILL_TOKENS, dim=1), embeddings.split(PREFILL_TOKENS, dim=1), strict=True)
        mtp_hidden = [
            self.model.mtp.forward_cached(
                hidden,
                embedding,
                self.model.decode_step(self.mtp_cache.end_position, hidden.shape[1], self.padding_1),
                self.mtp_cache,
            )
            for hidden, embedding in pieces
        ]
        return self._distribution(mtp_hidden[-1][:, -1])

    def _trunk(self, token_ids: list[int]) -> Tensor:
        new_1M = torch.tensor([token_ids], device=self.padding_1.device)
        return self.model.forward_cached(new_1M, self.padding_1, self.cache)

    def _distribution(self, hidden_1C: Tensor) -> Tensor:
        return _probabilities(self.model.logits(hidden_1C), self.sampling)[0]

    def _keep(self, token_id: int) -> bool:
        """Add a token; False when it is the last."""
        self.continuation.token_ids.append(token_id)
        return _goes_on(self.continuation, self.sampling)


class _Sampler:
    """One row's own stream of random numbers."""

    def __init__(self, sampling: SamplingConfig, row: int) -> None:
        self.is_greedy = sampling.temperature == 0
        self.generator = torch.Generator().manual_seed(derive_seed("generate", sampling.seed, row))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def draw(self, probabilities_V: Tensor) -> int:
        if self.is_greedy:
            return int(probabilities_V.argmax())
        cumulative = probabilities_V.double().cpu().cumsum(0)
        threshold = torch.tensor(self.uniform(), dtype=torch.float64) * cumulative[-1]
        return int(torch.searchsorted(cumulative, threshold, right=True).clamp(max=len(cumulative) - 1))


@contextmanager
def evaluating(model: MoEModel) -> Generator[None]:
    """Evaluation mode and no gradients inside, the mode before it afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _prefill(model: MoEModel, token_ids_BM: Tensor, padding_B: Tensor, cache: list[LayerCache]) -> Tensor:
    """Read the prompts into the cache; hidden states [B,M,C] of all their tokens."""
    chunks = token_ids_BM.split(PREFILL_TOKENS, dim=1)
    return torch.cat([model.forward_cached(chunk, padding_B, cache) for chunk in chunks], dim=1)


def _probabilities(logits_BV: Tensor, sampling: SamplingConfig) -> Tensor:
    """[B,V] after temperature and top-p; one-hot on the most likely token (the first of equals) when greedy."""
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1]).float()
    probabilities_BV = (logits_BV / sampling.temperature).softmax(-1)
    if sampling.top_p == 1:
        return probabilities_BV
    ordered, order = probabilities_BV.sort(dim=-1, descending=True, stable=True)
    # A token stays when those before it have not reached top_p yet, so at least one always does.
    kept = torch.where(ordered.cumsum(-1) - ordered < sampling.top_p, ordered, 0.0)
    kept = torch.zeros_like(kept).scatter_(-1, order, kept)
    return kept / kept.sum(-1, keepdim=True)


def _goes_on(continuation: Continuation, sampling: SamplingConfig) -> bool:
    is_stopped = continuation.token_ids[-1] in sampling.stop_token_ids
    return not is_stopped and len(continuation.token_ids) < sampling.max_new_tokens


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B,M], padded with 0 on the left, and how many of each row are padding [B]."""
    longest = max(len(prompt) for prompt in prompts)
    rows = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    padding = [longest - len(prompt) for prompt in prompts]
    return torch.tensor(rows, device=device), torch.tensor(padding, device=device)


def _check_prompts(model: MoEModel, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> None:
    room = model.config.max_context_tokens - sampling.max_new_tokens
    for row, prompt in enumerate(prompts):
        where = f"prompt {row}"
        if not prompt:
            raise UserError("a prompt has no tokens", where=where, fix="give at least one token")
        if len(prompt) > room:
            raise UserError(
                f"{len(prompt)} tokens and {sampling.max_new_tokens} new ones are more than the context of "
                f"{model.config.max_context_tokens}",
                where=where,
                fix=f"give at most {room} tokens",
            )
        unknown = [token_id for token_id in prompt if not 0 <= token_id < model.vocabulary_size]
        if unknown:
            raise UserError(
                f"token id {unknown[0]} is not in the vocabulary",
                where=where,
                fix=f"use 0 <= id < {model.vocabulary_size}",
            )
