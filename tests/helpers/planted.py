"""Faults planted in good thoughts and translations: what the filters must catch, and what they must leave alone."""

from __future__ import annotations

import re
from random import Random

NUMBER = re.compile(r"(?<![\d.,{}\w])\d[\d.,]*\d(?![\w%])")
SENTENCE = re.compile(r"(?<=[.!?。！？])\s*")
LEAKS = {
    "en": ("The user asks for the thoughts of an expert here.", "As an AI language model, I read this closely.", "The prompt says to pass over what is obvious.", "I was asked to think this through."),
    "de": ("Der Nutzer möchte, dass ich den Text durchdenke.", "Als KI-Sprachmodell lese ich das genau.", "Der Prompt verlangt zusammenhängende Sätze.", "The user wants German."),
    "es": ("El usuario me pide que piense a fondo.", "Como modelo de lenguaje, leo con atención.", "El prompt pide prosa seguida.", "The user wants Spanish."),
    "ko": ("사용자가 이 글을 곱씹으라고 했다.", "인공지능으로서 나는 꼼꼼히 읽는다.", "프롬프트에서는 요약하지 말라고 한다.", "The user wants Korean."),
    "ja": ("ユーザーは考えを書くように求めている。", "AIとして、私は丁寧に読む。", "プロンプトには要約するなとある。", "The user wants Japanese."),
    "vi": ("Người dùng yêu cầu tôi suy ngẫm về văn bản.", "Là mô hình ngôn ngữ, tôi đọc kỹ.", "Lời nhắc yêu cầu viết văn xuôi.", "The user wants Vietnamese."),
}  # fmt: skip


def _sentences(text: str) -> list[str]:
    return [one for one in SENTENCE.split(text) if one.strip()]


def _glue(language: str) -> str:
    return "" if language == "ja" else " "


def leaked(text: str, language: str, dice: Random) -> str:
    """A sentence about the task somewhere."""
    sentences = _sentences(text)
    sentences.insert(dice.randrange(len(sentences) + 1), dice.choice(LEAKS[language]))
    return _glue(language).join(sentences)


def looped(text: str, language: str, dice: Random) -> str:
    """From some sentence on, two sentences again and again, for as long as the text was."""
    sentences = _sentences(text)
    place = dice.randrange(max(1, len(sentences) - 1))
    phrase = _glue(language).join(sentences[place : place + 2]) + _glue(language)
    times = max(4, 2 * len(text) // max(1, len(phrase)))
    return _glue(language).join(sentences[: place + 2]) + _glue(language) + phrase * times


def miscalculated(text: str, language: str, dice: Random) -> str:
    """A wrong sum, product or quotient in a sentence of its own."""
    a, b = dice.randint(12, 99), dice.randint(3, 9)
    off = dice.choice((-10, -1, 1, 2, 10))
    wrong = dice.choice((f"{a} + {b} = {a + b + off}", f"{a} × {b} = {a * b + off}", f"{a * b} / {b} = {a + off}"))
    sentences = _sentences(text)
    sentences.insert(dice.randrange(len(sentences) + 1), f"{wrong}.")
    return _glue(language).join(sentences)


def renumbered(text: str, dice: Random) -> str:
    """One number of two digits or more with another first digit; the text as it is when it has none."""
    places = list(NUMBER.finditer(text))
    if not places:
        return text
    spot = dice.choice(places)
    digit = str(int(text[spot.start()]) % 9 + 1)
    return text[: spot.start()] + digit + text[spot.start() + 1 :]
