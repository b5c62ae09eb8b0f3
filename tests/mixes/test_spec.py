"""The mix's configuration: the file's own words, and errors with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixes.spec import ComponentConfig, MixConfig, PlanConfig
from pipeline.core.config import load_config
from pipeline.core.errors import ConfigError

MIX = """\
components:
  web: {from: [web-*, wiki], weight: 0.7}
  long:
    from: [books]
    weight: 0.3
    whole: true
    max_repeats: 2
    where: "lang = 'ko' AND quality > 0.5"
"""


def test_yaml_to_config(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(MIX)
    mix = load_config(path, MixConfig)
    assert mix.components["web"].from_ == ("web-*", "wiki")
    assert mix.components["long"].whole
    assert mix.components["long"].max_repeats == 2.0
    assert mix.components["long"].replaced(weight=0.5).from_ == ("books",)
    assert mix.shortage == "refuse"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("whole: true", "hole: true", 6, "did you mean `whole`"),
        ("lang = 'ko'", "long = 'ko'", 8, "columns: id, source, lang"),
        ("lang = 'ko' AND quality > 0.5", "quality + 1", 8, "not true or false"),
        ("weight: 0.3", "weight: 0", 5, "greater than 0"),
        ("max_repeats: 2", "minimum_tokens: 9\n    maximum_tokens: 8", 3, "maximum_tokens 8 is below minimum_tokens 9"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(MIX.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_config(path, MixConfig)
    assert f"mix.yaml:{line}" in str(caught.value)
    assert said in str(caught.value)


def plan_config(budget_tokens: int) -> PlanConfig:
    component = ComponentConfig.model_validate({"from": ("a",), "weight": 1.0})
    return PlanConfig(
        mix=MixConfig(components={"a": component}),
        phase="one",
        context_tokens=100,
        budget_tokens=budget_tokens,
        rows_per_batch=4,
        seed=0,
    )


def test_rows_are_whole_batches() -> None:
    assert plan_config(400).rows == 4
    assert plan_config(1999).rows == 16


def test_less_than_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one batch of 4 rows of 100 tokens; give at least 400"):
        plan_config(399)
