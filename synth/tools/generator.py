"""Scenarios from our own domains: a pure function of (config, index), in six languages, without an endpoint.

Contract: domain, scene, language, state and wording come from a seed derived of the set's seed and the index. What a
scene gives is not trusted: `synth/tools/validators.py` judges it like a model's. Cost: about 0.5 ms a scenario.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pipeline.core.rng import derive_seed
from synth.tools.config import ToolsConfig
from synth.tools.domain import CURRENT, SESSION, Domain, Draw, Drawn, Move, texts
from synth.tools.domains import DOMAINS
from synth.tools.environment import Criteria, applied
from synth.tools.scenario import Scenario, Turn


def make_scenario(config: ToolsConfig, index: int) -> Scenario:
    """Scenario number `index` of the set."""
    dice = Random(derive_seed("tools", config.seed, index))
    domain = DOMAINS[config.domains[dice.randrange(len(config.domains))]]
    language = config.languages[dice.randrange(len(config.languages))]
    return drawn_scenario(domain, dice.choice(sorted(domain.scenes)), language, dice)


def drawn_scenario(domain: Domain, scene: str, language: str, dice: Random) -> Scenario:
    """A scene of a domain in a language, with the dice's numbers."""
    settings = domain.settings(dice)
    drawn = domain.scenes[scene](Draw(dice, language, domain.name, settings))
    words = texts(language)[domain.name]["scenes"]
    own = words[drawn.words]
    wordings: Sequence[str] = words[own["task"]]["task"] if isinstance(own["task"], str) else own["task"]
    thoughts: Mapping[str, Sequence[str]] = texts(language)["common"]["thoughts"]
    return Scenario(
        domain=domain.identity,
        template=drawn.words,
        language=language,
        policy=policy_text(domain, language, settings, str(drawn.state[SESSION][CURRENT]["time"])),
        task=dice.choice(wordings).format(**drawn.places),
        state=drawn.state,
        turns=_turns(domain, drawn, str(own["crux"]), thoughts, dice),
        closing=dice.choice(thoughts["done"]),
        reply=str(own["reply"]).format(**drawn.places),
        criteria=Criteria(tuple(drawn.facts), tuple(drawn.never), domain.order),
    )


def policy_text(domain: Domain, language: str, settings: Mapping[str, int], time: str) -> str:
    """The system message: who the assistant is, what holds everywhere, the time, the numbered rules."""
    common, own = texts(language)["common"], texts(language)[domain.name]
    amounts = {name: common["money"].format(amount=value * common["money_unit"]) for name, value in settings.items()}
    rules = [
        f"{number}. {rule.format(**settings, **{f'{name}_money': text for name, text in amounts.items()})}"
        for number, rule in enumerate(own["rules"], start=1)
    ]
    return "\n".join([own["role"], *common["general"], common["now"].format(time=time), "", common["rules"], *rules])


def _turns(
    domain: Domain, drawn: Drawn, crux: str, thoughts: Mapping[str, Sequence[str]], dice: Random
) -> tuple[Turn, ...]:
    """The moves with their thoughts in words; what the calls come to is needed for what a failure says."""
    state, error = drawn.state, ""
    turns: list[Turn] = []
    for one in drawn.moves:
        text = crux if one.thought == "crux" else dice.choice(thoughts[one.thought])
        turns.append(Turn(text.format(**_places(drawn, one, error)), one.calls))
        for call in one.calls:
            outcome = applied(domain.tools, state, call)
            state = outcome.state
            error = outcome.result["error"]["code"] if outcome.failed else ""
    return tuple(turns)


def _places(drawn: Drawn, one: Move, error: str) -> dict[str, Any]:
    return {**drawn.places, "tool": one.calls[0].name, "error": error, **one.places}
