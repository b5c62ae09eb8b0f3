"""Generation with drafts of the model's own MTP module, against plain greedy generation.

Contract: the same model, prompts and greedy choice; `equal` means the same tokens. A forward-equivalent is one pass
of the trunk; a draft costs the MTP module's share of it, by weights a token is multiplied with. A pass of two tokens
counts as one: that holds where reading the weights is what takes time, and the wall clock of the machine at hand is
the second comparison. Without `--checkpoint` a tiny model is trained on the spot, on bytes of text: its acceptance says
nothing about a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.inputs import documents
from benchmarks.measure import interleaved
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.chat import RESERVED_IDS
from pipeline.core.tokenizer import Tokenizer
from trainer.architecture import ModelConfig, count_parameters
from trainer.config import OptimizerConfig
from trainer.drafting import generate_drafting
from trainer.generate import Continuation, generate
from trainer.losses import compute_losses
from trainer.model.model import MoEModel, build_model
from trainer.optim import build_optimizer
from trainer.phase import load_model
from trainer.presets import PRESETS
from trainer.sampling import SamplingConfig

NAME = "drafting"
BYTES = 256
ROW_TOKENS = 256
ROWS = 8
LEARNING_RATE = 3e-3
DRAFTS = (1, 2, 3)
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Load:
    training_steps: int
    text_bytes: int
    prompts: int
    prompt_tokens: int
    new_tokens: int
    rounds: int


LOADS: dict[SizeName, Load] = {
    "full": Load(300, 1_000_000, 8, 64, 128, 3),
    "quick": Load(10, 100_000, 1, 16, 24, 1),
}


def run(settings: Settings) -> Iterator[Found]:
    """Tokens a forward-equivalent and tokens a CPU second."""
    load = LOADS[settings.size]
    if settings.checkpoint is None:
        model, prompts, where = _trained(load)
    else:
        model, prompts, where = _given(settings.checkpoint, load)
    sampling = SamplingConfig(max_new_tokens=load.new_tokens)
    where = f"{where}; {len(prompts)} prompts, {load.new_tokens} tokens each"
    expected = [generate(model, [prompt], sampling)[0] for prompt in prompts]
    for drafts in DRAFTS:
        yield from _compared(model, prompts, sampling, drafts, load.rounds, where, expected)


def _compared(
    model: MoEModel,
    prompts: list[list[int]],
    sampling: SamplingConfig,
    drafts: int,
    rounds: int,
    where: str,
    expected: list[Continuation],
) -> Iterator[Comparison]:
    def drafted() -> list[Continuation]:
        return [generate_drafting(model, [prompt], sampling, drafts)[0] for prompt in prompts]

    def plain() -> list[Continuation]:
        return [generate(model, [prompt], sampling)[0] for prompt in prompts]

    continuations = drafted()
    equal = [one.token_ids for one in continuations] == [one.token_ids for one in expected]
    tokens = sum(len(one.token_ids) for one in continuations)
    passes, proposed, accepted = (
        sum(getattr(one, name) for one in continuations) for name in ("passes", "drafted", "accepted")
    )
    # The first token of each continuation comes from reading the prompt, on both sides.
    new_tokens = tokens - len(prompts)
    share = draft_share(model.config, model.vocabulary_size)
    per_forward = new_tokens / (passes + proposed * share)
    what = f"{drafts} draft{'s' if drafts > 1 else ''} a pass"
    yield Comparison(
        NAME,
        f"greedy, {what}, tokens a forward-equivalent",
        "tokens/forward",
        Spread.of([per_forward]),
        Spread.of([1.0]),
        "plain generation",
        where,
        equal=equal,
        quality_ours=accepted / proposed,
        quality="drafts accepted",
        notes={"draft_share_of_forward": share, "drafted": proposed, "tokens_a_pass": new_tokens / passes},
    )
    seconds = interleaved([drafted, plain], rounds)
    ours, theirs = (Spread.rate(tokens, found) for found in seconds)
    what = f"greedy, {what}, one prompt at a time"
    yield Comparison(NAME, what, "tokens/s", ours, theirs, "plain generation", where, equal=equal)


def draft_share(config: ModelConfig, vocabulary_size: int) -> float:
    """The MTP module's and its head's weights over those a token meets in the trunk and the head."""
    counted = count_parameters(config, vocabulary_size)
    return (counted.mtp + config.hidden_size * vocabulary_size) / counted.active_per_token


def _given(checkpoint: Path, load: Load) -> tuple[MoEModel, list[list[int]], str]:
    """The checkpoint's model, and beginnings of held-out documents in its tokenizer's ids, which lies beside it."""
    model, _ = load_model(checkpoint)
    tokenizer = Tokenizer.load(checkpoint / TOKENIZER)
    corpus = documents(load.text_bytes)
    encoded = [tokenizer.encode(text) for text in corpus.texts]
    prompts = [ids[: load.prompt_tokens] for ids in encoded if len(ids) > load.prompt_tokens]
    return model, prompts[-load.prompts :], f"checkpoint {checkpoint.name}; {corpus.label}"


def _trained(load: Load) -> tuple[MoEModel, list[list[int]], str]:
    """A tiny byte-level model after a few steps, and beginnings of rows it was not trained on."""
    corpus = documents(load.text_bytes, ["en"])
    data = "\n\n".join(corpus.texts).encode("utf-8")
    rows_RT = np.frombuffer(data, np.uint8)[: len(data) // ROW_TOKENS * ROW_TOKENS].reshape(-1, ROW_TOKENS)
    rows_RT = rows_RT.astype(np.int64) + RESERVED_IDS
    held_out, rows_RT = rows_RT[: load.prompts], rows_RT[load.prompts :]
    model = build_model(PRESETS["tiny"], RESERVED_IDS + BYTES, seed=0).train()
    optimizer = build_optimizer(model, OptimizerConfig())
    optimizer.set_learning_rate(LEARNING_RATE)
    for step in range(load.training_steps):
        token_ids_BT = torch.from_numpy(rows_RT[np.arange(step * ROWS, (step + 1) * ROWS) % rows_RT.shape[0]])
        document_ids_BT = torch.zeros_like(token_ids_BT, dtype=torch.int32)
        optimizer.zero_grad()
        compute_losses(
            model, token_ids_BT, document_ids_BT, torch.ones_like(token_ids_BT, dtype=torch.bool)
        ).total.backward()
        optimizer.step()
    prompts = [row[: load.prompt_tokens].tolist() for row in held_out]
    return model, prompts, f"tiny model after {load.training_steps} steps on bytes; {corpus.label}"
