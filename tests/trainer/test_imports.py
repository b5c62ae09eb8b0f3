"""Training that starts from a transformers folder: every tensor's bits, the first loss, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hand_plan import MODEL, VOCABULARY, interrupt_at, lines, same_end, train
from pipeline.core.errors import InputError
from pipeline.core.plans import Plan
from trainer.checkpoint import checkpoints, load, read_info
from trainer.config import ModelConfig
from trainer.data import BatchReader
from trainer.export import export_to_transformers
from trainer.imports import check_tensors, load_weights
from trainer.loop import forward_backward
from trainer.model.model import MoEModel, build_model
from trainer.phase import load_model
from trainer.tensor_hash import hash_tensor
from trainer.transformers_folder import read_folder

ROOT = Path(__file__).resolve().parents[2]
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def exported(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model at the end of an uninterrupted run, as transformers reads it."""
    model, _ = load_model(checkpoints(whole)[-1])
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_to_transformers(model, model.config, None, folder, shard_bytes=40_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_the_first_loss_is_that_of_the_exported_model(plan: Plan, whole: Path, exported: Path, tmp_path: Path) -> None:
    train(plan, tmp_path / "on", weights=exported, seed=99)
    model, _ = load_model(checkpoints(whole)[-1])
    before = forward_backward(model.train(), BatchReader(plan, "cpu").batch(0, 4), 4)
    first = lines(tmp_path / "on")[0]
    assert (first["loss"], first["mtp_loss"], first["balance_loss"]) == (before.main, before.mtp, before.balance)
    assert first["loss"] < 0.9 * float(str(lines(whole)[0]["loss"]))  # it had learnt something
    assert (first["step"], first["position"]) == (1, 0)
    assert read_info(checkpoints(tmp_path / "on")[-1]).parent == ""


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_has_the_bits_of_the_folder(
    config: ModelConfig, tmp_path: Path, is_tied: bool, dtype: torch.dtype
) -> None:
    config = config.replaced(tie_embeddings=is_tied)
    given = build_model(config, 160, seed=0)
    generator = torch.Generator().manual_seed(2)
    for tensor in given.state_dict().values():
        tensor.normal_(generator=generator)  # norms and selection biases too
    given = given.to(dtype)
    export_to_transformers(given, config, None, tmp_path / "out", shard_bytes=50_000)
    model = build_model(config, 160, seed=1)
    load_weights(tmp_path / "out", model)
    state = model.state_dict()
    assert state.keys() == given.state_dict().keys()
    assert {name.split(".")[0] for name in state} == {"embedding", "layers", "norm", "head", "mtp"}
    for name, tensor in given.state_dict().items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], tensor.float()), name
    assert (model.head.weight is model.embedding.weight) == is_tied


def test_a_value_that_the_model_cannot_hold_is_not_passed_over(model: MoEModel, tmp_path: Path) -> None:
    """The comparison after each copy: float32 weights into a bfloat16 model lose bits."""
    export_to_transformers(model, model.config, None, tmp_path / "out")
    narrow = build_model(model.config, model.vocabulary_size, seed=1).to(torch.bfloat16)
    with pytest.raises(AssertionError, match="did not survive the import"):
        load_weights(tmp_path / "out", narrow)


def test_a_killed_phase_goes_on_without_the_folder(plan: Plan, exported: Path, tmp_path: Path) -> None:
    train(plan, tmp_path / "whole", weights=exported)
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "cut", weights=exported, on_step=interrupt_at(3))
    train(plan, tmp_path / "cut", weights=tmp_path / "moved away")
    same_end(tmp_path / "whole", tmp_path / "cut")


def lose(name: str) -> Damage:
    def damage(folder: Path) -> None:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        path = folder / index["weight_map"].pop(name)
        save_file({key: value for key, value in load_file(path).items() if key != name}, path, {"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def lose_mtp(folder: Path) -> None:
    for name in [name for name in read_folder(folder).file_of_tensor if name.startswith("mtp.")]:
        lose(name)(folder)


def configured(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def rewritten(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / read_folder(folder).file_of_tensor["model.norm.weight"]
        tensors = load_file(path)
        save_file({**tensors, "model.norm.weight": change(tensors["model.norm.weight"])}, path, {"format": "pt"})

    return damage


def cut(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-7])


def lose_file(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[1].unlink()


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def lose_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


REFUSED: dict[str, tuple[Damage, str]] = {
    "vocabulary": (configured(vocab_size=65), r"config\.json: `vocab_size` is 65, the tokenizer has 64 tokens"),
    "architecture": (configured(model_type="llama"), r"config\.json: model_type is 'llama'"),
    "window": (configured(sliding_window=9), r"config\.json: `window_tokens` is 9 in this folder, 8 in"),
    "layers": (
        configured(layer_types=["sliding_attention"] * 4, sliding_window_pattern="L"),
        r"config\.json: `layer_types` is .*in this folder",
    ),
    "experts": (configured(num_experts=8), r"config\.json: `num_experts` is 8 in this folder, 4 in"),
    "lost tensor": (lose("model.layers.2.mlp.e_score_correction_bias"), r"1 tensors are missing .*layers\.2"),
    "lost expert": (lose("model.layers.1.mlp.experts.3.up_proj.weight"), r"1 tensors are missing .*experts\.3"),
    "lost MTP tensor": (lose("mtp.fc.weight"), r"1 tensors are missing .*mtp\.fc\.weight"),
    "no MTP": (
        lose_mtp,
        r"the model has an MTP layer, config\.json promises it, but the folder has no mtp\.\* tensors",
    ),
    "shape": (
        rewritten(lambda norm: norm[:-1].clone()),
        r"safetensors: model\.norm\.weight is \(31,\)\nhint: expected",
    ),
    "numbers": (rewritten(lambda norm: norm.double()), r"safetensors: model\.norm\.weight is F64"),
    "no number": (
        rewritten(lambda norm: norm.index_fill(0, torch.tensor([3]), float("nan"))),
        r"safetensors: model\.norm\.weight has values that are no finite numbers",
    ),
    "kind of layer": (
        configured(layer_types=["chunked_attention"] * 4),
        r"config\.json: (a value that no model has|.*layer)",
    ),
    "no layers": (configured(layer_types=None), r"config\.json: a value that no model has"),
    "no heads": (configured(num_attention_heads=0), r"config\.json: "),
    "no size": (configured(vocab_size=None), r"config\.json: a value that no model has"),
    "cut file": (cut, r"model-00002-of-.*unreadable weights"),
    "lost file": (lose_file, r"model-00002-of-.*safetensors: unreadable weights: the index names it"),
    "lost index": (lose_index, r"neither model\.safetensors nor model\.safetensors\.index\.json"),
    "no folder": (lose_config, r"no config\.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_a_step(plan: Plan, exported: Path, tmp_path: Path, name: str) -> None:
    damage, message = REFUSED[name]
    folder = copied(exported, tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=message):
        train(plan, tmp_path / "run", weights=folder)
    assert not (tmp_path / "run").exists()


def test_a_single_file_counts_before_an_index_as_in_transformers(exported: Path, tmp_path: Path) -> None:
    folder = copied(exported, tmp_path / "model")
    shards = sorted(folder.glob("*.safetensors"))
    tensors = {name: tensor for path in shards for name, tensor in load_file(path).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for path in shards:
        path.unlink()
    assert read_folder(folder).files == [folder / "model.safetensors"]
    check_tensors(read_folder(folder), MODEL, VOCABULARY)


def test_a_folder_without_mtp_serves_a_model_without(exported: Path, tmp_path: Path) -> None:
    folder = copied(exported, tmp_path / "model")
    lose_mtp(folder)
    check_tensors(read_folder(folder), MODEL.replaced(mtp_layers=0), VOCABULARY)
    with pytest.raises(InputError, match="set model.mtp_layers to 0"):
        check_tensors(read_folder(folder), MODEL, VOCABULARY)
    configured(num_nextn_predict_layers=0)(folder)
    with pytest.raises(InputError, match=r"the model has an MTP layer, the folder has no mtp\.\* tensors"):
        check_tensors(read_folder(folder), MODEL, VOCABULARY)
    with pytest.raises(InputError, match=r"`mtp_layers` is 1 in this folder, 0 in"):
        check_tensors(read_folder(exported), MODEL.replaced(mtp_layers=0), VOCABULARY)


def test_coefficients_and_context_are_the_curriculums_own(exported: Path) -> None:
    other = MODEL.replaced(max_context_tokens=999, balance_loss=0.5, expert_bias_rate=0.5, mtp_loss=0.5, z_loss=0.5)
    assert check_tensors(read_folder(exported), other, VOCABULARY)


SHARED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[6])
import torch
torch.set_num_threads(1)
from hand_plan import MODEL, VOCABULARY
from trainer.config import ParallelConfig
from trainer.imports import load_weights
from trainer.parallel.ranks import start_ranks
from trainer.parallel.sharding import build_sharded
from trainer.parallel.state import model_state
from trainer.tensor_hash import hash_part, join_hashes
folder, out, data, expert, context = sys.argv[1:6]
ranks = start_ranks(ParallelConfig(data=int(data), expert=int(expert), context=int(context)), "cpu")
model = build_sharded(MODEL, VOCABULARY, 5, "cpu", ranks)
load_weights(Path(folder), model, ranks)
parts = ranks.of_all({name: hash_part(tensor) for name, tensor in model_state(model, ranks).items()})
if ranks.is_first:
    (Path(out) / "hashes.json").write_text(json.dumps(join_hashes(parts)))
error = ""
try:
    load_weights(Path(folder) if ranks.is_first else Path(out) / "nowhere", model, ranks)
except Exception as found:
    error = str(found)
(Path(out) / f"error-{ranks.rank}").write_text(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(3, 1, 1), (2, 2, 1), (2, 2, 2)], ids=str)
def test_processes_have_their_parts_of_every_tensor(
    whole: Path, exported: Path, tmp_path: Path, grid: tuple[int, int, int]
) -> None:
    """Three shares divide no weight's rows; experts whole; shared rows. A folder that one cannot read stops all."""
    (tmp_path / "script.py").write_text(SHARED)
    processes = str(grid[0] * grid[2])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    arguments = [str(exported), str(tmp_path), *map(str, grid), str(ROOT / "tests" / "helpers")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(tmp_path / "script.py"), *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    trained = load(checkpoints(whole)[-1]).model
    assert json.loads((tmp_path / "hashes.json").read_text()) == {
        f"model.{name}": hash_tensor(tensor) for name, tensor in trained.items()
    }
    assert all("no config.json" in path.read_text() for path in tmp_path.glob("error-*"))
    assert len(list(tmp_path.glob("error-*"))) == int(processes)
