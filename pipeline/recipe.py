"""Opening a curriculum file: read, checked as a whole with names and reviews, and laid out before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.core.config import Loc, Located, read_yaml, validate
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.core.provenance import SourceCard, load_card
from pipeline.curriculum import TrainConfig
from pipeline.curriculum_file import Curriculum
from pipeline.executors.config import check_patterns
from pipeline.graph import Graph
from pipeline.layout import Layout
from pipeline.reviews import check_training
from synth.instructions.config import IngestConfig
from trainer.config import ModelConfig


@dataclass(frozen=True)
class Opened:
    """A checked curriculum with its graph."""

    path: Path
    curriculum: Curriculum
    cards: Mapping[str, SourceCard]
    graph: Graph
    located: Located

    @property
    def data_steps(self) -> list[str]:
        """Every step that is not training."""
        return [name for name in self.graph.nodes if not name.startswith("train.")]

    @property
    def train_steps(self) -> list[str]:
        return [f"train.{phase.name}" for phase in self.curriculum.phases]

    @property
    def model(self) -> ModelConfig:
        """The architecture that is trained, whether a preset's or a folder's."""
        config = self.graph.node(self.train_steps[0]).step.config
        assert isinstance(config, TrainConfig)
        return config.model

    def selected(self, patterns: Sequence[str]) -> list[str]:
        """Step names that match any of the patterns; raises `ConfigError` for a pattern that matches none."""
        chosen: list[str] = []
        for pattern in patterns:
            found = [name for name in self.graph.nodes if fnmatchcase(name, pattern)]
            if not found:
                raise unknown_name("step", pattern, self.graph.nodes)
            chosen += [name for name in found if name not in chosen]
        return chosen


def _card(source: str, path: str, located: Located) -> SourceCard:
    if not Path(path).is_file():
        raise ConfigError(
            f"source `{source}` has no card: no file `{path}`",
            where=located.where(("sources", source, "card")),
            fix="write one as those in samples/cards, or start where the path leads to it",
        )
    return load_card(path)


def open_curriculum(path: Path, overrides: Sequence[str] = ()) -> Opened:
    """Read, check and lay out a curriculum file. Raises `ConfigError` and `InputError`."""
    located = read_yaml(path, overrides)
    curriculum = validate(Curriculum, located)
    check_names(curriculum, located)
    cards = {name: _card(name, source.card, located) for name, source in curriculum.sources.items()}
    check_reviews(curriculum, cards, located)
    graph = Layout(curriculum, located, cards).graph()
    check_patterns(curriculum.execution, graph.nodes, located)
    return Opened(path, curriculum, cards, graph, located)


def check_names(curriculum: Curriculum, located: Located) -> None:
    """Every name used is defined once. Raises `ConfigError` with file, line and the nearest name."""
    both = sorted(set(curriculum.sources) & set(curriculum.synth))
    if both:
        what = f"`{both[0]}` is both a source and a synthetic set"
        raise ConfigError(what, where=located.where(("synth", both[0])), fix="rename one of them")
    corpora = [name for name, one in curriculum.sources.items() if one.use == "corpus"]
    mixed = corpora + list(curriculum.synth)
    for set_name, config in curriculum.synth.items():
        if isinstance(config, IngestConfig):
            _is_for_ingest(config.from_[0], curriculum, located.where(("synth", set_name, "from")))
            continue
        for pattern in getattr(config, "from_", ()):
            _matches("source", pattern, corpora, located, ("synth", set_name, "from"))
    for mix_name, mix in curriculum.mixes.items():
        for component_name, component in mix.components.items():
            for pattern in component.from_:
                loc = ("mixes", mix_name, "components", component_name, "from")
                _matches("source or synthetic set", pattern, mixed, located, loc)
    seen: set[str] = set()
    for index, phase in enumerate(curriculum.phases):
        if phase.mix not in curriculum.mixes:
            where = located.where(("phases", index, "mix"))
            raise unknown_name("mix", phase.mix, curriculum.mixes, where=where)
        if phase.name in seen:
            where = located.where(("phases", index, "name"))
            raise ConfigError(f"two phases are named `{phase.name}`", where=where, fix="rename one of them")
        seen.add(phase.name)


def _is_for_ingest(name: str, curriculum: Curriculum, where: str) -> None:
    """Raises `ConfigError` unless the source is one that `ingest` sets map."""
    able = [one for one, source in curriculum.sources.items() if source.use == "ingest"]
    if name not in curriculum.sources:
        raise unknown_name("source with `use: ingest`", name, able, where=where)
    if name not in able:
        what, fix = f"source `{name}` is read as running text", f"add `use: ingest` to `sources.{name}`"
        raise ConfigError(what, where=where, fix=fix)


def check_reviews(curriculum: Curriculum, cards: Mapping[str, SourceCard], located: Located) -> None:
    """Every source that a synthetic set or a mix names may be trained on. Raises `ConfigError` with file and line."""
    names = [*curriculum.sources, *curriculum.synth]
    users: list[tuple[str, Iterable[str], Loc]] = [
        (f"synthetic set `{name}`", curriculum.origins([name]), ("synth", name)) for name in curriculum.synth
    ]
    for mix_name, mix in curriculum.mixes.items():
        for component_name, component in mix.components.items():
            taken = [name for name in names if any(fnmatchcase(name, pattern) for pattern in component.from_)]
            loc = ("mixes", mix_name, "components", component_name)
            user = f"component `{component_name}` of mix `{mix_name}`"
            users.append((user, curriculum.origins(taken), loc))
    for user, sources, loc in users:
        check_training(user, sources, cards, curriculum.card_files, located.where((*loc, "from")))


def _matches(kind: str, pattern: str, names: Mapping[str, Any] | Sequence[str], located: Located, loc: Loc) -> None:
    if not names:
        what, fix = f"`{pattern}` has nothing to match: every source has `use: ingest`", "add a source of running text"
        raise ConfigError(what, where=located.where(loc), fix=f"{fix}; what `ingest` sets map is no running text")
    if not any(fnmatchcase(name, pattern) for name in names):
        raise unknown_name(kind, pattern, names, where=located.where(loc))
