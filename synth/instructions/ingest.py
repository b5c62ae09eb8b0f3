"""Public data as conversations: questions and answers (on a document or from knowledge), translation, table questions.

Contract: a set reads one source with `use: ingest` through its column mapping; a file of documents is a shard. Parallel
text gives both directions. The thinking form is written only where the way to the answer is known: the sentence of the
context that holds the answer, or the cells and sums of a table. What fails is dropped as `ingest.REASON`, in this
order: `empty`, `too_long`, `not_a_number`, `ambiguous` (tables), `not_in_context`, `copied`, the checks on parallel
text, `language`, and what the verdict on the written sample says; `duplicate` within a shard. Licence and parents are
the records' own. Cost: 0.3-1 ms a record, most of it language identification.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from pipeline.core.documents import document_files
from pipeline.core.languages import LANGUAGES, MULTILINGUAL, detect
from pipeline.core.record import ShardResult
from pipeline.core.rng import derive_seed
from pipeline.core.steps import StepTask
from pipeline.core.verify.expressions import ExpressionError
from pipeline.core.verify.instructions import sentences
from pipeline.core.verify.math import Verdict
from synth.instructions import tables
from synth.instructions.checks import ANOTHER_LANGUAGE, check_form, check_languages, check_thinking
from synth.instructions.config import Form, IngestConfig, ParallelMapping, QuestionMapping, TableMapping
from synth.instructions.exercise import Conversation, say_in
from synth.instructions.records import FileRecord, batches, check_columns, records
from synth.language import facts, primary
from synth.licences import joined_licence
from synth.output import Facts, ShardWriter, merged_facts
from synth.parallel_checks import Side, check_pair
from synth.selection import shards_of

KIND = "ingest"
VERSION = 1
SPACE = re.compile(r"\s+")
DOMAINS = {"qa": "world-knowledge", "table": "world-knowledge", "parallel": "multilingual"}


@dataclass(frozen=True)
class Mapped:
    """One sample of some records, or why there is none."""

    key: str
    parents: Sequence[FileRecord]
    conversation: Conversation | None
    reason: str = ""
    detail: str = ""
    text: str = ""
    language: str = ""


class IngestWork:
    """The work of a `synth.SET` step of kind `ingest`."""

    def shard_count(self, task: StepTask) -> int:
        """Raises `InputError` naming a mapped column that the file does not have."""
        config: IngestConfig = task.config
        source = task.inputs["documents"]
        check_columns(source, config.mapping.columns, f"{task.name}.mapping")
        return shards_of(len(document_files(source.folder)), 1)

    def make_shard(self, task: StepTask, shard: int) -> ShardResult:
        config: IngestConfig = task.config
        source = task.inputs["documents"]
        writer = ShardWriter(task, shard)
        seen: set[str] = set()
        for path in document_files(source.folder)[shard : shard + 1]:
            for one in mapped(records(source, path), config):
                _write(writer, one, config, seen)
        return writer.commit()

    def finish(self, task: StepTask, results: Sequence[ShardResult]) -> Facts:
        return merged_facts(results)


def mapped(rows: list[FileRecord], config: IngestConfig) -> Iterator[Mapped]:
    """What the records give, in their order."""
    mapping = config.mapping
    if isinstance(mapping, TableMapping):
        for batch in batches(rows, mapping.rows_per_table, mapping.group_by):
            yield from _table(batch, mapping, config)
        return
    for row in rows:
        if isinstance(mapping, QuestionMapping):
            yield _question(row, mapping, config)
        else:
            yield from _parallel(row, mapping, config)


def _form(config: IngestConfig, *key: str) -> Form:
    share = Random(derive_seed(KIND, config.seed, *key)).random()
    forms = config.forms
    return "reasoning" if share * (forms.reasoning + forms.plain) < forms.reasoning else "plain"


def _question(row: FileRecord, mapping: QuestionMapping, config: IngestConfig) -> Mapped:
    question, answer = row.text(mapping.question), row.text(mapping.answer)
    context = row.text(mapping.context) if mapping.context else ""
    whole = "\n\n".join(part for part in (context, question, answer) if part)
    language = config.language or primary(row.language) or detect(whole)

    def dropped(reason: str, detail: str) -> Mapped:
        return Mapped(row.id, [row], None, reason, detail, whole, language)

    empty = [name for name, column in mapping.columns.items() if not row.text(column)]
    if empty:
        return dropped("empty", f"no {', '.join(empty)}")
    if len(whole) > config.maximum_characters:
        return dropped("too_long", f"{len(whole)} characters")
    if language not in LANGUAGES:
        return dropped("language", f"`{language or 'unknown'}` is none of ours: set `language`")
    evidence = _evidence(context, answer, language)
    if mapping.answers_stand_in_context and not _stands_in(answer, context):
        return dropped("not_in_context", answer[:200])
    if _same(question, answer):
        return dropped("copied", "the answer is the question")
    say = say_in("ingest", language)
    form = _form(config, row.id) if evidence else "plain"
    conversation = Conversation(
        domain=config.domain or DOMAINS["qa"],
        family="document-question" if context else "question",
        language=language,
        form=form,
        question=say("about_text", context=context, question=question) if context else question,
        reasoning=say("quote", sentence=evidence) if form == "reasoning" else "",
        content=answer,
        facts={"question": question, "context": context, "extractive": mapping.answers_stand_in_context},
    )
    return Mapped(row.id, [row], conversation, language=language)


def _evidence(context: str, answer: str, language: str) -> str:
    """The first sentence of the context that holds the answer as it is."""
    return next((one for one in sentences(context, language) if answer.rstrip(".。") in one), "") if context else ""


def _stands_in(answer: str, context: str) -> bool:
    return SPACE.sub(" ", answer).rstrip(".。 ") in SPACE.sub(" ", context)


def _same(one: str, two: str) -> bool:
    return SPACE.sub("", one).casefold() == SPACE.sub("", two).casefold()


def _parallel(row: FileRecord, mapping: ParallelMapping, config: IngestConfig) -> Iterator[Mapped]:
    sides = [
        Side(row.text(mapping.source_text), mapping.source_language),
        Side(row.text(mapping.target_text), mapping.target_language),
    ]
    reason, detail = _pair_trouble(sides, mapping, config)
    for source, target in (sides, sides[::-1]):
        key = f"{row.id}\x1f{target.language}"
        if reason:
            text = f"{sides[0].text}\n\n{sides[1].text}"
            yield Mapped(key, [row], None, reason, detail, text, MULTILINGUAL)
            continue
        asked_in = Random(derive_seed(KIND, config.seed, key)).choice((source.language, target.language))
        say = say_in("ingest", asked_in)
        question = say("translate", language=say.own["into"][target.language], text=source.text)
        conversation = Conversation(
            domain=config.domain or DOMAINS["parallel"],
            family="translation",
            language=source.language,
            form="plain",
            question=question,
            reasoning="",
            content=target.text,
            facts={ANOTHER_LANGUAGE: target.language, "source": source.text, "band": mapping.length_band},
        )
        yield Mapped(key, [row], conversation, language=source.language)


def _pair_trouble(sides: Sequence[Side], mapping: ParallelMapping, config: IngestConfig) -> tuple[str, str]:
    if not all(side.text for side in sides):
        return "empty", "one side has no text"
    size = sum(len(side.text) for side in sides)
    if size > config.maximum_characters:
        return "too_long", f"{size} characters"
    if _same(sides[0].text, sides[1].text):
        return "copied", "both sides are the same"
    failure = check_pair(sides[0], sides[1], mapping.length_band)
    return (failure.check, failure.detail) if failure else ("", "")


def _table(batch: list[FileRecord], mapping: TableMapping, config: IngestConfig) -> Iterator[Mapped]:
    names = [mapping.key, *mapping.numbers]
    head = [tables.cell(mapping.labels.get(name, name)) for name in names]
    table = tables.Table(head, [[tables.cell(row.text(name)) for name in names] for row in batch])
    key, text, language = batch[0].id, table.markdown(), mapping.language
    trouble = _table_trouble(table, language, config)
    if trouble:
        yield Mapped(key, batch, None, *trouble, text, language)
        return
    say = say_in("ingest", language)
    dice = Random(derive_seed(KIND, config.seed, key))
    asked: set[str] = set()
    for place in range(mapping.questions_per_table):
        one = tables.ask(table, head[1:], dice, language)
        own = f"{key}\x1f{place}"
        if one is None or one.question in asked:
            yield Mapped(own, batch, None, "ambiguous", "a tie, or asked before", text, language)
            continue
        asked.add(one.question)
        form = _form(config, own)
        conversation = Conversation(
            domain=config.domain or DOMAINS["table"],
            family=f"table-{one.facts['kind']}",
            language=language,
            form=form,
            question=say("about_table", table=text, question=one.question),
            reasoning=one.steps if form == "reasoning" else "",
            content=one.answer,
            facts=one.facts,
        )
        yield Mapped(own, batch, conversation, language=language)


def _table_trouble(table: tables.Table, language: str, config: IngestConfig) -> tuple[str, str] | None:
    if len(table.rows) < 2 or not all(cell for row in table.rows for cell in row):
        return "empty", "fewer than two rows, or an empty cell"
    if len(table.markdown()) > config.maximum_characters:
        return "too_long", f"{len(table.markdown())} characters"
    if len({row[0] for row in table.rows}) < len(table.rows):
        return "ambiguous", "two rows have the same key"
    for row in table.rows:
        for cell in row[1:]:
            try:
                tables.number(cell, facts(language).style)
            except ExpressionError as error:
                return "not_a_number", f"`{cell}`: {error}"
    return None


def verdict(one: Conversation) -> Verdict:
    """Judge a sample from its written form and its facts."""
    if one.family == "translation":
        return _judged_translation(one)
    common = check_thinking(one)
    if not common.right:
        return common
    # The words of a table may be in any language; so may a text that is asked about.
    return tables.judged(one) if one.family.startswith("table-") else _judged_question(one)


def _judged_translation(one: Conversation) -> Verdict:
    common = check_form(one)
    if not common.right:
        return common
    if one.facts["source"] not in one.question:
        return Verdict(False, "question", "the text to translate is not given")
    first, second = Side(one.facts["source"], one.language), Side(one.content, one.facts[ANOTHER_LANGUAGE])
    failure = check_pair(first, second, one.facts["band"])
    return Verdict(False, failure.check, failure.detail) if failure else Verdict(True)


def _judged_question(one: Conversation) -> Verdict:
    context, question = one.facts["context"], one.facts["question"]
    languages = check_languages({"question": (question, one.language), "answer": (one.content, one.language)})
    if not languages.right:
        return languages
    if question not in one.question or context not in one.question:
        return Verdict(False, "question", "question or text is not given")
    if one.facts["extractive"] and not _stands_in(one.content, context):
        return Verdict(False, "not_in_context", one.content[:200])
    if one.reasoning and _evidence(context, one.content, one.language) not in one.reasoning:
        return Verdict(False, "evidence", "the thinking does not quote the sentence of the answer")
    return Verdict(True)


def _write(writer: ShardWriter, one: Mapped, config: IngestConfig, seen: set[str]) -> None:
    text = one.conversation.text() if one.conversation else one.text
    bytes_in = len(text.encode("utf-8"))
    reason, detail = one.reason, one.detail
    if one.conversation is not None:
        found = verdict(one.conversation)
        reason, detail = found.reason, found.detail
        if found.right and one.conversation.question in seen:
            reason, detail = "duplicate", "the same question stands earlier in the shard"
        seen.add(one.conversation.question)
    if reason or one.conversation is None:
        writer.drop(one.key, f"{KIND}.{reason}", detail, text, bytes_in=bytes_in, lang=one.language or None)
        return
    conversation = one.conversation
    writer.keep(
        one.key,
        text,
        bytes_in=bytes_in,
        extra={"family": conversation.family, "form": conversation.form, "facts": conversation.facts},
        messages=conversation.messages(),
        lang=MULTILINGUAL if ANOTHER_LANGUAGE in conversation.facts else conversation.language,
        domain=conversation.domain,
        license=joined_licence(row.license for row in one.parents),
        parents=[row.id for row in one.parents],
        maker=f"seodang.{KIND}.{conversation.family}@{VERSION}",
    )


WORK = IngestWork()
