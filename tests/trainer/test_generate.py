"""Cached generation against full forward passes; drafts that change nothing but the speed."""

import math
from random import Random

import pytest
import torch
from torch import Tensor

from pipeline.core.errors import UserError
from trainer import generate as generation
from trainer.config import ModelConfig, OptimizerConfig
from trainer.drafting import generate_drafting, remainder
from trainer.generate import generate
from trainer.losses import compute_losses
from trainer.model.cache import DecodeCache, DecodeStep
from trainer.model.model import MoEModel, build_model
from trainer.optim import build_optimizer
from trainer.sampling import RowSampler, SamplingConfig

KNOWN_TEXT = torch.tensor([[(i * i + i // 3) % 16 for i in range(48)]] * 2) % 12


@pytest.fixture
def learnt(config: ModelConfig) -> MoEModel:
    """A model that knows `KNOWN_TEXT`, its MTP module too."""
    model = build_model(config.replaced(mtp_loss=0.5), 16, seed=0)
    optimizer = build_optimizer(model, OptimizerConfig())
    optimizer.set_learning_rate(1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        documents = torch.zeros_like(KNOWN_TEXT)
        compute_losses(model, KNOWN_TEXT, documents, torch.ones_like(KNOWN_TEXT, dtype=torch.bool)).total.backward()
        optimizer.step()
    return model


def full_logits(model: MoEModel, token_ids: list[int]) -> Tensor:
    ids = torch.tensor([token_ids])
    return model.logits(model.eval()(ids, torch.zeros_like(ids)).hidden_BTC)[0]


def prompts_of(model: MoEModel, *lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(0, model.vocabulary_size, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("steps", [[1] * 30, [30], [7, 1, 1, 12, 2, 7], [20, 10]])
def test_cached_logits_are_those_of_a_full_pass(model: MoEModel, steps: list[int]) -> None:
    model.double().eval()
    (tokens,) = prompts_of(model, 30)
    cache = model.new_cache(torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        hidden = [model.forward_cached(piece[None], cache) for piece in torch.tensor(tokens).split(steps)]
        logits = model.logits(torch.cat(hidden, dim=1))[0]
        torch.testing.assert_close(logits, full_logits(model, tokens))


def test_sliding_layers_keep_their_window_only(model: MoEModel, config: ModelConfig) -> None:
    cache = model.eval().new_cache(torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        for _ in range(60):
            model.forward_cached(torch.tensor([[3]]), cache)
    slots = [layer.key_values.shape[2] for layer in cache.layers if layer.key_values is not None]
    assert slots[:3] == [config.window_tokens] * 3
    assert slots[3] >= 60


@pytest.mark.parametrize("seed", range(8))
def test_rows_that_take_back_what_they_like_leave_no_trace(model: MoEModel, seed: int) -> None:
    """Steps of 1 to 6 tokens, of which each row keeps as many as it will: logits are those of a full pass."""
    model.double().eval()
    padding = [0, 3, 7]
    texts = [text[pad:] for text, pad in zip(prompts_of(model, 40, 40, 40), padding, strict=True)]
    ids = [[0] * pad + text for pad, text in zip(padding, texts, strict=True)]
    cache = model.new_cache(torch.tensor(padding))
    random = Random(seed)
    with torch.no_grad():
        hidden = model.forward_cached(torch.tensor([row[:8] for row in ids]), cache)
        logits = [list(model.logits(hidden[row, padding[row] :])) for row in range(3)]
        while min(cache.end_positions) < 30:
            tokens = random.randint(1, 6)
            kept = [random.randint(0, min(tokens, 40 - end)) for end in cache.end_positions]
            places = list(zip(ids, cache.end_positions, kept, strict=True))
            read = [[*row[end : end + count], *[159] * (tokens - count)] for row, end, count in places]
            hidden = model.forward_cached(torch.tensor(read), cache)
            cache.take_back([tokens - count for count in kept])
            for row, count in enumerate(kept):
                logits[row] += model.logits(hidden[row, :count])
        for text, found in zip(texts, logits, strict=True):
            # Turns are float32, and behind padding they are those of other positions.
            torch.testing.assert_close(torch.stack(found), full_logits(model, text)[: len(found)], rtol=0, atol=2e-6)


def test_rows_of_a_batch_are_independent(model: MoEModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "PREFILL_TOKENS", 7)
    prompts = prompts_of(model, 3, 20, 11)
    sampling = SamplingConfig(max_new_tokens=15)
    together = [c.token_ids for c in generate(model, prompts, sampling)]
    for prompt, found in zip(prompts, together, strict=True):
        sequence = list(prompt)
        for token in found:  # the definition: the most likely token after a full pass, every time
            with torch.no_grad():
                assert int(full_logits(model, sequence)[-1].argmax()) == token
            sequence.append(token)


@pytest.mark.parametrize("drafts", [0, 2])
def test_no_mask_is_larger_than_a_chunk_of_the_prompt(
    model: MoEModel, monkeypatch: pytest.MonkeyPatch, drafts: int
) -> None:
    """Whether tokens are drafted or not, and with the same greedy tokens as when the prompt is read at once."""
    prompts, sampling = prompts_of(model, 50, 33), SamplingConfig(max_new_tokens=5)

    def greedy() -> list[list[int]]:
        found = generate_drafting(model, prompts, sampling, drafts) if drafts else generate(model, prompts, sampling)
        return [continuation.token_ids for continuation in found]

    at_once = greedy()
    queries: list[int] = []
    step = DecodeCache.step

    def recorded(cache: DecodeCache, new_tokens: int) -> DecodeStep:
        made = step(cache, new_tokens)
        queries.extend(slots.mask_B1MS.shape[2] for slots in made.slots.values())
        return made

    monkeypatch.setattr(generation, "PREFILL_TOKENS", 7)
    monkeypatch.setattr(DecodeCache, "step", recorded)
    assert greedy() == at_once
    assert max(queries) == 7


def test_a_row_stops_at_its_stop_token(model: MoEModel) -> None:
    prompts = prompts_of(model, 5, 9)
    free = [c.token_ids for c in generate(model, prompts, SamplingConfig(max_new_tokens=12))]
    stop = free[0][4]
    stopped = [c.token_ids for c in generate(model, prompts, SamplingConfig(max_new_tokens=12, stop_token_ids=(stop,)))]
    for with_stop, without in zip(stopped, free, strict=True):
        end = without.index(stop) + 1 if stop in without else len(without)
        assert with_stop == without[:end]


def test_sampling_is_seeded_and_top_p_cuts_the_tail(model: MoEModel) -> None:
    prompts = prompts_of(model, 6)
    hot = SamplingConfig(max_new_tokens=20, temperature=2.0, seed=1)
    first, again = generate(model, prompts, hot), generate(model, prompts, hot)
    assert first[0].token_ids == again[0].token_ids
    assert first[0].token_ids != generate(model, prompts, hot.replaced(seed=2))[0].token_ids
    narrow = generate(model, prompts, hot.replaced(top_p=1e-6))
    assert narrow[0].token_ids == generate(model, prompts, SamplingConfig(max_new_tokens=20))[0].token_ids


@pytest.mark.parametrize("length", [1, 2, 40])
def test_drafting_gives_the_same_greedy_text(model: MoEModel, length: int) -> None:
    (prompt,) = prompts_of(model, length)
    sampling = SamplingConfig(max_new_tokens=25)
    (drafted,) = generate_drafting(model, [prompt], sampling)
    assert drafted.token_ids == generate(model, [prompt], sampling)[0].token_ids
    stop = drafted.token_ids[13]
    stopping = sampling.replaced(stop_token_ids=(stop,))
    assert generate_drafting(model, [prompt], stopping)[0].token_ids == generate(model, [prompt], stopping)[0].token_ids


@pytest.mark.parametrize("drafts", [1, 2, 4])
def test_rows_of_a_drafted_batch_go_on_at_their_own_speed(learnt: MoEModel, drafts: int) -> None:
    """A text the model knows by heart beside texts it does not: each is what plain generation gives."""
    prompts = [KNOWN_TEXT[0, :10].tolist(), *prompts_of(learnt, 3, 21)]
    sampling = SamplingConfig(max_new_tokens=30)
    drafted = generate_drafting(learnt, prompts, sampling, drafts)
    plain = generate(learnt, prompts, sampling)
    assert [one.token_ids for one in drafted] == [one.token_ids for one in plain]
    known, *unknown = drafted
    assert known.accepted / known.drafted > max(one.accepted / one.drafted for one in unknown)
    assert known.passes < plain[0].passes == 29
    for one in drafted:
        assert one.passes * drafts == one.drafted
        # A step gives its drafts that hold and, but for the last, one more.
        assert one.passes + one.accepted in (29, 30)


def test_drafts_of_frequent_tokens_only_are_the_same_text(learnt: MoEModel) -> None:
    prompt = [KNOWN_TEXT[0, :10].tolist()]
    sampling = SamplingConfig(max_new_tokens=30)
    plain = generate(learnt, prompt, sampling)[0].token_ids
    few = generate_drafting(learnt, prompt, sampling, drafts=2, drafted_ids=plain[:3])[0]
    assert few.token_ids == plain
    assert few.accepted > 0
    none = generate_drafting(learnt, prompt, sampling, drafted_ids=[15])[0]  # a token that the text never has
    assert (none.token_ids, none.accepted) == (plain, 0)


def test_further_drafts_save_passes(learnt: MoEModel) -> None:
    prompt = [KNOWN_TEXT[0, :10].tolist()]
    passes = [generate_drafting(learnt, prompt, SamplingConfig(max_new_tokens=30), n)[0].passes for n in (1, 3)]
    assert passes[1] < passes[0] < 20


def exact_distribution(model: MoEModel, prompt: list[int], tokens: int) -> Tensor:
    """Probability of every continuation of that many tokens, [V, V, ...], by a full pass for each beginning."""
    with torch.no_grad():
        first = full_logits(model, prompt)[-1].softmax(-1)
    if tokens == 1:
        return first
    rest = [exact_distribution(model, [*prompt, token], tokens - 1) for token in range(len(first))]
    return first.view(-1, *[1] * (tokens - 1)) * torch.stack(rest)


def test_sampled_texts_have_the_exact_distribution_drafted_or_not(config: ModelConfig) -> None:
    """Chi-square of 27 texts of three tokens each against their exact probabilities."""
    model = build_model(config.replaced(num_layers=2, layer_pattern="LG"), 3, seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8 if weight.ndim > 1 else 1)
    samples = 1000
    sampling = SamplingConfig(max_new_tokens=3, temperature=1.0)
    plain = [c.token_ids for c in generate(model, [[1, 2]] * samples, sampling)]
    drafted = generate_drafting(model, [[1, 2]] * samples, sampling)
    further = generate_drafting(model, [[1, 2]] * samples, sampling.replaced(seed=1), drafts=2)
    frequent = generate_drafting(model, [[1, 2]] * samples, sampling.replaced(seed=2), drafts=2, drafted_ids=(0, 2))
    for found in (drafted, further, frequent):
        assert 0.1 < sum(c.accepted for c in found) / sum(c.drafted for c in found) < 0.9  # both branches are taken
    expected = samples * exact_distribution(model, [1, 2], 3).flatten()
    assert expected.min() > 5
    for texts in (plain, *([c.token_ids for c in found] for found in (drafted, further, frequent))):
        cells = torch.tensor([(a * 3 + b) * 3 + c for a, b, c in texts])
        seen = torch.bincount(cells, minlength=27)
        # 26 degrees of freedom: 54 is exceeded once in a thousand when the distributions are equal; seeds are fixed.
        assert ((seen - expected) ** 2 / expected).sum() < 54


def test_a_draft_as_likely_as_can_be_is_kept_by_any_number(learnt: MoEModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers just below 1, which float32 takes for 1."""
    monkeypatch.setattr(RowSampler, "uniform", lambda _: math.nextafter(1.0, 0.0))
    prompt, sampling = [KNOWN_TEXT[0, :10].tolist()], SamplingConfig(max_new_tokens=30)
    drafted = generate_drafting(learnt, prompt, sampling, drafts=2)[0]
    assert drafted.token_ids == generate(learnt, prompt, sampling)[0].token_ids
    assert drafted.accepted > 0


def test_what_a_refused_draft_leaves_is_a_distribution() -> None:
    target, draft = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.2, 0.6, 0.2])
    torch.testing.assert_close(remainder(target, draft), torch.tensor([0.75, 0.0, 0.25]))
    above = torch.nextafter(target, torch.ones(3))  # differs by rounding, and the target has nothing more
    assert torch.equal(remainder(target, above), target)


def test_bad_prompts_are_named(model: MoEModel, config: ModelConfig) -> None:
    with pytest.raises(UserError, match="prompt 1"):
        generate(model, [[1], []], SamplingConfig())
    with pytest.raises(UserError, match="at most 448"):
        generate(model, [[1] * 449], SamplingConfig(max_new_tokens=64))
    with pytest.raises(UserError, match="id < 160"):
        generate(model, [[160]], SamplingConfig())
    without = build_model(config.replaced(mtp_layers=0), 160, seed=0)
    with pytest.raises(UserError, match="MTP"):
        generate_drafting(without, [[1]], SamplingConfig())
    with pytest.raises(UserError, match="at least 1"):
        generate_drafting(model, [[1]], SamplingConfig(), drafts=0)


def test_generation_restores_the_training_mode(model: MoEModel) -> None:
    model.train()
    generate(model, [[1]], SamplingConfig(max_new_tokens=2))
    assert model.training
