"""The estimate before a run: it counts what a run then asks, never less, and exactly where the answers are stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from forecasts import binding, holds, most_of, nothing_stored, requests_of, size, stored
from translator import answers, completion, replay

from pipeline.commands.synth_estimate import Estimated, worth_knowing
from pipeline.core.steps import StepTask
from synth.cache import Replay, Request
from synth.config import (
    AnswersConfig,
    BudgetConfig,
    EndpointConfig,
    QuestionsConfig,
    ReplayConfig,
    SolutionsConfig,
    TranslationConfig,
)
from synth.endpoint_set import EndpointWork, make_samples
from synth.estimate import ENOUGH, Cost, estimate
from synth.forecast import ANSWERS, JUDGE, NOTHING, WAY_BACK, AtMost, Bound, Forecast
from synth.instructions.answers import WORK as ANSWERS_WORK
from synth.judge import judged_worth
from synth.output import ShardWriter
from synth.questions import WORK as QUESTIONS_WORK
from synth.solutions import WORK as SOLUTIONS_WORK
from synth.spending import Spending, Spent, spent_by_tasks
from synth.store import ResponseStore, Stored
from synth.tools.authoring import example, scenario_request
from synth.tools.config import ToolsConfig
from synth.tools.generator import make_scenario
from synth.tools.work import WORK as TOOLS_WORK
from synth.translation import WORK as TRANSLATION_WORK
from synth.translation import TranslationMaker

MODEL = "recorded-writer"
PRICE = {"prompt_per_million_tokens": 10.0, "completion_per_million_tokens": 100.0}
ENDPOINT = EndpointConfig.model_validate({"url": "http://x/v1", "model": "m", "price": PRICE})
Make = Callable[..., StepTask]


def request(number: int) -> Request:
    return Request("m", ({"role": "user", "content": f"{number:0400}"},), {"max_tokens": 1000}, "test@1")


def known(numbers: Iterable[int], part: str = ANSWERS) -> Forecast:
    return ((part, request(number)) for number in numbers)


def test_an_estimate_counts_what_is_not_stored_yet(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "w")
    (before,) = estimate(known([*range(100), 3]), store, ENDPOINT).values()
    assert (before.requests_at_most, before.stored, before.prompt_tokens_at_most) == (100, 0, 100 * 100)
    assert (before.completion_tokens_at_most, before.completion_tokens_expected) == (100_000, None)
    assert before.money_at_most == pytest.approx(0.1 + 10.0)
    for number in range(ENOUGH):
        store.put(request(number), Stored({"usage": {"completion_tokens": 50 + number % 2}}))
    (after,) = estimate(known(range(100)), store, ENDPOINT).values()
    assert (after.stored, after.completion_tokens_expected) == (20, round(80 * 50.5))
    assert after.money_expected == pytest.approx(80 * 100 * 10 / 1e6 + 4040 * 100 / 1e6)
    (recorded,) = estimate(known(range(100)), None, ReplayConfig(responses="x")).values()
    assert (recorded.stored, recorded.money_at_most, recorded.money_expected) == (0, None, None)


def test_bounds_count_at_most_and_what_is_likely_of_them(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, "w")
    one = Bound(1, 300, 2048)

    def graded(*likely: Bound | None) -> Forecast:
        yield from known(range(ENOUGH), JUDGE)
        yield from ((JUDGE, AtMost(one, part)) for part in likely)

    for number in range(ENOUGH):
        store.put(request(number), Stored({"usage": {"completion_tokens": 40}}))
    cost = estimate(graded(None, None, NOTHING, Bound(1, 200, 7)), store, ENDPOINT)[JUDGE]
    assert (cost.requests_at_most, cost.stored) == (ENOUGH + 4, ENOUGH)
    assert (cost.prompt_tokens_at_most, cost.completion_tokens_at_most) == (1200, 4 * 2048)
    assert (cost.prompt_tokens_expected, cost.completion_tokens_expected) == (2 * 300 + 200, 2 * 40 + 0 + 7)
    assert cost.money_at_most == pytest.approx((1200 * 10 + 4 * 2048 * 100) / 1e6)
    assert cost.money_expected == pytest.approx(((2 * 300 + 200) * 10 + 87 * 100) / 1e6)
    unknown = estimate(((JUDGE, AtMost(one)) for _ in range(2)), store, ENDPOINT)[JUDGE]
    assert (unknown.completion_tokens_expected, unknown.money_expected) == (None, None)
    both = sum((cost, unknown), Cost())
    assert (both.requests_at_most, both.completion_tokens_expected) == (ENOUGH + 6, None)
    assert both.money_at_most == pytest.approx((cost.money_at_most or 0) + (unknown.money_at_most or 0))


def test_the_way_back_and_the_judge_of_a_translation(library: Any, make_task: Make, tmp_path: Path) -> None:
    """Bounds before anything is answered; with each answer that is stored what follows from it is known."""
    settings = TranslationConfig.model_validate(
        {"kind": "translation", "from": "articles", "into": ("de",), "native_floor": 0.0, "minimum_round_trip": 0.4,
         "segment_characters": 800, "max_tokens": 1000, "judge": {"permille": 1000}}
    )  # fmt: skip
    slug = library.slugs("en", "parallel-*")[0]
    task = make_task("synth.tr", settings, [[library.row("en", slug)]], binding(settings, tmp_path))
    ((row,), maker) = (TRANSLATION_WORK.rows(task, 0), TranslationMaker())
    there = maker.requests(row, settings, MODEL, 0)
    recorded: dict[str, Any] = {}

    def record(requests: list[Request], bodies: list[Any]) -> None:
        recorded.update(zip((one.key for one in requests), bodies, strict=True))

    before = list(TRANSLATION_WORK.forecast(task, nothing_stored))
    assert [one.key for one in requests_of(before, ANSWERS)] == [one.key for one in there]
    assert most_of(before, JUDGE).requests == 1
    record(there, answers(row["text"], library.text("de", slug), there, 800))
    after = list(TRANSLATION_WORK.forecast(task, stored(recorded)))
    back = requests_of(after, WAY_BACK)
    assert len(back) >= 2
    assert holds(most_of(before, WAY_BACK), size(back))
    assert most_of(after, JUDGE).requests == 1
    record(back, answers(library.text("de", slug), row["text"], back, 800))
    last = list(TRANSLATION_WORK.forecast(task, stored(recorded)))
    (judge,) = requests_of(last, JUDGE)
    assert holds(most_of(before, JUDGE), size([judge]))
    assert [most_of(last, part) for part in (ANSWERS, WAY_BACK, JUDGE)] == [NOTHING] * 3
    record([judge], [completion(json.dumps(dict.fromkeys(("grounded", "useful", "clean"), 5)))])
    writer = ShardWriter(task, 0)
    make_samples(maker, [row], settings, MODEL, replay(recorded), writer)
    assert (writer.counts["documents_out"], len(writer.requests)) == (1, len(last))
    # A translation that is refused is neither translated back nor judged.
    recorded[there[0].key] = completion("As you wish.")
    refused = list(TRANSLATION_WORK.forecast(task, stored(recorded)))
    assert {part for part, _ in refused} == {ANSWERS}


DOCUMENT = (
    "Ships climb the hill in a chain of locks.\n\nOf the ten locks each takes 6 minutes, so the way up is an hour long."
)
PAIR = {
    "question": "Wie viele Minuten dauert jede der zehn Schleusen auf dem Weg nach oben?",
    "answer": "Jede der zehn Schleusen braucht genau 6 Minuten.",
    "evidence": "Of the ten locks each takes 6 minutes",
}


def test_a_judge_is_counted_for_exactly_the_samples_that_it_would_see(
    library: Any, make_task: Make, tmp_path: Path
) -> None:
    settings = QuestionsConfig.model_validate(
        {"kind": "questions", "from": "articles", "into": ("de",), "pairs": 1, "minimum_pairs": 1, "samples": 2,
         "languages": ("en",), "judge": {"permille": 300}}
    )  # fmt: skip

    class Writer(Replay):
        def body(self, request: Request) -> Any:
            if request.prompt.startswith("judge."):
                return completion(json.dumps(dict.fromkeys(("grounded", "useful", "clean"), 5)))
            return completion(json.dumps({"pairs": [{**PAIR, "answer": PAIR["answer"] + " Ja." * request.sample}]}))

    rows = [library.row("en", f"d{n}", text=f"{DOCUMENT}\n\nThis is note {n}.") for n in range(40)]
    task = make_task("synth.q", settings, [rows], binding(settings, tmp_path))
    before = list(QUESTIONS_WORK.forecast(task, nothing_stored))
    writer = ShardWriter(task, 0)
    own = QUESTIONS_WORK.rows(task, 0)
    make_samples(QUESTIONS_WORK.maker, own, settings, MODEL, Writer({}, "", "", ""), writer)
    assert writer.counts["documents_out"] == 40
    prompts = Counter(one["prompt"].split(".")[0] for one in writer.requests)
    assert prompts["questions"] == len(requests_of(before, ANSWERS)) == 80
    assert 0 < prompts["judge"] == most_of(before, JUDGE).requests < 80
    none = make_task("synth.n", settings.replaced(judge={"permille": 0}), [rows], task.paths)
    assert {part for part, _ in QUESTIONS_WORK.forecast(none, nothing_stored)} == {ANSWERS}


@pytest.mark.parametrize(
    ("work", "settings", "judged"),
    [
        (SOLUTIONS_WORK, SolutionsConfig(kind="solutions", documents=6, samples=3, families=("committee",)), False),
        (
            ANSWERS_WORK,
            AnswersConfig.model_validate(
                {"kind": "answers", "documents": 6, "samples": 3, "domains": ("logic",), "judge": {"permille": 1000}}
            ),
            True,
        ),
    ],
)
def test_sets_of_our_own_problems_are_counted_by_sample(
    work: EndpointWork, settings: Any, judged: bool, make_task: Make, tmp_path: Path
) -> None:
    found = list(work.forecast(make_task("synth.s", settings, (), binding(settings, tmp_path)), nothing_stored))
    asked = requests_of(found, ANSWERS)
    assert 6 <= len(asked) <= 18
    assert len(asked) % 3 == 0  # a problem that comes twice is asked once
    assert most_of(found, JUDGE).requests == (len(asked) if judged else 0)


def tools_config(**more: Any) -> ToolsConfig:
    return ToolsConfig.model_validate({"kind": "tools", "documents": 8, "documents_per_shard": 3, **more})


def test_the_judge_of_generated_environments_is_known_before(make_task: Make, tmp_path: Path) -> None:
    settings = tools_config(endpoint="replay", judge={"permille": 500}, documents=20)
    task = make_task("synth.tools", settings, paths=binding(settings, tmp_path))
    found = list(TOOLS_WORK.forecast(task, nothing_stored))
    keys = [one.key for one in requests_of(found, JUDGE)]
    worth = [judged_worth(make_scenario(settings, index).to_json(), 500) for index in range(20)]
    assert 0 < len(keys) == sum(worth) == len(found) < 20
    body = {"model": "m", "choices": [{"message": {"content": "no grade"}, "finish_reason": "stop"}]}
    rows = "".join(json.dumps(one.row(body)) + "\n" for one in requests_of(found, JUDGE))
    (tmp_path / "none.jsonl").write_text(rows)
    for shard in range(TOOLS_WORK.shard_count(task)):
        TOOLS_WORK.make_shard(task, shard)  # raises for a request that is not recorded
    asked = pl.read_parquet(task.folder / "requests" / "*.parquet")["key"].to_list()
    assert sorted(asked) == sorted(keys)


def test_scenarios_of_a_model_and_their_judge(make_task: Make, tmp_path: Path) -> None:
    settings = tools_config(source="endpoint", endpoint="replay", samples=2, judge={"permille": 1000})
    task = make_task("synth.tools", settings, paths=binding(settings, tmp_path))
    before = list(TOOLS_WORK.forecast(task, nothing_stored))
    seeds = [make_scenario(settings, index) for index in range(8)]
    requests = [[scenario_request(seed, settings, MODEL, sample) for sample in range(2)] for seed in seeds]
    assert [one.key for one in requests_of(before, ANSWERS)] == [one.key for pair in requests for one in pair]
    assert most_of(before, JUDGE).requests == 8  # of each item one sample is kept, and judged
    recorded = {
        one.key: completion(json.dumps(example(seed), ensure_ascii=False) if one.sample or n % 2 else "No.")
        for n, (seed, pair) in enumerate(zip(seeds, requests, strict=True))
        for one in pair
    }
    recorded.pop(requests[7][0].key)
    after = list(TOOLS_WORK.forecast(task, stored(recorded)))
    judged = requests_of(after, JUDGE)
    assert (len(judged), most_of(after, JUDGE).requests) == (7, 1)
    assert holds(most_of(before, JUDGE), size(judged))
    for n in range(7):
        recorded.update({one.key: completion("No.") for one in requests[n]})
    refused = list(TOOLS_WORK.forecast(task, stored(recorded)))
    assert (requests_of(refused, JUDGE), most_of(refused, JUDGE).requests) == ([], 1)


def test_what_was_spent_before_counts_towards_the_budget(tmp_path: Path) -> None:
    endpoint = EndpointConfig.model_validate({
        "url": "http://x/v1", "model": "m", "budget": {"tokens": 100, "money": 9.0},
        "price": {"prompt_per_million_tokens": 1e5, "completion_per_million_tokens": 1e5, "currency": "EUR"},
    })  # fmt: skip
    for writer, prompt in (("run-00000", 40), ("run-00001", 20), ("other-00000", 500)):
        Spending(tmp_path, writer, endpoint).add(Spent(prompt, 5))
    spent = spent_by_tasks(tmp_path, "run")
    assert spent == Spent(60, 10)
    left = {"answers": Cost(1, 0, 20, 11, 20, None, 3.1, None)}
    (remark,) = worth_knowing("synth.x", Estimated("big", endpoint, left, spent))
    assert "may reach the budget of `endpoints.big` (9.00 EUR)" in remark
    assert worth_knowing("synth.x", Estimated("big", endpoint, left, Spent(60, 0)))[0].count("EUR") == 1
    cheap = {"answers": Cost(1, 0, 20, 9, 20, None, 1.9, None)}
    assert worth_knowing("synth.x", Estimated("big", endpoint, cheap, spent)) == []
    free = endpoint.replaced(price=None, budget=BudgetConfig())
    assert Estimated("big", free, {}, Spent()).total.money_at_most is None
