"""Translation and question sets: masked text comes back byte for byte, good translations stay, planted faults go."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from translator import answers, completion, replay

from pipeline.core.documents import DOCUMENT_SCHEMA, read_documents, read_dropped
from pipeline.core.steps import StepTask
from synth.cache import Replay
from synth.chrf import chrf
from synth.config import LANGUAGES, QuestionsConfig, ReplayConfig, TranslationConfig, endpoint_binding
from synth.endpoint_set import Made, Refused, make_samples
from synth.masking import MarkError, mask, restored
from synth.output import ShardWriter
from synth.passages import chosen, passages
from synth.questions import QuestionsMaker
from synth.translation import WORK, TranslationMaker

MAKER = TranslationMaker()


def config(**more: Any) -> TranslationConfig:
    return TranslationConfig.model_validate({"kind": "translation", "from": "articles", "native_floor": 0.0, **more})


PROTECTED = [
    "```python\nx = 1\n```", "$$\\int_0^1 x\\,dx$$", "$a_1 + b$", "`code_here`", "https://example.org/a?b=1",
    "<b>", "&nbsp;", "\\(x^2\\)", "\\begin{align}a&=b\\end{align}", "⟦7⟧", "⟦",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from(PROTECTED), st.text(alphabet="ab $`|<>⟦⟧0\n\\()[]한ñ", max_size=12)), max_size=12
    )
)
def test_masked_text_comes_back_byte_for_byte(parts: list[str]) -> None:
    text = " ".join(parts)
    assert restored(*mask(text)) == text


@pytest.mark.parametrize("piece", [*PROTECTED, "| a | b |\n|---|---|\n| 1 | 2 |"])
def test_each_kind_is_masked_whole(piece: str) -> None:
    masked, pieces = mask(f"Before\n{piece}\nafter")
    assert masked == "Before\n⟦0⟧\nafter" if piece != "⟦" else pieces == ("⟦",)
    assert pieces == (piece,)


def test_prices_are_no_formula() -> None:
    assert mask("It costs $5 or $ 6, at most 7$.") == ("It costs $5 or $ 6, at most 7$.", ())


@pytest.mark.parametrize("masked", ["a ⟦0⟧", "⟦0⟧ ⟦1⟧ ⟦1⟧", "⟦0⟧ ⟦1⟧ ⟦2⟧"])
def test_lost_doubled_and_invented_marks_do_not_restore(masked: str) -> None:
    with pytest.raises(MarkError):
        restored(masked, ("x", "y"))


def test_chrf_is_1_for_the_same_0_for_nothing_and_as_defined_between() -> None:
    assert chrf("a cat", "a cat") == 1.0
    assert chrf("xyz", "abc") == 0.0
    # abcd against abce: precisions and recalls 3/4, 2/3, 1/2, 0 of orders 1 to 4
    assert chrf("abcd", "abce") == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 4)


def full(row: dict[str, Any], target: str) -> dict[str, Any]:
    """A document with all its columns, and the language to write in."""
    return {**dict.fromkeys(DOCUMENT_SCHEMA.names), **row, "target": target}


def judged(library: Any, a: str, b: str, slug: str, settings: TranslationConfig, **change: Any) -> Made | Refused:
    """What becomes of a translation of a sample by someone who has its parallel text."""
    fault = change.get("fault", str)
    row = full(library.row(a, slug), b)
    requests = MAKER.requests(row, settings, "m", 0)
    translation = change.get("translation") or library.text(b, slug)
    found = answers(row["text"], translation, requests, settings.segment_characters, fault)
    backend = replay({request.key: body for request, body in zip(requests, found, strict=True)})
    from synth.client import ask

    return MAKER.judged(row, settings, requests, ask(requests, backend))


def test_good_translations_stay_and_masked_pieces_are_the_sources(library: Any) -> None:
    kept = 0
    pairs = [(a, b, slug) for slug in library.slugs("en", "parallel-*") for a, b in permutations(LANGUAGES, 2)]
    # Korean and Japanese have one of the formulas in words: nobody who is given its mark would.
    pairs = [(a, b, slug) for a, b, slug in pairs if marks(library, a, slug) == marks(library, b, slug)]
    assert len(pairs) > 100
    for a, b, slug in pairs:
        made = judged(library, a, b, slug, config(segment_characters=800))
        if isinstance(made, Made):
            kept += 1
            assert sorted(mask(made.text)[1]) == sorted(mask(library.text(a, slug))[1])
            if slug != "parallel-compound-interest":  # its formulas have numbers in each language's notation
                assert made.text == library.text(b, slug)
            assert made.columns["lang"] == b
    assert kept >= 0.95 * len(pairs), (kept, len(pairs))


def marks(library: Any, language: str, slug: str) -> int:
    return len(mask(library.text(language, slug))[1])


FAULTS: dict[str, tuple[Callable[[str], str], set[str]]] = {
    "cut off": (lambda answer: answer[: len(answer) // 2], {"brackets"}),
    "remark before": (lambda answer: f"Here is the translation:\n{answer}", {"brackets"}),
    "paragraph lost": (lambda answer: "〘" + answer.split("\n\n", 1)[-1], {"structure", "placeholders"}),
    "refusal": (lambda answer: f"〘As an AI language model I translate. {answer[1:]}", {"leakage"}),
    "mark lost": (lambda answer: answer.replace("⟦0⟧", "", 1), {"placeholders", "numbers"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_go(library: Any, name: str) -> None:
    fault, expected = FAULTS[name]
    tried = caught = 0
    for slug in library.slugs("en", "parallel-*"):
        for a, b in permutations(LANGUAGES, 2):
            if marks(library, a, slug) != marks(library, b, slug):
                continue
            found = judged(library, a, b, slug, config(), fault=fault)
            probe = judged(library, a, b, slug, config())
            changed = isinstance(found, Refused) or (isinstance(probe, Made) and found.text != probe.text)
            if changed:
                tried += 1
                caught += isinstance(found, Refused) and found.check in expected
    assert tried == 0 or caught >= 0.95 * tried, (name, caught, tried)
    assert tried or name == "mark lost"


def test_an_untranslated_copy_goes(library: Any) -> None:
    for slug in library.slugs("en", "parallel-*"):
        for a, b in permutations(LANGUAGES, 2):
            made = judged(library, a, b, slug, config(), translation=library.text(a, slug))
            assert isinstance(made, Refused)


def shards(library: Any, slugs: Sequence[str]) -> list[list[dict[str, Any]]]:
    return [[library.row(lang, slug, parallel_id=slug) for lang in LANGUAGES] for slug in slugs]


def test_a_set_from_recorded_answers_with_its_provenance(
    library: Any, make_task: Callable[..., StepTask], tmp_path: Path
) -> None:
    slugs = ["parallel-bicycle-repair", "parallel-water-cycle"]
    settings = config(languages=("en",), targets_per_document=2, layout="documents")
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text("")
    task = make_task("synth.tr", settings, shards(library, slugs), binding(settings, recorded))
    with recorded.open("w") as handle:
        for row in WORK.rows(task, 0):
            requests = MAKER.requests(row, settings, "recorded-writer", 0)
            found = answers(row["text"], library.text(row["target"], row["title"]), requests, 2500)
            for request, body in zip(requests, found, strict=True):
                handle.write(json.dumps(request.row(body)) + "\n")
    task = make_task("synth.tr", settings, shards(library, slugs), binding(settings, recorded))
    result = WORK.make_shard(task, 0)
    assert (result.counts["documents_in"], sum(result.dropped.values())) == (4, 0)
    (table,) = read_documents(task.folder)
    for row in table.to_pylist():
        extra = json.loads(row["extra"])
        source, target = extra["languages"]
        assert source == "en"
        assert row["text"] == f"{library.text('en', row['title'])}\n\n{library.text(target, row['title'])}"
        assert (row["lang"], row["maker"], row["license"]) == ("mul", "translator", "CC0-1.0")
    import pyarrow.parquet as pq

    provenance = pq.read_table(task.folder / "requests" / "00000.parquet").to_pylist()
    assert {row["verdict"] for row in provenance} == {"kept"}
    assert {row["prompt"] for row in provenance} == {"translation.passage@1"}
    assert all(row["licenses"] == ["CC0-1.0"] and row["completion_tokens"] == 20 for row in provenance)


def binding(settings: Any, recorded: Path) -> dict[str, tuple[str, ...]]:
    return endpoint_binding("tr", settings, {"replay": ReplayConfig(responses=str(recorded))})[0]


@pytest.mark.parametrize("floor", [0.5, 0.8])
def test_native_text_keeps_its_share(
    library: Any, make_task: Callable[..., StepTask], tmp_path: Path, floor: float
) -> None:
    (tmp_path / "none.jsonl").write_text("")
    settings = config(native_floor=floor, targets_per_document=5)
    slugs = library.slugs("en", "parallel-*")
    task = make_task("synth.tr", settings, shards(library, slugs), binding(settings, tmp_path / "none.jsonl"))
    every = WORK.items(make_task("synth.tr", config(targets_per_document=5), shards(library, slugs)))
    items = WORK.items(task)
    assert 0 < len(items) < len(every) == len(slugs) * 30
    lengths = {(lang, slug): len(library.text(lang, slug)) for lang in LANGUAGES for slug in slugs}
    ids = {library.row(lang, slug)["id"]: (lang, slug) for lang in LANGUAGES for slug in slugs}
    for target in LANGUAGES:
        native = sum(length for (lang, _), length in lengths.items() if lang == target)
        made = sum(
            lengths[ids[item.document.id]] * MAKER.length_share(item.document.language, target)
            for item in items
            if item.target == target
        )
        assert native / (native + made) >= floor


def test_the_way_back_is_asked_for_and_compared(
    library: Any, make_task: Callable[..., StepTask], tmp_path: Path
) -> None:
    settings = config(minimum_round_trip=0.4)
    slug = library.slugs("en", "parallel-*")[0]
    row = full(library.row("en", slug), "de")
    requests = MAKER.requests(row, settings, "m", 0)
    there = answers(row["text"], library.text("de", slug), requests, 2500)
    from synth.client import ask

    outcomes = ask(requests, replay({r.key: body for r, body in zip(requests, there, strict=True)}))
    back = MAKER.further(row, settings, "m", requests, outcomes)
    assert back
    assert {request.prompt for request in back} == {"translation.passage@1"}
    good = answers(library.text("de", slug), row["text"], back, 2500)
    bad = [completion(f"〘{body['choices'][0]['message']['content'][1:-1][::-1]}〙") for body in good]
    for bodies, stays in ((good, True), (bad, False)):
        replies = ask(back, replay({r.key: body for r, body in zip(back, bodies, strict=True)}))
        made = MAKER.judged(row, settings, [*requests, *back], [*outcomes, *replies])
        assert isinstance(made, Made) is stays, made
    assert isinstance(made, Refused)
    assert made.check == "round_trip"


GOOD = {
    "question": "Warum dauert es eine Stunde, durch die zehn Schleusen zu fahren?",
    "answer": "Jede Schleuse braucht 6 Minuten, und 10 × 6 = 60 Minuten sind eine Stunde.",
    "evidence": "each of the ten locks takes 6 minutes",
}
DOCUMENT = "The canal climbs slowly. A boat needs patience, for each of the ten locks\ntakes 6 minutes, day and night."


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({}, ""),
        ({"evidence": "each of the ten locks takes 7 minutes"}, "evidence"),
        ({"answer": "Each of the locks takes 6 minutes, and there are ten of them in all."}, "language"),
        (
            {"answer": "Als Sprachmodell sage ich: Jede der Schleusen braucht ihre Zeit, und zwar viel davon."},
            "leakage",
        ),
        ({"answer": "Jede der zehn Schleusen braucht 6 Minuten, zusammen sind das also 95 Minuten."}, "numbers"),
    ],
)
def test_questions_and_answers(
    library: Any, make_task: Callable[..., StepTask], change: dict[str, str], check: str
) -> None:
    settings = QuestionsConfig.model_validate({"kind": "questions", "from": "articles", "minimum_pairs": 1})
    row = full(library.row("en", "locks", text=DOCUMENT), "de")
    task = make_task("synth.qa", settings, [[library.row("en", "locks", text=DOCUMENT)]])
    maker = QuestionsMaker()
    (request,) = maker.requests(row, settings, "m", 0)
    body = completion("```json\n" + json.dumps({"pairs": [{**GOOD, **change}]}) + "\n```")
    writer = ShardWriter(task, 0)
    make_samples(maker, [row], settings, "m", replay({request.key: body}), writer)
    writer.commit()
    if check:
        (dropped,) = read_dropped(task.folder)
        assert dropped["reason"].to_pylist() == [f"questions.{check}"]
        return
    (table,) = read_documents(task.folder)
    (made,) = table.to_pylist()
    assert made["text"] == f"{DOCUMENT}\n\n{GOOD['question']}\n{GOOD['answer']}"
    assert json.loads(made["extra"])["languages"] == ["en", "de"]


def test_a_judge_sees_its_share_and_what_it_finds_bad_goes(library: Any, make_task: Callable[..., StepTask]) -> None:
    grades = {"grounded": 2, "useful": 5, "clean": 5}

    class Judge(Replay):
        def body(self, request: Any) -> Any:
            if request.prompt.startswith("judge."):
                return completion(json.dumps(grades))
            return completion(json.dumps({"pairs": [GOOD]}))

    for permille, out in ((0, 1), (1000, 0)):
        settings = QuestionsConfig.model_validate(
            {"kind": "questions", "from": "articles", "minimum_pairs": 1, "judge": {"permille": permille}}
        )
        row = full(library.row("en", "locks", text=DOCUMENT), "de")
        writer = ShardWriter(
            make_task(f"synth.qa{permille}", settings, [[library.row("en", "locks", text=DOCUMENT)]]), 0
        )
        make_samples(QuestionsMaker(), [row], settings, "m", Judge({}, "", "", ""), writer)
        assert writer.counts["documents_out"] == out
        assert dict(writer.dropped) == ({} if out else {"questions.judge": 1})
        assert len(writer.requests) == (1 if out else 2)


def test_a_choice_of_passages_keeps_the_first_and_the_densest() -> None:
    parts = [
        "Title and a beginning.",
        "Calm prose about a lake. " * 4,
        "If x = 4, then 3 x = 12, hence y > 2.",
        "End of it.",
    ]
    text = "\n\n".join(parts)
    found = passages(text, 40)
    assert "\n\n".join(found) == text
    assert chosen(found, 62) == [0, 2]
