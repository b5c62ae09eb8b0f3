"""`seodang tokenizer report`: figures counted by hand, other tokenizers beside ours, mistakes told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as FileTokenizer
from tokenizers import models, pre_tokenizers

from pipeline.commands.tokenizer_report import report_tokenizer
from pipeline.core.errors import InputError
from pipeline.core.files import write_json
from pipeline.core.tokenizer import FILE, Tokenizer
from pipeline.report.tokenizer_report import REPORT, held_out_tables, read_report
from stages.tokenizer.encoder import Encoder
from stages.tokenizer.report import Sample, file_counter, tokenizer_report
from stages.tokenizer.superbpe import build, train

TRAINING = ["the river and the snow and the river are in the mountains " * 8] * 3
SAMPLES = [
    Sample("the river and the snow", "en", "travel"),
    Sample("x = 2", "en", "code"),
    Sample("the river", "en", "science"),
    Sample("\u1100\u1161 강물", "ko", ""),
    Sample("Fluss", "de", ""),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / FILE
    build(train(lambda: TRAINING, 350, 0.03, 2)).save(str(path))
    return path


@pytest.fixture(scope="module")
def bytes_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tokenizer: a token a byte."""
    path = tmp_path_factory.mktemp("bytes") / FILE
    vocabulary = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    whole = FileTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.save(str(path))
    return path


def test_figures_are_those_of_counting_by_hand(file: Path, bytes_only: Path) -> None:
    tokenizer = Tokenizer.load(file)
    report = tokenizer_report("ours", Encoder.of(tokenizer), {"bytes": file_counter(bytes_only)}, SAMPLES)
    assert list(report["groups"]) == ["English", "Korean", "multilingual", "code", "STEM"]
    assert list(report["languages"]) == ["en", "ko", "de"]
    tokens = len(tokenizer.encode("the river and the snow"))
    english = report["groups"]["English"]
    assert english["bytes_per_token"] == {"ours": 22 / tokens, "bytes": 1.0}
    assert english["fertility"] == {"ours": tokens / 5, "bytes": 22 / 5}
    assert report["groups"]["Korean"]["bytes"] == len("가 강물".encode())  # NFC
    assert report["languages"]["en"]["documents"] == 3
    assert set(report["domains"]) == {"travel", "code", "science", "none"}


def test_superwords_and_tokens_never_used(file: Path) -> None:
    tokenizer = Tokenizer.load(file)
    report = tokenizer_report("ours", Encoder.of(tokenizer), {}, SAMPLES[:1])
    ids = tokenizer.encode(SAMPLES[0].text)
    superwords = [tokenizer.token(number) for number in ids if " " in tokenizer.token(number).strip()]
    assert superwords
    assert sorted(text for text, _ in report["frequent_superwords"]["en"]) == sorted(set(superwords))
    ordinary = tokenizer.vocabulary_size - 64
    assert report["unused"]["of"] == ordinary
    assert report["unused"]["tokens"] == ordinary - len(set(ids))


def test_the_command_measures_given_documents(
    file: Path, bytes_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = tmp_path / "held.jsonl"
    documents.write_text(
        "".join(json.dumps({"text": s.text, "lang": s.language, "domain": s.domain}) + "\n" for s in SAMPLES)
    )
    report_tokenizer(file, [bytes_only], [documents], [], as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["others"] == [bytes_only.parent.name]
    assert report["languages"]["de"]["bytes_per_token"][bytes_only.parent.name] == 1.0
    report_tokenizer(file, [bytes_only], [documents], [], as_json=False)
    shown = capsys.readouterr().err
    assert "By group" in shown
    assert "never used" in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ('{"lang": "en"}', "no field `text`"), (None, "no documents to measure on")],
)
def test_mistakes_are_told(file: Path, tmp_path: Path, content: str | None, message: str) -> None:
    documents = tmp_path / "held.jsonl"
    if content is not None:
        documents.write_text(content + "\n")
    with pytest.raises(InputError) as error:
        report_tokenizer(file, [], [] if content is None else [documents], [], as_json=True)
    assert message in error.value.render()


def test_page_tables_show_the_report_and_say_when_there_is_none(file: Path, tmp_path: Path) -> None:
    assert "seodang tokenizer report" in held_out_tables(read_report(tmp_path))
    report = tokenizer_report("ours", Encoder.of(Tokenizer.load(file)), {}, [Sample("the river <b>", "en", "travel")])
    write_json(tmp_path / REPORT, report)
    drawn = held_out_tables(read_report(tmp_path))
    assert "Held-out text by group" in drawn
    assert "<b>" not in drawn
    assert "ours: bytes per token" in drawn
