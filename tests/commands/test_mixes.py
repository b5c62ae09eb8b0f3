"""Commands about mixes: files of lengths, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixes.spec import PlanConfig
from pipeline.commands.mixes import mix_of
from pipeline.commands.preview import _from_csv
from pipeline.core.errors import ConfigError, InputError
from pipeline.recipe import open_curriculum

PLAN = PlanConfig.model_validate(
    {
        "phase": "one", "context_tokens": 64, "budget_tokens": 6400, "rows_per_batch": 1, "seed": 0,
        "mix": {"components": {"web": {"from": ("web-*",), "weight": 1.0}, "all": {"from": ("*",), "weight": 1.0}}},
    }
)  # fmt: skip


def test_a_file_of_lengths_becomes_histograms_by_component(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("source,tokens,documents\nweb-ko,16,5\nbooks,900,2\nweb-ko,8,1\nweb-ko,16,1\n")
    found = {(one.component, one.source): one for one in _from_csv(path)(PLAN)}
    assert set(found) == {("web", "web-ko"), ("all", "web-ko"), ("all", "books")}
    assert found["web", "web-ko"].length_H.tolist() == [8, 16]
    assert found["web", "web-ko"].count_H.tolist() == [1, 6]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source,length\n", ":1: columns must be source, tokens, documents"),
        ("source,tokens,documents\nweb-a,1,1\nweb-a,many,1\n", ":3: tokens and documents are whole numbers"),
        ("source,tokens,documents\nweb-a,0,1\n", ":2: tokens and documents are whole numbers"),
    ],
)
def test_wrong_files_are_told_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        _from_csv(path)
    assert said in str(caught.value)


def test_a_component_without_lengths_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("source,tokens,documents\nbooks,16,5\n")
    with pytest.raises(ConfigError, match="unknown source in the file of lengths `web-\\*`"):
        _from_csv(path)(PLAN)


def test_a_phase_given_for_a_mix_is_told_its_mix() -> None:
    opened = open_curriculum(Path("configs/quickstart.yaml"))
    assert set(mix_of(opened, "longer").components) == {"rehearsal", "reasoning", "long"}
    with pytest.raises(ConfigError, match="`extend-1` is a phase; its mix is `longer`"):
        mix_of(opened, "extend-1")
