"""Generation: greedy or sampled, batched, with a key-value cache. `trainer.drafting` is the same with drafts.

Contract: a row's continuation depends on its prompt, the sampling settings and the row's number only, not on the
other rows (up to rounding).
Cost: prompts are read PREFILL_TOKENS at a time, so no mask is larger than that times the context.
Shapes: B rows, M new tokens, C width, V vocabulary.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.core.errors import UserError
from trainer.model.cache import DecodeCache
from trainer.model.model import MoEModel
from trainer.sampling import RowSampler, SamplingConfig, probabilities

PREFILL_TOKENS = 256


@dataclass
class Continuation:
    """What was generated for one prompt."""

    token_ids: list[int] = field(default_factory=list)
    passes: int = 0  # of the trunk after the one that read the prompt
    drafted: int = 0  # tokens the MTP module proposed
    accepted: int = 0  # of those, how many were kept

    def keep(self, token_id: int, sampling: SamplingConfig) -> bool:
        """Add a token; False when it is the last."""
        self.token_ids.append(token_id)
        return token_id not in sampling.stop_token_ids and len(self.token_ids) < sampling.max_new_tokens


def generate(model: MoEModel, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> list[Continuation]:
    """Continue all prompts together, one token a step. Raises UserError on an empty or too long prompt."""
    check_prompts(model, prompts, sampling)
    with evaluating(model):
        token_ids_BM, padding_B = left_padded(prompts, model.embedding.weight.device)
        cache = model.new_cache(padding_B)
        hidden_BC = prefill(model, token_ids_BM, cache)[:, -1]
        samplers = [RowSampler(sampling, row) for row in range(len(prompts))]
        continuations = [Continuation() for _ in prompts]
        running = [True] * len(prompts)
        while True:
            distribution_BV = probabilities(model.logits(hidden_BC), sampling)
            chosen = [sampler.draw(row_V) for sampler, row_V in zip(samplers, distribution_BV, strict=True)]
            for row, token_id in enumerate(chosen):
                if running[row]:
                    running[row] = continuations[row].keep(token_id, sampling)
                    continuations[row].passes += running[row]
            if not any(running):
                return continuations
            new_B1 = torch.tensor(chosen, device=token_ids_BM.device)[:, None]
            hidden_BC = model.forward_cached(new_B1, cache)[:, -1]


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


def prefill(model: MoEModel, token_ids_BM: Tensor, cache: DecodeCache) -> Tensor:
    """Read the prompts into the cache; hidden states [B,M,C] of all their tokens."""
    chunks = token_ids_BM.split(PREFILL_TOKENS, dim=1)
    return torch.cat([model.forward_cached(chunk, cache) for chunk in chunks], dim=1)


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [B,M], padded with 0 on the left, and how many of each row are padding [B]."""
    longest = max(len(prompt) for prompt in prompts)
    rows = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    padding = [longest - len(prompt) for prompt in prompts]
    return torch.tensor(rows, device=device), torch.tensor(padding, device=device)


def check_prompts(model: MoEModel, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> None:
    """Raises UserError for a prompt that is empty, too long, or has an id outside the vocabulary."""
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
                fix=f"give at most {room} tokens"
                if room > 0
                else f"ask for at most {model.config.max_context_tokens - len(prompt)} new ones",
            )
        unknown = [token_id for token_id in prompt if not 0 <= token_id < model.vocabulary_size]
        if unknown:
            raise UserError(
                f"token id {unknown[0]} is not in the vocabulary",
                where=where,
                fix=f"use 0 <= id < {model.vocabulary_size}",
            )
