"""Language identification: per paragraph, after masking mathematics and code, with a script check.

A document's language is the one with most letters in its paragraphs; its score is the letters' mean confidence in it.
Scripts that one language alone uses decide without a model (Hangul: Korean; kana: Japanese); the model's answer is
refused where the script contradicts it (Vietnamese without its letters, Korean without Hangul, …). Models: the one in
py3langid's wheel (no download), or a fastText file (lid.176, GlotLID, OpenLID: their labels are read as ISO 639).
Program text (domain `code`) is not identified: it gets `code_lang`. Drops: `language.other`, `language.low_score`.
Cost: embedded model 1-2 MB/s a core on Latin script; Hangul and kana paragraphs are decided by counting.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache

import pyarrow as pa
import regex
from pydantic import Field

from pipeline.core.config import Config
from pipeline.core.errors import InputError
from stages.block import Dropped, Outcome, outcome, with_columns

UNDETERMINED = "und"
CODE = "code"
MODEL_CHARACTERS = 600  # of a paragraph that the model looks at: more changes no answer
PARAGRAPH_LETTERS = 60  # shorter ones are judged with their neighbours
Identify = Callable[[str], tuple[str, float]]  # text -> (BCP-47 language, confidence in [0, 1])

_MASKED = regex.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`"  # code
    r"|\$\$.*?\$\$|(?<![\\$])\$(?!\s)[^$\n]+?(?<!\s)\$|\\\[.*?\\\]|\\\(.*?\\\)"  # mathematics
    r"|\\begin\{(?:equation|align|gather|math)\*?\}.*?\\end\{(?:equation|align|gather|math)\*?\}"
    r"|<[a-zA-Z/!][^>\n]*>|https?://\S+|www\.\S+|[\w.+-]+@[\w-]+\.[\w.]+",
    regex.DOTALL,
)
_LETTER = regex.compile(r"\p{L}")
_SCRIPTS = {
    "hangul": regex.compile(r"\p{Hangul}"),
    "kana": regex.compile(r"[\p{Hiragana}\p{Katakana}ー]"),
    "han": regex.compile(r"\p{Han}"),
    "latin": regex.compile(r"\p{Latin}"),
    "vietnamese": regex.compile(
        r"[ăâđêôơưĂÂĐÊÔƠƯạảãàáằắẳẵặầấẩẫậèéẻẽẹềếểễệìíỉĩịòóỏõọồốổỗộờớởỡợùúủũụừứửữựỳýỷỹỵ]", regex.I
    ),
}
# Smallest share of letters in the language's own script or letters, for the model's answer to stand (ours).
_NEEDED = {
    "ko": ("hangul", 0.2),
    "ja": ("kana", 0.05),
    "vi": ("vietnamese", 0.05),
    "zh": ("han", 0.2),
    **dict.fromkeys(("en", "de", "es", "fr", "it", "pt", "nl"), ("latin", 0.5)),
}
_ISO_639_1 = {
    "eng": "en", "deu": "de", "spa": "es", "kor": "ko", "jpn": "ja", "vie": "vi", "zho": "zh", "cmn": "zh", "fra": "fr",
    "ita": "it", "por": "pt", "nld": "nl", "rus": "ru", "pol": "pl", "tha": "th", "ind": "id", "arb": "ar", "tur": "tr",
}  # fmt: skip


class LanguageConfig(Config):
    """Options of the `language` block."""

    keep: tuple[str, ...] = ()  # BCP-47; empty keeps every language
    minimum_score: float = Field(default=0.5, ge=0.0, le=1.0)  # ours
    minimum_scores: dict[str, float] = Field(default_factory=dict)  # by language, over `minimum_score`
    model: tuple[str, ...] = ()  # path of a fastText model; empty: the embedded one
    code_lang: str = "en"  # of documents whose domain is `code`; `zxx` means no language


def identify_document(text: str, identify: Identify) -> tuple[str, float]:
    """(language, score) of a text by its paragraphs; `und` and 0 when it has no letters."""
    votes: Counter[str] = Counter()
    confidence: Counter[str] = Counter()
    total = 0
    for paragraph in paragraphs(_MASKED.sub(" ", text)):
        letters = len(_LETTER.findall(paragraph))
        if not letters:
            continue
        lang, score = identify_paragraph(paragraph, letters, identify)
        total += letters
        votes[lang] += letters
        confidence[lang] += letters * score  # pyright: ignore[reportArgumentType]  # a Counter of floats
    known = {lang: count for lang, count in votes.items() if lang != UNDETERMINED}
    if not known:
        return UNDETERMINED, 0.0
    best = max(sorted(known), key=lambda lang: known[lang])
    return best, confidence[best] / total


def identify_paragraph(paragraph: str, letters: int, identify: Identify) -> tuple[str, float]:
    """(language, confidence) of one paragraph: script first, then the model, then the script's veto."""
    share = {name: len(found.findall(paragraph)) / letters for name, found in _SCRIPTS.items()}
    if share["hangul"] >= 0.5:
        return "ko", min(1.0, share["hangul"] + share["han"] + 0.2)
    if share["kana"] >= 0.15 and share["kana"] + share["han"] >= 0.5:
        return "ja", min(1.0, share["kana"] + share["han"] + 0.2)
    lang, score = identify(paragraph[:MODEL_CHARACTERS])
    script, least = _NEEDED.get(lang, ("", 0.0))
    if script and share[script] < least:
        return UNDETERMINED, 0.0
    return lang, score


def paragraphs(text: str) -> list[str]:
    """Lines of a text, short ones joined with what follows until there are `PARAGRAPH_LETTERS` characters."""
    parts: list[str] = []
    open_part = ""
    for line in text.split("\n"):
        stripped = line.strip()
        if not stripped:
            continue
        open_part = f"{open_part} {stripped}" if open_part else stripped
        if len(open_part) >= PARAGRAPH_LETTERS:
            parts.append(open_part)
            open_part = ""
    if open_part and parts:
        parts[-1] = f"{parts[-1]} {open_part}"
    elif open_part:
        parts.append(open_part)
    return parts


def embedded() -> Identify:
    """The model in py3langid's wheel (Lui & Baldwin 2012, langid.py; retrained by its maintainer)."""
    model = _embedded_model()

    def identify(text: str) -> tuple[str, float]:
        lang, score = model.classify(text)
        return str(lang), float(score) if math.isfinite(score) else 0.0

    return identify


def fasttext_file(path: str) -> Identify:
    """A fastText model file. Raises `InputError` when it is missing or not a model."""
    import fasttext

    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise InputError(
            f"not a readable fastText model: {error}", where=path, fix="set `language: model:` to a .bin or .ftz file"
        ) from None

    if math.isnan(float(model.get_output_matrix().sum())):
        raise InputError(
            "the fastText model holds NaN", where=path, fix="train it again, at a learning rate of 0.1 or less"
        )

    def identify(text: str) -> tuple[str, float]:
        labels, scores = model.predict(text.replace("\n", " "), k=1)
        if not labels:
            return UNDETERMINED, 0.0
        code = labels[0].removeprefix("__label__").split("_")[0]
        return str(_ISO_639_1.get(code, code)), min(1.0, float(scores[0]))

    return identify


@lru_cache(maxsize=1)
def _embedded_model():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class Language:
    """The block."""

    def __init__(self, config: LanguageConfig, identify: Identify) -> None:
        self._config = config
        self._identify = identify

    def apply(self, documents: pa.Table) -> Outcome:
        config = self._config
        langs: list[str | None] = documents["lang"].to_pylist()
        scores: list[float | None] = documents["lang_score"].to_pylist()
        dropped = []
        counts: Counter[str] = Counter()
        columns = zip(documents["text"].to_pylist(), documents["domain"].to_pylist(), strict=True)
        for row, (text, domain) in enumerate(columns):
            if langs[row] is None:
                found = (config.code_lang, 1.0) if domain == CODE else identify_document(text, self._identify)
                langs[row], scores[row] = found
                counts["language.identified"] += 1
            lang, score = langs[row] or UNDETERMINED, scores[row]
            least = config.minimum_scores.get(lang, config.minimum_score)
            if config.keep and lang not in config.keep and domain != CODE:
                dropped.append(Dropped(row, "language.other", lang if score is None else f"{lang} {score:.2f}"))
            elif score is not None and score < least:
                dropped.append(Dropped(row, "language.low_score", f"{lang} {score:.2f}, threshold {least:g}"))
        return outcome(
            with_columns(documents, {"lang": langs, "lang_score": scores}), dropped, counts=counts, langs=langs
        )


def make(config: LanguageConfig, paths: Mapping[str, tuple[str, ...]]) -> Language:
    """Catalog entry; `paths["model"]` is the fastText model, if one is set."""
    files = paths.get("model", ())
    return Language(config, fasttext_file(files[0]) if files else embedded())
