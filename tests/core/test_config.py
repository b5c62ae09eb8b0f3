"""Configuration files: strictness, places in messages, includes and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from pipeline.core.config import Config, load_config
from pipeline.core.errors import ConfigError


class Rate(Config):
    peak: float = 3e-4
    warmup_steps: int = Field(default=0, ge=0)


class Phase(Config):
    name: str
    learning_rate: Rate = Rate()
    languages: tuple[str, ...] = ()


class Top(Config):
    name: str
    phases: tuple[Phase, ...] = ()


def written(folder: Path, text: str, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_1_2_scalars_keep_their_meaning(tmp_path: Path) -> None:
    path = written(tmp_path, "name: no\nphases:\n  - {name: a, learning_rate: {peak: 1e-4}, languages: [no, ko]}\n")
    top = load_config(path, Top)
    assert top == Top(name="no", phases=(Phase(name="a", learning_rate=Rate(peak=1e-4), languages=("no", "ko")),))


def test_unknown_key_names_file_line_and_the_nearest_key(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x\nphases:\n  - name: a\n    learning_rate:\n      peek: 0.1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, Top)
    assert caught.value.where == f"{path}:5"
    assert "unknown key `peek` in phases.0.learning_rate" in caught.value.what
    assert "did you mean `peak`?" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "name: x\nphases: [{name: a, learning_rate: {warmup_steps: 1.5}}]\n",
            2,
            "phases.0.learning_rate.warmup_steps",
        ),
        ("name: x\nphases:\n  - {name: a}\n  - {languages: [ko]}\n", 4, "phases.1.name: Field required"),
        ("name: 5\n", 1, "name: Input should be a valid string, given `5`"),
    ],
)
def test_wrong_value_names_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, Top)
    assert caught.value.where == f"{path}:{line}"
    assert words in caught.value.what


def test_overrides_reach_into_lists_and_name_their_option(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x\nphases: [{name: a}, {name: b}]\n")
    top = load_config(path, Top, ["phases.1.learning_rate.peak=2e-3", "name=y"])
    assert top.name == "y"
    assert top.phases[1].learning_rate.peak == 2e-3
    with pytest.raises(ConfigError) as caught:
        load_config(path, Top, ["phases.0.learning_rate.peak=fast"])
    assert caught.value.where == "--set phases.0.learning_rate.peak"
    with pytest.raises(ConfigError, match=r"not of the form a\.b=c"):
        load_config(path, Top, ["phases.0"])


def test_includes_are_merged_and_errors_point_into_them(tmp_path: Path) -> None:
    written(tmp_path, "phases:\n  - name: a\n", "part.yaml")
    path = written(tmp_path, "include: [part.yaml]\nname: x\n")
    assert load_config(path, Top).phases == (Phase(name="a"),)
    part = written(tmp_path, "phases:\n  - nam: a\n", "part.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(path, Top)
    assert caught.value.where == f"{part}:2"


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "include: [c.yaml]\nname: x\n")
    with pytest.raises(ConfigError, match="includes itself"):
        load_config(path, Top)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "none.yaml", Top)
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(written(tmp_path, "name: [x\n"), Top)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Rate().peak = 1.0  # type: ignore[misc]
