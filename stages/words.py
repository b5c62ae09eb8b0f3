"""Words: the segmenter that the quality signals count with. Pluggable: `segmenter(lang)` gives text -> words.

`seodang`: one regular expression per script family, no models. Latin: letters with inner apostrophes and hyphens kept
apart, numbers whole, punctuation
marks as words of their own (as spaCy gives them). Vietnamese: syllables, because syllables are what
spaces part. Korean: the eojeol, with one trailing particle or ending split off, so that counts and stop words come
near morphemes. Japanese: runs of one script, one leading hiragana run split into its particle and the rest; close to
short-unit words in number. Differences to dictionary segmenters are taken up by the thresholds (`rules_presets/`).

`datatrove`: datatrove's own word tokenizers (spaCy, Kiwi, SudachiPy, pyvi), for comparing verdicts; 0.04-0.6 MB/s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import regex

from pipeline.core.errors import ConfigError

Segment = Callable[[str], list[str]]
Segmenter = Literal["seodang", "datatrove"]

_NUMBER = r"\d+(?:[.,:]\d+)*"
_MARK = r"\.{2,}|…+|[^\w\s]"
_LATIN = regex.compile(rf"{_NUMBER}(?!\w)|\w+(?:['’]\w+)?|{_MARK}")
# Particles and endings, longest first: what follows a stem of at least one syllable.
_KOREAN_TAILS = (
    "에서는|에서도|으로서|으로써|에게서|이라고|입니다|습니다|합니다|됩니다|했습니다|이었다|하였다|되었다|"
    "에서|에게|으로|까지|부터|처럼|보다|이나|이며|이고|하고|하는|하여|하며|해서|한다|했다|된다|되는|되어|이다|"
    "은|는|이|가|을|를|의|에|로|와|과|도|만|다|고|한|년|월|며|면|지|게|서|나|요"
)
_KOREAN = regex.compile(
    rf"(?<=[가-힣])(?:{_KOREAN_TAILS})(?![가-힣])|[가-힣]+?(?=(?:{_KOREAN_TAILS})(?![가-힣]))|[가-힣]+"
    rf"|{_NUMBER}|[^\W가-힣]+|{_MARK}"
)
_PARTICLES = (
    "から|まで|より|です|ます|した|する|して|には|では|とは|のは|のが|の|に|を|は|が|と|で|も|へ|や|た|て|れ|さ|し"
)
_JAPANESE = regex.compile(
    rf"[\p{{Han}}々〆ヶ]+|[\p{{Katakana}}ー]+|(?:{_PARTICLES})(?=[\p{{Hiragana}}ー])|[\p{{Hiragana}}ー]{{1,4}}"
    rf"|{_NUMBER}|[^\W\p{{Han}}\p{{Hiragana}}\p{{Katakana}}ー]+|{_MARK}"
)
_OURS = {"ko": _KOREAN, "ja": _JAPANESE}
_DATATROVE_CODES = {"en": "eng", "de": "deu", "es": "spa", "vi": "vie", "ja": "jpn", "ko": "kor"}


def segmenter(name: Segmenter, lang: str | None) -> Segment:
    """The function that splits text of one language into words.

    Raises:
        ConfigError: datatrove's tokenizer of that language needs a package that is not installed.
    """
    if name == "seodang":
        return _OURS.get(lang or "", _LATIN).findall
    return _datatrove(lang or "en")


@lru_cache(maxsize=8)
def _datatrove(lang: str) -> Segment:
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    if lang not in _DATATROVE_CODES:
        raise ConfigError(f"no datatrove words for `{lang}`", fix=f"known: {', '.join(sorted(_DATATROVE_CODES))}")
    try:
        tokenizer = load_word_tokenizer(_DATATROVE_CODES[lang])
        tokenizer.word_tokenize("a")
    except ImportError as error:
        raise ConfigError(
            f"datatrove's words for `{lang}` need a package that is not installed: {error}",
            fix='pip install "spacy[ja]>=3.8" pyvi "kiwipiepy<0.22", or set `segmenter: seodang`',
        ) from None
    return tokenizer.word_tokenize
