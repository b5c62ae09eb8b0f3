"""Ratio tables in and out, and a search that finds a known best mix."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mixes.ratios import ratio_table, read_ratios, write_weights
from mixes.search import propose, proxy_overrides, proxy_table, proxy_weights, read_results
from mixes.spec import MixConfig
from pipeline.core.errors import ConfigError, InputError

MIX = MixConfig.model_validate(
    {"components": {name: {"from": (name,), "weight": weight} for name, weight in (("a", 0.5), ("b", 0.3), ("c", 0.2))}}
)
FILE = """\
# a comment that stays
mixes:
  m: # of the mix
    components:
      a: {from: [a], weight: 0.5} # of a
      b: {from: [b], weight: 0.3}
      c: {from: ["c*"], weight: 0.2}
seed: 1_000
"""


def test_a_table_goes_out_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "ratios.csv"
    path.write_text(ratio_table(MIX))
    assert path.read_text().splitlines()[1] == "a,0.5,0.5,a,1.0,False,"
    assert read_ratios(path, MIX, "mix `m`") == {"a": 0.5, "b": 0.3, "c": 0.2}


def test_weights_are_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(FILE)
    write_weights(path, "m", {"a": 0.25, "c": 0.75})
    assert path.read_text() == FILE.replace("weight: 0.5", "weight: 0.25").replace("weight: 0.2}", "weight: 0.75}")
    with pytest.raises(InputError, match="component `d` of mix `m` is not defined in this file"):
        write_weights(path, "m", {"d": 1.0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,weight\n", ":1: no columns `component` and `weight`"),
        ("component,weight\na,1\nb,2\n", "no line for c"),
        ("component,weight\na,1\na,2\n", ":3: component `a` stands twice"),
        ("component,weight\na,many\n", ":2: weight `many` is not a number"),
        ("component,weight\na,0\n", ":2: weight 0"),
    ],
)
def test_wrong_tables_are_told_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_ratios(path, MIX, "mix `m`")
    assert said in str(caught.value)
    path.write_text("component,weight\naa,1\n")
    with pytest.raises(ConfigError, match=":2: unknown component `aa`"):
        read_ratios(path, MIX, "mix `m`")


def test_proxies_are_weights_around_the_mix() -> None:
    weights = proxy_weights(MIX, 200, seed=5)
    assert weights[0].tolist() == [0.5, 0.3, 0.2]
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert (weights > 0).all()
    assert np.abs(weights.mean(axis=0) - [0.5, 0.3, 0.2]).max() < 0.05
    assert (weights == proxy_weights(MIX, 200, seed=5)).all()
    assert proxy_overrides("m", MIX, [0.5, 0.25, 0.25])[1] == "mixes.m.components.b.weight=0.25"


def test_the_search_finds_a_known_best_mix(tmp_path: Path) -> None:
    """Loss grows with the distance from (0.2, 0.3, 0.5)."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    weights = proxy_weights(MIX, 256, seed=1)
    path = tmp_path / "proxies.csv"
    rows = list(csv.reader(proxy_table(MIX, weights).splitlines()))
    losses = 2 + ((weights - [0.2, 0.3, 0.5]) ** 2).sum(axis=1)
    lines = [[*rows[0], "loss"], *([*row, f"{loss:.6f}"] for row, loss in zip(rows[1:], losses, strict=True))]
    lines[3][-1] = ""  # not finished
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    results = read_results(path, MIX, "loss")
    assert results.losses.shape == (255,)
    found = propose(results, MIX, seed=2)
    assert found.rank_correlation > 0.9
    assert np.abs(np.array(list(found.weights.values())) - [0.2, 0.3, 0.5]).max() < 0.1
    with pytest.raises(ConfigError, match="unknown column `los`"):
        read_results(path, MIX, "los")
    path.write_text("\n".join(",".join(line) for line in lines[:10]) + "\n")
    with pytest.raises(InputError, match="8 results in column `loss`"):
        read_results(path, MIX, "loss")
