"""Environments: pure tools, exact resets, and a verdict that needs state, facts and the policy together."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, InputError
from synth.tools.domains import DOMAINS
from synth.tools.environment import Call, Criteria, Forbidden, applied, copied, mentions, state_hash
from synth.tools.generator import drawn_scenario
from synth.tools.scenario import Scenario


@pytest.fixture
def renewal() -> Scenario:
    """Verify, list, renew some loans and leave others alone."""
    return drawn_scenario(DOMAINS["library"], "renew", "en", Random(4))


def play(scenario: Scenario, calls: list[Call], answer: str) -> tuple[str, ...]:
    environment = scenario.environment()
    for call in calls:
        environment.call(call.name, call.arguments)
    return environment.passes(answer).failures


def test_the_reference_passes_and_every_part_of_it_is_needed(renewal: Scenario) -> None:
    verify, look, *renewals = renewal.calls
    assert [call.name for call in (verify, look)] == ["verify_member", "list_loans"]
    assert {call.name for call in renewals} == {"renew_loan"}
    state_differs = "state: it is not the one after the reference actions"
    assert play(renewal, renewal.calls, renewal.reply) == ()
    assert play(renewal, [verify, *renewals], renewal.reply) == ()  # who knows without looking has done nothing wrong
    assert play(renewal, renewal.calls, "") == tuple(f"fact: {fact}" for fact in renewal.criteria.facts)
    assert play(renewal, [], renewal.reply) == (state_differs,)
    unverified = play(renewal, [*renewals, verify], renewal.reply)
    assert unverified == ("order: renew_loan before verify_member",) * len(renewals)
    forbidden = renewal.criteria.never[0].call
    assert play(renewal, [*renewal.calls, forbidden], renewal.reply) == (
        state_differs,
        f"never: renew_loan {orjson.dumps(dict(forbidden.arguments)).decode()}",
    )


def test_a_forbidden_call_counts_even_when_its_trace_is_removed() -> None:
    """The end state alone would not show it."""
    scenario = next(
        one
        for seed in range(50)
        if (one := drawn_scenario(DOMAINS["home"], "leaving", "en", Random(seed))).template == "leaving"
    )
    fridge = scenario.criteria.never[0].call
    back_on = Call("switch_device", {**fridge.arguments, "on": True})
    assert play(scenario, [*scenario.calls, fridge, back_on], scenario.reply) == (
        f"never: switch_device {orjson.dumps(dict(fridge.arguments)).decode()}",
    )


def test_without_criteria_nobody_passes(renewal: Scenario) -> None:
    reading = replace(renewal, turns=renewal.turns[1:2], criteria=Criteria())
    (failure,) = play(reading, reading.calls, renewal.reply)
    assert failure.startswith("no_criteria")


@pytest.mark.parametrize(
    ("name", "arguments", "code", "told"),
    [
        ("renew_lone", {}, "unknown_tool", "did you mean `renew_loan`?"),
        ("renew_loan", {"loan_id": "L-1"}, "invalid_arguments", "'days' is a required property"),
        ("renew_loan", {"loan_id": "L-1", "days": "7"}, "invalid_arguments", "days: '7' is not of type 'integer'"),
        ("renew_loan", {"loan_id": "L-1", "days": 7, "x": 1}, "invalid_arguments", "'x' was unexpected"),
        ("renew_loan", {"loan_id": "L-1", "days": 7}, "not_found", "no loan `L-1`; they look like L-"),
        ("renew_loan", "{", "invalid_arguments", "the arguments are no JSON"),
        ("renew_loan", "[]", "invalid_arguments", "the arguments are no JSON object"),
    ],
)
def test_mistaken_calls_are_told_and_change_nothing(
    renewal: Scenario, name: str, arguments: dict[str, object] | str, code: str, told: str
) -> None:
    environment = renewal.environment()
    before = state_hash(environment.state)
    error = environment.call(name, arguments)["error"]
    assert error["code"] == code
    assert told in error["message"]
    assert state_hash(environment.state) == before


@pytest.mark.parametrize(
    ("change", "call", "code"),
    [
        ({"due": "2031-99-99"}, Call("renew_loan", {"loan_id": "L", "days": 7}), "internal"),
        ({"due": "9999-12-31"}, Call("renew_loan", {"loan_id": "L", "days": 7}), "internal"),
        ({"book_id": "B-0"}, Call("list_loans", {"member_id": "M"}), "internal"),
        ({}, Call("renew_loan", {"loan_id": "L", "days": 10**30}), "invalid_arguments"),
    ],
)
def test_states_that_do_not_hold_together_break_no_episode(
    renewal: Scenario, change: dict[str, str], call: Call, code: str
) -> None:
    (loan_id, loan), *_ = renewal.state["loans"].items()
    state = {**renewal.state, "loans": {loan_id: {**loan, **change}}}
    named = {"L": loan_id, "M": loan["member_id"]}
    arguments = {key: named.get(str(value), value) for key, value in call.arguments.items()}
    environment = replace(renewal, state=state).environment()
    before = state_hash(environment.state)
    assert environment.call(call.name, arguments)["error"]["code"] == code
    assert state_hash(environment.state) == before


def test_arguments_may_be_json_text_as_a_model_writes_them(renewal: Scenario) -> None:
    environment = renewal.environment()
    for call in renewal.calls:
        environment.call(call.name, orjson.dumps(dict(call.arguments)).decode())
    assert environment.passes(renewal.reply).passed


def test_calls_are_pure_and_resets_exact(renewal: Scenario) -> None:
    start = copied(renewal.state)
    outcome = applied(renewal.tools().tools, renewal.state, renewal.calls[0])
    assert renewal.state == start != outcome.state
    environment = renewal.environment()
    first = environment.reset()
    for call in renewal.calls:
        environment.call(call.name, call.arguments)
    assert state_hash(environment.state) == environment.end_hash != first
    assert environment.reset() == first == state_hash(start)
    assert environment.log == []


@given(
    st.dictionaries(
        st.text(max_size=3), st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3), max_size=3
    )
)
def test_the_hash_does_not_know_the_order_of_keys(table: dict[str, dict[str, int]]) -> None:
    turned = {key: dict(reversed(value.items())) for key, value in reversed(table.items())}
    assert state_hash({"t": table}) == state_hash({"t": turned})


@pytest.mark.parametrize(
    ("text", "fact", "said"),
    [
        ("It is 12,000 dollars.", "12000", True),
        ("Es sind 12.000 Euro.", "12000", True),
        ("합계는 12000원입니다", "12000", True),
        ("합계는 112000원입니다", "12000", False),
        ("It is 120001.", "12000", False),
        ("番号はHOLD-6FE2Aです", "HOLD-6FE2A", True),
        ("the code is hold-6fe2a", "HOLD-6FE2A", True),
        ("HOLD-6FE2AB", "HOLD-6FE2A", False),
        ("거실 전등을 껐습니다", "거실 전등", True),
        ("at 2031-04-10  09:30", "2031-04-10 09:30", True),
        ("at 2031-04-11 09:30", "2031-04-10 09:30", False),
        ("", "12", False),
    ],
)
def test_facts_are_found_as_whole_words_and_numbers(text: str, fact: str, said: bool) -> None:
    assert mentions(text, fact) is said


def test_forbidden_calls_compare_the_arguments_that_matter() -> None:
    any_use, one_loan = Forbidden(Call("t", {"a": 1, "b": 2})), Forbidden(Call("t", {"a": 1, "b": 2}), ("a",))
    assert any_use.fits(Call("t", {}))
    assert one_loan.fits(Call("t", {"a": 1, "b": 3}))
    assert not one_loan.fits(Call("t", {"a": 2, "b": 2}))
    assert not one_loan.fits(Call("u", {"a": 1}))


def test_scenarios_are_json_and_bound_to_the_version_of_their_tools(renewal: Scenario) -> None:
    text = renewal.to_json()
    assert Scenario.from_json(text) == renewal
    with pytest.raises(InputError, match="scenario version 2, 1 is known"):
        Scenario.from_json(text.replace('{"version":1', '{"version":2'))
    with pytest.raises(InputError, match="made with `library@0`, the tools are `library@1`"):
        replace(renewal, domain="library@0").environment()
    with pytest.raises(ConfigError, match="did you mean `library`"):
        replace(renewal, domain="libary@1").environment()
