"""Every domain: its own samples pass their filter, planted mistakes fail it for the right reason, in six languages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from synth.config import LANGUAGES
from synth.instructions.config import TASK_DOMAINS
from synth.instructions.domains import DOMAINS, verdicts
from synth.instructions.exercise import Conversation

Make = Callable[..., Sequence[Conversation]]
Plant = Callable[[Conversation], Conversation]
COUNT = 120  # conversations of a domain; of code 36
CAUGHT, REFUSED = 0.95, 0.05


def digits_changed(text: str) -> str:
    """The last number another one."""
    places = list(re.finditer(r"\d+", text))
    if not places:
        return text
    last = places[-1]
    return text[: last.start()] + str(int(last[0]) + 3) + text[last.end() :]


def answered(one: Conversation, change: Callable[[str], str]) -> Conversation:
    head, gap, last = one.content.rpartition("\n\n")
    return replace(one, content=f"{head}{gap}{change(last)}")


def other_form(one: Conversation) -> Conversation:
    return replace(one, reasoning="" if one.form == "reasoning" else "Hm.")


def other_question(one: Conversation) -> Conversation:
    return replace(one, question=one.question[::-1])


def other_language(one: Conversation) -> Conversation:
    told = {
        "en": "Der alte Fischer am Fluss erzählte den Kindern jeden Abend eine lange Geschichte über das Meer.",
    }.get(one.language, "The old fisherman by the river told the children a long story about the sea every evening.")
    return replace(one, content=f"{told * 12}\n\n{one.content}")


# Domain -> reasons of its filter with a mistake that has to be found for that reason.
PLANTED: Mapping[str, Mapping[str, Plant]] = {
    "mathematics": {
        "wrong_answer": lambda one: answered(one, digits_changed),
        "no_answer": lambda one: answered(one, lambda last: "?"),
        "question": other_question,
    },
    "long-context": {"wrong_answer": lambda one: answered(one, digits_changed), "evidence": lambda one: _without_evidence(one)},
    "instruction-following": {
        "constraint": lambda one: _broken(one),
        "wrong_answer": lambda one: _one_item_changed(one),
        "question": other_question,
    },
    "korean": {"wrong_answer": lambda one: replace(one, content=one.content + "아님"), "question": other_question},
    "code": {
        "wrong_answer": lambda one: _mutated(one),
        "no_answer": lambda one: replace(one, content="?"),
        "question": other_question,
    },
}  # fmt: skip


def _without_evidence(one: Conversation) -> Conversation:
    """One of the notes that count leaves the question."""
    if "who" not in one.facts:
        return one
    lines = one.question.split("\n")
    found = next(
        n for n, line in enumerate(lines) if any(who in line for who in one.facts["who"]) and re.search(r"\d", line)
    )
    return replace(one, question="\n".join(lines[:found] + lines[found + 1 :]))


def _broken(one: Conversation) -> Conversation:
    return replace(one, content="7, x\n" + one.content + ",") if one.facts["constraints"] else one


def _one_item_changed(one: Conversation) -> Conversation:
    """The first two items of the right list change places, where the form shows them as they are."""
    items = one.facts["items"]
    told = [item for item in items if len(re.findall(rf"(?<!\w){re.escape(item)}(?!\w)", one.content)) == 1]
    if len(told) < 2 or any(row["name"] == "repeats" for row in one.facts["constraints"]):
        return one
    a, b = told[:2]
    swapped = re.sub(rf"(?<!\w)(?:{re.escape(a)}|{re.escape(b)})(?!\w)", lambda m: b if m[0] == a else a, one.content)
    return replace(one, content=swapped)


def _mutated(one: Conversation) -> Conversation:
    """The program or the value a little wrong; tests that let everything pass."""
    if one.family == "predict":
        return answered(one, digits_changed)
    if one.family == "tests":
        return replace(one, content="```python\nassert True\n```")
    code = one.content
    for old, new in (
        ("return count", "return count + 1"),
        ("return best", "return 1 + best"),
        ("return ways", "return 1 + ways"),
    ):
        code = code.replace(old, new)
    return replace(one, content=code)


def test_the_list_of_domains_is_the_configurations() -> None:
    assert set(DOMAINS) == set(TASK_DOMAINS)
    assert set(PLANTED) == set(TASK_DOMAINS) - {"logic"}  # has a file of its own


def made(conversations: Make, domain: str) -> Sequence[Conversation]:
    return conversations(domain, 36 if domain == "code" else COUNT, maximum_tokens=700)


@pytest.mark.parametrize("domain", list(PLANTED))
def test_a_domains_own_samples_pass(conversations: Make, domain: str, request: pytest.FixtureRequest) -> None:
    if domain == "code":
        request.getfixturevalue("sandboxed")
    samples = made(conversations, domain)
    found = verdicts(samples)
    assert [(v.reason, v.detail) for v in found if not v.right] == []
    assert {one.language for one in samples} == ({"ko"} if domain == "korean" else set(LANGUAGES))
    assert {one.family for one in samples} == set(DOMAINS[domain].families)
    for one in samples:
        assert bool(one.reasoning) == (one.form == "reasoning")
        assert one.question in one.text()
        assert domain != "code" or "«" not in one.text()


@pytest.mark.parametrize("domain", list(PLANTED))
def test_planted_mistakes_are_caught(
    conversations: Make, domain: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    if domain == "code":
        request.getfixturevalue("sandboxed")
    samples = made(conversations, domain)
    plants = {**PLANTED[domain], "form": other_form, "language": other_language}
    for reason, plant in plants.items():
        pairs = [(one, plant(one)) for one in samples]
        bad = [wrong for right, wrong in pairs if wrong != right]
        reasons = Counter(verdict.reason for verdict in verdicts(bad))
        with capsys.disabled():
            print(
                f"\n{domain}, planted {reason}: {len(bad) - reasons['']} of {len(bad)} caught, {reasons[reason]} for it"
            )
        assert len(bad) >= 10
        assert len(bad) - reasons[""] >= CAUGHT * len(bad), (reason, reasons)
        if reason in ("form", "language"):  # others may break something that is looked at before
            assert reasons[reason] >= CAUGHT * len(bad), (reason, reasons)
