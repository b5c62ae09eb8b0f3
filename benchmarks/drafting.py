"""Generation with drafts of the model's own MTP module, against plain greedy generation.

Contract: the same model, prompts and greedy choice; `equal` means the same tokens. A forward-equivalent is one pass
of the trunk; a draft costs the MTP module's share of it, by weights a token is multiplied with. A pass of two tokens
counts as one: that holds where reading the weights is what takes time, and the wall clock of the machine at hand is
the second comparison. Without `--checkpoint` a tiny model is trained on the spot, on bytes of text: its acceptance says
nothing about a real one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.byte_training import byte_rows, new_model, train
from benchmarks.inputs import documents
from benchmarks.measure import interleaved
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from pipeline.core.tokenizer import Tokenizer
from trainer.architecture import ModelConfig, count_parameters
from trainer.drafting import generate_drafting
from trainer.generate import Continuation, generate
from trainer.model.model import MoEModel
from trainer.phase import load_model
from trainer.presets import PRESETS
from trainer.sampling import SamplingConfig

NAME = "drafting"
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
        model, prompts, frequent, where = _trained(load)
    else:
        model, prompts, frequent, where = _given(settings.checkpoint, load)
    sampling = SamplingConfig(max_new_tokens=load.new_tokens)
    where = f"{where}; {len(prompts)} prompts, {load.new_tokens} tokens each"
    expected = [generate(model, [prompt], sampling)[0] for prompt in prompts]
    for drafts in DRAFTS:
        for drafted_ids in ((), frequent):
            yield from _compared(model, prompts, sampling, (drafts, drafted_ids), load.rounds, where, expected)


def _compared(
    model: MoEModel,
    prompts: list[list[int]],
    sampling: SamplingConfig,
    how: tuple[int, Sequence[int]],
    rounds: int,
    where: str,
    expected: list[Continuation],
) -> Iterator[Comparison]:
    drafts, drafted_ids = how

    def drafted() -> list[Continuation]:
        return [generate_drafting(model, [prompt], sampling, drafts, drafted_ids)[0] for prompt in prompts]

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
    share = draft_share(model.config, model.vocabulary_size, len(drafted_ids) or model.vocabulary_size)
    per_forward = new_tokens / (passes + proposed * share)
    what = f"{drafts} draft{'s' if drafts > 1 else ''} a pass"
    what += f" of {len(drafted_ids):,} frequent tokens" if drafted_ids else ""
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


def draft_share(config: ModelConfig, vocabulary_size: int, drafted_tokens: int) -> float:
    """The MTP module's and its head's weights over those a token meets in the trunk and the head."""
    counted = count_parameters(config, vocabulary_size)
    return (counted.mtp + config.hidden_size * drafted_tokens) / counted.active_per_token


def _given(checkpoint: Path, load: Load) -> tuple[MoEModel, list[list[int]], list[int], str]:
    """The checkpoint's model, beginnings of documents it has not seen in its tokenizer's ids, which lies beside it,
    and the most frequent tokens of further such documents."""
    model, _ = load_model(checkpoint)
    tokenizer = Tokenizer.load(checkpoint / TOKENIZER)
    corpus = documents(load.text_bytes)
    encoded = [tokenizer.encode(text) for text in corpus.texts]
    long = [ids for ids in encoded if len(ids) > load.prompt_tokens]
    prompts = [ids[: load.prompt_tokens] for ids in long[-load.prompts :]]
    frequent = most_frequent(np.concatenate(long[: -load.prompts]), model.vocabulary_size)
    return model, prompts, frequent, f"checkpoint {checkpoint.name}; {corpus.label}"


def most_frequent(token_ids: np.ndarray, vocabulary_size: int) -> list[int]:
    """A sixteenth of the vocabulary."""
    counts = np.bincount(token_ids, minlength=vocabulary_size)
    return np.argsort(-counts, kind="stable")[: vocabulary_size // 16].tolist()


def _trained(load: Load) -> tuple[MoEModel, list[list[int]], list[int], str]:
    """A tiny byte-level model after a few steps, beginnings of rows it was not trained on, and frequent bytes."""
    corpus = documents(load.text_bytes, ["en"])
    rows_RT = byte_rows(corpus)
    held_out, rows_RT = rows_RT[: load.prompts], rows_RT[load.prompts :]
    model = new_model(PRESETS["tiny"], seed=0)
    deque(train(model, rows_RT, load.training_steps), maxlen=0)
    prompts = [row[: load.prompt_tokens].tolist() for row in held_out]
    frequent = most_frequent(rows_RT.ravel(), model.vocabulary_size)
    return model, prompts, frequent, f"tiny model after {load.training_steps} steps on bytes; {corpus.label}"
