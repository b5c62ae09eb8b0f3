"""Stores across a network: ranges over HTTP and S3 give the same rows, and what goes wrong names the shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mixes.blocks import RANGE_BYTES
from mixes.loader import Batch, MixLoader
from pipeline.core.errors import InputError
from range_server import RangeServer, serving

CONTEXT = 512
ROWS = 64
PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def planned(new_house: Callable[[], Any], documents_of: Callable[..., Any]) -> Any:
    """Shards of several ranges each; some have loss flags."""
    house = new_house()
    lengths = np.random.default_rng(0).integers(100, 500, 1500).tolist()
    house.encode("web", documents_of("web", lengths), documents_of("web", lengths[::-1]), masked=True)
    house.encode("made", documents_of("made", lengths, maker="m"))
    assert (house.store / "encode.web-00000000/tokens/00000.bin").stat().st_size > RANGE_BYTES
    mix = {"web": {"from": ("web",), "weight": 0.6}, "made": {"from": ("made",), "weight": 0.4}}
    house.append(mix, budget_tokens=CONTEXT * ROWS, rows_per_batch=8, context_tokens=CONTEXT)
    return house


@pytest.fixture
def server(planned: Any) -> Iterator[RangeServer]:
    with serving(planned.store) as state:
        yield state


def rows_of(batch: Batch) -> bytes:
    return batch.token_ids_RT.tobytes() + batch.loss_mask_RT.tobytes() + batch.document_ids_RT.tobytes()


def all_rows(loader: MixLoader) -> list[bytes]:
    return [rows_of(loader.batch(position, 8)) for position in range(0, ROWS, 8)]


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("cache_bytes", [1, 10**8])
def test_ranges_over_http_give_the_same_rows(planned: Any, server: RangeServer, cache_bytes: int) -> None:
    loader = MixLoader(planned.plan, server.url, cache_bytes=cache_bytes)
    assert all_rows(loader) == all_rows(MixLoader(planned.plan))
    ranges = [asked for path, asked in server.asked if path.endswith(".bin")]
    assert all(asked.startswith("bytes=") for asked in ranges)
    assert server.most_in_flight > 1  # asked for in one go
    before = len(server.asked)
    loader.batch(0, 8)
    assert (len(server.asked) == before) == (cache_bytes > 1)


def test_the_next_batches_are_fetched_while_the_trainer_works(planned: Any, server: RangeServer) -> None:
    server.delay_seconds = 0.02
    loader = MixLoader(planned.plan, server.url, ahead=2, cache_bytes=1)
    first = loader.batch(0, 8)
    asked = len(server.asked)
    until(lambda: len(server.asked) > asked and server.in_flight == 0)  # nobody asked the loader for more
    rest = [rows_of(loader.batch(position, 8)) for position in range(8, ROWS, 8)]
    loader.close()
    assert [rows_of(first), *rest] == all_rows(MixLoader(planned.plan))


def test_a_connection_cut_once_is_asked_again(planned: Any, server: RangeServer) -> None:
    server.cut_once = {"web-00000000/tokens/00000.bin", "00000.sums"}
    assert all_rows(MixLoader(planned.plan, server.url)) == all_rows(MixLoader(planned.plan))
    assert not server.cut_once


FAULTS: dict[str, tuple[Callable[[RangeServer], None], str]] = {
    "cut": (lambda s: s.cut.add("made-00000000/tokens/00000.bin"), "cannot be read"),
    "wrong bytes": (lambda s: s.wrong.add("made-00000000/tokens/00000.bin"), "are not those that were written"),
    "ranges ignored": (lambda s: setattr(s, "whole", True), "where the plan says"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ahead", [0, 2])
def test_what_goes_wrong_names_the_shard(planned: Any, server: RangeServer, fault: str, ahead: int) -> None:
    break_it, said = FAULTS[fault]
    break_it(server)
    loader = MixLoader(planned.plan, server.url, ahead=ahead)
    with pytest.raises(InputError, match=rf"http://127.0.0.1:\d+/encode\.\w+-00000000/tokens/0000\d\.bin: .*{said}"):
        all_rows(loader)
    loader.close()


def test_a_missing_shard_is_named_at_once(planned: Any, server: RangeServer, tmp_path: Any) -> None:
    server.root = tmp_path
    with pytest.raises(InputError, match=r"tokens/0000\d\.sums: cannot be read: FileNotFoundError"):
        MixLoader(planned.plan, server.url).batch(0, 8)
    assert len(server.asked) == len(set(server.asked))  # what is not there is not asked for again


def test_a_store_that_is_not_there_is_named(planned: Any) -> None:
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/encode.*cannot be read: \w+: Cannot connect"):
        MixLoader(planned.plan, "http://127.0.0.1:9").batch(0, 8)


@pytest.mark.server
def test_ranges_of_an_s3_bucket_give_the_same_rows(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against moto's server, with s3fs's own client."""
    import s3fs
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        files.mkdir("bucket")
        for folder in planned.store.glob("encode.*"):
            files.put(str(folder), f"bucket/store/{folder.name}", recursive=True)
        loader = MixLoader(planned.plan, "s3://bucket/store", ahead=1)
        assert all_rows(loader) == all_rows(MixLoader(planned.plan))
        loader.close()
        name = next(path for path in files.find("bucket/store") if path.endswith("made-00000000/tokens/00000.bin"))
        files.pipe_file(name, bytes(8) + files.cat_file(name)[8:])
        with pytest.raises(InputError, match=r"bucket/store/encode\.made-.*/00000\.bin: bytes 0 to .* are not those"):
            all_rows(MixLoader(planned.plan, "s3://bucket/store"))
        files.rm_file(name)
        with pytest.raises(InputError, match=r"bucket/store/encode\.made-.*/00000\.bin: cannot be read"):
            all_rows(MixLoader(planned.plan, "s3://bucket/store"))
    finally:
        server.stop()
