"""Instruction following: conditions on an answer that a program can check, in six languages.

Contract: a `Constraint` is a name of `CHECKS` with options (JSON values); `check` says whether an answer keeps it and
if not why, `check_all` gives the first that is broken. Answers are compared as NFC; nothing is guessed: an answer that
fits a condition only in part breaks it. Counting follows the language: sentences end at 。！？ in Japanese and at a
full stop before a space elsewhere (not before a small letter, after a number in German, or after the usual
abbreviations); words stand between spaces and are not counted in Japanese; letters of either case exist in Latin script
only. Cost: 1-50 microseconds a condition; language identification 0.1 ms a paragraph. The kinds of conditions follow
IFEval (arXiv 2311.07911); definitions and code are ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any
from unicodedata import normalize

from pipeline.core.errors import unknown_name
from pipeline.core.languages import foreign_share
from pipeline.core.verify.math import Verdict

Options = Mapping[str, Any]
FOREIGN_SHARE = 0.25  # of the characters, as in the checks on generated text

LETTER_OR_DIGIT = re.compile(r"[^\W_]")
STOP = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|\Z)")
STOP_JA = re.compile(r"[。！？!?]+[」』）)]*")
ABBREVIATIONS: Mapping[str, frozenset[str]] = {
    "en": frozenset({"mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e", "fig"}),
    "de": frozenset({"dr", "prof", "bzw", "ca", "z.b", "d.h", "nr", "abb", "hr", "fr", "u.a"}),
    "es": frozenset({"sr", "sra", "dr", "dra", "prof", "p.ej", "núm", "pág"}),
    "vi": frozenset({"ths", "ts", "gs", "pgs", "tp"}),
    "ko": frozenset({"dr", "mr", "ms"}),
}
BULLET = re.compile(r"^[ \t]*[-*•][ \t]+(\S.*)$", re.M)
NUMBERED = re.compile(r"^[ \t]*(\d+)[.)][ \t]+(\S.*)$", re.M)
HEADING = re.compile(r"^#{1,6}[ \t]+\S", re.M)
BOLD = re.compile(r"\*\*[^*\n]+\*\*")
PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
TITLE = re.compile(r"<<[^<>\n]+>>")
FENCE = re.compile(r"\A```(\w*)\n(.*?)\n?```\Z", re.S)
QUOTES = (('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"), ("「", "」"), ("『", "』"))
CLOSED_BY_P = "".join(map(chr, range(0xAC00 + 17, 0xD7A4, 28)))  # Hangul syllables that end in ㅂ, as in 갑니다
KOREAN_LEVELS: Mapping[str, re.Pattern[str]] = {
    "formal": re.compile(rf"(?:[{CLOSED_BY_P}](?:니다|니까|시다)|십시오)$"),
    "polite": re.compile(r"[요죠]$"),
    "plain": re.compile(rf"(?<![{CLOSED_BY_P}][니시])다$"),
}


@dataclass(frozen=True)
class Constraint:
    """One condition on an answer."""

    name: str
    options: Options

    def row(self) -> dict[str, Any]:
        """As it stands in a sample's `extra`."""
        return {"name": self.name, "options": dict(self.options)}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Constraint:
        return cls(row["name"], row["options"])


def check(answer: str, constraint: Constraint, language: str) -> Verdict:
    """Whether the answer keeps one condition. Raises `ConfigError` for a name that is not in `CHECKS`."""
    if constraint.name not in CHECKS:
        raise unknown_name("constraint", constraint.name, CHECKS)
    trouble = CHECKS[constraint.name](normalize("NFC", answer).strip(), constraint.options, language)
    return Verdict(False, constraint.name, trouble) if trouble else Verdict(True)


def check_all(answer: str, constraints: Sequence[Constraint], language: str) -> Verdict:
    """Right when every condition is kept; else the first that is broken."""
    verdicts = (check(answer, one, language) for one in constraints)
    return next((one for one in verdicts if not one.right), Verdict(True))


def sentences(text: str, language: str) -> list[str]:
    """The sentences of a text; a line break ends one too."""
    found: list[str] = []
    for line in text.split("\n"):
        start = 0
        for match in (STOP_JA if language == "ja" else STOP).finditer(line):
            if _ends_here(line, match, language):
                found.append(line[start : match.end()])
                start = match.end()
        found.append(line[start:])
    return [one.strip() for one in found if LETTER_OR_DIGIT.search(one)]


def _ends_here(line: str, stop: re.Match[str], language: str) -> bool:
    if language == "ja":  # a quotation inside the sentence goes on
        return stop[0][-1] not in "」』）)" or stop.end() == len(line) or line[stop.end()].isspace()
    if stop[0] != "." or stop.end() == len(line.rstrip()):
        return True
    before = line[: stop.start()].split()[-1] if line[: stop.start()].split() else ""
    before = before.lstrip("(\"'“„«")
    if line[stop.end() :].lstrip()[:1].islower():
        return False
    if language == "de" and before.isdigit():
        return False
    single = len(before) == 1 and before.isupper()
    return not single and before.lower() not in ABBREVIATIONS.get(language, frozenset())


def words(text: str, language: str) -> list[str]:
    """The words of a text in a language that sets them apart by spaces."""
    assert language != "ja", "words are not set apart in Japanese"
    return [part for part in text.split() if LETTER_OR_DIGIT.search(part)]


def paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()]


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _within(count: int, options: Options, unit: str) -> str:
    low, high = options.get("minimum", 0), options.get("maximum", count)
    wanted = f"{low}" if low == high else f"{low} to {high if 'maximum' in options else 'any'}"
    return "" if low <= count <= high else f"{count} {unit}, {wanted} wanted"


def _words(answer: str, options: Options, language: str) -> str:
    if language == "ja":
        return "words are not counted in Japanese: use `characters`"
    return _within(len(words(answer, language)), options, "words")


def _characters(answer: str, options: Options, _: str) -> str:
    return _within(sum(not character.isspace() for character in answer), options, "characters")


def _sentences(answer: str, options: Options, language: str) -> str:
    return _within(len(sentences(answer, language)), options, "sentences")


def _paragraphs(answer: str, options: Options, _: str) -> str:
    return _within(len(paragraphs(answer)), options, "paragraphs")


def _lines(answer: str, options: Options, _: str) -> str:
    return _within(len(lines(answer)), options, "lines")


def occurrences(text: str, word: str) -> int:
    """How often a word occurs, case apart; in Latin script as a whole word, else as written (particles follow it)."""
    text, word = text.casefold(), normalize("NFC", word).casefold()
    latin = all(character < "ɐ" or "Ḁ" <= character <= "ỿ" for character in word)
    pattern = rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if latin else re.escape(word)
    return len(re.findall(pattern, text))


def _keywords(answer: str, options: Options, _: str) -> str:
    missing = [word for word in options["words"] if not occurrences(answer, word)]
    return f"without {', '.join(missing)}" if missing else ""


def _keyword_count(answer: str, options: Options, _: str) -> str:
    return _within(occurrences(answer, options["word"]), options, f"times `{options['word']}`")


def _keyword_order(answer: str, options: Options, language: str) -> str:
    trouble = _keywords(answer, options, language)
    places = [answer.casefold().find(word.casefold()) for word in options["words"]]
    return trouble or ("" if places == sorted(places) else "the words stand in another order")


def _forbidden(answer: str, options: Options, _: str) -> str:
    found = [word for word in options["words"] if occurrences(answer, word)]
    return f"with {', '.join(found)}" if found else ""


def _forbidden_characters(answer: str, options: Options, _: str) -> str:
    found = sorted(set(answer) & set(options["characters"]))
    return f"with {' '.join(found)}" if found else ""


def _no_digits(answer: str, _: Options, __: str) -> str:
    found = sorted({character for character in answer if character.isdecimal()})
    return f"with {' '.join(found)}" if found else ""


def _starts_with(answer: str, options: Options, _: str) -> str:
    return "" if answer.startswith(normalize("NFC", options["text"])) else f"begins with `{answer[:40]}`"


def _ends_with(answer: str, options: Options, _: str) -> str:
    return "" if answer.endswith(normalize("NFC", options["text"])) else f"ends with `{answer[-40:]}`"


def _bullets(answer: str, options: Options, _: str) -> str:
    return _within(len(BULLET.findall(answer)), options, "bullets")


def _numbered(answer: str, options: Options, _: str) -> str:
    numbers = [int(number) for number, _ in NUMBERED.findall(answer)]
    if numbers != list(range(1, len(numbers) + 1)):
        return f"numbered {numbers[:6]}"
    return _within(len(numbers), options, "numbered points")


def _headings(answer: str, options: Options, _: str) -> str:
    return _within(len(HEADING.findall(answer)), options, "headings")


def _bold(answer: str, options: Options, _: str) -> str:
    return _within(len(BOLD.findall(answer)), options, "bold passages")


def _placeholders(answer: str, options: Options, _: str) -> str:
    return _within(len(PLACEHOLDER.findall(answer)), options, "places in square brackets")


def _title(answer: str, _: Options, __: str) -> str:
    return "" if len(TITLE.findall(answer)) == 1 else "no single title in << >>"


def _quoted(answer: str, _: Options, __: str) -> str:
    around = any(answer.startswith(a) and answer.endswith(b) and len(answer) > 1 for a, b in QUOTES)
    return "" if around else "not in quotation marks as a whole"


def _json(answer: str) -> Any:
    fenced = FENCE.match(answer)
    return json.loads(fenced[2] if fenced else answer)


def _json_object(answer: str, options: Options, _: str) -> str:
    try:
        value = _json(answer)
    except JSONDecodeError as error:
        return f"not JSON alone: {error}"
    if not isinstance(value, dict):
        return f"a JSON {type(value).__name__}, not an object"
    return "" if list(value) == list(options["keys"]) else f"keys {list(value)}"


def _json_array(answer: str, options: Options, _: str) -> str:
    try:
        value = _json(answer)
    except JSONDecodeError as error:
        return f"not JSON alone: {error}"
    return _within(len(value), options, "elements") if isinstance(value, list) else f"a JSON {type(value).__name__}"


def _table(answer: str, options: Options, _: str) -> str:
    """A Markdown table and nothing else."""
    rows = [row.strip() for row in lines(answer)]
    if not all(len(row) > 1 and row.startswith("|") and row.endswith("|") for row in rows):
        return "lines that are no table rows"
    widths = {row.count("|") - 1 for row in rows}
    ruled = len(rows) > 1 and bool(re.fullmatch(r"\|(?:\s*:?-+:?\s*\|)+", rows[1]))
    if widths != {options["columns"]} or not ruled:
        return f"{sorted(widths)} columns, {options['columns']} wanted, under a ruled head"
    return _within(len(rows) - 2, options, "rows")


def _code_block(answer: str, options: Options, _: str) -> str:
    fenced = FENCE.match(answer)
    return "" if fenced and fenced[1] == options["language"] else "not one code block of that language"


def _separated(answer: str, options: Options, _: str) -> str:
    parts = [part for part in answer.split(options["mark"]) if part.strip()]
    return _within(len(parts), options, f"parts between `{options['mark']}`")


def _postscript(answer: str, options: Options, _: str) -> str:
    last = (lines(answer) or [""])[-1].lstrip()
    return "" if last.startswith(options["mark"]) else f"the last line is no `{options['mark']}`"


def _repeats(answer: str, options: Options, _: str) -> str:
    text = normalize("NFC", options["text"])
    said_more = answer.startswith(text) and len(answer) > len(text)
    return "" if said_more else "does not begin by repeating the request"


def _one_of(answer: str, options: Options, _: str) -> str:
    return "" if answer in options["choices"] else f"`{answer[:40]}` is none of {', '.join(options['choices'])}"


def _upper(answer: str, _: Options, __: str) -> str:
    found = [character for character in answer if character.islower()]
    return f"small letters: {''.join(found[:5])}" if found else "" if answer.upper() != answer.lower() else "no letters"


def _lower(answer: str, _: Options, __: str) -> str:
    found = [character for character in answer if character.isupper()]
    return f"capitals: {''.join(found[:5])}" if found else "" if answer.upper() != answer.lower() else "no letters"


def _language(answer: str, options: Options, _: str) -> str:
    share = foreign_share(answer, options["language"])
    return f"{share:.2f} is not in `{options['language']}`" if share > FOREIGN_SHARE else ""


def _speech_level(answer: str, options: Options, _: str) -> str:
    """Korean: how every sentence ends (합쇼체, 해요체, 해라체)."""
    pattern = KOREAN_LEVELS[options["level"]]
    bare = [re.sub(r"[\W_]+$", "", one) for one in sentences(answer, "ko")]
    other = [one for one in bare if not pattern.search(one)]
    if not bare:
        return "no sentence"
    return f"`{other[0][-20:]}` is of another level" if other else ""


CHECKS: Mapping[str, Callable[[str, Options, str], str]] = {
    "words": _words,
    "characters": _characters,
    "sentences": _sentences,
    "paragraphs": _paragraphs,
    "lines": _lines,
    "keywords": _keywords,
    "keyword_count": _keyword_count,
    "keyword_order": _keyword_order,
    "forbidden": _forbidden,
    "forbidden_characters": _forbidden_characters,
    "no_digits": _no_digits,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "bullets": _bullets,
    "numbered": _numbered,
    "headings": _headings,
    "bold": _bold,
    "placeholders": _placeholders,
    "title": _title,
    "quoted": _quoted,
    "json_object": _json_object,
    "json_array": _json_array,
    "table": _table,
    "code_block": _code_block,
    "separated": _separated,
    "postscript": _postscript,
    "repeats": _repeats,
    "one_of": _one_of,
    "upper": _upper,
    "lower": _lower,
    "language": _language,
    "speech_level": _speech_level,
}
