"""What every instruction sample is checked for, before its domain's own filter.

Contract: `check_form` gives the first thing that is wrong, or a right verdict: `form` (a thinking block where there
should be none, or none where there should be one; an empty question or answer), `language` (prose of the question, the
thinking or the answer in another language). Cost: language identification, 0.1 ms a paragraph of Latin script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.core.languages import foreign_share
from pipeline.core.verify.math import Verdict
from synth.instructions.exercise import Conversation

FOREIGN_SHARE = 0.25  # as for thoughts
CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.S)  # programs are in no language
ANOTHER_LANGUAGE = "answer_language"  # a fact: the question asks for an answer in this one


def check_form(one: Conversation) -> Verdict:
    """The thinking block first, then the languages of all parts."""
    verdict = check_thinking(one)
    if not verdict.right:
        return verdict
    wanted = one.facts.get(ANOTHER_LANGUAGE, one.language)
    parts = {
        "question": (one.question, one.language),
        "reasoning": (one.reasoning, one.language),
        "content": (one.content, wanted),
    }
    return check_languages(parts)


def check_thinking(one: Conversation) -> Verdict:
    """A thinking block in the one form and none in the other, and something asked and answered."""
    thinks = bool(one.reasoning.strip())
    if thinks != (one.form == "reasoning"):
        return Verdict(False, "form", f"{'a' if thinks else 'no'} thinking block in the form `{one.form}`")
    if not (one.question.strip() and one.content.strip()):
        return Verdict(False, "form", "an empty question or answer")
    return Verdict(True)


def check_languages(parts: Mapping[str, tuple[str, str]]) -> Verdict:
    """`parts` are texts with the language each should be in."""
    for part, (text, language) in parts.items():
        share = foreign_share(_paragraphs(text), language)
        if share > FOREIGN_SHARE:
            return Verdict(False, "language", f"{share:.2f} of the {part} is not in `{language}`")
    return Verdict(True)


def _paragraphs(text: str) -> str:
    """Paragraphs as one line each: single lines of a working are short, and shorter prose is told apart less well."""
    return "\n".join(" ".join(part.split("\n")) for part in CODE_BLOCK.sub("", text).split("\n\n"))
