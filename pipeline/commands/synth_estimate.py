"""`seodang synth --estimate`: what asking for synthetic sets will cost, before anything is asked.

Contract: the documents (and a search set's index) are made, nothing is asked of an endpoint. Every set has a row for
each part of what it asks, or a sentence why it asks nothing. A judge is asked at the set's own endpoint and price.
Figures are at most, and expected where enough is known; totals by endpoint and, in money, by currency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pipeline.commands.plan import print_json
from pipeline.commands.synth import nodes_of, run_steps
from pipeline.commands.terminal import amount, console, table
from pipeline.executors.work import load_work
from pipeline.graph import Node
from pipeline.recipe import Opened, open_curriculum
from synth.config import EndpointConfig, ReplayConfig, asks_endpoint, bound_endpoint
from synth.endpoint_set import RESPONSES, WRITER_DIGITS
from synth.estimate import ENOUGH, Cost, answers_of, estimate
from synth.forecast import Asks
from synth.spending import Spent, spent_by_tasks
from synth.store import ResponseStore
from synth.subagents.config import Part
from synth.subagents.forecast import PLAYED

COLUMNS = (
    "requests at most", "stored", "prompt at most", "expected", "answers at most", "expected", "cost at most",
    "expected",
)  # fmt: skip
NO_PRICE = Cost(money_at_most=None, money_expected=None)


@dataclass(frozen=True)
class Estimated:
    """One set that asks an endpoint."""

    endpoint: str  # name under `endpoints:`
    config: EndpointConfig | ReplayConfig
    parts: Mapping[str, Cost]
    spent: Spent  # by earlier runs of the step, which its budget counts too

    @property
    def total(self) -> Cost:
        return sum(self.parts.values(), Cost() if self.currency else NO_PRICE)

    @property
    def currency(self) -> str:
        return currency_of(self.config)


def currency_of(endpoint: EndpointConfig | ReplayConfig) -> str:
    """Empty where the endpoint has no price."""
    return endpoint.price.currency if isinstance(endpoint, EndpointConfig) and endpoint.price else ""


def estimate_sets(
    config: Path, name: str, executor: str, workers: int, overrides: Sequence[str], *, as_json: bool
) -> None:  # fmt: skip
    """Print what asking for one set, or all, would cost."""
    opened = open_curriculum(config, overrides)
    nodes = nodes_of(opened, name)
    free = {node.step.name: why for node in nodes if (why := _asks_nothing(node))}
    asking = [node for node in nodes if node.step.name not in free]
    if asking:
        run_steps(opened, [needed for node in asking for needed in node.step.inputs.values()], executor, workers)
    found = {node.step.name: _estimated(opened, node) for node in asking}
    endpoints = {one.endpoint: one.config for one in found.values()}
    totals = {at: sum((one.total for one in found.values() if one.endpoint == at), Cost()) for at in endpoints}
    remarks = [remark for step, one in found.items() for remark in worth_knowing(step, one)]
    if as_json:
        print_json(_as_json(found, free, endpoints, totals, remarks))
        return
    if found:
        rows = [
            (step, part, *_cells(cost, one.currency)) for step, one in found.items() for part, cost in one.parts.items()
        ]
        title = f"What asking will cost, in tokens (expected: by {ENOUGH} and more answers stored so far)"
        console.print(table(title, ("set", "asked for", *COLUMNS), rows))
        sums = [(at, endpoints[at].model, *_cells(cost, currency_of(endpoints[at]))) for at, cost in totals.items()]
        console.print(table("\nBy endpoint", ("endpoint", "model", *COLUMNS), sums))
    for currency, (most, expected) in _money(endpoints, totals).items():
        console.print(f"All together at most {most:,.2f} {currency}, expected {_price(expected, currency)}")
    for at, one in endpoints.items():
        if not currency_of(one):
            why = "recorded responses cost nothing" if isinstance(one, ReplayConfig) else "it has no price"
            console.print(f"`endpoints.{at}` is not in the money: {why}")
    for remark in remarks:
        console.print(f"[yellow]{remark}[/yellow]")
    for step, why in free.items():
        console.print(f"{step} asks nothing: {why}")


def _asks_nothing(node: Node) -> str:
    """Why a set costs nothing; empty for one that asks."""
    if not asks_endpoint(node.step.config):
        return "our own code makes it, no endpoint plays a part"
    return f"it is made already, `{node.folder}`" if node.finished else ""


def _estimated(opened: Opened, node: Node) -> Estimated:
    task = opened.graph.task(node)
    work = cast("Asks", load_work(node.step.work))  # every kind that has an endpoint
    endpoint = bound_endpoint(task.paths)
    store = None if isinstance(endpoint, ReplayConfig) else ResponseStore(task.store / RESPONSES, "estimate")
    parts = estimate(work.forecast(task, answers_of(store)), store, endpoint)
    config: Any = node.step.config
    spent = spent_by_tasks(task.store / RESPONSES, task.fingerprint[:WRITER_DIGITS])
    return Estimated(config.endpoint, endpoint, parts, spent)


def worth_knowing(step: str, one: Estimated) -> list[str]:
    """What a reader of the figures should know."""
    found: list[str] = []
    searched = [cost for part, cost in one.parts.items() if part in get_args(Part)]
    if searched:
        is_played = any(cost.prompt_tokens_expected < cost.prompt_tokens_at_most for cost in searched)
        expected = (
            f"expected is what our scripts come to on up to {PLAYED} of its questions, and a model that thinks writes "
            "more"
            if is_played
            else "our scripts can play none of its questions before they are written, so expected is the same"
        )
        found.append(
            f"{step}: at most is every question at its last step, every answer of `max_tokens`, every page the "
            f"longest; {expected}"
        )
    if not one.total.requests_at_most:
        found.append(f"{step}: nothing is left to ask about, no document or scenario comes to the endpoint")
    if isinstance(one.config, EndpointConfig):
        cost, budget = one.total, one.config.budget
        tokens = one.spent.tokens + cost.prompt_tokens_at_most + cost.completion_tokens_at_most
        spent_money = one.spent.money(one.config.price) if one.config.price else 0.0
        over_tokens = budget.tokens is not None and tokens > budget.tokens
        over_money = budget.money is not None and spent_money + (cost.money_at_most or 0) > budget.money
        if over_tokens or over_money:
            limit = f"{budget.money:,.2f} {one.currency}" if over_money else f"{budget.tokens:,} tokens"
            found.append(
                f"{step}: may reach the budget of `endpoints.{one.endpoint}` ({limit}); it stops there, and goes on "
                "from the stored answers where the budget is raised"
            )
    return found


def _money(
    endpoints: Mapping[str, EndpointConfig | ReplayConfig], totals: Mapping[str, Cost]
) -> dict[str, tuple[float, float | None]]:
    """By currency: at most, and expected where that is known of every endpoint."""
    found: dict[str, Cost] = {}
    for name, cost in totals.items():
        if currency := currency_of(endpoints[name]):
            found[currency] = found.get(currency, Cost()) + cost
    return {currency: (cost.money_at_most or 0.0, cost.money_expected) for currency, cost in found.items()}


def _as_json(
    found: Mapping[str, Estimated],
    free: Mapping[str, str],
    endpoints: Mapping[str, EndpointConfig | ReplayConfig],
    totals: Mapping[str, Cost],
    remarks: Sequence[str],
) -> dict[str, Any]:
    return {
        "sets": {
            step: {
                "endpoint": one.endpoint,
                "parts": {part: asdict(cost) for part, cost in one.parts.items()},
                "total": asdict(one.total),
            }
            for step, one in found.items()
        },
        "asks_nothing": dict(free),
        "endpoints": {
            name: {"model": endpoints[name].model, "currency": currency_of(endpoints[name]), **asdict(cost)}
            for name, cost in totals.items()
        },
        "money": {
            currency: {"at_most": most, "expected": expected}
            for currency, (most, expected) in _money(endpoints, totals).items()
        },
        "remarks": list(remarks),
    }


def _cells(cost: Cost, currency: str) -> tuple[object, ...]:
    return (
        cost.requests_at_most,
        cost.stored,
        amount(cost.prompt_tokens_at_most),
        amount(cost.prompt_tokens_expected),
        amount(cost.completion_tokens_at_most),
        "–" if cost.completion_tokens_expected is None else amount(cost.completion_tokens_expected),
        _price(cost.money_at_most, currency),
        _price(cost.money_expected, currency),
    )


def _price(value: float | None, currency: str) -> str:
    return "–" if value is None else f"{value:,.2f} {currency}"
