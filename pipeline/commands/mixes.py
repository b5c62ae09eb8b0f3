"""What the commands about mixes share: a phase's planning config, its chain of segments, the encoded documents."""

from __future__ import annotations

from dataclasses import dataclass

from mixes.catalog import Catalogue, open_catalogue
from mixes.spec import MixConfig, PlanConfig
from pipeline.core.errors import ConfigError, InputError, unknown_name
from pipeline.core.plans import Plan, Segment, read_plan
from pipeline.core.record import finished, read_record
from pipeline.core.steps import StepOutput
from pipeline.recipe import Opened


@dataclass(frozen=True)
class PlannedPhase:
    """A phase and the segments that are planned for it."""

    name: str
    rows_per_batch: int
    plan: Plan  # the chain up to the phase's last segment
    segments: tuple[Segment, ...]

    @property
    def first_row(self) -> int:
        return self.segments[0].first_row

    @property
    def rows(self) -> int:
        return sum(segment.rows for segment in self.segments)


def phase_names(opened: Opened) -> list[str]:
    return [phase.name for phase in opened.curriculum.phases]


def check_phase(opened: Opened, name: str) -> None:
    """Raises `ConfigError` for a phase that the curriculum has not."""
    if name not in phase_names(opened):
        raise unknown_name("phase", name, phase_names(opened))


def plan_config(opened: Opened, phase: str) -> PlanConfig:
    """The identity of the phase's mix step."""
    config = opened.graph.node(f"mix.{phase}").step.config
    assert isinstance(config, PlanConfig)
    return config


def mix_of(opened: Opened, name: str) -> MixConfig:
    """A mix of the file by name. Raises `ConfigError`."""
    mixes = opened.curriculum.mixes
    for phase in opened.curriculum.phases:
        if phase.name == name and name not in mixes:
            raise ConfigError(f"`{name}` is a phase; its mix is `{phase.mix}`", where=str(opened.path), fix=phase.mix)
    if name not in mixes:
        raise unknown_name("mix", name, mixes)
    return mixes[name]


def planned_phases(opened: Opened) -> list[PlannedPhase]:
    """The phases that have a plan, in order, each with the segments that its gate appended."""
    found = []
    for phase in opened.curriculum.phases:
        mix = opened.graph.node(f"mix.{phase.name}")
        if not mix.finished:
            continue
        train = opened.graph.node(f"train.{phase.name}")
        folders = read_record(train.folder).facts["mix_folders"] if finished(train.folder) else [mix.folder.name]
        plan = read_plan(opened.graph.store, opened.graph.store / folders[-1])
        own = tuple(segment for segment in plan.segments if segment.folder in folders)
        found.append(PlannedPhase(phase.name, phase.rows_per_batch, plan, own))
    return found


def planned_phase(opened: Opened, name: str) -> PlannedPhase:
    """One phase's plan. Raises `ConfigError` for an unknown phase, `InputError` for one without a plan."""
    check_phase(opened, name)
    for phase in planned_phases(opened):
        if phase.name == name:
            return phase
    fix = f"seodang run {opened.path} mix.{name}"
    raise InputError(f"the mix of phase `{name}` is not planned yet", where=str(opened.graph.store), fix=fix)


def encoded_catalogue(opened: Opened) -> Catalogue:
    """The documents of all encode steps. Raises `InputError` naming those that are missing."""
    nodes = {name: node for name, node in opened.graph.nodes.items() if name.startswith("encode.")}
    missing = [name for name, node in nodes.items() if not node.finished]
    if missing:
        fix = f"seodang run {opened.path} 'encode.*', or give --lengths with a CSV of source,tokens,documents"
        raise InputError(f"not encoded yet: {', '.join(missing)}", where=str(opened.graph.store), fix=fix)
    return open_catalogue(opened.graph.store, {name: StepOutput(name, node.folder) for name, node in nodes.items()})
