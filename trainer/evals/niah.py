"""Needle in a haystack: does the model find a number it read somewhere in its context?

Contract: haystacks are built at token level, so that a length is exact; a case is a pure function of (seed, place in
the grid). One needle a haystack, in six languages in turn: a sentence that gives a named thing a five-digit number,
among sentences of held-out documents, and at the end the same sentence again, cut before the number. A needle is
found when every token of the number is the model's first choice: with the true tokens fed in (teacher forcing) that
is exactly when greedy generation would write it. Cost: one forward pass over each haystack, no generation.
Source: gkamradt/LLMTest_NeedleInAHaystack (2023) for the grid; exact matching as in RULER (arXiv 2404.06654);
needles, languages and grid sizes are ours.
Shapes: B haystacks of one length, T tokens, A answer tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from pipeline.core.errors import InputError
from pipeline.core.rng import derive_seed
from trainer.model.model import MoEModel
from trainer.parallel.ranks import ALONE, Ranks

Encode = Callable[[str], Sequence[int]]  # text to token ids, nothing added

TOKENS_PER_BATCH = 16_384
LOG_PROBABILITY_DIGITS = 6  # decimals kept in the verdict
SENTENCE_END = re.compile(r"(?<=[.!?。！？\n])\s*")


class Wording(NamedTuple):
    """A needle's sentence in one language: `before` + `number` + `after`."""

    before: str
    number: str
    after: str
    keys: tuple[str, ...]


WORDINGS: dict[str, Wording] = {
    "de": Wording(
        "Die Durchgangsnummer für {key} lautet", " {number}", ".",
        ("den alten Leuchtturm", "das Nordtor", "die Glockengießerei", "den Kräutergarten", "das Archiv am Fluss"),
    ),
    "en": Wording(
        "The pass number of {key} is", " {number}", ".",
        ("the old lighthouse", "the north gate", "the bell foundry", "the herb garden", "the river archive"),
    ),
    "es": Wording(
        "El número de paso de {key} es", " {number}", ".",
        ("la vieja torre", "la puerta norte", "la fundición de campanas", "la huerta alta", "la casa del río"),
    ),
    "ja": Wording(
        "{key}の通行番号は", "{number}", "です。",
        ("古い灯台", "北の門", "鐘の工房", "薬草園", "川辺の書庫"),
    ),
    "ko": Wording(
        "{key}의 통행 번호는", " {number}", "입니다.",
        ("오래된 등대", "북쪽 문", "종 공방", "약초 정원", "강가 서고"),
    ),
    "vi": Wording(
        "Số thông hành của {key} là", " {number}", ".",
        ("ngọn hải đăng cũ", "cổng phía bắc", "xưởng đúc chuông", "vườn thảo mộc", "kho sách ven sông"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Haystack:
    """One case: the last `answer_tokens` of its tokens are the number."""

    length_index: int
    depth_index: int
    language: str
    token_ids: tuple[int, ...]
    answer_tokens: int


@dataclass(frozen=True)
class NiahGrid:
    """Results by length and depth."""

    lengths: tuple[int, ...]  # tokens
    depths: tuple[float, ...]  # 0 = needle at the start, 1 = right before the question
    exact: tuple[tuple[float, ...], ...]  # [length][depth] share of needles found
    log_probability: tuple[tuple[float, ...], ...]  # [length][depth] mean nats an answer token
    n: int  # needles a cell
    by_language: dict[str, float]  # share found

    @property
    def mean(self) -> float:
        """Share found over the whole grid."""
        return sum(itertools.chain.from_iterable(self.exact)) / (len(self.lengths) * len(self.depths))

    @property
    def by_length(self) -> tuple[float, ...]:
        """Share found at each length."""
        return tuple(sum(row) / len(row) for row in self.exact)


def grid_lengths(context_tokens: int, count: int) -> tuple[int, ...]:
    """`count` lengths in equal steps up to the whole context."""
    return tuple(context_tokens * (index + 1) // count for index in range(count))


def grid_depths(count: int) -> tuple[float, ...]:
    """`count` places from the start to the end; one alone is the middle."""
    return tuple(index / (count - 1) for index in range(count)) if count > 1 else (0.5,)


def build_haystacks(
    encode: Encode,
    filler_texts: Sequence[str],
    *,
    lengths: Sequence[int],
    depths: Sequence[float],
    needles_per_cell: int,
    seed: int,
) -> list[Haystack]:
    """Every case of the grid, in order of length, depth and needle.

    `filler_texts` are held-out documents; they start over where they are shorter than a haystack. Raises `InputError`
    when there is no filler or a length has no room for needle and question.
    """
    sentences = [ids for text in filler_texts for ids in _encoded_sentences(encode, text)]
    if not sentences:
        raise InputError("no held-out text to hide needles in", fix="hold out at least one document that is not empty")
    languages = sorted(WORDINGS)
    haystacks: list[Haystack] = []
    for length_index, length in enumerate(lengths):
        for depth_index, depth in enumerate(depths):
            for _ in range(needles_per_cell):
                language = languages[len(haystacks) % len(languages)]
                draw = derive_seed("niah", seed, length_index, depth_index, len(haystacks))
                needle, question, answer = _needle(encode, language, draw)
                room = length - len(needle) - len(question) - len(answer)
                if room < 1:
                    raise InputError(
                        f"a haystack of {length} tokens has no room for needle and question "
                        f"({length - room} tokens in `{language}`)",
                        fix=f"use fewer gate.lengths, so that the shortest is over {length - room} tokens",
                    )
                before, after = _filler(sentences, draw % len(sentences), room, depth)
                tokens = (*before, *needle, *after, *question, *answer)
                haystacks.append(Haystack(length_index, depth_index, language, tokens, len(answer)))
    return haystacks


def score_haystacks(
    model: MoEModel,
    haystacks: Sequence[Haystack],
    lengths: Sequence[int],
    depths: Sequence[float],
    ranks: Ranks = ALONE,
) -> NiahGrid:
    """Run the model over all haystacks and fill the grid. Puts the model into evaluation mode and back.

    Processes that share the model score a batch each at a time; all have the whole grid in the end.
    """
    found: dict[tuple[int, int], list[bool]] = defaultdict(list)
    nats: dict[tuple[int, int], list[float]] = defaultdict(list)
    by_language: dict[str, list[bool]] = defaultdict(list)
    was_training = model.training
    model.eval()
    batches = list(_batches(haystacks))
    own = {index: _score(model, batches[index]) for index in dealt(len(batches), ranks)}
    model.train(was_training)
    scores = {index: scored for part in ranks.of_all(own) for index, scored in part.items()}
    for index, batch in enumerate(batches):
        for case, (is_found, log_probability) in zip(batch, scores[index], strict=True):
            cell = case.length_index, case.depth_index
            found[cell].append(is_found)
            nats[cell].append(log_probability)
            by_language[case.language].append(is_found)
    cells = [[(row, column) for column in range(len(depths))] for row in range(len(lengths))]
    return NiahGrid(
        lengths=tuple(lengths),
        depths=tuple(depths),
        exact=tuple(tuple(_mean(found[cell]) for cell in row) for row in cells),
        log_probability=tuple(tuple(round(_mean(nats[cell]), LOG_PROBABILITY_DIGITS) for cell in row) for row in cells),
        n=len(found[0, 0]),
        by_language={language: _mean(by_language[language]) for language in sorted(by_language)},
    )


def dealt(batches: int, ranks: Ranks) -> Iterator[int]:
    """This process's of so many batches, each process as many: who has none left makes the last one once more.

    All must be asked, since processes that share a model go through it together.
    """
    size = ranks.config.processes
    return (min(first + ranks.rank, batches - 1) for first in range(0, batches, size))


@torch.no_grad()
def _score(model: MoEModel, batch: Sequence[Haystack]) -> list[tuple[bool, float]]:
    """(found, mean log-probability of the answer) of haystacks of one length."""
    device = model.head.weight.device
    token_ids_BT = torch.tensor([case.token_ids for case in batch], device=device)
    hidden_BTC = model(token_ids_BT, torch.zeros_like(token_ids_BT)).hidden_BTC
    scores = []
    for case, token_ids_T, hidden_TC in zip(batch, token_ids_BT, hidden_BTC, strict=True):
        answer_A = token_ids_T[-case.answer_tokens :]
        # The token before an answer token predicts it.
        logits_AV = model.logits(hidden_TC[-case.answer_tokens - 1 : -1]).float()
        log_probability_A = logits_AV.log_softmax(-1).gather(1, answer_A[:, None])
        scores.append((bool((logits_AV.argmax(-1) == answer_A).all()), float(log_probability_A.mean())))
    return scores


def _needle(encode: Encode, language: str, draw: int) -> tuple[list[int], list[int], list[int]]:
    """(needle, question, answer) token ids. The parts are encoded apart, so that the question repeats the needle's
    very tokens and ends where the number begins."""
    wording = WORDINGS[language]
    key = wording.keys[draw // 100_000 % len(wording.keys)]
    question = list(encode("\n" + wording.before.format(key=key)))
    answer = list(encode(wording.number.format(number=f"{10_000 + draw % 90_000}")))
    return [*question, *answer, *encode(wording.after + "\n")], question, answer


def _filler(sentences: Sequence[list[int]], first: int, room: int, depth: float) -> tuple[list[int], list[int]]:
    """`room` filler tokens from sentence `first` on, parted at the sentence boundary nearest to `depth`."""
    tokens: list[int] = []
    boundaries = [0]
    for index in itertools.count(first):
        tokens += sentences[index % len(sentences)]
        boundaries.append(min(len(tokens), room))
        if len(tokens) >= room:
            break
    place = min(boundaries, key=lambda boundary: (abs(boundary - depth * room), boundary))
    return tokens[:place], tokens[place:room]


def _encoded_sentences(encode: Encode, text: str) -> list[list[int]]:
    ids = (list(encode(sentence + " ")) for sentence in SENTENCE_END.split(text) if sentence)
    return [sentence for sentence in ids if sentence]


def _batches(haystacks: Sequence[Haystack]) -> Iterable[list[Haystack]]:
    """Runs of equal length, at most TOKENS_PER_BATCH tokens or one haystack."""
    for length, group in itertools.groupby(haystacks, key=lambda case: len(case.token_ids)):
        cases = list(group)
        size = max(1, TOKENS_PER_BATCH // length)
        yield from (cases[start : start + size] for start in range(0, len(cases), size))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
