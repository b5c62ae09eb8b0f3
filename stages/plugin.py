"""A function of the user's own in place of one of ours: named by import path, told apart by a version.

Contract: both are identity. The code behind the path cannot be: whoever changes it changes the version, as for a step.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import ConfigError


class Plugin(Config):
    """For example `function: my_names:find`, `version: "2024-05"`."""

    function: str = Field(pattern=r"^[\w.]+:\w+$")
    version: str


def load_plugin(plugin: Plugin) -> Callable[..., Any]:
    """The function. Raises `ConfigError` when it cannot be imported."""
    module, _, name = plugin.function.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"plug-in `{plugin.function}` cannot be imported: {error}", fix="check its path and PYTHONPATH"
        ) from None
