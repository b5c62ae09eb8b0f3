"""Configuration of `gym` sets: reasoning-gym's families that we let in (`synth/gym/library.py` says why these)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.core.config import Config
from synth.sourced import Deduplicate

GymFamily = Literal[
    "ab", "base_conversion", "basic_arithmetic", "bf", "binary_alternation", "binary_matrix", "bitwise_arithmetic",
    "chain_sum", "circuit_logic", "count_bits", "count_primes", "countdown", "course_schedule", "dice",
    "game_of_life", "gcd", "gsm_symbolic", "jugs", "kakurasu", "largest_island", "lcm", "maze", "mini_sudoku",
    "number_filtering", "number_sorting", "palindrome_generation", "path_star", "products", "rotate_matrix",
    "rotten_oranges", "shortest_path", "simple_equations", "spiral_matrix", "string_insertion", "string_splitting",
    "string_synthesis", "sudoku", "tower_of_hanoi",
]  # fmt: skip
GYM_FAMILIES: tuple[GymFamily, ...] = (
    "ab", "base_conversion", "basic_arithmetic", "bf", "binary_alternation", "binary_matrix", "bitwise_arithmetic",
    "chain_sum", "circuit_logic", "count_bits", "count_primes", "countdown", "course_schedule", "dice",
    "game_of_life", "gcd", "gsm_symbolic", "jugs", "kakurasu", "largest_island", "lcm", "maze", "mini_sudoku",
    "number_filtering", "number_sorting", "palindrome_generation", "path_star", "products", "rotate_matrix",
    "rotten_oranges", "shortest_path", "simple_equations", "spiral_matrix", "string_insertion", "string_splitting",
    "string_synthesis", "sudoku", "tower_of_hanoi",
)  # fmt: skip


class GymConfig(Config):
    """Problems of the library reasoning-gym whose answers its verifiers score exactly 1 (`synth/gym/work.py`)."""

    kind: Literal["gym"]
    documents: int = Field(ge=1)
    families: tuple[GymFamily, ...] = Field(default=GYM_FAMILIES, min_length=1)
    seed: int = Field(default=0, ge=0)
    documents_per_shard: int = Field(default=2000, ge=1)
    deduplicate: Deduplicate = "exact"  # over all shards; problems of one family are alike by design
