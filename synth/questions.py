"""Questions and answers about a document, in another language than the document's: knowledge carried across languages.

Contract: a sample is the document followed by the pairs (`layout: after-document`) or the pairs alone (`pairs-only`);
pairs are asked for and checked as `synth/pairs.py` says, samples dropped as `questions.CHECK`. Cost: ours 1 ms a pair.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.languages import MULTILINGUAL
from pipeline.core.written import WRITTEN, woven
from synth.cache import Request
from synth.client import Outcome
from synth.config import QuestionsConfig
from synth.endpoint_set import EndpointWork, Made, Refused, Row
from synth.language import primary
from synth.pairs import Pair, PairsMaker, good_pairs, pairs_schema
from synth.passages import JOINT


class QuestionsMaker(PairsMaker):
    """What question sets ask and how they judge."""

    kind = "questions"
    schema = pairs_schema(("question", "answer", "evidence"))

    def judged(
        self, row: Row, config: QuestionsConfig, requests: Sequence[Request], outcomes: Sequence[Outcome]
    ) -> Made | Refused:
        del requests
        (outcome,) = outcomes
        good = good_pairs(row, outcome, config)
        return good if isinstance(good, Refused) else _sample(row, good, config)


def _sample(row: Row, pairs: Sequence[Pair], config: QuestionsConfig) -> Made:
    written = JOINT.join(f"{pair['question']}\n{pair['answer']}" for pair in pairs)
    messages = [
        message
        for pair in pairs
        for message in ({"role": "user", "content": pair["question"]}, {"role": "assistant", "content": pair["answer"]})
    ]
    extra = {
        "layout": config.layout,
        "languages": [primary(row["lang"]), row["target"]],
        "pairs": [dict(pair) for pair in pairs],
    }
    if config.layout == "pairs-only":
        return Made(written, {"lang": row["target"], "lang_score": None, "messages": messages}, extra)
    text, spans = woven([(row["text"], False), (written, True)], JOINT)
    return Made(text, {"lang": MULTILINGUAL, "lang_score": None}, {**extra, WRITTEN: spans})


WORK = EndpointWork(QuestionsMaker())
