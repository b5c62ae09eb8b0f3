"""Loading: the right tokens in the right places, the same however rows are split, and corrupted shards refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import fsspec
import numpy as np
import pytest

from mixes.loader import Batch, MixLoader
from pipeline.core.errors import InputError
from pipeline.core.shards import SUM_BYTES, TokenShard

COMPONENTS = {"web": {"from": ("web-*",), "weight": 0.7}, "reason": {"from": ("reason",), "weight": 0.3}}
ARRAYS = ("token_ids_RT", "document_ids_RT", "source_ids_RT", "loss_mask_RT")


@pytest.fixture
def planned(house: Any, documents_of: Any) -> Any:
    rng = np.random.default_rng(0)
    house.encode(
        "web",
        documents_of("web-ko", rng.integers(2, 150, 60).tolist(), lang="ko", domain="news"),
        documents_of("web-en", rng.integers(2, 150, 60).tolist(), lang="en"),
        masked=True,
    )
    house.encode("reason", documents_of("reason", rng.integers(2, 40, 80).tolist()))
    house.append(COMPONENTS, budget_tokens=64 * 24, rows_per_batch=4)
    house.append(COMPONENTS, budget_tokens=128 * 12, rows_per_batch=4, context_tokens=128, phase="two")
    return house


def test_every_token_comes_from_its_document(planned: Any) -> None:
    loader = MixLoader(planned.plan)
    for position in range(0, 24, 4):
        batch = loader.batch(position, 4)
        filled = np.zeros_like(batch.loss_mask_RT)
        p = batch.pieces
        ordinal = dict.fromkeys(range(4), 0)
        for i in range(p.row_P.shape[0]):
            row, span = p.row_P[i], slice(p.offset_P[i], p.offset_P[i] + p.length_P[i])
            shard = TokenShard.open(planned.store / batch.shards[p.shard_P[i]])
            source = slice(p.start_P[i], p.start_P[i] + p.length_P[i])
            assert batch.token_ids_RT[row, span].tolist() == shard.token_ids[source].tolist()
            wanted = np.ones(p.length_P[i], bool) if shard.loss is None else shard.loss[source] == 1
            assert batch.loss_mask_RT[row, span].tolist() == wanted.tolist()
            assert set(batch.document_ids_RT[row, span]) == {ordinal[row]}
            assert set(batch.source_ids_RT[row, span]) == {p.source_P[i]}
            table = shard.documents().slice(p.document_P[i], 1).to_pylist()[0]
            assert batch.sources[p.source_P[i]] == table["source"]
            assert batch.languages[p.language_P[i]] == (table["lang"] or "und")
            assert batch.domains[p.domain_P[i]] == (table["domain"] or "unknown")
            assert table["start"] <= p.start_P[i]
            assert p.start_P[i] + p.length_P[i] <= table["start"] + table["length"]
            assert not filled[row, span].any()
            filled[row, span] = True
            ordinal[row] += 1
        assert (batch.document_ids_RT[~filled] == -1).all()
        assert (batch.source_ids_RT[~filled] == -1).all()
        assert not batch.loss_mask_RT[~filled].any()
        assert not batch.token_ids_RT[~filled].any()


def rows_of(batch: Batch) -> list[bytes]:
    return [b"".join(getattr(batch, name)[row].tobytes() for name in ARRAYS) for row in range(len(batch.token_ids_RT))]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_splits_and_restarts_give_the_same_rows(planned: Any, ranks: int) -> None:
    whole = rows_of(MixLoader(planned.plan).batch(8, 4))
    part = 4 // ranks
    split = [row for rank in range(ranks) for row in rows_of(MixLoader(planned.plan).batch(8 + rank * part, part))]
    assert split == whole


def test_shapes_types_and_names(planned: Any) -> None:
    loader = MixLoader(planned.plan)
    one, two = loader.batch(0, 4), loader.batch(24, 4)
    assert one.token_ids_RT.shape == (4, 64)
    assert two.token_ids_RT.shape == (4, 128)
    kinds = [getattr(one, name).dtype for name in ARRAYS]
    assert kinds == [np.int64, np.int32, np.int32, np.bool_]
    assert one.sources == ("reason", "web-en", "web-ko")
    assert one.components == ("reason", "web")
    assert one.languages == ("en", "ko", "und")
    assert len({getattr(one.pieces, field.name).shape for field in fields(one.pieces)}) == 1


def test_a_batch_never_crosses_a_segment(planned: Any) -> None:
    with pytest.raises(InputError, match="rows 22 to 26 do not lie in segment `one`, which ends at row 24") as caught:
        MixLoader(planned.plan).batch(22, 4)
    assert caught.value.fix == "ask for 1 to 2 rows"
    with pytest.raises(InputError, match="row 36 is outside the plan's 36 rows"):
        MixLoader(planned.plan).batch(36, 4)


def test_loading_ahead_gives_the_same_rows(planned: Any) -> None:
    plain, ahead = MixLoader(planned.plan), MixLoader(planned.plan, ahead=2)
    for position in (0, 4, 8, 4, 20, 24, 28, 0):
        assert rows_of(ahead.batch(position, 4)) == rows_of(plain.batch(position, 4))
    with pytest.raises(InputError, match="do not lie in segment `one`"):
        ahead.batch(22, 4)
    ahead.close()


@pytest.fixture
def remote(planned: Any) -> str:
    """The token shards in another kind of store."""
    files = fsspec.filesystem("memory")
    files.rm("/shards", recursive=True) if files.exists("/shards") else None
    for folder in planned.store.glob("encode.*"):
        files.put(str(folder), f"/shards/{folder.name}", recursive=True)
    return "memory://shards"


@pytest.mark.parametrize("cache_bytes", [1, 10**6])
def test_ranges_of_a_remote_store_give_the_same_rows(planned: Any, remote: str, cache_bytes: int) -> None:
    plain, ranged = MixLoader(planned.plan), MixLoader(planned.plan, remote, ahead=1, cache_bytes=cache_bytes)
    for position in range(0, 36, 4):
        assert rows_of(ranged.batch(position, 4)) == rows_of(plain.batch(position, 4))
    ranged.close()


def test_what_a_remote_store_changed_is_named(planned: Any, remote: str) -> None:
    files = fsspec.filesystem("memory")
    name = next(path for path in files.find("/shards") if path.endswith("00000.bin") and "reason" in path)
    good = files.cat_file(name)
    files.pipe_file(name, good[:8] + bytes([good[8] ^ 1]) + good[9:])
    with pytest.raises(InputError, match=r"encode\.reason-00000000/tokens/00000\.bin: bytes 0 to .* are not those"):
        MixLoader(planned.plan, remote).batch(0, 24)
    files.pipe_file(name, good[:-4])
    with pytest.raises(InputError, match=r"00000\.bin: .* bytes at 0 where the plan says"):
        MixLoader(planned.plan, remote).batch(0, 24)
    files.rm_file(name)
    with pytest.raises(InputError, match=r"reason-00000000/tokens/00000\.bin: cannot be read"):
        MixLoader(planned.plan, remote).batch(0, 24)


def test_only_what_is_read_is_checked(planned: Any) -> None:
    """A shard of several blocks: a batch that does not touch the changed block is served, one that does is not."""
    planned.encode("big", [{"source": "big", "length": 200, "license": "CC0-1.0"}] * 400)
    plan = planned.append(
        {"big": {"from": ("big",), "weight": 1.0}}, budget_tokens=200 * 300, context_tokens=200, phase="3"
    )
    path = planned.store / "encode.big-00000000/tokens/00000.bin"
    data = bytearray(path.read_bytes())
    data[SUM_BYTES + 5] ^= 1
    path.write_bytes(bytes(data))
    loader, first = MixLoader(plan), plan.segments[-1].first_row
    said = []
    for position in range(first, first + 300):
        try:
            block = int(loader.batch(position, 1).pieces.start_P[0]) * 4 // SUM_BYTES
            assert block != 1
        except InputError as error:
            said.append(error.what)
    assert 0 < len(said) < 300
    assert all(what.startswith("bytes 65,536 to 131,072 are not those that were written") for what in said)


def test_flags_are_checked_too(planned: Any) -> None:
    for path in planned.store.glob("encode.web-*/tokens/*.bin.loss"):
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(InputError, match=r"\.bin\.loss: bytes 0 to [\d,]+ are not those"):
        MixLoader(planned.plan).batch(0, 24)


def test_changed_checksums_are_named(planned: Any) -> None:
    path = next(planned.store.glob("encode.reason-*/tokens/*.sums"))
    path.write_bytes(bytes(8))
    with pytest.raises(InputError, match=r"00000\.sums: the shard's checksums are not those the plan was made with"):
        MixLoader(planned.plan).batch(0, 24)


def test_a_changed_shard_is_named(planned: Any) -> None:
    path = next(planned.store.glob("encode.reason-*/tokens/*.bin"))
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(
        InputError,
        match=r"encode\.reason-00000000/tokens/00000\.bin: bytes 0 to [\d,]+ are not those that were written",
    ):
        MixLoader(planned.plan).batch(0, 24)


def test_a_cut_shard_is_named(planned: Any) -> None:
    path = next(planned.store.glob("encode.reason-*/tokens/*.bin"))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"00000\.bin: the file holds [\d,]+ bytes, the plan says"):
        MixLoader(planned.plan).batch(0, 24)


def test_cut_loss_flags_are_named(planned: Any) -> None:
    for path in planned.store.glob("encode.web-*/tokens/*.bin.loss"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"\.bin\.loss: the file holds [\d,]+ bytes, the plan says"):
        MixLoader(planned.plan).batch(0, 24)
