"""Parametric families of problems whose solvers show their steps.

Contract of a family: `draw(dice, level)` gives JSON parameters (numbers and lists; language-neutral), `work(p, say)`
writes the worked solution in the language of `say`. Neither checks itself: an independent solver
(`pipeline/core/verify/oracles.py`) and the equation checker judge every sample. The visible list is `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping

from synth.families import algebra, algorithms, arithmetic, chance, ledger, numbers, signposts
from synth.families.base import Family

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        arithmetic.MULTIPLICATION,
        arithmetic.DIVISION,
        arithmetic.SHOPPING,
        arithmetic.JOURNEY,
        algebra.LINEAR_EQUATION,
        algebra.LINEAR_SYSTEM,
        algebra.SEQUENCE,
        numbers.EUCLID,
        numbers.FACTORISATION,
        chance.COMMITTEE,
        chance.URN,
        algorithms.SHORTEST_PATH,
        algorithms.INSERTION_SORT,
        algorithms.BRACKETS,
        ledger.LEDGER,
        signposts.SIGNPOSTS,
    )
}
