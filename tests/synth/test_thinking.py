"""Thinking sets, end to end from the recorded responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.errors import ConfigError, InputError, UserError
from pipeline.core.steps import StepTask
from pipeline.core.written import woven
from synth.config import LANGUAGES, Layout, ReplayConfig, ThinkingConfig, endpoint_binding
from synth.prompts import prompt
from synth.thinking import WORK, joined, parts_of, passages, requests_for

MODEL = "recorded-writer"


def config(**more: Any) -> ThinkingConfig:
    return ThinkingConfig.model_validate({"kind": "thinking", "from": "articles", **more})


def bound(path: Path) -> Mapping[str, tuple[str, ...]]:
    return endpoint_binding("think", config(), {"replay": ReplayConfig(responses=str(path))})[0]


def written_rows(library: Any) -> list[dict[str, Any]]:
    return [library.row(language, slug) for language, slug in library.recorded()]


def record(
    path: Path, rows: list[dict[str, Any]], thought: str, settings: ThinkingConfig, finish: str = "stop"
) -> None:
    """Record one thought as the answer about every passage of every row."""
    lines = []
    for row in rows:
        for number, request in enumerate(requests_for(row["text"], row["lang"], settings, MODEL)):
            message = {"role": "assistant", "content": f"<think>{thought} ({number})</think>ok"}
            body = {"model": "other-model", "choices": [{"message": message, "finish_reason": finish}], "usage": {}}
            lines.append(json.dumps(request.row(body)) + "\n")
    path.write_text("".join(lines))


def test_recorded_responses_make_every_sample(library: Any, make_task: Callable[..., StepTask]) -> None:
    rows = written_rows(library)
    task = make_task("synth.think", config(), [rows[:5], rows[5:]], bound(library.folder / "responses.jsonl"))
    assert WORK.shard_count(task) == 1
    result = WORK.make_shard(task, 0)
    assert result.counts["documents_in"] == result.counts["documents_out"] == len(rows)
    assert result.licenses == {"CC0-1.0": len(rows)}
    made = {row["parents"][0]: row for table in read_documents(task.folder) for row in table.to_pylist()}
    for row, (language, slug) in zip(rows, library.recorded(), strict=True):
        sample = made[row["id"]]
        assert sample["text"] == f"{library.text(language, slug)}\n\n{library.thought(language, slug)}"
        assert (sample["lang"], sample["maker"], sample["source"]) == (language, MODEL, "think")
        extra = json.loads(sample["extra"])
        assert extra["prompt"] == "thinking.document@1"
        assert extra["responses"][0]["usage"]["completion_tokens"] > 0
    assert WORK.finish(task, [result])["by_maker"] == {MODEL: {"in": len(rows), "out": len(rows), "dropped": {}}}


def test_the_recording_is_up_to_date(library: Any) -> None:
    """`samples/responses.jsonl` answers exactly the requests of the written pairs."""
    recorded = [json.loads(line) for line in (library.folder / "responses.jsonl").read_text().splitlines()]
    wanted = [
        requests_for(library.text(language, slug), language, config(), MODEL)[0].key
        for language, slug in library.recorded()
    ]
    assert [row["key"] for row in recorded] == wanted


def test_shards_do_not_change_the_samples(library: Any, make_task: Callable[..., StepTask]) -> None:
    found = []
    for size in (1, 5, 1000):
        task = make_task("synth.think", config(documents_per_shard=size), [written_rows(library)])
        task = StepTask(**{**vars(task), "paths": bound(library.folder / "responses.jsonl")})
        for shard in range(WORK.shard_count(task)):
            WORK.make_shard(task, shard)
        found.append({row["id"]: row for table in read_documents(task.folder) for row in table.to_pylist()})
        for path in (task.folder / "documents").iterdir():
            path.unlink()
    assert found[0] == found[1] == found[2]


def test_raising_the_limit_only_adds(library: Any, make_task: Callable[..., StepTask]) -> None:
    makers = []
    for documents in (3, 6):
        task = make_task("synth.think", config(documents=documents), [written_rows(library)])
        task = StepTask(**{**vars(task), "paths": bound(library.folder / "responses.jsonl")})
        WORK.make_shard(task, 0)
        makers.append({row["id"] for table in read_documents(task.folder) for row in table.to_pylist()})
    assert len(makers[0]) == 3
    assert makers[0] < makers[1]


def test_domains_choose_documents(library: Any, make_task: Callable[..., StepTask]) -> None:
    rows = [{**row, "domain": ("science", "law")[n % 2]} for n, row in enumerate(written_rows(library))]
    task = make_task("synth.think", config(domains=("law",)), [rows], bound(library.folder / "responses.jsonl"))
    WORK.make_shard(task, 0)
    (table,) = read_documents(task.folder)
    assert sorted(parents[0] for parents in table["parents"].to_pylist()) == sorted(row["id"] for row in rows[1::2])
    with pytest.raises(InputError, match="on cooking came through"):
        WORK.shard_count(make_task("synth.think", config(domains=("cooking",)), [rows]))


def test_a_prompt_without_response_names_document_key_and_option(
    library: Any, make_task: Callable[..., StepTask]
) -> None:
    row = library.row("en", "the-last-ferry")
    task = make_task("synth.think", config(), [[row]], bound(library.folder / "responses.jsonl"))
    with pytest.raises(UserError) as caught:
        WORK.make_shard(task, 0)
    key = requests_for(row["text"], "en", config(), MODEL)[0].key
    message = caught.value.render()
    for part in (row["id"], "the-last-ferry", key, "synth.think.endpoint", "endpoints.replay.responses"):
        assert part in message
    assert not (task.folder / "documents").exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_carry_the_document_unchanged(language: str) -> None:
    document = "a {document} {before} $x_{i}$ \\n {{}}"
    for settings in (config(), config(layout="interleaved")):
        (request,) = requests_for(document, language, settings, MODEL)
        assert document in request.messages[1]["content"]
    assert prompt("thinking.document", language).user.count("{document}") == 1


def test_keys_depend_on_text_prompt_model_and_parameters_only() -> None:
    base = requests_for("Text", "en", config(), MODEL, "one")[0]
    assert base.key == requests_for("Text", "en", config(), MODEL, "two")[0].key
    others = [
        requests_for("Text.", "en", config(), MODEL)[0],
        requests_for("Text", "de", config(), MODEL)[0],
        requests_for("Text", "en", config(temperature=0.7), MODEL)[0],
        requests_for("Text", "en", config(layout="interleaved"), MODEL)[0],
        requests_for("Text", "en", config(), "other")[0],
    ]
    assert len({base.key, *(other.key for other in others)}) == 6


def test_layouts() -> None:
    text = "\n\n".join(["one " * 20, "two " * 20, "three " * 20])
    parts = passages(text, 170)
    assert len(parts) == 2
    assert "\n\n".join(parts) == text
    assert joined(text, ["T"], config()) == f"{text}\n\nT"
    assert joined(text, ["T"], config(layout="thought-then-doc")) == f"T\n\n{text}"
    interleaved = joined(text, ["A", "B"], config(layout="interleaved", passage_characters=170))
    assert interleaved == f"A\n\n{parts[0]}\n\nB\n\n{parts[1]}"


def test_interleaved_sample_end_to_end(library: Any, make_task: Callable[..., StepTask], tmp_path: Path) -> None:
    settings = config(layout="interleaved", passage_characters=700, languages=("en",))
    row = library.row("en", "parallel-water-cycle")
    thought = library.thought("en", "parallel-water-cycle")
    record(tmp_path / "answers.jsonl", [row], thought, settings)
    task = make_task("synth.think", settings, [[row]], bound(tmp_path / "answers.jsonl"))
    result = WORK.make_shard(task, 0)
    assert result.dropped == {}
    (table,) = read_documents(task.folder)
    text = table["text"][0].as_py()
    assert table["maker"][0].as_py() == "other-model"
    without = text
    for number in range(len(passages(row["text"], 700))):
        without = without.replace(f"{thought} ({number})\n\n", "", 1)
    assert without == row["text"]


@pytest.mark.parametrize(
    ("thought", "finish", "reason"),
    [
        ("The user asks me to think. " * 20, "stop", "thinking.leakage"),
        ("Water.", "length", "thinking.finish"),
        ("", "stop", "thinking.no_answer"),
    ],
)
def test_refused_thoughts_are_counted_and_shown(
    library: Any, make_task: Callable[..., StepTask], tmp_path: Path, thought: str, finish: str, reason: str
) -> None:
    row = library.row("en", "parallel-water-cycle")
    if thought:
        record(tmp_path / "answers.jsonl", [row], thought, config(), finish)
    else:
        request = requests_for(row["text"], "en", config(), MODEL)[0]
        (tmp_path / "answers.jsonl").write_text(json.dumps(request.row({"choices": []})) + "\n")
    task = make_task("synth.think", config(), [[row]], bound(tmp_path / "answers.jsonl"))
    result = WORK.make_shard(task, 0)
    assert result.dropped == {reason: 1}
    assert result.counts["documents_in"] == 1
    assert result.counts["documents_out"] == 0
    (dropped,) = read_dropped(task.folder)
    assert dropped["reason"].to_pylist() == [reason]
    assert thought.strip() in dropped["text"][0].as_py()
    assert result.facts["by_language"]["en"]["dropped"] == {reason: 1}


def test_a_document_that_is_too_long_is_refused_whole(library: Any, make_task: Callable[..., StepTask]) -> None:
    settings = config(maximum_document_characters=100)
    task = make_task(
        "synth.think", settings, [[library.row("en", "hay-fever")]], bound(library.folder / "responses.jsonl")
    )
    assert WORK.make_shard(task, 0).dropped == {"thinking.document_too_long": 1}


def test_mistakes_in_the_configuration(library: Any, tmp_path: Path) -> None:
    endpoints = {"replay": ReplayConfig(responses=str(library.folder / "responses.jsonl"))}
    with pytest.raises(ConfigError, match="did you mean `replay`"):
        endpoint_binding("think", config(endpoint="replya"), endpoints)
    with pytest.raises(ValueError, match="endpoint"):  # nobody to ask
        config(endpoint="")
    with pytest.raises(InputError, match=r"endpoints\.replay\.responses"):
        endpoint_binding("think", config(), {"replay": ReplayConfig(responses=str(tmp_path / "none.jsonl"))})
    (tmp_path / "bad.jsonl").write_text('{"key": "a", "response": {}}\n{"key": \n')
    from synth.cache import Replay

    with pytest.raises(InputError, match=r"bad\.jsonl:2"):
        Replay.open(str(tmp_path / "bad.jsonl"), step="synth.think", endpoint="replay")


def test_the_content_of_the_recording_is_identity_its_place_is_not(library: Any, tmp_path: Path) -> None:
    original = library.folder / "responses.jsonl"
    copy = tmp_path / "moved.jsonl"
    copy.write_bytes(original.read_bytes())
    contents = [
        endpoint_binding("think", config(), {"replay": ReplayConfig(responses=str(path))})[1]
        for path in (original, copy)
    ]
    assert contents[0] == contents[1]
    copy.write_bytes(original.read_bytes() + b'{"key": "more", "response": {}}\n')
    assert endpoint_binding("think", config(), {"replay": ReplayConfig(responses=str(copy))})[1] != contents[0]


def test_thoughts_in_another_language_than_the_document(
    library: Any, make_task: Callable[..., StepTask], tmp_path: Path
) -> None:
    """A German document with a Korean thought stays; with a German thought where Korean was asked for, it goes."""
    row = library.row("de", "parallel-water-cycle")
    settings = config(thoughts_in=("ko", "de"))
    slug = next(slug for language, slug in library.recorded() if language == "ko")
    german = next(slug for language, slug in library.recorded() if language == "de")
    for thought, dropped in (("ko", {}), ("de", {"thinking.language": 1})):
        text = library.thought(thought, slug if thought == "ko" else german)
        requests = requests_for(row["text"], "ko", settings, MODEL)
        assert requests[0].messages == prompt("thinking.document", "ko").messages(document=row["text"])
        message = {"role": "assistant", "content": f"<think>{text}</think>ok"}
        body = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": {}}
        answers = tmp_path / f"{thought}.jsonl"
        answers.write_text(json.dumps(requests[0].row(body)) + "\n")
        task = make_task(f"synth.{thought}", settings, [[row]], bound(answers))
        assert WORK.make_shard(task, 0).dropped == dropped
        made = [one for table in read_documents(task.folder) for one in table.to_pylist()]
        assert [one["lang"] for one in made] == ([] if dropped else ["mul"])
        for one in made:
            extra = json.loads(one["extra"])
            assert extra["languages"] == ["de", "ko"]
            assert [one["text"][start:end] for start, end in extra["written"]] == [text]


def test_a_sample_tells_what_its_maker_wrote(library: Any) -> None:
    text = library.text("en", "parallel-water-cycle")
    layouts: tuple[Layout, ...] = ("doc-then-thought", "thought-then-doc", "interleaved")
    for layout in layouts:
        settings = config(layout=layout, passage_characters=300)
        thoughts = [f"Thought {number}." for number in range(len(requests_for(text, "en", settings, MODEL)))]
        made, spans = woven(parts_of(text, thoughts, settings), "\n\n")
        assert made == joined(text, thoughts, settings)
        assert [made[start:end] for start, end in spans] == thoughts
