"""Reasoning samples from parametric families, made and verified: ours against reasoning-gym.

Contract: a sample is drawn, written out and judged. Ours come with a worked solution of every step in one of six
languages, whose equations are checked too; reasoning-gym's have question and answer, scored by its own verifier. The
families on both sides are the nearest ones, at default difficulty. The quality is the share that its verifier accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.measure import interleaved
from benchmarks.peers import against
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from synth.config import FamilyName, ReasoningConfig
from synth.reasoning import make_sample, verify

NAME = "reasoning"
# Ours and reasoning-gym's of the same kind.
FAMILIES: tuple[tuple[FamilyName, str], ...] = (
    ("multiplication", "products"),
    ("linear_equation", "simple_equations"),
    ("euclid", "gcd"),
    ("factorisation", "prime_factorization"),
    ("insertion_sort", "number_sorting"),
    ("shortest_path", "shortest_path"),
)


@dataclass(frozen=True)
class Load:
    samples: int
    rounds: int


LOADS: dict[SizeName, Load] = {"full": Load(2000, 3), "quick": Load(50, 1)}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison a pair of families."""
    load = LOADS[settings.size]
    for ours, theirs in FAMILIES:
        yield from against(
            "reasoning-gym", ("reasoning_gym",), lambda ours=ours, theirs=theirs: _compared(ours, theirs, load)
        )


def _compared(family: FamilyName, peer_family: str, load: Load) -> Comparison:
    import reasoning_gym

    config = ReasoningConfig(kind="reasoning", documents=load.samples, families=(family,))
    right: dict[str, int] = {}

    def ours() -> None:
        samples = (make_sample(config, index) for index in range(load.samples))
        right["ours"] = sum(
            verify(family, one.language, one.parameters, one.text, one.worked.equations).right for one in samples
        )

    def theirs() -> None:
        dataset = reasoning_gym.create_dataset(peer_family, size=load.samples, seed=0)
        right["peer"] = sum(dataset.score_answer(item["answer"], item) == 1.0 for item in dataset)

    seconds = interleaved([ours, theirs], load.rounds)
    return Comparison(
        NAME,
        f"{family} / {peer_family}",
        "samples/s",
        Spread.rate(load.samples, seconds[0]),
        Spread.rate(load.samples, seconds[1]),
        "reasoning-gym",
        f"generated: {load.samples} samples",
        quality_ours=right["ours"] / load.samples,
        quality_peer=right["peer"] / load.samples,
        quality="verified",
    )
