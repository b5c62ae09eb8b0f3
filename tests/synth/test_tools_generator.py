"""Generated environments: hundreds in every domain and language pass their validators, and each kind of broken one is
caught for the right reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any

import pytest

from synth.config import LANGUAGES
from synth.tools.config import DOMAIN_NAMES, ToolsConfig
from synth.tools.domain import Domain, texts
from synth.tools.domains import DOMAINS
from synth.tools.environment import Call, Criteria, Forbidden, Tool
from synth.tools.generator import drawn_scenario, make_scenario
from synth.tools.scenario import Scenario, Turn
from synth.tools.validators import judged, other_values

EACH = 9  # scenarios of each domain in each language: 432 in all


def test_the_list_of_domains_is_the_configurations() -> None:
    assert set(DOMAINS) == set(DOMAIN_NAMES)
    assert len(DOMAINS) >= 6


@pytest.mark.parametrize("name", DOMAIN_NAMES)
def test_every_environment_passes_its_validators(name: str) -> None:
    domain, templates, failed = DOMAINS[name], Counter[str](), 0
    for language in LANGUAGES:
        for number in range(EACH):
            scene = sorted(domain.scenes)[number % len(domain.scenes)]
            scenario = drawn_scenario(domain, scene, language, Random(f"{name} {language} {number}"))
            assert judged(scenario) is None, (scenario.template, language, scenario.task)
            assert "{" not in scenario.task + scenario.reply + scenario.policy
            assert 2 <= len(scenario.calls) <= 10
            templates[scenario.template] += 1
            environment = scenario.environment()
            failed += any("error" in environment.call(c.name, c.arguments) for c in scenario.calls)
    words: Mapping[str, Any] = texts("en")[name]["scenes"]
    assert set(templates) == set(words), "every wording is used"
    assert any("decline_request" in {c.name for c in _of(name, scene).calls} for scene in words)
    if name in ("clinic", "home", "restaurant"):
        assert failed > 0, "some calls fail and the solution goes on"


def _of(name: str, template: str) -> Scenario:
    """A scenario of one wording, in English."""
    domain = DOMAINS[name]
    tries = (drawn_scenario(domain, scene, "en", Random(n)) for n in count() for scene in sorted(domain.scenes))
    return next(one for one in tries if one.template == template)


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_have_the_same_words(language: str) -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(child) for key, child in value.items()}
        return len(value) if isinstance(value, tuple) else type(value)

    assert shape(texts(language)) == shape(texts("en"))


def test_a_scenario_is_a_function_of_config_and_index() -> None:
    config = ToolsConfig(kind="tools", documents=1)
    found = [make_scenario(config, index) for index in range(60)]
    assert found == [make_scenario(config, index) for index in range(60)]
    assert found[0] != make_scenario(config.replaced(seed=1), 0)
    assert {one.language for one in found} == set(LANGUAGES)
    assert {one.tools().name for one in found} == set(DOMAIN_NAMES)
    narrow = ToolsConfig(kind="tools", documents=1, domains=("clinic",), languages=("ko",))
    assert {make_scenario(narrow, n).tools().name for n in range(9)} == {"clinic"}


@pytest.mark.parametrize("name", DOMAIN_NAMES)
def test_other_ways_to_the_same_end_pass(name: str) -> None:
    """Calls of one turn in any order, and any look at the state in between, are no mistakes."""
    for number in range(12):
        dice = Random(number)
        scene = dice.choice(sorted(DOMAINS[name].scenes))
        scenario = drawn_scenario(DOMAINS[name], scene, "en", dice)
        looks = [c for c in scenario.calls if c.name.startswith(("list_", "get_", "find_", "search_"))]
        environment = scenario.environment()
        for turn in scenario.turns:
            for call in dice.sample(turn.calls, len(turn.calls)):
                environment.call(call.name, call.arguments)
                look = dice.choice(looks)
                environment.call(look.name, look.arguments)
        assert environment.passes(scenario.reply.upper()).passed, scenario.template


def fault(scenario: Scenario) -> tuple[str, str]:
    found = judged(scenario)
    assert found is not None
    return found.check, found.detail


@pytest.fixture
def good() -> Scenario:
    scenario = _of("library", "renew")
    assert judged(scenario) is None
    return scenario


def with_tool(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Tool], Tool]) -> None:
    """The library with one tool changed."""
    library = DOMAINS["library"]
    tools = tuple(change(tool) if tool.name == name else tool for tool in library.tool_list)
    fields = ("name", "tables", "scenes", "settings", "order", "version")
    changed = Domain(tool_list=tools, **{field: getattr(library, field) for field in fields})
    monkeypatch.setitem(DOMAINS, "library", changed)  # type: ignore[arg-type]


def test_a_reference_that_does_not_solve_the_task(good: Scenario) -> None:
    assert fault(replace(good, reply="Done.")) == (
        "reference_fails",
        "; ".join(f"fact: {fact}" for fact in good.criteria.facts),
    )
    forbidden = Forbidden(good.calls[-1], ("loan_id",))
    check, detail = fault(replace(good, criteria=replace(good.criteria, never=(forbidden,))))
    assert check == "reference_fails"
    assert detail.startswith("never: renew_loan")
    late = replace(good, turns=(*good.turns[1:], good.turns[0]))
    assert fault(late)[1].startswith("order: renew_loan before verify_member")


def test_a_reference_without_criteria(good: Scenario) -> None:
    empty = replace(good, turns=good.turns[1:2], criteria=Criteria())
    check, detail = fault(empty)
    assert (check, detail[:11]) == ("reference_fails", "no_criteria")


def test_what_the_reference_cannot_know(good: Scenario) -> None:
    """A solution that uses the PIN without having been told it, or an id before a tool has returned it."""
    pin, loan = good.calls[0].arguments["pin"], good.calls[2]
    silent = replace(good, task=good.task.replace(pin, "(I forgot)"))
    check, detail = fault(silent)
    assert (check, detail.split("): ")[1]) == ("ungrounded", f"`{pin}` comes from nowhere")
    blind = replace(good, turns=(good.turns[0], *good.turns[2:]))
    assert fault(blind)[1].endswith(f"`{loan.arguments['loan_id']}` comes from nowhere")
    clairvoyant = replace(good, reply=f"{good.reply} XK-77", criteria=replace(good.criteria, facts=("XK-77",)))
    assert fault(clairvoyant) == ("ungrounded", "the fact `XK-77` comes from nowhere")


def test_a_refusal_that_passes_by_doing_nothing(good: Scenario) -> None:
    """The trap of refusal tasks: nothing changes, so that an answer is enough."""
    fact = next(iter(good.state["loans"].values()))["due"]
    known = replace(good, turns=good.turns[1:2], reply=f"No: {fact}.", criteria=Criteria(facts=(fact,)))
    assert fault(known) == ("noop_passes", f"no call, and the answer `No: {fact}.`")


def test_an_argument_that_does_not_matter(monkeypatch: pytest.MonkeyPatch, good: Scenario) -> None:
    def weekly(state: Any, loan_id: str, days: int) -> Any:
        del days
        return DAYS_KEPT(state, loan_id=loan_id, days=28)

    DAYS_KEPT = DOMAINS["library"].tools["renew_loan"].run
    with_tool(monkeypatch, "renew_loan", lambda tool: replace(tool, run=weekly))
    due = [due for call in good.calls[2:] if (due := _due(good, call))]
    sloppy = replace(good, reply=" ".join(due), criteria=replace(good.criteria, facts=tuple(due)))
    check, detail = fault(sloppy)
    assert check == "perturbed_passes"
    days = good.calls[2].arguments["days"]
    assert f"days={days}) instead: renew_loan(" in detail
    assert f"days={days + 1})" in detail


def _due(scenario: Scenario, call: Call) -> str:
    return str(scenario.environment().call(call.name, call.arguments)["due"])


def test_tools_that_remember_across_resets(monkeypatch: pytest.MonkeyPatch, good: Scenario) -> None:
    numbers = count()
    listing = DOMAINS["library"].tools["list_loans"].run
    with_tool(
        monkeypatch,
        "list_loans",
        lambda tool: replace(tool, run=lambda state, member_id: [next(numbers), listing(state, member_id)]),
    )
    assert fault(good) == ("reset_inexact", "two plays of the reference differ")


def test_schemas_that_are_none_and_what_does_not_fit_them(monkeypatch: pytest.MonkeyPatch, good: Scenario) -> None:
    loans = {key: {**loan, "due": "soon"} for key, loan in good.state["loans"].items()}
    check, detail = fault(replace(good, state={**good.state, "loans": loans}))
    assert (check, detail.startswith("state loans/")) == ("schema_invalid", True)
    call = Call("renew_loan", {"loan_id": "L-1", "days": "many"})
    turns = (*good.turns, Turn("", (call,)))
    assert fault(replace(good, turns=turns)) == ("schema_invalid", "renew_loan: 'many' is not of type 'integer'")
    turns = (Turn("", (Call("burn", {}),)),)
    assert fault(replace(good, turns=turns)) == ("schema_invalid", "no tool `burn`")
    with_tool(monkeypatch, "list_loans", lambda tool: replace(tool, parameters={"member_id": {"type": "word"}}))
    check, detail = fault(good)
    assert (check, detail.startswith("list_loans: 'word'")) == ("schema_invalid", True)


def test_a_forbidden_call_that_nobody_could_make(good: Scenario) -> None:
    absent = Forbidden(Call("renew_loan", {"loan_id": "L-0", "days": 7}), ("loan_id",))
    check, detail = fault(replace(good, criteria=replace(good.criteria, never=(absent,))))
    assert (check, detail) == ("violation_passes", "never possible: renew_loan(loan_id='L-0', days=7)")


def test_a_rule_of_order_that_is_not_in_the_criteria_is_not_checked_by_the_end_state(good: Scenario) -> None:
    """Why order is a criterion: moving an appointment the other way round ends in the same state."""
    moved = _of("clinic", "reschedule")
    book, cancel = moved.calls[-2:]
    turned = [*moved.calls[:-2], cancel, book]
    environment = moved.environment()
    for call in turned:
        environment.call(call.name, call.arguments)
    assert environment.passes(moved.reply).failures == ("order: cancel_appointment before book_slot",)


def test_a_task_that_tells_its_answer(good: Scenario) -> None:
    fact = good.criteria.facts[0]
    assert fault(replace(good, task=f"{good.task} I think it is {fact}.")) == ("leaked", fact)


def test_a_task_in_another_language(good: Scenario) -> None:
    member, pin = good.calls[0].arguments.values()
    german = f"Ausweis {member}, PIN {pin}. Bitte verlängern Sie alle meine Ausleihen, soweit die Regeln es erlauben."
    assert fault(replace(good, task=german)) == ("language", "task in `de`, not in `en`")


def _silent(one: Scenario, dice: Random) -> Scenario:
    del dice
    return replace(one, reply="OK.")


def _leaky(one: Scenario, dice: Random) -> Scenario:
    return replace(one, task=f"{one.task} ({dice.choice(one.criteria.facts)})")


def _secretive(one: Scenario, dice: Random) -> Scenario:
    """The user leaves out something that the first call needs."""
    return replace(one, task=one.task.replace(dice.choice(_told(one)), "…"))


def _told(one: Scenario) -> list[str]:
    """What the user tells for the first call: numbers and codes, not dates that may be worked out."""
    first = one.calls[0]
    values = [value for value in first.arguments.values() if isinstance(value, str) and value in one.task]
    return values if first.name.startswith(("verify_", "get_")) else []


def _lazy(one: Scenario, dice: Random) -> Scenario:
    """Only what can be read is read."""
    del dice
    kept = [
        turn for turn in one.turns if all(c.name.startswith(("list_", "get_", "find_", "search_")) for c in turn.calls)
    ]
    return replace(one, turns=tuple(kept))


def _mistyped(one: Scenario, dice: Random) -> Scenario:
    place = dice.randrange(len(one.turns))
    call = one.turns[place].calls[0]
    broken = Call(call.name, {**call.arguments, "please": True})
    return replace(one, turns=(*one.turns[:place], Turn("", (broken,)), *one.turns[place + 1 :]))


def _careless(one: Scenario, dice: Random) -> Scenario:
    """The reference itself does what the policy forbids."""
    forbidden = dice.choice(one.criteria.never).call
    return replace(one, turns=(Turn("", (forbidden,)), *one.turns))


@pytest.mark.parametrize(
    ("plant", "reasons"),
    [
        (_silent, {"reference_fails"}),
        (_leaky, {"leaked"}),
        (_secretive, {"ungrounded"}),
        (_lazy, {"ungrounded", "noop_passes"}),
        (_mistyped, {"schema_invalid"}),
        (_careless, {"reference_fails"}),
    ],
)
def test_a_fault_planted_in_any_scenario_is_caught(
    plant: Callable[[Scenario, Random], Scenario], reasons: set[str]
) -> None:
    """Every domain and language; the reasons are the right ones."""
    config, found = ToolsConfig(kind="tools", documents=1, seed=7), Counter[str]()
    for index in range(70):
        scenario = make_scenario(config, index)
        if plant is _careless and not any(_possible(scenario, one.call) for one in scenario.criteria.never[:1]):
            continue
        if plant is _secretive and not _told(scenario):
            continue
        found[fault(plant(scenario, Random(index)))[0]] += 1
    assert set(found) == reasons
    assert found.total() >= 15


def _possible(scenario: Scenario, call: Call) -> bool:
    """Whether the call succeeds at the very start."""
    return "error" not in scenario.environment().call(call.name, call.arguments)


@pytest.mark.parametrize(
    ("schema", "value", "others"),
    [
        ({"enum": ["a", "b", "c"]}, "b", ["a", "c"]),
        ({"type": "boolean"}, True, [False]),
        ({"type": "integer"}, 4, [5, 3, 18]),
        ({"type": "string"}, "2031-12-31", ["2032-01-01"]),
        ({"type": "string"}, "2031-12-31 23:30", ["2032-01-01 00:00"]),
        ({"type": "string"}, "K-1", ["K-2", "K-10"]),
        ({"type": "string"}, "red", ["blue", "red0"]),
        ({"type": "array", "items": {"type": "string"}}, ["K-1", "x"], [["K-1"], ["K-2", "x"], ["K-1", "x0"]]),
    ],
)
def test_arguments_are_disturbed_by_values_of_their_kind(schema: dict[str, Any], value: Any, others: list[Any]) -> None:
    state = {"things": {"K-1": {"colour": "red"}, "K-2": {"colour": "blue"}}}
    assert other_values(schema, state, value) == others
