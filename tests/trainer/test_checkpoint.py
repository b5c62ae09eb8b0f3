"""Checkpoints: every tensor makes the round trip, bytes repeat, and what does not fit is refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.core.files import PARTIAL
from pipeline.core.plans import Plan, Segment, sealed
from trainer import saving
from trainer.checkpoint import CheckpointInfo, check_fits, checkpoints, latest, load, read_info, remove_partial
from trainer.config import ModelConfig, OptimizerConfig
from trainer.losses import compute_losses
from trainer.model.model import MoEModel, build_model
from trainer.optim import MuonAdamW, build_optimizer
from trainer.phase import load_model
from trainer.saving import save

VOCABULARY = 64
MODEL = ModelConfig(
    hidden_size=32,
    num_layers=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    window_tokens=8,
    intermediate_size=48,
    num_experts=4,
    experts_per_token=2,
    expert_intermediate_size=16,
)


def segment(name: str = "a", rows: int = 8, first_row: int = 0, seed: int = 0) -> Segment:
    return Segment(
        name=name, context_tokens=16, rows=rows, rows_per_batch=1, first_row=first_row, seed=seed, order_version=1, tokenizer="tok",
        components=(), sources=(), shards=(), shares=(), tokens=0, padding_tokens=0, truncated_documents=0,
    )  # fmt: skip


PLAN = Plan(Path("store"), (sealed(segment(), ""),))
INFO = CheckpointInfo(
    phase="p",
    step=3,
    position=6,
    tokens=90,
    plan=PLAN.fingerprint,
    seed=7,
    model=MODEL.model_dump(mode="json"),
    vocabulary_size=VOCABULARY,
    tokenizer="tok",
    parent="",
)


def trained() -> tuple[MoEModel, MuonAdamW]:
    """A model two updates old, so that biases and moments are not zero."""
    torch.manual_seed(0)
    model = build_model(MODEL, VOCABULARY, seed=1)
    optimizer = build_optimizer(model, OptimizerConfig())
    optimizer.set_learning_rate(1e-2)
    for _ in range(2):
        tokens = torch.randint(0, VOCABULARY, (2, 16))
        documents = torch.zeros_like(tokens)
        compute_losses(model, tokens, documents, documents == 0).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_expert_bias(1e-3)
    return model, optimizer


def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    drawn_before = torch.get_rng_state()
    place = save(tmp_path, INFO, model.state_dict(), optimizer.state_dict(), keep=2)
    loaded = load(place)

    state = model.state_dict()
    assert loaded.model.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(loaded.model[name], tensor), name
    biases = [name for name in state if name.endswith("expert_bias")]
    assert len(biases) == 3  # one for each sparse layer
    assert all(loaded.model[name].abs().sum() > 0 for name in biases)
    assert any(name.startswith("mtp.") for name in state)
    assert any("experts.gate_up" in name for name in state)

    fresh = build_optimizer(build_model(MODEL, VOCABULARY, seed=2), OptimizerConfig())
    fresh.load_state_dict(loaded.optimizer)
    expected = optimizer.state_dict()
    for name, momentum in fresh.state_dict()["muon"].items():
        assert torch.equal(momentum, expected["muon"][name]), name
        assert momentum.abs().sum() > 0, name
    for name, moments in fresh.state_dict()["adamw"].items():
        assert {key: value.tolist() for key, value in moments.items()} == {
            key: value.tolist() for key, value in expected["adamw"][name].items()
        }
    assert torch.equal(loaded.rng, drawn_before)
    assert replace(loaded.info, optimizer=None, tensors={}, files={}) == INFO


def test_the_optimiser_tree_keeps_its_kinds(tmp_path: Path) -> None:
    tree = {"state": {0: {"step": 3, "m": torch.arange(3)}, 10: {"m": torch.ones(2, dtype=torch.bfloat16)}}}
    tree["groups"] = [{"lr": 0.1, "betas": (0.9, 0.95), "name": None, "fused": True}]
    loaded = load(save(tmp_path, INFO, {}, tree, keep=1)).optimizer
    assert list(loaded["state"]) == [0, 10]
    assert loaded["groups"] == tree["groups"]
    assert loaded["state"][0]["m"].tolist() == [0, 1, 2]
    assert loaded["state"][10]["m"].dtype == torch.bfloat16


def test_equal_states_are_equal_bytes(tmp_path: Path) -> None:
    model, optimizer = trained()
    places = [
        save(tmp_path / name, INFO, model.state_dict(), optimizer.state_dict(), keep=1) for name in ("one", "another")
    ]
    files = [{path.name: path.read_bytes() for path in sorted(place.iterdir())} for place in places]
    assert files[0] == files[1]
    assert "checkpoint.json" in files[0]
    assert read_info(places[0]).identity == read_info(places[1]).identity


def test_identity_changes_with_one_bit(tmp_path: Path) -> None:
    tensor = torch.zeros(4)
    before = read_info(save(tmp_path / "a", INFO, {"w": tensor}, {}, keep=1)).identity
    tensor[3] = 2**-149
    assert read_info(save(tmp_path / "b", INFO, {"w": tensor}, {}, keep=1)).identity != before


def test_only_the_newest_and_segment_ends_stay(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, replace(INFO, step=step, ends_segment=step == 2), {"w": torch.zeros(1)}, {}, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000004", "step-00000005"]
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step-00000005"


def test_a_killed_save_is_not_seen_and_cleared(tmp_path: Path) -> None:
    place = save(tmp_path, INFO, {"w": torch.zeros(1)}, {}, keep=1)
    unfinished = place.with_name(f"{PARTIAL}step-00000009")
    unfinished.mkdir()
    (unfinished / ".metadata").write_bytes(b"half")
    assert latest(tmp_path) == place
    remove_partial(tmp_path)
    assert not unfinished.exists()
    assert latest(tmp_path) == place


def test_a_failed_round_trip_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = saving.read_parts

    def one_lost(place: Path, tensors: dict[str, torch.Tensor]) -> None:
        read(place, tensors)
        tensors["model.experts"].zero_()

    monkeypatch.setattr(saving, "read_parts", one_lost)
    with pytest.raises(AssertionError, match=r"did not survive the save: model\.experts"):
        save(tmp_path, INFO, {"experts": torch.ones(2), "other": torch.ones(2)}, {}, keep=1)
    assert latest(tmp_path) is None


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    place = save(tmp_path, INFO, {"w": torch.full((64,), 1.5)}, {}, keep=1)
    (data,) = place.glob("*.distcp")
    content = bytearray(data.read_bytes())
    at = content.find(torch.full((2,), 1.5).numpy().tobytes())
    content[at] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.w"):
        load(place)


def test_a_cut_file_is_a_clear_error(tmp_path: Path) -> None:
    place = save(tmp_path, INFO, {"w": torch.zeros(64)}, {}, keep=1)
    (data,) = place.glob("*.distcp")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InputError, match=r"`__0_0.distcp` has 100 bytes of [\d,]+"):
        load(place)
    data.unlink()
    with pytest.raises(InputError, match="`__0_0.distcp` is missing"):
        load(place)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tokenizer": "other"}, "`tokenizer` differs"),
        ({"vocabulary_size": 65}, "`vocabulary_size` differs: 65 in the checkpoint, 64"),
        ({"model": {**INFO.model, "num_experts": 8}}, "`model.num_experts` differs: 8 in the checkpoint, 4"),
        ({"plan": sealed(segment(seed=1), "").fingerprint}, "`plan` differs"),
        ({"position": 9}, "`position` 9"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(InputError) as caught:
        check_fits(replace(INFO, **change), Path("checkpoint"), PLAN, INFO)
    assert named in str(caught.value)
    assert "hint:" in str(caught.value)


def test_a_checkpoint_fits_a_longer_chain() -> None:
    longer = Plan(PLAN.store, (*PLAN.segments, sealed(segment("a+1", first_row=8), PLAN.fingerprint)))
    check_fits(INFO, Path("checkpoint"), longer, INFO)


def test_another_version_is_refused(tmp_path: Path) -> None:
    place = save(tmp_path, INFO, {"w": torch.zeros(1)}, {}, keep=1)
    path = place / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(InputError, match="checkpoint version 99"):
        load(place)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_metadata_is_told_in_a_line(plan: Plan, whole: Path, tmp_path: Path, seed: int) -> None:
    """DCP's metadata is a pickle and its own words for a damaged one are tracebacks."""
    place = Path(shutil.copytree(checkpoints(whole)[-1], tmp_path / "step-00000006"))
    content = bytearray((place / ".metadata").read_bytes())
    at = np.random.default_rng(seed).integers(0, len(content) - 40)
    content[at : at + 40] = b"\xff" * 40
    (place / ".metadata").write_bytes(content)
    for read in (load, load_model):
        with pytest.raises(InputError) as error:
            read(place)
        assert error.value.where == str(place)
        assert error.value.fix
        assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 2, "phase"', "not JSON"),
        ("[]", "checkpoint version None"),
        ('{"version": 2}', "`model` is missing or not known"),
    ],
)
def test_a_damaged_description_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_info(tmp_path)
    assert "remove this folder" in error.value.fix
