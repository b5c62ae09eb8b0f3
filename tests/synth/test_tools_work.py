"""Sets of kind `tools`: documents and environments on disk, transcripts in the chat format, models as authors and judges."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.core.documents import read_documents, read_dropped
from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.shards import TokenShard, shard_stems
from pipeline.core.steps import StepOutput, StepTask
from pipeline.core.tokenizer import Tokenizer
from stages.encode import WORK as ENCODE
from stages.encode import EncodeConfig
from stages.tokenizer.superbpe import build, train
from stages.tokenizer.train import tokenizer_settings
from synth.acceptance import FILTERS
from synth.cache import Request
from synth.config import ReplayConfig, SynthSet, asks_endpoint, endpoint_binding
from synth.judge import judge_request
from synth.subagents.config import SearchConfig
from synth.tools import work
from synth.tools.authoring import answer_schema, example, scenario_request, written_scenario
from synth.tools.config import ToolsConfig
from synth.tools.generator import make_scenario
from synth.tools.scenario import Scenario
from synth.tools.transcript import messages_of, readable
from synth.tools.validators import CHECKS, Fault, judged
from synth.tools.work import WORK, read_environments, told

MODEL = "recorded-writer"


def config(documents: int, **more: object) -> ToolsConfig:
    return ToolsConfig.model_validate({"kind": "tools", "documents": documents, **more})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for table in read_documents(folder) for row in table.to_pylist()]


def made(task: StepTask) -> StepTask:
    results = [WORK.make_shard(task, shard) for shard in range(WORK.shard_count(task))]
    WORK.finish(task, results)
    return task


def test_documents_and_environments_lie_side_by_side(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.tools", config(40))
    result = WORK.make_shard(task, 0)
    assert result.counts["documents_in"] == result.counts["documents_out"] == 40
    assert result.licenses == {"Apache-2.0": 40}
    documents, scenarios = rows_of(task.folder), list(read_environments(task.folder))
    table = pl.read_parquet(task.folder / "environments" / "00000.parquet")
    assert table["id"].to_list() == [row["id"] for row in documents]
    for row, scenario in zip(documents, scenarios, strict=True):
        environment = scenario.environment()
        messages = row["messages"]
        said = [message for message in messages if message["role"] == "assistant"]
        results = [message["content"] for message in messages if message["role"] == "tool"]
        for message in said:
            for call in message["tool_calls"] or ():
                assert json.loads(results.pop(0)) == environment.call(call["name"], call["arguments"])
        assert not results
        assert environment.passes(said[-1]["content"]).passed
        assert [one["role"] for one in messages[:2]] == ["system", "user"]
        extra = json.loads(row["extra"])
        assert [one["function"]["name"] for one in extra["tools"]] == list(environment.tools)
        assert (row["lang"], row["domain"], row["source"]) == (scenario.language, "tools", "tools")
        assert row["maker"] == f"seodang.tools.{scenario.domain.split('@')[0]}.{scenario.template}@1"
        assert scenario.task in row["text"]
    thinking = [any(message["reasoning"] for message in row["messages"]) for row in documents]
    assert 20 < sum(thinking) < 40  # 800 of a thousand


def test_documents_do_not_depend_on_the_shards(make_task: Callable[..., StepTask]) -> None:
    found = []
    for size in (4, 11, 30):
        task = made(make_task(f"synth.tools-{size}", config(30, documents_per_shard=size)))
        found.append([(row["messages"], row["extra"]) for row in rows_of(task.folder)])
        assert len(list(read_environments(task.folder))) == 30
    assert found[0] == found[1] == found[2]


def test_shards_made_again_are_the_same_bytes(make_task: Callable[..., StepTask]) -> None:
    task = make_task("synth.tools", config(20, documents_per_shard=10))
    contents = []
    for order in ((0, 1), (1, 0)):
        for shard in order:
            WORK.make_shard(task, shard)
        contents.append({path.name: path.read_bytes() for path in sorted(task.folder.rglob("*.parquet"))})
    assert contents[0] == contents[1]


def test_thoughts_can_be_left_out_or_always_shown(make_task: Callable[..., StepTask]) -> None:
    for permille, share in ((0, 0), (1000, 1)):
        task = made(make_task(f"synth.t{permille}", config(12, reasoning_permille=permille)))
        shown = [
            bool(message["reasoning"])
            for row in rows_of(task.folder)
            for message in row["messages"]
            if message["role"] == "assistant"
        ]
        assert np.mean(shown) == share


def test_what_fails_is_dropped_with_its_reason(
    make_task: Callable[..., StepTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = make_scenario(config(1), 0)
    parade = [
        good,
        replace(good, reply="-"),
        good,
        replace(good, task=f"{good.task} {good.criteria.facts[0]}"),
    ]
    monkeypatch.setattr(work, "make_scenario", lambda _, index: parade[index])
    task = make_task("synth.tools", config(4))
    result = WORK.make_shard(task, 0)
    assert result.dropped == {"tools.reference_fails": 1, "tools.duplicate": 1, "tools.leaked": 1}
    assert result.counts["documents_out"] == 1
    (dropped,) = read_dropped(task.folder)
    rows = {row["reason"]: row for row in dropped.to_pylist()}
    assert rows["tools.leaked"]["detail"] == good.criteria.facts[0]
    assert good.task in rows["tools.duplicate"]["text"]
    assert set(FILTERS["tools"]) == {"no_answer", *CHECKS, "duplicate", "judge"}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [readable(messages_of(make_scenario(config(1), index), reasoning=True)) for index in range(60)]
    build(train(lambda: texts, 900, 0.0, 2)).save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", tokenizer_settings())
    return folder


def test_encoded_transcripts_are_the_chat_templates(make_task: Callable[..., StepTask], tokenizer_folder: Path) -> None:
    """Token ids, tool declarations included, equal `apply_chat_template`'s; only what the assistant writes counts."""
    from transformers import AutoTokenizer

    task = made(make_task("synth.tools", config(24)))
    inputs = {"documents": StepOutput("synth.tools", task.folder), "tokenizer": StepOutput("t", tokenizer_folder)}
    encode = replace(task, name="encode.tools", config=EncodeConfig(), inputs=inputs, folder=task.store / "encode")
    ENCODE.make_shard(encode, 0)
    shard = TokenShard.open(shard_stems(encode.folder)[0])
    tokenizer, theirs = Tokenizer.load(tokenizer_folder), AutoTokenizer.from_pretrained(str(tokenizer_folder))
    assert shard.loss is not None
    start = 0
    for number, row in enumerate(rows_of(task.folder)):
        ids = shard.document(number)
        tools = json.loads(row["extra"])["tools"]
        messages = [{key: value for key, value in one.items() if value is not None} for one in row["messages"]]
        rendered = theirs.apply_chat_template(messages, tokenize=False, tools=tools).rstrip("\n")
        assert tokenizer.decode(ids) == rendered
        assert ids.tolist() == theirs(rendered)["input_ids"]
        assert rendered.startswith('<|tool_declare|>\n# Tools\n<tool>{"type": "function", "function": {"name": ')
        flags = shard.loss[start : start + len(ids)].astype(bool)
        start += len(ids)
        counted = tokenizer.decode(ids[flags])
        for message in messages:
            if message["role"] == "assistant":
                assert all(part in counted for part in (message["content"], message.get("reasoning") or ""))
                for call in message.get("tool_calls") or ():
                    assert f'"name": "{call["name"]}", "arguments": {call["arguments"]}' in counted
            elif message["role"] in ("system", "user"):
                assert message["content"] not in counted
        assert "<tool_result>" not in counted
        assert "<|tool_declare|>" not in counted


def body(content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"model": "author-7b", "choices": [{"message": message, "finish_reason": "stop"}], "usage": {}}


def recorded(path: Path, answers: Mapping[Request, str] | list[tuple[Request, str]]) -> Mapping[str, tuple[str, ...]]:
    pairs = answers.items() if isinstance(answers, Mapping) else answers
    path.write_text("".join(json.dumps(request.row(body(content))) + "\n" for request, content in pairs))
    asked = config(1, source="endpoint", endpoint="replay")
    return endpoint_binding("tools", asked, {"replay": ReplayConfig(responses=str(path))})[0]


def written(seed: Scenario, **changes: Any) -> str:
    """A model's answer: the seed's own scenario with changes."""
    return json.dumps({**example(seed), **changes}, ensure_ascii=False)


def test_an_example_fits_the_schema_that_the_answer_must_fit() -> None:
    from jsonschema import Draft202012Validator

    for index in range(40):
        seed = make_scenario(config(1), index)
        schema = answer_schema(seed.tools())
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(json.loads(written(seed)))


def test_a_models_scenarios_are_validated_like_ours(make_task: Callable[..., StepTask], tmp_path: Path) -> None:
    asked = config(7, source="endpoint", endpoint="replay", domains=("library",), languages=("en",))
    seeds = [make_scenario(asked, index) for index in range(7)]
    session = {"current": {**seeds[3].state["session"]["current"], "verified": "M-1"}}
    contents = [
        written(seeds[0], reply=f"Gladly. {seeds[0].reply}"),
        "I would rather not.",
        written(seeds[2], facts=[*seeds[2].criteria.facts, "XK-77"]),
        written(seeds[3], state={**seeds[3].state, "session": session}),
        written(seeds[4], task=f"{seeds[4].task} ({seeds[4].criteria.facts[0]})"),
        written(seeds[5], turns=[{"thought": "Look.", "calls": [asdict(seeds[5].calls[1])]}]),
        f"Here it is:\n```json\n{written(seeds[6])}\n```",
    ]
    requests = [scenario_request(seed, asked, MODEL, 0) for seed in seeds]
    paths = recorded(tmp_path / "r.jsonl", list(zip(requests, contents, strict=True)))
    task = make_task("synth.tools", asked, paths=paths)
    result = WORK.make_shard(task, 0)
    reasons = ("no_answer", "reference_fails", "schema_invalid", "leaked", "ungrounded")
    assert result.dropped == {f"tools.{reason}": 1 for reason in reasons}
    kept = rows_of(task.folder)
    assert [row["maker"] for row in kept] == ["author-7b"] * 2
    assert kept[0]["messages"][-1]["content"] == f"Gladly. {seeds[0].reply}"
    assert [one.template for one in read_environments(task.folder)] == ["written"] * 2
    table = pl.read_parquet(task.folder / "requests" / "00000.parquet")
    assert table["verdict"].to_list() == ["kept", *(f"tools.{reason}" for reason in reasons), "kept"]
    assert set(table["lang"].to_list()) == {"en"}
    assert WORK.finish(task, [result])["by_maker"] == {"author-7b": {"in": 2, "out": 2, "dropped": {}}}


def test_the_first_of_several_samples_that_passes_is_kept(make_task: Callable[..., StepTask], tmp_path: Path) -> None:
    asked = config(1, source="endpoint", endpoint="replay", samples=3)
    seed = make_scenario(asked, 0)
    requests = [scenario_request(seed, asked, MODEL, sample) for sample in range(3)]
    assert len({one.key for one in requests}) == 3
    contents = [written(seed, reply="-"), written(seed, reply=f"{seed.reply} "), written(seed)]
    task = make_task("synth.tools", asked, paths=recorded(tmp_path / "r", list(zip(requests, contents, strict=True))))
    WORK.make_shard(task, 0)
    (row,) = rows_of(task.folder)
    assert row["messages"][-1]["content"] == f"{seed.reply} "
    verdicts = pl.read_parquet(task.folder / "requests" / "00000.parquet")["verdict"].to_list()
    assert verdicts == ["tools.reference_fails", "kept", "another sample is kept"]


def test_the_prompt_carries_policy_tools_and_example_and_the_language_by_name() -> None:
    asked = config(1, source="endpoint", endpoint="replay", languages=("vi",))
    seed = make_scenario(asked, 0)
    request = scenario_request(seed, asked, MODEL, 0)
    text = request.messages[1]["content"]
    assert seed.policy in text
    assert json.dumps(seed.task, ensure_ascii=False) in text
    assert "in Vietnamese" in text
    for tool in seed.tools().tools:
        assert f'"name":"{tool}"' in text


def test_a_judge_sees_its_share_and_what_it_finds_bad_goes(make_task: Callable[..., StepTask], tmp_path: Path) -> None:
    asked = config(6, endpoint="replay", judge={"permille": 1000, "minimum": 3})
    scenarios = [make_scenario(asked, index) for index in range(6)]
    requests = []
    for index, scenario in enumerate(scenarios):
        shown = readable(messages_of(scenario, reasoning=False))
        requests.append(judge_request("tools", {"text": told(scenario), "source": "s", "id": str(index)}, shown, MODEL))
    grades = [json.dumps({"grounded": 5, "useful": 2 if n == 4 else 4, "clean": 5}) for n in range(5)]
    contents = [*grades, "no grade at all"]  # which says nothing against the sample
    task = make_task("synth.tools", asked, paths=recorded(tmp_path / "r", list(zip(requests, contents, strict=True))))
    result = WORK.make_shard(task, 0)
    assert result.dropped == {"tools.judge": 1}
    assert result.counts["documents_out"] == 5
    (dropped,) = read_dropped(task.folder)
    assert dropped["detail"].to_pylist() == ["useful 2"]
    assert {row["maker"].split(".")[0] for row in rows_of(task.folder)} == {"seodang"}
    assert len(list(read_environments(task.folder))) == 5
    verdicts = pl.read_parquet(task.folder / "requests" / "00000.parquet")["verdict"].to_list()
    assert verdicts == ["kept"] * 4 + ["tools.judge", "kept"]
    unseen = make_task("synth.unseen", config(6), paths=task.paths)
    assert WORK.make_shard(unseen, 0).counts["documents_out"] == 6
    with pytest.raises(UserError, match="no recorded response"):
        WORK.make_shard(make_task("synth.more", asked.replaced(documents=7), paths=task.paths), 0)


def test_a_scenario_read_back_from_a_model_is_judged_as_it_is() -> None:
    from synth.completion import Completion, ContentError

    seed = make_scenario(config(1), 3)
    answer = Completion("k", "m", "", "", "stop", structured=example(seed))
    again = written_scenario(seed, answer)
    assert isinstance(again, Scenario)
    assert (again.turns, again.state, again.task) == (seed.turns, seed.state, seed.task)
    assert judged(again) is None
    assert written_scenario(seed, ContentError("broken")) == Fault("no_answer", "broken")
    halved = written_scenario(seed, replace(answer, structured={**example(seed), "task": "\ud800"}))
    assert isinstance(halved, Fault)
    assert halved.check == "schema_invalid"


def test_a_model_is_asked_only_where_an_endpoint_is_named() -> None:
    assert not asks_endpoint(config(1))
    assert asks_endpoint(config(1, endpoint="replay", judge={"permille": 1}))
    for wrong in ({"source": "endpoint"}, {"judge": {"permille": 10}}):
        with pytest.raises(ValueError, match="a name under `endpoints:`"):
            config(1, **wrong)


SEARCH = {"kind": "search", "from": "x", "questions": 1}


@pytest.mark.parametrize(
    ("options", "message", "used"),
    [
        (
            {"kind": "thinking", "from": "x", "judge": {"minimum": 4}},
            "no sample is judged, so `minimum` changes nothing: remove it, or set `permille`",
            {"judge": {"minimum": 4, "permille": 1}},
        ),
        (
            {"kind": "tools", "documents": 1, "endpoint": "w"},
            "nothing is asked of `endpoint`: set source to endpoint or judge.permille above 0, or drop it",
            {"judge": {"permille": 1}},
        ),
        (
            {**SEARCH, "opens_per_search": 2, "agent": "endpoint", "endpoint": "w"},
            "a model opens what it likes, so `opens_per_search` changes nothing: remove it, or set agent to oracle",
            {"agent": "oracle", "summariser": "endpoint"},
        ),
        (
            {**SEARCH, "summariser": "none", "summary_characters": 90},
            "pages are not summarised, so `summary_characters` changes nothing: remove it, or choose a summariser",
            {"summariser": "extractive"},
        ),
        (
            {**SEARCH, "compressor": "endpoint", "endpoint": "w", "compress_after_steps": 0},
            "nothing is compressed, so `compressor` changes nothing: remove it, or set compress_after_steps above 0",
            {"compress_after_steps": 2},
        ),
    ],
)
def test_options_that_nothing_reads_are_refused(options: dict[str, Any], message: str, used: dict[str, Any]) -> None:
    """They would change nothing but the fingerprint, and have a set made, and paid for, again."""
    sets: TypeAdapter[Any] = TypeAdapter(SynthSet)
    with pytest.raises(ValidationError, match=re.escape(message)):
        sets.validate_python(options)
    assert sets.validate_python({**options, **used}).kind == options["kind"]


@pytest.mark.parametrize("option", [{"samples": 2}, {"temperature": 0.1}, {"top_p": 0.5}, {"max_tokens": 9}])
def test_options_of_a_model_are_refused_where_none_writes(option: dict[str, Any]) -> None:
    """They would change nothing but the fingerprint."""
    (name,) = option
    with pytest.raises(ValueError, match=f"`{name}` changes nothing"):
        ToolsConfig.model_validate({"kind": "tools", "documents": 1, **option})
    with pytest.raises(ValueError, match=f"`{name}` changes nothing"):  # the judge has parameters of its own
        ToolsConfig.model_validate(
            {"kind": "tools", "documents": 1, "endpoint": "w", "judge": {"permille": 1}, **option}
        )
    asked = {"kind": "tools", "documents": 1, "endpoint": "w", "source": "endpoint", **option}
    assert getattr(ToolsConfig.model_validate(asked), name) == option[name]
    if name != "samples":
        search = {"kind": "search", "from": "x", "questions": 1, **option}
        with pytest.raises(ValueError, match=f"`{name}` changes nothing"):
            SearchConfig.model_validate(search)
        assert SearchConfig.model_validate({**search, "agent": "endpoint", "endpoint": "w"}).endpoint == "w"
