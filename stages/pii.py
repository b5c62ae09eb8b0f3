"""Personal data and secrets, replaced by typed placeholders such as `<EMAIL>`, in the text and in messages.

Contract: only what a rule of `stages.pii_rules` matches and confirms is replaced; not a character beside it changes.
Overlapping finds: the earlier in `KINDS` wins, then the longer. Arguments of tool calls that are JSON stay JSON.
Counts per kind are in `Outcome.counts` as `pii.KIND`. Names of persons are found by a plug-in `(text, lang) -> spans`.
Long texts are read in pieces that end where no rule can match across (`pii_rules.parts_at`), each with the characters
before it that a rule may look at; with a plug-in, which may look at anything, they are read whole.
Cost: one scan for a few signs; a pattern runs only on texts with its sign. Memory: a few megabytes a text without
names, and the new text where it differs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from pipeline.core.config import Config
from stages.block import Outcome, outcome, with_changed_texts, with_columns
from stages.long_texts import Utf8, decoded, pieces, views
from stages.pii_rules import KINDS, REACH, RULES, Kind, Rule, parts_at
from stages.plugin import Plugin, load_plugin

Span = tuple[int, int, Kind]
FindNames = Callable[[str, str | None], Iterable[tuple[int, int]]]


class PiiConfig(Config):
    """Options of the `pii` block: which kinds are replaced, and who finds names."""

    kinds: tuple[Kind, ...] = KINDS
    names: Plugin | None = None  # (text, language) -> (start, end) in characters; without one no names are found


def find(
    text: str, kinds: tuple[Kind, ...] = KINDS, names: Iterable[tuple[int, int]] = (), first: int = 0
) -> list[Span]:
    """(start, end, kind) of everything to replace from character `first` on, ascending, without overlaps."""
    found = [one for rule in RULES if rule.kind in kinds and rule.sign(text) for one in _confirmed(rule, text, first)]
    for start, end in names:
        assert 0 <= start < end <= len(text), f"a name at {start}..{end} of {len(text)} characters"
        found.append((start, end, "name"))
    found.sort(key=lambda one: (KINDS.index(one[2]), one[0] - one[1], one[0]))
    taken: list[Span] = []  # ascending, so that only the neighbours of a find can overlap it
    for one in found:
        at = bisect_left(taken, one)
        if (at == 0 or taken[at - 1][1] <= one[0]) and (at == len(taken) or taken[at][0] >= one[1]):
            taken.insert(at, one)
    return taken


def _confirmed(rule: Rule, text: str, first: int) -> Iterator[Span]:
    for match in rule.pattern.finditer(text, first):
        if rule.check(match):
            group = "value" if "value" in match.groupdict() else 0
            yield match.start(group), match.end(group), rule.kind


def mask(
    text: str, kinds: tuple[Kind, ...] = KINDS, names: Iterable[tuple[int, int]] = (), first: int = 0
) -> tuple[str, Counter[str]]:
    """(text from character `first` on with placeholders, replacements by kind)."""
    parts: list[str] = []
    counts: Counter[str] = Counter()
    last = first
    for start, end, kind in find(text, kinds, names, first):
        parts += [text[last:start], f"<{kind.upper()}>"]
        counts[kind] += 1
        last = end
    return ("".join([*parts, text[last:]]), counts) if counts else (text[first:], counts)


def mask_pieces(text: memoryview, kinds: tuple[Kind, ...] = KINDS) -> tuple[list[Utf8], Counter[str]]:
    """(UTF-8 of a text with placeholders, in pieces; replacements by kind): as `mask` gives it for the whole."""
    parts: list[Utf8] = []
    counts: Counter[str] = Counter()
    before = ""
    for start, end in pieces(text, parts_at):
        window = before + decoded(text[start:end])
        masked, found = mask(window, kinds, first=len(before))
        parts.append(masked.encode() if found else text[start:end])
        counts += found
        before = window[-REACH:]
    return parts, counts


class Pii:
    """The block: replaces; drops nothing."""

    def __init__(self, config: PiiConfig) -> None:
        self._kinds = config.kinds
        self._names: FindNames | None = None
        if config.names is not None and "name" in config.kinds:
            self._names = load_plugin(config.names)

    def apply(self, documents: pa.Table) -> Outcome:
        counts = Counter[str]()
        langs: list[str | None] = documents["lang"].to_pylist()
        changed: dict[int, str | Sequence[Utf8]] = {}
        touched: set[int] = set()
        for row, text in enumerate(views(documents["text"])):
            if self._names is None:
                masked, found = mask_pieces(text, self._kinds)
            else:
                masked, found = self._masked(decoded(text), langs[row])
            if found:
                changed[row] = masked
                self._count(counts, found)
        touched |= set(changed)
        result = with_changed_texts(documents, changed)
        if documents["messages"].null_count < documents.num_rows:
            conversations: list[Any] = documents["messages"].to_pylist()
            for row, messages in enumerate(conversations):
                if messages:
                    found = self._mask_messages(messages, langs[row])
                    self._count(counts, found)
                    touched |= {row} if found else set()
            result = with_columns(result, {"messages": conversations})
        if touched:
            counts["pii.documents"] = len(touched)
        return outcome(result, counts=dict(sorted(counts.items())))

    def _masked(self, text: str, lang: str | None) -> tuple[str, Counter[str]]:
        return mask(text, self._kinds, self._names(text, lang) if self._names is not None else ())

    def _count(self, counts: Counter[str], found: Counter[str]) -> None:
        counts.update({f"pii.{kind}": count for kind, count in found.items()})

    def _mask_messages(self, messages: list[dict[str, Any]], lang: str | None) -> Counter[str]:
        """Replace in place; what was replaced."""
        counts = Counter[str]()
        for message in messages:
            for field in ("reasoning", "content"):
                if message[field]:
                    message[field], found = self._masked(message[field], lang)
                    counts.update(found)
            for call in message["tool_calls"] or ():
                if call["arguments"]:
                    call["arguments"], found = self._mask_arguments(call["arguments"], lang)
                    counts.update(found)
        return counts

    def _mask_arguments(self, arguments: str, lang: str | None) -> tuple[str, Counter[str]]:
        try:
            value = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return self._masked(arguments, lang)
        counts = Counter[str]()
        masked = self._mask_json(value, lang, counts)
        return (orjson.dumps(masked).decode(), counts) if counts else (arguments, counts)

    def _mask_json(self, value: Any, lang: str | None, counts: Counter[str]) -> Any:
        """A number that is replaced becomes a string."""
        if isinstance(value, dict):
            return {key: self._mask_json(one, lang, counts) for key, one in value.items()}
        if isinstance(value, list):
            return [self._mask_json(one, lang, counts) for one in value]
        if isinstance(value, str | int) and not isinstance(value, bool):
            masked, found = self._masked(str(value), lang)
            counts.update(found)
            return masked if found else value
        return value


def make(config: PiiConfig, paths: Mapping[str, tuple[str, ...]]) -> Pii:
    """Catalog entry; the block reads no files. Raises `ConfigError` for a plug-in that cannot be imported."""
    return Pii(config)
