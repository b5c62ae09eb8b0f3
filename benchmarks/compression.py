"""How much text a token holds: a SuperBPE vocabulary against one in the older style, on documents of neither.

The baseline's recipe and the split were fixed before anything was tuned: byte-level BPE by the trainer of `tokenizers`,
NFKC, words only (GPT-2's pattern, digits alone), two thirds of the size, trained on Korean, English, Spanish and code
only. Ours has all languages, quotas and 20 % superwords. The K-EXAONE report (section 2.2) has the same comparison of
its two vocabularies on its own text: its gains stand beside ours in `notes`.

Contract: bytes per token of held-out documents of each group; the unit is a ratio's, `equal` has no meaning here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks.bpe_corpus import Text, counted, label, mixed_texts
from benchmarks.result import Comparison, Found, Spread
from benchmarks.settings import Settings, SizeName
from stages.tokenizer.superbpe import Plan, build, superword_count, train_runs

NAME = "compression"
PEER = "older style: NFKC, words, 2/3 of the size, ko en es code"
REPORTED = {"English": 19.6, "Korean": 29.0, "multilingual": 49.8, "code": 26.7, "STEM": 20.1}  # % more bytes a token
RATIOS = {"en": 2, "ko": 3, "multilingual": 1}


@dataclass(frozen=True)
class Load:
    bytes_of_language: int
    vocabulary: int


LOADS: dict[SizeName, Load] = {"full": Load(10_000_000, 32_768), "quick": Load(60_000, 1536)}


def run(settings: Settings) -> Iterator[Found]:
    """One comparison a group, and their mean."""
    load = LOADS[settings.size]
    texts = mixed_texts(load.bytes_of_language)
    learnt = tuple(one for one in texts if not one.is_held_out)
    held_out = tuple(one for one in texts if one.is_held_out)
    ours, theirs = superbpe(learnt, load.vocabulary), older_style(learnt, load.vocabulary * 2 // 3)
    what = f"vocabulary {load.vocabulary:,} against {load.vocabulary * 2 // 3:,}"
    yield from compared(NAME, what, ours, theirs, held_out, f"held out, 1 of 16, of {label(texts)}")


def compared(
    name: str, what: str, ours: Tokenizer, theirs: Tokenizer, held_out: Sequence[Text], corpus: str
) -> Iterator[Comparison]:
    """One comparison a group of the held-out documents, and their mean."""
    found = [
        (kind, bytes_per_token(ours, own), bytes_per_token(theirs, own))
        for kind, own in by_report_group(held_out).items()
        if own
    ]
    mean = sum(row[2] for row in found) / len(found)
    gain = sum(our / their - 1 for _, our, their in found) / len(found)
    for kind, our, their in [*found, ("mean of gains", (1 + gain) * mean, mean)]:
        notes = {"gain_percent": 100 * (our / their - 1), "gain_percent_of_the_report": REPORTED.get(kind, 29.0)}
        sides = (Spread.of([our]), Spread.of([their]))
        yield Comparison(name, f"{kind}, {what}", "bytes/token", *sides, PEER, corpus, notes=notes)


def report_group(text: Text) -> str:
    """The report's five kinds of text."""
    if text.group.domain:
        return {"code": "code", "stem": "STEM"}[text.group.domain]
    return {"en": "English", "ko": "Korean"}.get(text.group.language, "multilingual")


def by_report_group(texts: Sequence[Text]) -> Mapping[str, list[str]]:
    return {name: [one.text for one in texts if report_group(one) == name] for name in REPORTED}


def superbpe(texts: tuple[Text, ...], vocabulary: int) -> Tokenizer:
    """Ours, with the report's quotas; a class with too little text gives its share away."""
    runs = counted(texts)
    plan = Plan(vocabulary, superword_count(vocabulary, 0.2), ratios=RATIOS, fills=True)
    return build(train_runs(lambda: iter(runs), plan))


def older_style(texts: tuple[Text, ...], vocabulary: int) -> Tokenizer:
    """The baseline."""
    known = (one.text for one in texts if one.group.language in ("ko", "en", "es") and one.group.domain in ("", "code"))
    return in_older_style(known, vocabulary)


def in_older_style(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """The baseline's normalisation, pattern and trainer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """UTF-8 bytes of the texts over their tokens."""
    tokens = sum(len(one.ids) for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))
    return sum(len(text.encode()) for text in texts) / tokens
