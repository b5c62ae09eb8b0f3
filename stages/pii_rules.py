"""What counts as personal data or a secret: patterns, and the checks that confirm them.

Contract: a rule matches only whole numbers and names: not a part of a longer digit run, so that version numbers, dates
and measurements stay. Addresses that name nobody stay: loopback, private networks, netmasks.
Sources of the checks: RFC 5322 and 1035 (e-mail), RFC 4291 (IPv6), ISO/IEC 7812 (Luhn), ISO 13616 (IBAN, mod 97), the
weights of the Korean resident registration number, the national numbering plans of the six languages' countries.
A match spans a line feed only in a private key, between a name and its secret, and in a Korean telephone number;
`parts_at` knows these. Cost: a pattern runs only on texts with a cheap sign of it.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from math import log2
from typing import Literal

import regex

Kind = Literal["secret", "email", "iban", "rrn", "card", "ip", "phone", "name"]
# In order of precedence. Placeholders are the upper-case names in angle brackets.
KINDS: tuple[Kind, ...] = ("secret", "email", "iban", "rrn", "card", "ip", "phone", "name")

Match = regex.Match[str]
Check = Callable[[Match], bool]
Sign = Callable[[str], object]


@dataclass(frozen=True)
class Rule:
    """A pattern, the check that confirms a match, and a cheap sign that the pattern can match at all.

    A match's group `value`, where there is one, is what is replaced.
    """

    kind: Kind
    sign: Sign
    pattern: regex.Pattern[str]
    check: Check


def _true(match: Match) -> bool:
    return True


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def luhn(digits: str) -> bool:
    """ISO/IEC 7812 check digit."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = int(character) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_ISSUERS = regex.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[689]\d)\d{11}|62\d{14,17}|9\d{15}"
)


def _card(match: Match) -> bool:
    digits = _digits(match.group())
    if not _ISSUERS.fullmatch(digits) or not luhn(digits) or len(set(digits)) == 1:
        return False
    return len(digits) != EAN_DIGITS or not _ean(digits)  # Visa gave up thirteen digits, article numbers have them


EAN_DIGITS = 13


def _ean(digits: str) -> bool:
    """ISO/IEC 15420 check digit of an article number."""
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10 == 0


# Lengths of account numbers by country (ISO 13616 registry).
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "BA": 20, "BE": 16, "BG": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24,
    "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GI": 23, "GR": 27, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22,
    "MK": 19, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "TR": 26, "UA": 29,
}  # fmt: skip


def _iban(match: Match) -> bool:
    value = match.group().replace(" ", "")
    if _IBAN_LENGTHS.get(value[:2]) != len(value):
        return False
    return int("".join(str(int(character, 36)) for character in value[4:] + value[:4])) % 97 == 1


_RRN_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_RRN_NAMED = regex.compile(r"(?:주민|외국인)\s?(?:등록)?\s?번호[^\d\n]{0,12}$|(?i:RRN)\W{0,4}$")
_RRN_CENTURIES = {"1": 1900, "2": 1900, "3": 2000, "4": 2000, "5": 1900, "6": 1900, "7": 2000, "8": 2000}
_RRN_UNCHECKED_SINCE = date(2020, 10, 1)  # numbers given since have no check digit


def _rrn(match: Match) -> bool:
    """A possible date of birth, and the check digit, unless the text names the number or it may be a new one."""
    digits = _digits(match.group())
    try:
        born = date(_RRN_CENTURIES[digits[6]] + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(digits, _RRN_WEIGHTS, strict=False))
    checked = (11 - total % 11) % 10
    foreigner = (13 - total % 11) % 10
    expected = foreigner if digits[6] in "5678" else checked
    return int(digits[12]) == expected or born >= _RRN_UNCHECKED_SINCE or _before(match, _RRN_NAMED)


def _before(match: Match, pattern: regex.Pattern[str], reach: int = 30) -> bool:
    """Whether `pattern` (anchored with $) ends right before the match."""
    return pattern.search(match.string[max(0, match.start() - reach) : match.start()]) is not None


_VERSION_WORD = regex.compile(
    r"(?i)(?:\bv|\bver|version|release|versión|versão|phiên bản|fassung|버전|판|バージョン|版|sections?|§)"
    r"(?:은|는|이|가|は|が| is| ist| es| là)?[\s.:=#]*$"
)
_NETMASK = ipaddress.ip_network("255.0.0.0/8")
_NOBODY = tuple(
    ipaddress.ip_network(block)
    for block in ("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
)


def _ipv4(match: Match) -> bool:
    try:
        address = ipaddress.IPv4Address(match.group())
    except ValueError:
        return False
    # Four single digits, or a last part of 0, are far more often a version or a network than a host.
    if len(match.group()) == 7 or match.group().endswith(".0") or _before(match, _VERSION_WORD):
        return False
    return address not in _NETMASK and not any(address in block for block in _NOBODY)


def _ipv6(match: Match) -> bool:
    try:
        ipaddress.IPv6Address(match.group())
    except ValueError:
        return False
    return True


_PHONE_WORD = regex.compile(
    r"(?i)(?:\btel|phone|call|mobile|fax|móvil|movil|teléfono|telefono|llam\p{L}+|whats\s?app|handy|telefon|rufnummer|"
    r"điện thoại|đt|sđt|hotline|gọi|電話|tel\.|ファックス|携帯|전화|휴대폰|연락처|팩스)"
    r"(?:[^\d\n]{0,14}|[^\d\n.;,]{0,30})$"
)


def _phone(match: Match) -> bool:
    count = len(_digits(match.group()))
    if match.group().startswith("+"):
        return 8 <= count <= 15
    if match.lastgroup == "bare":  # a form that is also how plain numbers are written: only where a word says so
        return _before(match, _PHONE_WORD, reach=48)
    if _ZIP_CODE.fullmatch(match.group()) and _before(match, _ZIP):
        return False
    return 8 <= count <= 12


_ZIP_CODE = regex.compile(r"\d{5}-\d{4}")
_ZIP = regex.compile(r"\b[A-Z]{2}\.?\s{1,3}$")  # a state of the United States before a ZIP+4 code
_DATE = regex.compile(
    r"\d{4}([-./ ])\d{1,2}\1\d{1,2}|\d{1,2}([-./ ])\d{1,2}\2(?:19|20)\d{2}|(?:19|20)\d{2}[ /-]+(?:19|20)\d{2}"
)
_PHONE_LABEL = regex.compile(
    r"(?i)(?:\b(?:tele)?(?:phone|fon)(?: ?(?:number|nummer|no\.?))?|\btel(?:\.|éfono|efono)?|điện thoại|\bs?đt|"
    r"\b(?:mobile|cell|fax|handy|móvil|whats\s?app|hotline|rufnummer)|\bllam\p{L}+ al|"
    r"\bcall(?: (?:me|us|him|her|them))?(?: (?:at|on))?|"
    r"電話(?:番号)?|携帯|전화(?:번호)?|휴대폰|연락처|팩스)[\s:：=.#*]{0,4}$"
)


def _named_phone(match: Match) -> bool:
    """Digit groups of any country, where the text says right before them what they are."""
    value = match.group()
    if not 6 <= len(_digits(value)) <= 13 or _DATE.fullmatch(value):
        return False
    if regex.fullmatch(r"\d+\.\d+", value):  # a decimal number
        return False
    return _before(match, _PHONE_LABEL, reach=40)


def _secret(match: Match) -> bool:
    """A value given to something called key, token or password counts when it looks random."""
    if match.lastgroup != "value":
        return True
    value = match["value"]
    entropy = -sum(n / len(value) * log2(n / len(value)) for n in Counter(value).values())
    return entropy >= 3.5 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


_LEFT = r"(?<![\p{Nd}A-Za-z_.+-])"  # nothing that would make the match part of a longer number or name
_RIGHT = r"(?![A-Za-z_]|[-.:/]?\p{Nd})"  # words of unspaced scripts and Korean particles may follow directly
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"

_PHONES = rf"""(?x)(?=[+(0-9]){_LEFT}(?:
    \+[1-9]\d{{0,2}}(?:[ .-]?\(?\d{{1,5}}\)?){{1,5}}[ .-]?\d{{2,5}}                  # international, any country
  | 0(?:1[016-9]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50\d)[-. )]\s?\d{{3,4}}[-. ]\d{{4}} # Korea
  | 01[016-9]\d{{7,8}}                                                            # Korea, mobile, together
  | (?:\([2-9]\d{{2}}\)[-. ]?|[2-9]\d{{2}}[-.])[2-9]\d{{2}}[-. ]\d{{4}}               # North America
  | \(?0\d{{3,4}}\)?[ ]\d{{3}}[ ]?\d{{3,4}}                                          # United Kingdom, Vietnam
  | \(?02\d\)?[ ]\d{{4}}[ ]\d{{4}}                                                  # London, Vietnam's cities
  | 0[35789]\d{{8}}                                                               # Vietnam, mobile, together
  | 0[35789]\d[ .-]\d{{3,4}}[ .-]\d{{3,4}}                                             # Vietnam, Japan, mobile
  | [6789]\d{{2}}[ .-]\d{{2}}[ .-]\d{{2}}[ .-]\d{{2}}                                   # Spain
  | [89]\d[ .-]\d{{3}}[ .-]\d{{2}}[ .-]\d{{2}}                                          # Spain, provinces
  | \(0[1-9]\d{{1,4}}\)[ ]?\d{{3,8}}(?:[ -]\d{{1,5}})?                                 # Germany
  | 0[1-9]\d{{1,4}}(?:[ ]?/[ ]?|[ ]-[ ]|[ -])\d{{4,8}}(?:[ -]\d{{1,5}})?                 # Germany
  | 0[1-9]\d{{0,3}}-\d{{1,4}}-\d{{4}}                                                # Japan
  | (?P<bare>\d{{3}}[ .-]?\d{{3}}[ .-]?\d{{3,4}})
){_RIGHT}"""

# Groups of digits as no other thing but a date is written; a label has to stand before them.
_NAMED_PHONES = rf"(?=[+(0-9]){_LEFT}(?:\+|\(\+?)?\d{{1,5}}\)?(?:[ ./-]{{1,2}}\(?\d{{2,5}}\)?){{1,5}}{_RIGHT}"

_KNOWN_SECRETS = (
    r"(?<![A-Za-z0-9_])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{60,255}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,200}|AIza[0-9A-Za-z_-]{35}|sk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,200}"
    r"|[sr]k_live_[0-9A-Za-z]{16,200}|hf_[A-Za-z]{30,60}|glpat-[A-Za-z0-9_-]{20,60}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})(?![A-Za-z0-9_])"
    r"|-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----[A-Za-z0-9+/=\s]{40,8192}-----END [A-Z ]{0,24}PRIVATE KEY-----"
)
_NAMED_SECRETS = (
    r"(?i)(?:(?:api|access|secret)[_-]?key|(?:auth|access)[_-]?token|client[_-]?secret|passw(?:or)?d)"
    r"""["']?\s{0,3}(?::|=|=>)\s{0,3}["'](?P<value>[A-Za-z0-9+/_=.~-]{16,200})["']"""
)
_EMAILS = (
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_+-])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-]|\.[A-Za-z0-9])"
)
_IBANS = r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)(?![A-Za-z0-9])"
_CARDS = (
    rf"{_LEFT}(?:\d{{13,19}}|\d{{4}}(?P<s>[ -])\d{{4}}(?P=s)\d{{4}}(?P=s)\d{{1,7}}"
    rf"|\d{{4}}(?P<t>[ -])\d{{6}}(?P=t)\d{{4,5}}){_RIGHT}"
)
_IPV4S = rf"{_LEFT}{_OCTET}(?:\.{_OCTET}){{3}}(?![A-Za-z_]|[.-]?\p{{Nd}})"
_IPV6S = (
    r"(?<![0-9A-Za-z_:.])(?:[23][0-9A-Fa-f]{3}|[Ff][CcDd][0-9A-Fa-f]{2})(?::[0-9A-Fa-f]{0,4}){2,7}"
    r"(?<![^:]:)(?![0-9A-Za-z_:]|\.[0-9])"
)


def _holds(*parts: str) -> Sign:
    """Substring search is many times as fast as an alternation of patterns."""
    return lambda text: any(part in text for part in parts)


def _rule(kind: Kind, sign: Sign | str, pattern: str, check: Check = _true) -> Rule:
    found: Sign = regex.compile(sign).search if isinstance(sign, str) else sign
    return Rule(kind, found, regex.compile(pattern, regex.ASCII), check)


RULES: tuple[Rule, ...] = (
    _rule(
        "secret",
        _holds(
            "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xoxa-", "xoxb-", "xoxp-", "xoxr-",
            "xoxs-", "AIza", "sk-", "k_live_", "hf_", "glpat-", "eyJ", "-----BEGIN",
        ),
        _KNOWN_SECRETS,
    ),
    _rule("secret", r"""[:=>]\s{0,3}["'][A-Za-z0-9+/_=.~-]{16}""", _NAMED_SECRETS, _secret),
    _rule("email", _holds("@"), _EMAILS),
    _rule("iban", r"[A-Z]{2}[0-9]{2}", _IBANS, _iban),
    _rule("rrn", r"[0-9]-[1-8][0-9]", rf"{_LEFT}\d{{2}}[01]\d[0-3]\d-[1-8]\d{{6}}{_RIGHT}", _rrn),
    _rule("card", r"[0-9][0-9 -]{11}", _CARDS, _card),
    _rule("ip", r"[0-9]\.[0-9]", _IPV4S, _ipv4),
    _rule("ip", r":[0-9A-Fa-f]{0,4}:", _IPV6S, _ipv6),
    _rule("phone", r"[0-9][0-9 ./()-]{6}", _PHONES, _phone),
    _rule("phone", r"[0-9)][ ./-]{1,2}[(0-9]", _NAMED_PHONES, _named_phone),
)  # fmt: skip

REACH = 64  # characters before a match that a check may look at, and more
_KEY_BYTES = 8192 + 128  # of the longest private key, and its first line
_OPENS_KEY = b"-----BEGIN"
_GOES_ON = tuple(b"%c" % byte for byte in b"0123456789:=\"'")  # a number after its area code, a secret after its name


def parts_at(text: memoryview, place: int) -> bool:
    """Whether no rule matches across the line feed that ends before `place` of a text in UTF-8."""
    if bytes(text[place : place + 4]).lstrip().startswith(_GOES_ON):
        return False
    return _OPENS_KEY not in bytes(text[max(0, place - _KEY_BYTES) : place])
