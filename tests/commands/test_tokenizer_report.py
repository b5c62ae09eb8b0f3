"""`seodang tokenizer report`: figures counted by hand, other tokenizers beside ours, mistakes told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer as FileTokenizer
from tokenizers import models, pre_tokenizers

from pipeline.commands.tokenizer_report import report_tokenizer
from pipeline.core.errors import InputError
from pipeline.core.files import write_json
from pipeline.core.tokenizer import FILE, Tokenizer
from pipeline.report.tokenizer_report import REPORT, held_out_tables, read_report
from stages.tokenizer import bundled
from stages.tokenizer.bundled import BUNDLED, bundled_counter
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
    documents = held(tmp_path)
    report_tokenizer(file, [str(bytes_only)], [documents], [], as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["others"] == [bytes_only.parent.name]
    assert report["languages"]["de"]["bytes_per_token"][bytes_only.parent.name] == 1.0
    report_tokenizer(file, [str(bytes_only)], [documents], [], as_json=False)
    shown = capsys.readouterr().err
    assert "By group" in shown
    assert "never used" in shown


def held(tmp_path: Path) -> Path:
    documents = tmp_path / "held.jsonl"
    documents.write_text(
        "".join(json.dumps({"text": s.text, "lang": s.language, "domain": s.domain}) + "\n" for s in SAMPLES)
    )
    return documents


def test_bundled_public_vocabularies_stand_beside_it(
    file: Path, bytes_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bpe_openai", reason="the extra `public` is not installed")
    report_tokenizer(file, ["public", str(bytes_only)], [held(tmp_path)], [], as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["others"] == [bytes_only.parent.name, "cl100k", "o200k", "voyage3"]
    # "the river and the snow" has five words, each a token of these vocabularies: 22 bytes.
    assert [report["domains"]["travel"]["bytes_per_token"][name] for name in BUNDLED] == [22 / 5] * 3
    marks = bundled_counter("o200k")(["<|endoftext|>", "<|endofturn|>"])
    assert min(marks) > 3  # text that looks special is text
    report_tokenizer(file, ["o200k"], [held(tmp_path)], [], as_json=True)
    assert json.loads(capsys.readouterr().out)["others"] == ["o200k"]


def test_a_missing_package_is_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="`cl100k` comes with a package that is not installed"):
        report_tokenizer(file, ["cl100k"], [held(tmp_path)], [], as_json=True)


def test_a_file_of_a_bundled_name_comes_first(
    file: Path, bytes_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = held(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bytes_only.parent, tmp_path / "o200k")
    report_tokenizer(file, ["o200k"], [documents], [], as_json=True)
    assert json.loads(capsys.readouterr().out)["languages"]["de"]["bytes_per_token"]["o200k"] == 1.0


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
