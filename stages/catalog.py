"""The catalog of cleaning blocks: the one visible list. Adding a block is adding an entry here.

An entry names the config class and the factory by import path, so that the command line can validate a configuration
without importing what the blocks import. `scope` says who runs it: `document` blocks run inside `stages.clean`,
`global` ones become steps of their own. `version` is raised by hand when the same options would
give other bytes. `path_fields` are options that name files: the files' content is identity, their place is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pipeline.core.config import Config, Located, validate
from pipeline.core.errors import InputError, unknown_name
from stages.block import Block
from stages.config import BlockSpec, ReadConfig
from stages.sources import expand_paths, file_content


@dataclass(frozen=True)
class BlockEntry:
    """One block.

    Attributes:
        name: Name in the configuration.
        config: Import path of its config class.
        make: Import path of `(config, paths) -> Block`, or for a global block of `(config, where) -> Parts`, its steps.
        scope: Per document, or over the whole corpus.
        version: Of its output bytes.
        path_fields: Names of options (`tuple[str, ...]`) that hold paths or globs.
        report: Import path of `(folder, config, paths) -> fact`, called once when a step with the block is finished.
    """

    name: str
    config: str
    make: str
    scope: Literal["document", "global"] = "document"
    version: int = 1
    path_fields: tuple[str, ...] = ()
    report: str = ""


BLOCKS: dict[str, BlockEntry] = {
    entry.name: entry
    for entry in (
        BlockEntry(
            "compliance",
            "stages.compliance:ComplianceConfig",
            "stages.compliance:make",
            version=2,
            path_fields=("block_lists", "opt_out_lists", "robots_txt", "ai_txt", "tdmrep"),
        ),
        BlockEntry("extract", "stages.extract:ExtractConfig", "stages.extract:make", version=3),
        BlockEntry("normalise", "stages.normalise:NormaliseConfig", "stages.normalise:make"),
        BlockEntry(
            "language", "stages.language:LanguageConfig", "stages.language:make", version=2, path_fields=("model",)
        ),
        BlockEntry(
            "classifier",
            "stages.classifier.block:ClassifierConfig",
            "stages.classifier.block:make",
            path_fields=("model",),
            report="stages.classifier.held_out:report",
        ),
        BlockEntry(
            "toxicity",
            "stages.toxicity:ToxicityConfig",
            "stages.toxicity:make",
            path_fields=("word_lists", "model"),
            report="stages.classifier.held_out:report",
        ),
        BlockEntry("signals", "stages.measure:SignalsConfig", "stages.measure:make"),
        BlockEntry("rules", "stages.rules:RulesConfig", "stages.rules:make", version=2),
        BlockEntry("pii", "stages.pii:PiiConfig", "stages.pii:make", version=4),
        BlockEntry(
            "decontaminate",
            "stages.decontaminate:DecontaminateConfig",
            "stages.decontaminate:make",
            version=2,
            path_fields=("against",),
            report="stages.decontaminate:report",
        ),
        BlockEntry("datatrove", "stages.adapters:DatatroveConfig", "stages.adapters:make"),
        *(
            BlockEntry(
                f"dedup.{name}",
                f"stages.dedup.methods:{name.title()}Config",
                f"stages.dedup.methods:{name}_parts",
                scope="global",
            )
            for name in ("url", "exact", "minhash", "paragraphs", "substring")
        ),
    )
}


@dataclass(frozen=True)
class ResolvedBlock:
    """A block as a step needs it: identity (options without paths), content of its files, and where they lie.

    Keys of `content` and `paths` are `NUMBER.NAME.FIELD`, the number being the block's place in its step.
    """

    spec: BlockSpec
    content: Mapping[str, str]
    paths: Mapping[str, tuple[str, ...]]


def entry(name: str, where: str = "") -> BlockEntry:
    """Raises `ConfigError` with the nearest name for a block that does not exist."""
    if name not in BLOCKS:
        raise unknown_name("block", name, BLOCKS, where=where)
    return BLOCKS[name]


def load(path: str) -> Any:
    """The object that an import path `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def block_config(name: str, options: Located, where: str = "") -> Config:
    """Validate a block's options. Raises `ConfigError` naming file and line."""
    return validate(load(entry(name, where).config), options)


def resolve(name: str, config: Config, number: int, base: Path, where: str = "") -> ResolvedBlock:
    """Split a block's config into identity and execution.

    Raises:
        InputError: A path option matches no file.
    """
    content: dict[str, str] = {}
    paths: dict[str, tuple[str, ...]] = {}
    for field in entry(name, where).path_fields:
        patterns: tuple[str, ...] = getattr(config, field)
        if not patterns:
            continue
        key = path_key(number, name, field)
        files = expand_paths(ReadConfig(kind="text", paths=patterns), base, where=f"{where or name}.{field}")
        paths[key] = tuple(file.url for file in files)
        content[key] = file_content(paths[key])
        config = config.replaced(**{field: ()})
    return ResolvedBlock(BlockSpec(name=name, config=config), content, paths)


def path_key(number: int, name: str, field: str) -> str:
    return f"{number}.{name}.{field}"


def make_block(spec: BlockSpec, number: int, paths: Mapping[str, tuple[str, ...]], **context: object) -> Block:
    """Make a per-document block from its identity and a task's `paths`; `context` is what only some factories take."""
    found = entry(spec.name)
    if found.scope != "document":
        raise InputError(
            f"`{spec.name}` works over the whole corpus and is no per-document block",
            fix="the graph gives it a step of its own",
        )
    return load(found.make)(spec.config, own_paths(found, number, paths), **context)


def own_paths(found: BlockEntry, number: int, paths: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The files of the block at place `number`, by option."""
    return {field: paths.get(path_key(number, found.name, field), ()) for field in found.path_fields}


def block_reports(specs: Sequence[BlockSpec], folder: Path, paths: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """What the blocks of a finished step report, by block; several blocks of a name report together."""
    reports: dict[str, Any] = {}
    for number, spec in enumerate(specs):
        one = entry(spec.name)
        if one.report:
            said = load(one.report)(folder, spec.config, own_paths(one, number, paths))
            reports.setdefault(spec.name, {}).update(said)
    return reports
