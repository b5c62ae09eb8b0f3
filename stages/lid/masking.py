"""What is not prose: code, mathematics, markup, addresses. Masked before a language is looked for.

Contract: every masked stretch becomes one space and as many line feeds as it held, so that lines keep their numbers.
Cost: a search for each sign; a pattern is tried only where its sign occurs, each starts with a literal or a word edge.
"""

from __future__ import annotations

import re

# (sign that must occur, pattern), in this order: what is in code is no formula and no address.
_PATTERNS = tuple(
    (sign, re.compile(pattern, re.DOTALL))
    for sign, pattern in (
        ("```", r"```.*?(?:```|\Z)"),
        ("~~~", r"~~~.*?(?:~~~|\Z)"),
        ("`", r"`[^`\n]+`"),
        ("$", r"\$\$.*?\$\$|(?<![\\$])\$(?!\s)[^$\n]+?(?<!\s)\$"),
        ("\\[", r"\\\[.*?\\\]"),
        ("\\(", r"\\\(.*?\\\)"),
        ("\\begin{", r"\\begin\{(equation|align|gather|math)\*?\}.*?\\end\{\1\*?\}"),
        ("<", r"<[a-zA-Z/!][^>\n]*>"),
        ("://", r"https?://\S+"),
        ("www.", r"www\.\S+"),
        ("@", r"(?<!\S)[^\s@]++@\S+"),
    )
)


def mask(text: str) -> str:
    """The text without its code, mathematics, markup and addresses."""
    for sign, pattern in _PATTERNS:
        if sign in text:
            text = pattern.sub(_blank, text)
    return text


def _blank(match: re.Match[str]) -> str:
    return " " + "\n" * match.group().count("\n")
