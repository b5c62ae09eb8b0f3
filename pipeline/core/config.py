"""Configuration: YAML 1.2 files into frozen, strict models, with errors that name file and line.

Contract: every configuration class derives from `Config`. Sequences are tuples, choices are `Literal` strings,
units stand in the field names. `load_config` reads a file (and the files it includes), applies `a.b=c` overrides and
validates; a mistake raises `ConfigError` with file:line and, for an unknown key, the nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import ConfigError, nearest

Loc = tuple[str | int, ...]
C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every configuration class: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_the_unknown_key(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        known = {info.alias or name for name, info in cls.model_fields.items()}
        for key in data:
            if key not in known:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key `{key}`",
                    {"key": str(key), "nearest": nearest(str(key), known), "known": ", ".join(sorted(known))},
                )
        return data

    def replaced(self, **changes: object) -> Self:
        """A validated copy with some fields changed (`model_copy` would skip validation)."""
        fields = type(self).model_fields
        values = {**dict(self), **changes}
        keys = {name: fields[name].alias or name if name in fields else name for name in values}
        return type(self).model_validate({keys[name]: value for name, value in values.items()})


@dataclass(frozen=True)
class Located:
    """Plain values (dict, tuple, scalars) with the file and line each of them was read from."""

    value: Any
    lines: Mapping[Loc, str] = field(default_factory=dict)

    def where(self, loc: Loc) -> str:
        """`file:line` of the innermost known enclosing value."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.lines:
                return self.lines[loc[:end]]
        return ""

    def below(self, value: Any, *loc: str | int) -> Located:
        """`value`, found at `loc`, with the lines of what is inside it."""
        inside = {key[len(loc) :]: line for key, line in self.lines.items() if key[: len(loc)] == loc}
        return Located(value, inside or {(): self.where(loc)})


def load_config(path: str | Path, model: type[C], overrides: Sequence[str] = ()) -> C:
    """Read and validate one configuration file. Raises `ConfigError`."""
    return validate(model, read_yaml(path, overrides))


def validate(model: type[C], located: Located) -> C:
    """Validate plain values into `model`. Raises `ConfigError` with the place of the first mistake."""
    try:
        return model.model_validate(located.value)
    except ValidationError as error:
        raise _explained(error, located) from None


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> Located:
    """Read a YAML file with its `include:` list (later files and the file itself win), then the overrides."""
    value, lines = _read_file(Path(path), seen=())
    for override in overrides:
        _apply_override(value, lines, override)
    return Located(_tuples(value), lines)


def _read_file(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[Loc, str]]:
    if path in seen:
        raise ConfigError(f"`{path}` includes itself", where=str(seen[-1]), fix="remove one of the includes")
    try:
        tree = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such configuration file", where=str(path), fix="see configs/ for examples") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid YAML: {error}", where=str(path), fix="check quoting and indentation") from None
    if not isinstance(tree, CommentedMap):
        raise ConfigError("expected a mapping at the top", where=f"{path}:1", fix="start with `name: …`")
    lines: dict[Loc, str] = {(): f"{path}:1"}
    value = _plain(tree, (), lines, str(path))
    merged: dict[str, Any] = {}
    merged_lines: dict[Loc, str] = {}
    for name in value.pop("include", []):
        part, part_lines = _read_file(path.parent / name, (*seen, path))
        _merge(merged, part)
        merged_lines.update(part_lines)
    _merge(merged, value)
    return merged, merged_lines | lines


def _plain(node: Any, loc: Loc, lines: dict[Loc, str], file: str) -> Any:
    if isinstance(node, CommentedMap):
        for key in node:
            lines[(*loc, key)] = f"{file}:{node.lc.key(key)[0] + 1}" if key in node.lc.data else lines.get(loc, file)
        return {str(key): _plain(child, (*loc, key), lines, file) for key, child in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            lines[(*loc, index)] = f"{file}:{node.lc.item(index)[0] + 1}"
        return [_plain(child, (*loc, index), lines, file) for index, child in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):  # ruamel's scalar subclasses keep their notation; a strict model wants plain ones
        if isinstance(node, kind):
            return kind(node)
    return str(node)  # dates are text here


def _merge(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _apply_override(value: dict[str, Any], lines: dict[Loc, str], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"`{override}` is not of the form a.b=c", where="--set", fix="for example --set seed=2")
    keys: list[str | int] = [int(key) if key.isdigit() else key for key in path.split(".")]
    node: Any = value
    for key in keys[:-1]:
        if isinstance(node, dict):
            node = node.setdefault(str(key), {})
        elif isinstance(node, list) and isinstance(key, int) and key < len(node):
            node = node[key]
        else:
            raise ConfigError(f"nothing at `{key}`", where=f"--set {path}", fix="name an existing mapping or index")
    last = keys[-1]
    parsed = _plain(YAML(typ="rt", pure=True).load(text), tuple(keys), {}, "--set")
    if isinstance(node, dict):
        node[str(last)] = parsed
    elif isinstance(node, list) and isinstance(last, int) and last < len(node):
        node[last] = parsed
    else:
        raise ConfigError(f"nothing at `{last}`", where=f"--set {path}", fix="name an existing mapping or index")
    lines[tuple(keys)] = f"--set {path}"


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(child) for key, child in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(child) for child in value)
    return value


def _explained(error: ValidationError, located: Located) -> ConfigError:
    first = error.errors(include_url=False)[0]
    loc: Loc = first["loc"]
    context: Mapping[str, Any] = first.get("ctx", {})
    if first["type"] == "unknown_key":
        close = f"did you mean `{context['nearest']}`? " if context["nearest"] else ""
        place = ".".join(map(str, loc)) or "the top level"
        return ConfigError(
            f"unknown key `{context['key']}` in {place}",
            where=located.where((*loc, context["key"])),
            fix=f"{close}known: {context['known']}",
        )
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    given = "" if first["type"] == "missing" else f", given `{first['input']!r}`"
    message = str(context["error"]) if first["type"] == "value_error" and "error" in context else first["msg"]
    return ConfigError(f"{'.'.join(map(str, loc))}: {message}{given}{more}", where=located.where(loc))
