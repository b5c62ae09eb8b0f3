"""Bytes to text: which character encoding a page is in.

Order: byte order mark, ISO-2022 escapes, strict UTF-8, the declared encoding (HTTP header, then `<meta>`), then legacy
encodings scored against what their languages look like. Declarations are believed only when the result looks like
text: servers declare iso-8859-1 for everything. Labels follow the WHATWG Encoding Standard (EUC-KR means cp949,
Shift_JIS means cp932, ISO-8859-1 means windows-1252).

Scores are ours: mean weight per non-ASCII character, high for the commonest characters of the language an encoding is
for, negative for characters that only a wrong decoding makes. Cost: one decoding per candidate of at most
`SCORED_BYTES` bytes, and only for pages that are neither UTF-8 nor rightly declared.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

SCORED_BYTES = 1 << 17
META_BYTES = 4096  # the HTML standard looks at 1024; real pages put it later
ACCEPTED_SCORE = 0.2  # ours: true pages of the six languages score 0.35 and more, wrong decodings below 0.1
REPLACED_WEIGHT = -5.0  # of an undecodable byte sequence
TOLERATED_REPLACED = 0.002  # share of characters that a declared or UTF-8 page may have undecodable

_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.\-]+)", re.I)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.\-]+)", re.I)
_LABELS = {
    "euc-kr": "cp949", "euckr": "cp949", "ks_c_5601-1987": "cp949", "ksc5601": "cp949", "ks_c_5601": "cp949",
    "windows-949": "cp949", "korean": "cp949", "uhc": "cp949",
    "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "windows-31j": "cp932",
    "x-euc-jp": "euc_jp", "euc-jp": "euc_jp",
    "iso-8859-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252", "iso8859-1": "cp1252",
    "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "big5-hkscs": "big5hkscs", "x-x-big5": "big5",
    "utf8": "utf-8", "unicode": "utf-8",
}  # fmt: skip

_COMMON_HANGUL = frozenset("이다는의에을를가은고한하지로기도사시리어서자대아나라일인수들부있과해정그것게전했만")
_COMMON_KANA = frozenset(
    "のにはをたがでてとしれさるいかなもこらりあくっきうそすけまよ、。ー・んンスルトイリアラドクシレジタフロテ"
)
_COMMON_HANZI = frozenset("的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学")
_WESTERN = frozenset(
    "äöüßÄÖÜéèêáàâíìîóòôúùûñçÉÁÍÓÚÑÇ¿¡«»ºªœæøåëïÀÈÊ\u2018\u2019\u201c\u201d\u201e\u2013\u2014\u2026\u2022\u20ac\xa0\xb0\xa7\xa9\xae\xb7\xb4"
)
_VIETNAMESE = frozenset("ăâđêôơưĂÂĐÊÔƠƯ\u0300\u0301\u0303\u0309\u0323àáèéìíòóùúýãõ")
_RUN = re.compile(r"[^\x00-\x7f]{4,}")


@dataclass(frozen=True)
class Decoded:
    """The text and the Python codec that gave it."""

    text: str
    charset: str


def decode_page(data: bytes, *, declared: str | None = None, configured: str | None = None) -> Decoded | None:
    """Decode a page; None when no encoding gives plausible text.

    Args:
        data: The page.
        declared: Charset parameter of the HTTP Content-Type header.
        configured: Encoding that the user set for the source; nothing else is tried.
    """
    if configured is not None:
        name = codec_name(configured)
        return _tolerant(data, name) if name else None
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return _tolerant(data, name)
    if b"\x1b$" in data or b"\x1b(" in data:
        escaped = _strict(data, "iso2022_jp_2") or _strict(data, "iso2022_kr")
        if escaped is not None:
            return escaped
    plain = _strict(data, "utf-8")
    if plain is not None:
        return plain
    for label in (declared, meta_charset(data)):
        name = codec_name(label) if label else None
        found = _tolerant(data, name) if name else None
        if found is not None and (name not in _SCORES or _score(found.text[:SCORED_BYTES], name) >= ACCEPTED_SCORE):
            return found
    return _tolerant(data, "utf-8") or _scored(data)


def meta_charset(data: bytes) -> str | None:
    """The charset that an HTML or XML page declares in its first bytes."""
    found = _META.search(data[:META_BYTES]) or _XML.search(data[:META_BYTES])
    return found.group(1).decode("ascii") if found else None


def codec_name(label: str) -> str | None:
    """Python's codec for an encoding label, or None when nobody knows it."""
    cleaned = label.strip().strip("\"'").lower()
    cleaned = _LABELS.get(cleaned, cleaned)
    try:
        return codecs.lookup(cleaned).name if cleaned else None
    except (LookupError, ValueError):
        return None


def _strict(data: bytes, name: str) -> Decoded | None:
    try:
        return Decoded(data.decode(name), name)
    except (UnicodeDecodeError, LookupError):
        return None


def _tolerant(data: bytes, name: str) -> Decoded | None:
    try:
        text = data.decode(name, errors="replace")
    except (LookupError, UnicodeError):
        return None
    high = sum(1 for _ in re.finditer(r"[^\x00-\x7f]", text)) if "�" in text else 0
    replaced = text.count("�")
    # Few among all characters, and few among those that are not ASCII: an ASCII page with legacy words is not UTF-8.
    if replaced > TOLERATED_REPLACED * len(text) or replaced > 0.1 * high:
        return None
    return Decoded(text, name)


def _scored(data: bytes) -> Decoded | None:
    sample = data[:SCORED_BYTES]
    best = max(_SCORES, key=lambda name: _score(sample.decode(name, errors="replace"), name))
    if _score(sample.decode(best, errors="replace"), best) < ACCEPTED_SCORE:
        return None
    return Decoded(data.decode(best, errors="replace"), best)


def _score(text: str, name: str) -> float:
    counts = Counter(re.sub(r"[\x00-\x7f]+", "", text))
    total = counts.total()
    if not total:
        return 1.0
    weight = _SCORES[name]
    mean = sum(weight(char) * count for char, count in counts.items()) / total
    if name in _SINGLE_BYTE:  # in alphabets that are mostly ASCII, letters outside ASCII do not come in runs
        mean -= sum(len(run) for run in _RUN.findall(text)) / total
    return mean


def _korean(char: str) -> float:
    if char in _COMMON_HANGUL:
        return 1.0
    if "가" <= char <= "힣":  # the extended syllables of cp949 hardly occur in running text
        return 0.4 if _in_euc_kr(char) else -0.5
    if "一" <= char <= "鿿":
        return 0.1
    return _mark(char, -0.5)


def _japanese(char: str) -> float:
    if char in _COMMON_KANA:
        return 1.0
    if "぀" <= char <= "ヿ":
        return 0.6
    if "一" <= char <= "鿿":
        return 0.25
    if "｡" <= char <= "ﾟ":
        return -0.6
    return _mark(char, -0.5)


def _chinese(char: str) -> float:
    if char in _COMMON_HANZI:
        return 2.0
    if "一" <= char <= "鿿":
        return 0.25
    return _mark(char, -0.5)


def _western(char: str) -> float:
    return 0.6 if char in _WESTERN else -0.8


def _vietnamese(char: str) -> float:
    return 0.55 if char in _VIETNAMESE else -0.8


def _mark(char: str, other: float) -> float:
    if char == "�":
        return REPLACED_WEIGHT
    if "　" <= char <= "〿" or "！" <= char <= "～" or "─" <= char <= "◿" or char in "·…‘’“”―—×※→":
        return 0.3
    return other


def _in_euc_kr(char: str) -> bool:
    try:
        char.encode("euc_kr")
    except UnicodeEncodeError:
        return False
    return True


_SCORES: dict[str, Callable[[str], float]] = {
    "cp949": _korean,
    "cp932": _japanese,
    "euc_jp": _japanese,
    "gb18030": _chinese,
    "big5": _chinese,
    "cp1252": _western,
    "cp1258": _vietnamese,
}
_SINGLE_BYTE = frozenset({"cp1252", "cp1258"})
