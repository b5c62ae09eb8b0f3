"""Whose experts are taken out: names, numbers, and what neither is."""

from __future__ import annotations

import pytest

from pipeline.commands.routing import layers_named
from pipeline.core.errors import InputError


@pytest.mark.parametrize(("without", "found"), [("last", [3]), ("all", [1, 2, 3]), ("2", [2])])
def test_layers_by_name_and_number(without: str, found: list[int]) -> None:
    assert layers_named(without, [1, 2, 3]) == found


@pytest.mark.parametrize("without", ["0", "4", "-1", "²", "first", ""])
def test_what_is_no_layer_with_experts(without: str) -> None:
    with pytest.raises(InputError, match="with experts") as error:
        layers_named(without, [1, 2, 3])
    assert "1, 2, 3" in str(error.value)


@pytest.mark.parametrize("without", ["last", "all", "0"])
def test_a_model_without_experts_has_nothing_to_show(without: str) -> None:
    with pytest.raises(InputError, match="no layer of the model has experts"):
        layers_named(without, [])
