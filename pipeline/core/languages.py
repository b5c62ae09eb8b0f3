"""The six languages, and which of them a text is in.

Contract: `detect` answers with one of ours after code, mathematics and links are taken out, or with an empty string
when too little text is left. Cost: about 0.1 ms a paragraph (py3langid, restricted to our languages), microseconds for
Korean and Japanese (decided by their scripts).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

Language = Literal["ko", "en", "es", "de", "ja", "vi"]
LANGUAGES: tuple[Language, ...] = ("ko", "en", "es", "de", "ja", "vi")
MULTILINGUAL = "mul"  # BCP-47: a text in several languages
NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|https?://\S+|[\d\W_]+", re.S)
HANGUL = re.compile(r"[가-힣ㄱ-ㅎㅏ-ㅣ]")
KANA = re.compile(r"[ぁ-ゖァ-ヺ]")
HAN = re.compile(r"[一-鿿々]")
LETTERS_NEEDED = {"hangul": 8, "latin": 30}  # below that a paragraph is not judged; ours
SCRIPT_SHARE = 0.3  # of letters in the script of ko or ja; terms and names in Latin letters are usual


def detect(text: str) -> str:
    """The language of one paragraph among ours, or an empty string when it is too short to tell."""
    prose = NOT_PROSE.sub(" ", text).strip()
    letters = len(prose) - prose.count(" ")
    hangul, kana, han = (len(pattern.findall(prose)) for pattern in (HANGUL, KANA, HAN))
    if letters >= LETTERS_NEEDED["hangul"]:
        if hangul >= SCRIPT_SHARE * letters:
            return "ko"
        if kana and kana + han >= SCRIPT_SHARE * letters:
            return "ja"
    if letters < LETTERS_NEEDED["latin"]:
        return ""
    return str(_identifier().classify(prose)[0])


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def foreign_share(text: str, language: str) -> float:
    """Share of characters that stand in paragraphs of another language (paragraphs too short to tell are left out)."""
    foreign = judged = 0
    for paragraph in text.split("\n"):
        found = detect(paragraph)
        if found:
            judged += len(paragraph)
            foreign += len(paragraph) if found != language else 0
    return foreign / judged if judged else 0.0
