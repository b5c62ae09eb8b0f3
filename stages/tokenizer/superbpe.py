"""Two-stage SuperBPE from counted text: words first, then words joined by single spaces, with a quota a language.

Stage 1 is byte-level BPE over words; its merges are those of the `tokenizers` library's BpeTrainer, in the same order.
Stage 2 goes on over phrases: only merges that reach over a space, whole characters and at most `maximum_words` words,
until each class of languages has its quota. Two-stage training: SuperBPE, arXiv 2503.13423, whose trainer has the
limit of four words too. Contract: the result depends on the counts alone, not on the order of texts, the runs they are
counted in or the shards. Cost: stage 1 about 0.2 µs a byte of distinct words, stage 2 the same of distinct phrases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pipeline.core.chat import RESERVED_IDS, SPECIAL_TOKENS
from pipeline.core.tokenizer import nfc
from stages.tokenizer.checkpoint import SUPERWORDS, WORDS, Attempt, Checkpoint
from stages.tokenizer.counts import Group, count_texts
from stages.tokenizer.merging import UNBOUNDED, Merged, Progress, Rules, merge
from stages.tokenizer.merging import Told as MergeTold
from stages.tokenizer.patterns import SUPERWORD
from stages.tokenizer.phrases import MOST_POSITIONS, count_neighbours, language_columns, phrase_sequences
from stages.tokenizer.quotas import CLASSES, class_of, quotas, refilled
from stages.tokenizer.spelling import SMALLEST, alphabet, spell
from stages.tokenizer.words import Runs, Words, count_words

LARGEST = 1 << 24  # ids are int32 and two of them a pair's key; far beyond any vocabulary
STEP_DOWN = 4  # how much lower phrases are cut when what was kept did not fill the vocabulary

Texts = Callable[[], Iterable[str]]
Told = Callable[[str, int, int], None]  # (stage, tokens, of how many)


def silent(stage: str, tokens: int, of: int) -> None:
    """Tell nothing."""


@dataclass(frozen=True)
class Start:
    """Tokens and merges that training goes on from; by default the single bytes."""

    tokens: tuple[bytes, ...] = field(default_factory=alphabet)
    merges: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes:
        vocabulary: Tokens in all, reserved ids included.
        superwords: Of them learnt in stage 2.
        minimum_count: A pair seen less often is not merged.
        maximum_words: Words a superword may touch.
        ratios: Shares of the classes of languages in the superwords; empty: by count alone.
        fills: Whether other classes get what a class has too little text for.
        most_positions: Tokens of phrases in memory; rare phrases go first, which does not change the result.
        minimum_word_count: Words seen less often are left out.
    """

    vocabulary: int
    superwords: int
    minimum_count: int = 2
    maximum_words: int = 4
    ratios: Mapping[str, int] = field(default_factory=dict)
    fills: bool = False
    most_positions: int = MOST_POSITIONS
    minimum_word_count: int = 1

    @property
    def words(self) -> int:
        """Tokens after stage 1."""
        return max(self.vocabulary - self.superwords, SMALLEST)


@dataclass(frozen=True)
class Trained:
    """Tokens by id (byte-level spelling) and merges by rank. `complete` is False when the text ran out of pairs."""

    tokens: list[str]
    merges: list[tuple[str, str]]
    superwords: int  # tokens that hold a space between letters
    complete: bool
    by_class: Mapping[str, int] = field(default_factory=dict)  # superwords of en, ko, multilingual
    by_language: Mapping[str, int] = field(default_factory=dict)  # superwords


def train(texts: Texts, vocabulary: int, superword_share: float, minimum_count: int) -> Trained:
    """Train from texts in memory, superwords by count alone; see `train_runs` for what is given back."""
    runs = list(count_texts(Group("", ""), (nfc(text).encode() for text in texts())))
    superwords = superword_count(vocabulary, superword_share)
    return train_runs(lambda: iter(runs), Plan(vocabulary, superwords, minimum_count))


def superword_count(vocabulary: int, superword_share: float) -> int:
    return round(vocabulary * superword_share)


def train_runs(
    runs: Runs, plan: Plan, start: Start | None = None, told: Told = silent, checkpoint: Checkpoint | None = None
) -> Trained:
    """Train a vocabulary of exactly `plan.vocabulary` tokens, or of fewer when the text supports no more.

    Args:
        runs: Gives the counts anew at each call; about six passes are made.
        plan: What to train.
        start: What to go on from.
        told: Called with how far it is.
        checkpoint: Where to keep how far it is, and go on from.
    """
    start, checkpoint = start or Start(), checkpoint or Checkpoint()
    words = count_words(runs, plan.minimum_word_count)
    rules = Rules(plan.words, minimum_count=plan.minimum_count)
    tell = _teller(WORDS, plan.words, told, checkpoint)
    stage1 = merge(words.sequences, start.tokens, start.merges, rules, tell, checkpoint.stages.get(WORDS))
    wanted = plan.vocabulary - len(stage1.tokens)
    if not stage1.complete or wanted <= 0:
        return _trained(stage1, None, (), complete=stage1.complete)
    checkpoint.finish_words(stage1.progress_after(len(start.merges)))
    columns = language_columns(runs)
    return _train_superwords(runs, words, stage1, wanted, columns, plan, told, checkpoint)


def _teller(stage: str, of: int, told: Told, checkpoint: Checkpoint) -> MergeTold:
    def tell(tokens: int, progress: Callable[[], Progress]) -> None:
        checkpoint.tell(stage, progress)
        told(stage, tokens, of)

    return tell


def _train_superwords(
    runs: Runs,
    words: Words,
    stage1: Merged,
    wanted: int,
    columns: Sequence[str],
    plan: Plan,
    told: Told,
    checkpoint: Checkpoint,
) -> Trained:
    """Stage 2, with phrases cut at a higher count first where they do not fit into memory."""
    neighbours = count_neighbours(runs, words)
    count = neighbours.fitting_count(plan.minimum_count, plan.most_positions)
    of_class = quotas(wanted, plan.ratios) if plan.ratios else dict.fromkeys(CLASSES, UNBOUNDED)
    if checkpoint.attempt is not None:
        count, of_class = checkpoint.attempt.minimum_count, dict(zip(CLASSES, checkpoint.attempt.quotas, strict=True))
    tell = _teller(SUPERWORDS, plan.vocabulary, told, checkpoint)
    while True:
        reached = checkpoint.begin(Attempt(count, tuple(of_class[name] for name in CLASSES)))
        phrases = phrase_sequences(runs, words, neighbours, count, columns)
        rules = Rules(
            tokens=plan.vocabulary,
            classes=tuple(CLASSES.index(class_of(column)) for column in columns),
            quotas=tuple(of_class[name] for name in CLASSES),
            minimum_count=count,
            minimum_words=2,
            maximum_words=plan.maximum_words,
        )
        stage2 = merge(phrases, stage1.tokens, (), rules, tell, reached)
        if not stage2.complete and count > plan.minimum_count:
            count = max(plan.minimum_count, count // STEP_DOWN)
            continue
        filled = dict(zip(CLASSES, stage2.by_class, strict=True))
        more = refilled(of_class, filled) if plan.fills and plan.ratios and not stage2.complete else None
        if more is None:
            return _trained(stage1, stage2, columns, complete=stage2.complete)
        of_class = more


def _trained(stage1: Merged, stage2: Merged | None, columns: Sequence[str], *, complete: bool) -> Trained:
    last = stage2 or stage1
    triples = [*stage1.merges, *(stage2.merges if stage2 else ())]
    spelled = [
        SPECIAL_TOKENS[number] if number < RESERVED_IDS else spell(token) for number, token in enumerate(last.tokens)
    ]
    return Trained(
        tokens=spelled,
        merges=[(spelled[left], spelled[right]) for left, right, _ in triples],
        superwords=len(last.tokens) - len(stage1.tokens),
        complete=complete,
        by_class=dict(zip(CLASSES, stage2.by_class, strict=True)) if stage2 else {},
        by_language={name: count for name, count in zip(columns, stage2.by_column, strict=True) if count}
        if stage2
        else {},
    )


def supported_vocabulary(train_size: Callable[[int], Trained], superword_share: float, below: int) -> int | None:
    """A vocabulary below `below` that was tried and works, or None; only asked for after a failure."""
    candidate = below - 1
    while candidate > SMALLEST:
        trained = train_size(candidate)
        if trained.complete:
            return candidate
        words = candidate - superword_count(candidate, superword_share)
        reached = len(trained.tokens)
        bound = int(reached / (1 - superword_share)) if reached < words else reached
        candidate = min(candidate * 19 // 20, bound)
    return None


def build(trained: Trained, pattern: str = SUPERWORD) -> Tokenizer:
    """The whole tokenizer: NFC, the pattern, byte-level BPE and the special tokens at their reserved ids."""
    vocabulary = {token: number for number, token in enumerate(trained.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=trained.merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS if token.startswith("<|")]
    )
    # Thinking and tool marks are for readers: they stay when special tokens are skipped in decoding.
    tokenizer.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in SPECIAL_TOKENS if not token.startswith("<|")]
    )
    return tokenizer
