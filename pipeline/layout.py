"""The step graph that follows from a curriculum file.

Contract: every step's identity is settled here from configs and content hashes; paths and workers go along as
execution. The graph, in order:

`clean.SOURCE` … → `filter.SOURCE` … → global blocks (`dedup.exact`, …) → `clean-2` → `split` → `tokenizer.sample`
→ `tokenizer.count` → `tokenizer` → (`index.SET` →) `synth.SET` → `distinct.SET` → `guard.SET` → `encode.clean`,
`encode.SET` → `mix.PHASE` → `train.PHASE`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mixes.spec import PlanConfig
from pipeline.core.config import Located
from pipeline.core.errors import ConfigError
from pipeline.core.provenance import SourceCard
from pipeline.core.record import finished, read_record
from pipeline.core.rng import derive_seed
from pipeline.core.steps import Step
from pipeline.core.takedown import TakedownList, read_takedowns
from pipeline.core.tokenizer import Tokenizer
from pipeline.curriculum import KIND as TRAIN_KIND
from pipeline.curriculum import VERSION as TRAIN_VERSION
from pipeline.curriculum import WEIGHTS_ROLE, TrainConfig, mix_step
from pipeline.curriculum_file import Curriculum
from pipeline.graph import Graph
from stages.catalog import block_config, load, resolve
from stages.catalog import entry as block_entry
from stages.config import BlockSpec, CleanConfig, SourceConfig
from stages.dedup.layout import Part
from stages.dedup.synthetic import set_parts
from stages.listed import COMPLIANCE, ListedBlock, cut_at_rules, filter_name
from stages.sources import SourceFile, expand_paths, file_content, source_content, step_paths
from stages.takedown import TAKEDOWNS
from stages.tokenizer.sample import (
    COUNT_KIND,
    COUNT_STEP,
    COUNT_VERSION,
    COUNTS,
    SAMPLE,
    SAMPLE_KIND,
    SAMPLE_STEP,
    SAMPLE_VERSION,
    CountConfig,
    SampleConfig,
)
from stages.tokenizer.train import KIND as TOKENIZER_KIND
from stages.tokenizer.train import TOKENIZER_ROLE
from stages.tokenizer.train import VERSION as TOKENIZER_VERSION
from synth.config import VERSIONS, WORKS, SynthSet, asks_endpoint, endpoint_binding
from synth.gym.config import GymConfig
from synth.gym.library import PACKAGE, library_version
from synth.instructions.config import IngestConfig
from synth.sourced import Deduplicate
from synth.subagents.config import INDEX_KIND, INDEX_VERSION, INDEX_WORK, SearchConfig
from trainer.config import ModelConfig
from trainer.transformers_folder import TOKENIZER_NAME, check_model, check_tokenizer, read_folder

CLEAN_WORK = "stages.clean:WORK"
CLEAN_VERSION = 5
SPLIT = "split"
TOKENIZER = "tokenizer"
SAMPLING = "stages.tokenizer.sample"
CACHE_FOLDER = "cache"  # below the store: content hashes of source files, safe to remove


class Layout:
    """Builds the graph of one curriculum."""

    def __init__(self, curriculum: Curriculum, located: Located, cards: Mapping[str, SourceCard]) -> None:
        self.curriculum = curriculum
        self.located = located
        self.cards = cards
        self.store = Path(curriculum.store)
        self.takedowns: TakedownList = read_takedowns(curriculum.takedown_list)
        self.laid = Graph(self.store, ())

    def graph(self) -> Graph:
        documents = self.cleaning()
        self.laid.add(Step(SPLIT, "stages.split", 2, self.curriculum.split, documents, "stages.split:WORK"))
        self.tokenizer()
        encodes = {"encode.clean": self.encode("clean", SPLIT)}
        for name, config in self.curriculum.synth.items():
            encodes[f"encode.{name}"] = self.encode(name, self.synthetic(name, config))
        self.phases(encodes)
        return self.laid

    def cleaning(self) -> dict[str, str]:
        """The cleaning steps; returns the input roles of whatever reads the clean documents."""
        groups = self.grouped_blocks()
        current: dict[str, str] = {}
        # Compliance looks at a source before anything else does, wherever the file lists it.
        first, *later = cut_at_rules(sorted(groups[0], key=lambda one: one.name != COMPLIANCE))
        for name, source in self.curriculum.sources.items():
            if source.use == "ingest":  # read for the sets that map it, and for nothing else
                self.source_step(name, source, [one for one in first if one.name == COMPLIANCE])
            else:
                current[name] = self.source_step(name, source, first)
        for number, part in enumerate(later, start=1):
            for name, before in current.items():
                step = f"{filter_name(1, number)}.{name}"
                current[name] = self.document_step(step, part, {"documents": before}, source=name)
        current = {f"documents.{name}": step for name, step in current.items()}
        for number, (block, rest) in enumerate(zip(groups[1::2], groups[2::2], strict=True), start=2):
            (one,) = block
            current = {"documents": self.global_block(one, current)}
            for place, part in enumerate(cut_at_rules(rest) if rest else []):
                name = filter_name(number, place) if place else f"clean-{number}"
                current = {"documents": self.document_step(name, part, current)}
        return current

    def grouped_blocks(self) -> list[list[ListedBlock]]:
        """Runs of per-document blocks (even places) with one global block between each (odd places)."""
        groups: list[list[ListedBlock]] = [[]]
        for index, item in enumerate(self.curriculum.clean):
            where = self.located.where(("clean", index))
            if len(item) != 1:
                message = f"a block is one name with its options, this has {len(item)}: {', '.join(item)}"
                raise ConfigError(message, where=where, fix="for example `- rules: {preset: fineweb2}`")
            ((name, options),) = item.items()
            config = block_config(name, self.located.below(options or {}, "clean", index, name), where)
            one = ListedBlock(name, config, where)
            if block_entry(name).scope == "global":
                groups += [[one], []]
            else:
                groups[-1].append(one)
        return groups

    def global_block(self, block: ListedBlock, documents: Mapping[str, str]) -> str:
        """The steps of a block over the whole corpus; returns the last one's name."""
        return self.parts(load(block_entry(block.name).make)(block.config, block.where), documents)

    def parts(self, parts: Sequence[Part], documents: Mapping[str, str]) -> str:
        """The steps of a deduplication; returns the last one's name."""
        name = ""
        for part in parts:
            inputs = {**(documents if part.reads_documents else {}), **part.after}
            step = Step(part.name, part.kind, part.version, part.config, inputs, part.work, part.content, part.paths)
            name = self.laid.add(step).step.name
        return name

    def source_step(self, name: str, source: SourceConfig, blocks: list[ListedBlock]) -> str:
        where = self.located.where(("sources", name, "read", "paths"))
        files = expand_paths(source.read, Path(), where=where)
        specs, paths, content = self.block_files(blocks)
        config = CleanConfig(
            source=name, read=source.read.replaced(paths=()), card=self.cards[name].terms(), blocks=specs
        )
        content["source"] = source_content(files, self.store / CACHE_FOLDER)
        paths |= step_paths(files)
        self.take_down(name, content["source"], content, paths)
        step = Step(f"clean.{name}", "stages.clean", CLEAN_VERSION, config, {}, CLEAN_WORK, content, paths)
        return self.laid.add(step).step.name

    def take_down(
        self, name: str, source_files: str, content: dict[str, str], paths: dict[str, tuple[str, ...]]
    ) -> None:
        """Give a step the takedown list, and what of it concerns the step as identity."""
        concerns = self.takedowns.identity(name, source_files)
        if concerns:
            content[TAKEDOWNS] = concerns
        if self.takedowns.entries:
            paths[TAKEDOWNS] = (str(self.curriculum.takedown_list),)

    def document_step(
        self, name: str, blocks: list[ListedBlock], inputs: Mapping[str, str], *, source: str = ""
    ) -> str:
        """A step over documents; `source` names the one they all come from."""
        specs, paths, content = self.block_files(blocks)
        if source:  # its source's step has the files' content in its identity
            self.take_down(source, "", content, paths)
        step = Step(name, "stages.clean", CLEAN_VERSION, CleanConfig(blocks=specs), inputs, CLEAN_WORK, content, paths)
        return self.laid.add(step).step.name

    def block_files(
        self, blocks: list[ListedBlock]
    ) -> tuple[tuple[BlockSpec, ...], dict[str, tuple[str, ...]], dict[str, str]]:
        """(identities, paths, content fingerprints) of a step's blocks."""
        specs, paths, content = [], {}, {}
        for number, block in enumerate(blocks):
            resolved = resolve(block.name, block.config, number, Path(), block.where)
            specs.append(resolved.spec)
            paths.update(resolved.paths)
            content.update(resolved.content)
            content[f"{number}.{block.name}.version"] = str(block_entry(block.name).version)
        return tuple(specs), paths, content

    def tokenizer(self) -> None:
        """The tokenizer, behind the two counting steps unless one is taken over."""
        config = self.curriculum.tokenizer
        paths: dict[str, tuple[str, ...]] = {}
        content: dict[str, str] = {}
        if config.file is not None:
            if not Path(config.file).is_file():
                place = ("tokenizer", "path") if config.path is not None else ("tokenizer", "extend", "from")
                where, fix = self.located.where(place), "give a tokenizer.json, or `train`"
                raise ConfigError(f"no tokenizer at `{config.file}`", where=where, fix=fix)
            paths, content = {TOKENIZER_ROLE: (config.file,)}, {"tokenizer": file_content((config.file,))}
        inputs: dict[str, str] = {}
        if config.trained is not None:
            documents = {"documents": SPLIT}
            sample = SampleConfig(maximum_bytes=config.trained.maximum_bytes)
            self.laid.add(Step(SAMPLE_STEP, SAMPLE_KIND, SAMPLE_VERSION, sample, documents, f"{SAMPLING}:SAMPLE_WORK"))
            counted = {**documents, SAMPLE: SAMPLE_STEP}
            self.laid.add(Step(COUNT_STEP, COUNT_KIND, COUNT_VERSION, CountConfig(), counted, f"{SAMPLING}:COUNT_WORK"))
            inputs = {COUNTS: COUNT_STEP}
        work = "stages.tokenizer.train:WORK"
        self.laid.add(
            Step(TOKENIZER, TOKENIZER_KIND, TOKENIZER_VERSION, config.identity(), inputs, work, content, paths)
        )

    def synthetic(self, name: str, config: SynthSet) -> str:
        """The steps that make a synthetic set: made, without copies, decontaminated where the file asks for it."""
        paths: dict[str, tuple[str, ...]] = {}
        content: dict[str, str] = {"set": name}
        kind = config.kind
        if asks_endpoint(config):
            paths, bound = endpoint_binding(name, config, self.curriculum.endpoints)
            content |= bound
        if isinstance(config, GymConfig):
            content[PACKAGE] = library_version()
        deduplicate: Deduplicate = getattr(config, "deduplicate", "none")
        if deduplicate != "none":  # what is made does not depend on it: another choice asks no endpoint again
            config = config.replaced(deduplicate="none")
        inputs = self.set_inputs(name, config)
        step = Step(f"synth.{name}", f"synth.{kind}", VERSIONS[kind], config, inputs, WORKS[kind], content, paths)
        made = self.laid.add(step).step.name
        if deduplicate != "none":
            made = self.parts(set_parts(name, deduplicate), {"documents": made})
        # What is mapped from files has not been through the corpora's blocks: personal data is masked here.
        return self.guard(name, made, ("pii", "decontaminate") if kind == "ingest" else ("decontaminate",))

    def set_inputs(self, name: str, config: SynthSet) -> dict[str, str]:
        """What a set is made from: nothing, the clean documents, the file it maps, or an index of documents."""
        if isinstance(config, IngestConfig):
            return {"documents": f"clean.{config.from_[0]}"}
        inputs = {"documents": SPLIT} if getattr(config, "from_", ()) else {}
        if not isinstance(config, SearchConfig):
            return inputs
        index = Step(f"index.{name}", INDEX_KIND, INDEX_VERSION, config.corpus, inputs, INDEX_WORK, {"set": name})
        return {"index": self.laid.add(index).step.name}

    def guard(self, name: str, made: str, wanted: Sequence[str]) -> str:
        """A synthetic set's own decontamination and takedowns, where there are any."""
        blocks = [one for group in self.grouped_blocks() for one in group if one.name in wanted]
        specs, paths, content = self.block_files(blocks)
        self.take_down(name, "", content, paths)
        if not specs and TAKEDOWNS not in content:
            return made
        config, inputs = CleanConfig(blocks=specs), {"documents": made}
        step = Step(f"guard.{name}", "stages.clean", CLEAN_VERSION, config, inputs, CLEAN_WORK, content, paths)
        return self.laid.add(step).step.name

    def encode(self, name: str, documents: str) -> str:
        inputs = {"documents": documents, "tokenizer": TOKENIZER}
        step = Step(f"encode.{name}", "stages.encode", 2, self.curriculum.encode, inputs, "stages.encode:WORK")
        return self.laid.add(step).step.name

    def model(self) -> tuple[ModelConfig, dict[str, tuple[str, ...]], dict[str, str]]:
        """The architecture; path and content of the weights that the first phase starts from, where there are any.

        The whole content is identity: checkpoints of one model differ in neither names nor sizes. Hashes are cached.
        """
        choice = self.curriculum.model
        if choice.from_ is None:
            return choice.resolve(), {}, {}
        where, given = self.located.where(("model", "from")), self.curriculum.tokenizer.path
        folder = read_folder(Path(choice.from_))
        if given is None:
            raise ConfigError(
                f"the weights of `{choice.from_}` know one tokenizer, this curriculum makes another",
                where=where,
                fix=f"take theirs over: `tokenizer: {{path: {folder.path / TOKENIZER_NAME}}}`",
            )
        try:
            config = choice.resolve(folder.promised)
        except ValueError as error:
            raise ConfigError(str(error), where=self.located.where(("model",)), fix="leave it to the folder") from None
        check_model(folder, config, Tokenizer.load(given).vocabulary_size)
        check_tokenizer(folder, Path(given))
        files = [SourceFile(path.name, str(path), path.stat().st_size) for path in folder.files]
        content = source_content(files, self.store / CACHE_FOLDER)
        return config, {WEIGHTS_ROLE: (choice.from_,)}, {WEIGHTS_ROLE: content}

    def phases(self, encodes: dict[str, str]) -> None:
        """The mix and training steps. Where a phase's gate has appended segments, the next plan goes on from them."""
        curriculum = self.curriculum
        model, paths, content = self.model()
        previous_mix, previous_train = "", ""
        for phase in curriculum.phases:
            if phase.context_tokens > model.max_context_tokens:
                index = curriculum.phases.index(phase)
                most = model.max_context_tokens
                raise ConfigError(
                    f"phase `{phase.name}` trains {phase.context_tokens} tokens, the model takes {most}",
                    where=self.located.where(("phases", index, "context_tokens")),
                    fix=f"set `model.max_context_tokens` to at least {phase.context_tokens}",
                )
            plan = PlanConfig(
                mix=curriculum.mixes[phase.mix],
                phase=phase.name,
                context_tokens=phase.context_tokens,
                budget_tokens=phase.budget_tokens,
                rows_per_batch=phase.rows_per_batch,
                seed=derive_seed("mix", curriculum.seed, phase.name),
            )
            mix = self.laid.add(
                mix_step(plan, encodes | ({"previous": previous_mix} if previous_mix else {}))
            ).step.name
            config = TrainConfig(
                model=model,
                optimizer=curriculum.optimizer,
                phase=phase,
                mix=curriculum.mixes[phase.mix],
                short_context_tokens=curriculum.phases[0].context_tokens,
                seed=curriculum.seed,
            )
            inputs = {**encodes, "mix": mix, "tokenizer": TOKENIZER, "heldout": SPLIT}
            inputs |= {"previous": previous_train} if previous_train else {}
            work = "pipeline.curriculum:WORK"
            step = Step(f"train.{phase.name}", TRAIN_KIND, TRAIN_VERSION, config, inputs, work, content, paths)
            node = self.laid.add(step)
            paths, content = {}, {}  # later phases start from the first
            previous_train = node.step.name
            previous_mix = self.last_mix(node.folder, mix)

    def last_mix(self, train_folder: Path, planned: str) -> str:
        """The mix step that a phase ended with: the planned one, or the last that its gate appended."""
        if not finished(train_folder):
            return planned
        facts = read_record(train_folder).facts
        if facts["mix"] == planned:
            return planned
        from pipeline.core.steps import StepOutput

        return self.laid.adopt(StepOutput(str(facts["mix"]), self.store / facts["mix_folders"][-1])).step.name
