"""The harness itself: which way ratios point, what is printed, and that the catalogue is whole."""

import json
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.catalogue import BENCHMARKS, entry, load
from benchmarks.inputs import LANGUAGES, documents
from benchmarks.lid import macro_f1
from benchmarks.measure import Side, interleaved, peak_memory
from benchmarks.result import UNITS, Comparison, Missing, Spread, oriented_ratio
from benchmarks.settings import Settings
from benchmarks.swa_scaling import exponent
from benchmarks.tables import HEADINGS, markdown, markdown_heading, number
from pipeline.core.errors import ConfigError

FIELDS = (
    "name", "unit", "ours", "peer", "peer_name", "ratio", "equal", "quality_ours", "quality_peer", "input",
    "environment",
)  # fmt: skip


def comparison(unit: str = "s", ours: float = 2.0, peer: float = 6.0) -> Comparison:
    return Comparison("pack", "rows", unit, Spread.of([ours]), Spread.of([peer]), "theirs | other", "generated", True)


@pytest.mark.parametrize(
    ("unit", "ratio"), [("s", 3), ("MiB", 3), ("exponent", 3), ("tokens/s", 1 / 3), ("MB/s", 1 / 3)]
)
def test_a_ratio_above_one_is_better_for_us(unit: str, ratio: float) -> None:
    assert oriented_ratio(2.0, 6.0, unit) == pytest.approx(ratio)
    assert comparison(unit).ratio == pytest.approx(ratio)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(KeyError):
        oriented_ratio(1.0, 1.0, "furlongs")


def test_every_rate_is_better_when_larger_and_nothing_else_is() -> None:
    assert {unit for unit, better in UNITS.items() if better == "more"} == {unit for unit in UNITS if "/" in unit}


def test_the_printed_object_has_all_fields() -> None:
    printed = json.loads(json.dumps(comparison().as_json({"cores": 2})))
    assert set(FIELDS) <= printed.keys()
    assert (printed["ours"], printed["peer"], printed["ratio"]) == (2.0, 6.0, 3.0)
    assert printed["environment"] == {"cores": 2}


def test_spreads_keep_median_and_extremes() -> None:
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)
    # 12 MB in 2, 4 and 3 seconds: the slowest run is the lowest rate.
    assert Spread.rate(12, [2.0, 4.0, 3.0]) == Spread(4.0, 3.0, 6.0)


def test_sides_take_turns_after_the_warm_up() -> None:
    calls: list[str] = []
    seconds = interleaved([lambda: calls.append("a"), lambda: calls.append("b")], rounds=2, warm_ups=1)
    assert calls == ["a", "b"] * 3
    assert [len(found) for found in seconds] == [2, 2]
    assert all(second >= 0 for found in seconds for second in found)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux only")
def test_peak_memory_counts_what_is_kept_and_what_the_side_adds() -> None:
    assert peak_memory(three_bytearrays, 32, 16, 64).median == pytest.approx(16 + 64, abs=8)


def three_bytearrays(uncounted: int, kept: int, passing: int) -> Callable[[], Side]:
    """Sizes in MiB: what is there from the start, what is made then, what a call makes and lets go."""
    before = bytearray(uncounted << 20)

    def prepare() -> Side:
        held = bytearray(kept << 20)

        def side() -> None:
            assert len(before) + len(held) + len(bytearray(passing << 20))

        return side

    return prepare


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_entry_runs_a_function_of_settings(name: str) -> None:
    found = entry(name)
    assert found.name == name
    assert found.what
    assert found.peers
    assert list(signature(load(name)).parameters) == ["settings"]
    assert find_spec(found.run.partition(":")[0])


def test_every_benchmark_file_is_in_the_catalogue() -> None:
    folder = Path(import_module("benchmarks.catalogue").__file__ or "").parent
    with_run = {file.stem for file in folder.glob("*.py") if "\ndef run" in file.read_text(encoding="utf-8")}
    assert with_run == {found.run.partition(":")[0].removeprefix("benchmarks.") for found in BENCHMARKS.values()}


def test_every_benchmark_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [name for name in BENCHMARKS if f"`{name}`" not in page] == []


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean `loader`"):
        entry("loadr")


def test_a_missing_peer_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers.INSTALL, "no_such_package", "pip install -e '.[bench]'")
    found = list(peers.against("peer", ("no_such_package",), comparison))
    assert found == [Missing("peer", "needs no_such_package: pip install -e '.[bench]'")]


def test_a_peer_that_is_there_is_compared() -> None:
    assert list(peers.against("numpy", (), comparison)) == [comparison()]


def test_a_row_of_markdown_has_every_column() -> None:
    row = markdown(comparison())
    assert row.count("|") == len(HEADINGS) + 1 == markdown_heading().splitlines()[1].count("|")
    assert "| 3.00 | yes |" in row


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (99.5, "99.5"), (1234.5, "1,230"), (0.0, "0")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_exponent_of_linear_and_quadratic_time() -> None:
    assert exponent({n: [n * 1e-6] for n in (1024, 2048, 4096)}) == pytest.approx(1)
    assert exponent({n: [n * n * 1e-9, 9.0] for n in (1024, 2048, 4096)}) == pytest.approx(2)


def test_macro_f1_counts_others_as_negatives() -> None:
    # en: 1 right of 2 found and 1 expected (F1 2/3); de: 1 right of 1 found and 2 expected (2/3).
    assert macro_f1(["en", "en", "de", "fr"], ["en", "other", "de", "de"]) == pytest.approx(2 / 3)


def test_generated_documents_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEODANG_DATA", str(tmp_path))
    corpus = documents(2000)
    assert corpus == documents(2000)
    assert set(corpus.languages) == set(LANGUAGES)
    assert corpus.label.startswith("generated")
    assert corpus.table().num_rows == len(corpus.ids) == len(set(corpus.ids))


def test_order_runs_whole() -> None:
    """The quickest benchmark, through its real peer (numpy)."""
    found = next(load("order")(Settings("quick")))
    assert isinstance(found, Comparison)
    assert found.ratio > 0
    assert found.quality_ours == 0
