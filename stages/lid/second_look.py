"""The second look: is a paragraph really in the language that its script or a model names?

Contract: `look(texts, model)` gives one `Found` per text. Scripts that one language alone uses decide without the model
(Hangul, kana). The model's answer is refused where the script contradicts it; for our languages in Latin script it
must also be borne out by the words: support = share of words known in the language - `STRANGE_WEIGHT` x share of
three-letter pieces that none of its words has - `MARK_WEIGHT` x share of words that betray a relative. The surer the
model, the less support is needed; a text with much support is taken for the language even if the model says otherwise.
Thresholds: ours, tuned on half of the non-target codes of the UDHR paragraphs (`benchmarks/lid.py` has the halves).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.lid.evidence import HAN, HANGUL, KANA, LATIN, VIETNAMESE, Evidence, evidence
from stages.lid.lexicon import LANGUAGES, Lexicon, lexicon
from stages.lid.models import UNDETERMINED, Model

MODEL_CHARACTERS = 600  # of a paragraph that the model looks at: more changes no answer
STRANGE_WEIGHT = 1.5
MARK_WEIGHT = 7.0
NEEDED_UNSURE = 0.3  # support needed at a confidence of `UNSURE` or less
NEEDED_SURE = -0.1  # and at a confidence of 1; in between in proportion
UNSURE = 0.3
VIETNAMESE_SURPLUS = 0.3  # Vietnamese syllables are short and toned: few of its pieces are in other words
RESCUE = 0.5  # support that needs no model
RESCUE_UNSURE = 0.35  # and that is enough where the model's confidence is below `MODEL_UNSURE`
MODEL_UNSURE = 0.5
RESCUE_WORDS = 3
_COLUMNS = {"hangul": HANGUL, "kana": KANA, "han": HAN, "latin": LATIN, "vietnamese": VIETNAMESE}
# Smallest share of letters in the language's own script or letters, for the model's answer to stand (ours).
_NEEDED_SCRIPT = {
    "ko": ("hangul", 0.2),
    "ja": ("kana", 0.05),
    "vi": ("vietnamese", 0.05),
    "zh": ("han", 0.2),
    **dict.fromkeys(("en", "de", "es", "fr", "it", "pt", "nl"), ("latin", 0.5)),
}
How = Literal["none", "script", "model", "words", "weak", "relative"]


@dataclass(frozen=True, slots=True)  # a large document has a million of them
class Found:
    """What a paragraph is.

    Attributes:
        lang: BCP-47, `und` when it is not known.
        score: Confidence in [0, 1].
        letters: Letters of all scripts.
        how: `script`, `model`, `words` (taken for it against the model) or, of `und` paragraphs: `none` (nothing to go
            by), `weak` (the model's answer `guess` is not borne out). `relative`: a language like `guess`, but not it.
        guess: The model's answer.
    """

    lang: str
    score: float
    letters: int
    how: How
    guess: str = UNDETERMINED
    guess_score: float = 0.0


def look(texts: Sequence[str], model: Model) -> list[Found]:
    """The language of every text (NFC)."""
    seen = evidence(texts)
    letters = seen.letter_count()
    by_script = _by_script(seen, letters)
    asked: list[int] = np.flatnonzero((letters > 0) & (by_script == "")).tolist()
    answers = model([texts[at][:MODEL_CHARACTERS] for at in asked])
    guesses: dict[int, tuple[str, float]] = dict(zip(asked, answers, strict=True))
    judge = _Judge(seen, letters, lexicon())
    share = np.minimum(
        1.0, (seen.letters[:, HANGUL] + seen.letters[:, KANA] + seen.letters[:, HAN]) / _at_least_1(letters) + 0.2
    )
    found: list[Found] = []
    for at in range(len(texts)):
        if at in guesses:
            found.append(judge.verdict(at, *guesses[at]))
        elif by_script[at]:
            found.append(Found(str(by_script[at]), float(share[at]), int(letters[at]), "script"))
        else:
            found.append(Found(UNDETERMINED, 0.0, 0, "none"))
    return found


def _by_script(seen: Evidence, letters: np.ndarray) -> np.ndarray:
    """[n] `ko`, `ja` or an empty string."""
    total = _at_least_1(letters)
    hangul, kana, han = (seen.letters[:, column] / total for column in (HANGUL, KANA, HAN))
    found = np.full(letters.shape[0], "", object)
    found[(kana >= 0.15) & (kana + han >= 0.5)] = "ja"
    found[hangul >= 0.5] = "ko"
    return found


class _Judge:
    """Weighs the models' answers against the counts of one batch."""

    def __init__(self, seen: Evidence, letters: np.ndarray, known: Lexicon) -> None:
        words, pieces = _at_least_1(seen.words)[:, None], _at_least_1(seen.pieces)[:, None]
        self._support = (
            seen.known / words - STRANGE_WEIGHT * (seen.strange / pieces) - MARK_WEIGHT * (seen.marked / words)
        )
        self._seen = seen
        self._letters = letters
        self._total = _at_least_1(letters)
        self._known = known

    def verdict(self, at: int, guess: str, score: float) -> Found:
        letters = int(self._letters[at])
        script, least = _NEEDED_SCRIPT.get(guess, ("", 0.0))
        if script and self._share(at, script) < least:
            return self._rescued(at, guess, score) or Found(UNDETERMINED, 0.0, letters, "none", guess)
        if guess not in LANGUAGES:
            return self._rescued(at, guess, score) or Found(guess, score, letters, "model", guess, score)
        number = LANGUAGES.index(guess)
        if self._support[at, number] >= self._needed(guess, score):
            return Found(guess, score, letters, "model", guess, score)
        relative = self._relative(at, number)
        if relative:
            return Found(relative, score, letters, "relative", guess, score)
        return self._rescued(at, guess, score) or Found(UNDETERMINED, 0.0, letters, "weak", guess, score)

    def _needed(self, guess: str, score: float) -> float:
        sure = min(1.0, max(0.0, (score - UNSURE) / (1.0 - UNSURE)))
        needed = NEEDED_UNSURE + (NEEDED_SURE - NEEDED_UNSURE) * sure
        return needed - VIETNAMESE_SURPLUS if guess == "vi" else needed

    def _rescued(self, at: int, guess: str, score: float) -> Found | None:
        """A language of ours that the words speak for, whatever the model says."""
        if self._seen.words[at] < RESCUE_WORDS or self._share(at, "latin") < 0.5:
            return None
        number = int(self._support[at].argmax())
        support = float(self._support[at, number])
        if LANGUAGES[number] == guess or support < (RESCUE_UNSURE if score < MODEL_UNSURE else RESCUE):
            return None
        return Found(LANGUAGES[number], min(1.0, 0.5 + support / 2), int(self._letters[at]), "words", guess, score)

    def _relative(self, at: int, number: int) -> str:
        """The relative of a language with most words in a text, or an empty string."""
        marks = np.where(self._known.of == number, self._seen.marks[at], 0)
        return self._known.relatives[int(marks.argmax())] if marks.size and marks.max() else ""

    def _share(self, at: int, script: str) -> float:
        return float(self._seen.letters[at, _COLUMNS[script]] / self._total[at])


def _at_least_1(counts: np.ndarray) -> np.ndarray:
    return np.maximum(counts, 1)
