"""Passages of a document: whole paragraphs gathered up to a length, and a choice of them for long documents.

Contract: joined with `JOINT`, the passages of a text are the text. A choice keeps the first passage (it says what the
document is about) and then those with the densest reasoning, in the document's order: digits, formulas, connectives of
argument for their length; ties go to the earlier one. Cost: linear.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

JOINT = "\n\n"  # between paragraphs
REASONING = re.compile(
    r"\d+|[=<>≤≥±×÷∑∫√]|\\[a-z]+"
    r"|\b(?:because|therefore|thus|hence|since|so that|if|unless|however|although|whereas|implies|follows)\b"
    r"|\b(?:weil|daher|deshalb|folglich|denn|damit|wenn|jedoch|obwohl|während|also)\b"
    r"|\b(?:porque|por tanto|por eso|así que|puesto que|si|sin embargo|aunque|mientras|entonces)\b"
    r"|\b(?:vì|do đó|nên|nếu|tuy nhiên|mặc dù|bởi vậy|trong khi|suy ra)\b"
    r"|때문|따라서|그러므로|그래서|만약|하지만|그러나|반면|므로"
    r"|なぜなら|したがって|ゆえに|よって|もし|しかし|ため|一方|ならば",
    re.I,
)


def passages(text: str, passage_characters: int) -> list[str]:
    """Whole paragraphs gathered up to `passage_characters` (a longer one stands alone)."""
    found: list[str] = []
    for paragraph in text.split(JOINT):
        if found and len(found[-1]) + len(JOINT) + len(paragraph) <= passage_characters:
            found[-1] += JOINT + paragraph
        else:
            found.append(paragraph)
    return found


def chosen(parts: Sequence[str], most_characters: int) -> list[int]:
    """Which passages to ask about, together no longer than `most_characters` (at least the first), in order."""
    density = [len(REASONING.findall(part)) / max(1, len(part)) for part in parts]
    taken, length = {0}, len(parts[0])
    for index in sorted(range(1, len(parts)), key=lambda i: (-density[i], i)):
        if length + len(parts[index]) <= most_characters:
            taken.add(index)
            length += len(parts[index])
    return sorted(taken)
