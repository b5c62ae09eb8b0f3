"""Errors a person can act on.

A `UserError` says what is wrong, where, and the value that would work; the command line prints it without a
traceback and exits with 2. Every other exception is a defect of ours and exits with 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in what the user gave us.

    Args:
        what: What is wrong, in one sentence, with the amounts.
        where: File and line, row, step or option it was found at.
        fix: The value or action that would work.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(self.render())

    def render(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\nhint: {self.fix}" if self.fix else ""
        return f"{place}{self.what}{hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between worker processes.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[UserError], what: str, where: str, fix: str) -> UserError:
    return kind(what, where=where, fix=fix)


class ConfigError(UserError):
    """The configuration file is wrong."""


class InputError(UserError):
    """A source, shard, plan or checkpoint is missing, unreadable or does not fit."""


class QuotaError(UserError):
    """A mix cannot be made from what its sources hold."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word closest to `word`, or an empty string when none is close."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return found[0] if found else ""


def unknown_name(kind: str, word: str, known: Iterable[str], *, where: str = "") -> ConfigError:
    """Error for a name that is in no list of ours: names the nearest and all that are known."""
    names = sorted(known)
    close = nearest(word, names)
    fix = f"did you mean `{close}`? " if close else ""
    return ConfigError(f"unknown {kind} `{word}`", where=where, fix=f"{fix}known: {', '.join(names)}")
