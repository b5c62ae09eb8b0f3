"""datatrove's documents and ours: lossless both ways; their blocks in our pipeline and ours in theirs."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from datatrove.data import Document, Media
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.config import Located
from pipeline.core.datatrove_bridge import from_datatrove, to_datatrove
from pipeline.core.documents import DOCUMENT_SCHEMA, table_from_rows, text_hash
from pipeline.core.errors import ConfigError, InputError
from stages.adapters import SeodangStep
from stages.block import verify
from stages.catalog import block_config, resolve
from stages.catalog import make_block as made_from
from stages.normalise import Normalise, NormaliseConfig
from stages.rules import Rules, RulesConfig

TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)
HEX = st.text(alphabet="0123456789abcdef", min_size=32, max_size=32)
MESSAGE = st.fixed_dictionaries(
    {
        "role": TEXT,
        "reasoning": st.none() | TEXT,
        "content": st.none() | TEXT,
        "tool_calls": st.none() | st.lists(st.fixed_dictionaries({"name": TEXT, "arguments": TEXT}), max_size=2),
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.none() | TEXT | st.dictionaries(st.sampled_from(["a", "datatrove", "id"]), JSON).map(json.dumps)
ROW = st.fixed_dictionaries(
    {"id": HEX, "text": TEXT, "source": TEXT},
    optional={
        "messages": st.lists(MESSAGE, max_size=2),
        "extra": EXTRA | st.just('{"datatrove":{"id":"x"}}') | st.just('{"datatrove":{"sourceless":true}}'),
        "lang_score": st.none() | st.floats(0, 1, width=32),
        "cluster_size": st.none() | st.integers(0, 2**31 - 1),
        "parents": st.none() | st.lists(HEX, max_size=2),
        **{name: st.none() | TEXT for name in ("url", "title", "date", "lang", "domain", "license", "robots", "maker")},
    },
)
METADATA = st.dictionaries(st.sampled_from([*DOCUMENT_SCHEMA.names, "language", "score", "x y"]), JSON, max_size=5)
MEDIA = st.builds(
    Media,
    id=TEXT,
    type=st.integers(0, 3),
    url=TEXT,
    media_bytes=st.none() | st.binary(max_size=8),
    metadata=st.dictionaries(TEXT, JSON, max_size=1),
)
THEIRS = st.builds(Document, text=TEXT, id=HEX | TEXT, media=st.lists(MEDIA, max_size=2), metadata=METADATA)


def rows(*texts: str) -> Any:
    return table_from_rows(
        [
            {"id": text_hash(f"{n}"), "text": t, "text_hash": text_hash(t), "source": "s", "lang": "en"}
            for n, t in enumerate(texts)
        ]
    )


@settings(deadline=None)
@given(st.lists(ROW, max_size=4))
def test_ours_to_theirs_and_back(given_rows: list[dict[str, Any]]) -> None:
    table = table_from_rows([{**row, "text_hash": text_hash(row["text"])} for row in given_rows])
    back = from_datatrove(to_datatrove(table), table["source"].to_pylist())
    assert back.schema.equals(DOCUMENT_SCHEMA)
    assert back.to_pylist() == table.to_pylist()


@settings(deadline=None)
@given(st.lists(THEIRS, max_size=4))
def test_theirs_to_ours_and_back(documents: list[Document]) -> None:
    table = from_datatrove(documents, "crawl")
    assert list(to_datatrove(table)) == documents
    assert all(len(name) == 32 for name in table["id"].to_pylist())
    again = from_datatrove(to_datatrove(table), "crawl")
    assert again.equals(table)


def test_metadata_that_is_no_json_is_named() -> None:
    with pytest.raises(InputError, match="when"):
        from_datatrove([Document(text="a", id="1", metadata={"when": object(), "ok": 1})], "s")


def block(options: dict[str, Any]) -> Any:
    config = block_config("datatrove", Located(options))
    found = resolve("datatrove", config, 0, base=None)  # type: ignore[arg-type]  # no path options
    return made_from(found.spec, 0, {})


def test_a_datatrove_filter_runs_inside_our_pipeline() -> None:
    documents = rows("keep this one", "drop the spam here", "keep that")
    result = block({"block": "datatrove.pipeline.filters:RegexFilter", "arguments": {"regex_exp": "spam"}}).apply(
        documents
    )
    verify(documents, result)
    assert result.kept.equals(documents.take(pa.array([0, 2])))
    assert (result.dropped_at.tolist(), result.reasons) == ([1], ["datatrove.RegexFilter"])


def test_a_datatrove_filters_own_reason_is_the_detail() -> None:
    documents = rows("\n".join(["same line again"] * 20))
    result = block({"block": "datatrove.pipeline.filters:GopherRepetitionFilter"}).apply(documents)
    assert result.details == ["dup_line_frac"]


def test_a_datatrove_formatter_changes_text_and_hash() -> None:
    documents = rows("write to jane@example.org now")
    result = block({"block": "datatrove.pipeline.formatters:PIIFormatter"}).apply(documents)
    verify(documents, result)
    text = result.kept["text"][0].as_py()
    assert "jane" not in text
    assert result.kept["text_hash"][0].as_py() == text_hash(text)


def test_a_block_that_datatrove_lacks_is_the_users_error() -> None:
    with pytest.raises(ConfigError, match="NoSuchFilter"):
        block({"block": "datatrove.pipeline.filters:NoSuchFilter"})


def test_our_blocks_run_inside_a_plain_datatrove_pipeline(tmp_path: Any) -> None:
    good = "The river runs past the old mill, and the people of the village have walked there with their dogs.\r\n"
    texts = [good + f"That was in the year {n}, to be sure." for n in range(3)] + ["spam " * 90]
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"text": text, "id": f"doc-{n}", "lang": "en", "score": n}) for n, text in enumerate(texts)]
    (tmp_path / "in" / "x.jsonl").write_text("\n".join(lines))
    rules = Rules(RulesConfig(thresholds={"default": {"gopher_too_short": 10}}))
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(tmp_path / "in"), glob_pattern="*.jsonl"),
            SeodangStep(Normalise(NormaliseConfig()), "crawl"),
            SeodangStep(rules, "crawl"),
            JsonlWriter(str(tmp_path / "out"), output_filename="${rank}.jsonl", compression=None),
        ],
        logging_dir=str(tmp_path / "logs"),
    ).run()
    (written,) = (tmp_path / "out").glob("*.jsonl")
    out = [json.loads(line) for line in written.read_text().splitlines()]
    assert [one["id"] for one in out] == ["doc-0", "doc-1", "doc-2"]
    assert [one["metadata"]["score"] for one in out] == [0, 1, 2]
    assert all("\r" not in one["text"] for one in out)
