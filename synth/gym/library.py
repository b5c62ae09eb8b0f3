"""The library reasoning-gym behind a narrow door: entries of its safe families, and its verifiers made strict.

Contract: `entry_of(family, seed)` is a pure function of its arguments and the library's version, in any process, with
any hash seed: each entry comes from a data set of its own, of size one. `score` judges an answer against an entry that
went through JSON; only exactly 1.0 counts as right. The library is optional and is loaded at the first call (about
1.5 seconds); without it `library_version` and `entry_of` raise `UserError`. It is Apache-2.0.

`GYM_FAMILIES` is a list of ours, measured on version 0.1.25, each of its 105 families with 30 entries in two processes
with other hash seeds and in the opposite order; the labels of those let in agree with solvers of ours
(`tests/synth/test_gym_labels.py`) or with the way they tell. Left out, with the reason:

- verifier accepts what is wrong: game_of_life_halting (any text), puzzle24 (any numbers), coin_flip (0), knights_knaves
  and letter_jumble (a longer or shorter text), survo, sokoban, fraction_simplification and time_intervals (text around
  the answer), spell_backward (1.0000000000000002 for it), prime_factorization (raises)
- rounded answers, of which a part is right as well: advanced_geometry, complex_arithmetic, decimal_arithmetic,
  decimal_chain_sum, number_format, polynomial_equations, pool_matrix, power_function
- the library's own answer scores below 1, or there is none: arc_agi, rearc, boxnet, graph_color, propositional_logic,
  rubiks_cube, rush_hour
- another process or size makes another entry: acre, codeio, intermediate_integration, isomorphic_strings, knight_swap,
  list_functions, polynomial_multiplication, ransom_note, word_ladder
- labels that are wrong or a matter of opinion: aiw, family_relationships (the relation is the reverse of the one asked
  for), syllogism, simple_geometry ("convex" with an angle of 380 degrees), leg_counting (starfish), tsumego,
  mahjong_puzzle, calendar_arithmetic, palindrome_partitioning (all or one), number_sequence, modulo_grid, arc_1d,
  rectangle_count, self_reference, manipulate_matrix (which way to mirror and rotate), string_manipulation (the middle
  of an even number of letters)
- problems with several right answers, of which another one may be planted or refused: n_queens, quantum_lock,
  cryptarithm, simple_integration
- above 25 milliseconds an entry: futoshiki, zebra_puzzles, figlet_font, group_anagrams
- text of books or word lists, or English as the task itself: caesar_cipher, emoji_mystery, letter_counting,
  sentence_reordering, word_sequence_reversal, word_sorting, needle_haystack, color_cube_rotation
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from fractions import Fraction
from functools import cache
from importlib import import_module, metadata
from typing import Any

from pipeline.core.errors import UserError
from synth.gym.config import GymFamily

PACKAGE = "reasoning-gym"
LICENSE = "Apache-2.0"  # of the library, which the texts are made by
# Verifiers that look for the answer within a text are only asked about texts that are an answer and nothing else.
FORMS: Mapping[str, re.Pattern[str]] = {
    "gsm_symbolic": re.compile(r"-?\d+(?:\.\d+)?"),
    "kakurasu": re.compile(r"[01](?: [01])*(?:\n[01](?: [01])*)*"),
}


class NoEntryError(Exception):
    """The library's generator found no problem for this seed (some mazes have no room for their goal)."""


def library_version() -> str:
    """The installed version: another one makes other entries, so it is part of a set's identity."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise _missing() from None


def entry_of(family: GymFamily, seed: int) -> dict[str, Any]:
    """`question`, `answer` and `metadata` as JSON values. Raises `NoEntryError` where the library's generator fails."""
    one = _data_set(family, seed)
    try:
        with redirect_stdout(io.StringIO()):  # one family prints a dot for each entry
            entry = one[0]
    except Exception as error:  # of any type: whatever it stumbled over, the seed gives no problem
        raise NoEntryError(f"{family}: {type(error).__name__}: {error}") from error
    entry["question"] = entry["question"].strip("\n").rstrip()
    return json.loads(json.dumps(entry, default=_number))


def score(family: GymFamily, answer: str, entry: Mapping[str, Any]) -> float:
    """What the family's verifier gives an answer to this entry; 0 where it raises or the form is not an answer's."""
    if family in FORMS and FORMS[family].fullmatch(answer) is None:
        return 0.0
    try:
        with redirect_stdout(io.StringIO()):  # some verifiers print what they find wrong
            return float(_verifier(family).score_answer(answer, dict(entry)))
    except Exception:  # of any type, on text that the verifier cannot read: it has not said that it is right
        return 0.0


def _number(value: object) -> str:
    """Metadata of `gsm_symbolic` hold fractions, which no verifier reads; anything else is a defect."""
    if isinstance(value, Fraction):
        return str(value)
    raise TypeError(f"{type(value).__name__} in the metadata")


@cache
def _verifier(family: GymFamily) -> Any:
    return _data_set(family, 0)


def _data_set(family: GymFamily, seed: int) -> Any:
    try:
        factory: Any = import_module("reasoning_gym.factory")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "reasoning_gym":
            raise
        raise _missing() from None
    return factory.create_dataset(family, seed=seed, size=1)


def _missing() -> UserError:
    fix = "in the clone: .venv/bin/pip install -e '.[gym]', or take the set out"
    return UserError(f"sets of kind `gym` need the package {PACKAGE}, which is not installed", where="synth", fix=fix)
