"""Tuning: thresholds judged again from stored signals alone, counts per rule and language, proposals, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.documents import table_from_rows, text_hash
from pipeline.core.errors import ConfigError, InputError
from stages.rules import Rules, RulesConfig, judge
from stages.tuning import changes, effects, read_signals, with_proposals

GOOD = (
    "The river runs past the old mill, and the people of the village have walked there with their dogs since spring. "
    "Nobody knows who built the stone bridge, but an entry in the parish book names a carpenter from the next valley.\n"
    "On market days carts used to wait in a long queue, which is why the inn beside it has such a wide yard."
)
TEXTS = [GOOD, "too short to be kept", "buy now " * 80, f"# {GOOD}", "no no no " * 3]


def table(texts: list[str]) -> Any:
    return table_from_rows(
        [
            {"id": str(n), "text": text, "text_hash": text_hash(text), "source": "s", "lang": "en"}
            for n, text in enumerate(texts)
        ]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A step's folder with two signal tables of the same documents as `TEXTS`, the block's own."""
    (tmp_path / "signals").mkdir()
    for number, texts in enumerate((TEXTS[:2], TEXTS[2:])):
        rows = table(TEXTS).slice(0 if number == 0 else 2, len(texts))
        signals = Rules(RulesConfig()).apply(rows).signals
        assert signals is not None
        pq.write_table(signals, tmp_path / "signals" / f"{number:05d}.parquet")
    return tmp_path


def test_stored_signals_give_the_blocks_own_verdicts(folder: Path) -> None:
    config = RulesConfig(thresholds={"en": {"gopher_too_short": 20}})
    result = Rules(config).apply(table(TEXTS))
    verdicts = judge(read_signals([folder]), config)
    assert [f"rules.{one.rule}" for one in verdicts if one] == result.reasons
    assert [row for row, one in enumerate(verdicts) if one] == result.dropped_at.tolist() == [1, 2, 4]


def test_effects_count_what_each_rule_does_alone_first_and_only(folder: Path) -> None:
    found = {one.rule: one for one in effects(read_signals([folder]), RulesConfig())}
    short = found["gopher_too_short"]
    assert (short.documents, short.fails, short.first, short.only) == (5, 2, 2, 0)
    assert (short.side, short.threshold, short.signal, short.lang) == ("below", 50, "nonsymbol_words", "en")
    grams = found["gopher_top_2_gram"]
    assert (grams.fails, grams.first) == (3, 1)  # two of them were too short already
    assert sum(one.first for one in found.values()) == 3
    assert short.at_shares == pytest.approx((5.16, 5.8, 6.6))  # between 5 and 9 words


def test_changes_name_documents_and_both_verdicts(folder: Path) -> None:
    signals = read_signals([folder])
    proposed = with_proposals(RulesConfig(), ["en.gopher_too_short=70"])
    [first, second] = changes(signals, RulesConfig(), proposed)
    assert (first.id, second.id) == ("0", "3")
    assert first.before is None
    assert (first.after.rule, first.after.threshold) == ("gopher_too_short", 70)  # type: ignore[union-attr]
    assert changes(signals, proposed, RulesConfig())[0].after is None


def test_proposals_are_put_over_the_configuration() -> None:
    config = RulesConfig(thresholds={"ko": {"gopher_too_short": 30, "gopher_hashes": 0.2}})
    found = with_proposals(config, ["ko.gopher_too_short=40", "default.gopher_letters=null"])
    assert found.thresholds == {
        "ko": {"gopher_too_short": 40, "gopher_hashes": 0.2},
        "default": {"gopher_letters": None},
    }
    assert config.thresholds["ko"]["gopher_too_short"] == 30


@pytest.mark.parametrize("proposal", ["gopher_too_short=3", "ko.gopher_too_short", "ko.gopher_too_short=many", "ko.=3"])
def test_a_proposal_of_another_form_is_the_users_error(proposal: str) -> None:
    with pytest.raises(ConfigError, match="not a proposal"):
        with_proposals(RulesConfig(), [proposal])


def test_an_unknown_rule_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean `gopher_too_short`"):
        effects(read_signals([folder]), with_proposals(RulesConfig(), ["ko.gopher_to_short=1"]))


def test_signals_that_are_not_there_are_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "signals").mkdir()
    pq.write_table(pa.table({"id": ["a"], "score@1": [0.5]}), tmp_path / "signals" / "00000.parquet")
    with pytest.raises(InputError, match="no signals"):
        read_signals([tmp_path])
