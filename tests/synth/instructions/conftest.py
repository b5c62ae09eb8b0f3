"""Exercises and conversations of a domain without a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from synth.instructions.config import InstructionsConfig
from synth.instructions.domains import exercises
from synth.instructions.exercise import Conversation, Exercise, written
from synth.instructions.work import draw_exercise


def settings(domain: str, **more: Any) -> InstructionsConfig:
    return InstructionsConfig.model_validate({"kind": "instructions", "documents": 1, "domains": (domain,), **more})


@pytest.fixture(scope="session")
def conversations() -> Callable[..., Sequence[Conversation]]:
    """`count` conversations of a domain, all of which were made."""

    def make(domain: str, count: int, **more: Any) -> list[Conversation]:
        config = settings(domain, **more)
        draws = [draw_exercise(config, config.seed, index, config.forms) for index in range(count)]
        made = exercises(draws)
        assert all(isinstance(one, Exercise) for one in made), [one for one in made if not isinstance(one, Exercise)]
        return [written(draw, one) for draw, one in zip(draws, made, strict=True) if isinstance(one, Exercise)]

    return make
