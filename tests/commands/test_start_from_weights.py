"""A curriculum that starts from another's exported model: `model: {from: FOLDER}`, from the file to the first loss."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.commands.model import export_phase
from pipeline.commands.plan import show_plan, show_why
from pipeline.commands.train import train_curriculum
from pipeline.core.errors import ConfigError, InputError, UserError
from pipeline.core.plans import read_plan
from pipeline.core.record import read_record
from pipeline.core.runlog import read_lines
from pipeline.core.tokenizer import Tokenizer
from pipeline.executors import LocalExecutor
from pipeline.graph import Silent
from pipeline.recipe import Opened, open_curriculum
from stages.tokenizer.superbpe import build, train
from trainer.data import BatchReader
from trainer.imports import import_from_transformers
from trainer.loop import forward_backward

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "samples" / "texts" / "en").glob("*.md"))[:3]]
SIZES = """{preset: tiny, hidden_size: 32, num_layers: 4, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16,
  window_tokens: 32, intermediate_size: 64, num_experts: 4, expert_intermediate_size: 16}"""
FILE = """
name: small
store: {store}
seed: {seed}
sources:
  notes: {{read: {{kind: parquet, paths: ["samples/notes/*.parquet"], text_key: body}}, card: samples/cards/notes.yaml}}
split: {{heldout_permille: 100}}
tokenizer: {{path: {tokenizer}}}
mixes: {{all: {{shortage: fill, components: {{notes: {{from: [notes], weight: 1.0, max_repeats: 9}}}}}}}}
model: {model}
phases:
  - {{name: one, mix: all, context_tokens: 192, budget_tokens: 7680, rows_per_batch: 10,
     learning_rate: {{peak: 1e-2, warmup_steps: 1}}{gate}}}
  - {{name: two, mix: all, context_tokens: 192, budget_tokens: 1920, rows_per_batch: 10}}
"""
GATE = ", gate: {niah: 0.0, short_context: 1.0, rounds: 1, lengths: 1, depths: 1, needles_per_cell: 1}"


class House:
    """Folders of the first curriculum, and files of others beside it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.tokenizer = base / "tokenizer.json"
        self.exported = base / "first" / "export" / "one"

    def file(self, name: str, model: str, *, seed: int = 1, gate: str = "", tokenizer: Path | None = None) -> Path:
        path = self.base / f"{name}.yaml"
        given = tokenizer or self.tokenizer
        path.write_text(FILE.format(store=self.base / name, seed=seed, tokenizer=given, model=model, gate=gate))
        return path


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples' paths lead from there; no torchrun."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = House(tmp_path_factory.mktemp("house"))
    trained = train(lambda: TEXTS, 400, 0.02, 2)
    assert trained.complete
    build(trained).save(str(made.tokenizer), pretty=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        patched.delenv("WORLD_SIZE", raising=False)
        path = made.file("first", SIZES)
        train_curriculum(path, "", 1, [])
        export_phase(path, "one", [])
    return made


def steps_of(store: Path) -> list[str]:
    return [path.name for path in store.iterdir() if path.is_dir() and "-" in path.name] if store.is_dir() else []


def first_step(opened: Opened) -> str:
    return opened.graph.node("train.one").fingerprint


def copied(house: House, to: Path) -> Path:
    return Path(shutil.copytree(house.exported, to))


def test_the_second_curriculum_goes_on_where_the_first_was(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = copied(house, tmp_path / "model")
    path = house.file("second", f"{{from: {folder}, expert_bias_rate: 2e-3}}", seed=2, gate=GATE)
    train_curriculum(path, "", 1, [])
    opened = open_curriculum(path)
    node, after = (opened.graph.node(name) for name in ("train.one", "train.two"))
    config, model = import_from_transformers(folder)
    assert node.step.config.model == config.replaced(expert_bias_rate=2e-3) == opened.model
    reader = BatchReader(read_plan(opened.graph.store, opened.graph.node("mix.one").folder), "cpu")
    expected = forward_backward(model.train(), reader.batch(0, 10), 10)
    lines = list(read_lines(node.folder / "train.jsonl"))
    assert (lines[0]["loss"], lines[0]["mtp_loss"]) == (expected.main, expected.mtp)
    assert lines[0]["loss"] < 0.95 * next(iter(read_lines(first_log(house))))["loss"]
    # Only the first phase reads it; the gate's baseline is the folder's model.
    assert "weights" in node.step.content
    assert not after.step.paths
    assert not after.step.content
    verdict = json.loads((node.folder / "gate-0.json").read_text())
    assert verdict["short_context_baseline"] < 0.97 * torch.log(torch.tensor(400.0))
    # A finished phase is finished, and its plan says where it came from.
    assert read_record(node.folder).fingerprint == node.fingerprint
    show_plan(path, [], as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert {step["state"] for step in shown["steps"]} == {"finished"}
    assert shown["model"]["weights from"] == f"{folder} ({node.step.content['weights'][:8]})"
    assert "preset" not in shown["model"]
    assert shown["model"]["vocabulary"] == Tokenizer.load(house.tokenizer).vocabulary_size
    assert [launch["parameters_of_process"] for launch in shown["launch"]] == [
        sum(weight.numel() for weight in model.parameters())
    ] * 2
    # The same shapes with another value: why the phase is trained again.
    change_one_weight(folder)
    show_why(path, "train.one", [])
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert told[0].startswith("content.weights: ")


def first_log(house: House) -> Path:
    (found,) = (house.base / "first").glob("train.one-*/train.jsonl")
    return found


def change_one_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_content_is_identity_and_place_is_not(house: House, tmp_path: Path) -> None:
    here, there = copied(house, tmp_path / "here"), copied(house, tmp_path / "there")
    path = house.file("identity", f"{{from: {here}}}")
    first = open_curriculum(path)
    assert first_step(first) == first_step(open_curriculum(path, [f"model.from={there}"]))
    (there / "config.json").write_text(
        json.dumps(json.loads((there / "config.json").read_text()) | {"use_cache": False})
    )
    assert first_step(first) == first_step(open_curriculum(path, [f"model.from={there}"]))
    change_one_weight(there)
    other = open_curriculum(path, [f"model.from={there}"])
    assert first_step(first) != first_step(other)
    assert first.graph.node("mix.one").fingerprint == other.graph.node("mix.one").fingerprint
    plain = open_curriculum(house.file("identity-plain", SIZES))
    assert plain.graph.node("train.one").step.content == {}
    assert first_step(plain) != first_step(first)


def test_planning_reads_no_weights_and_loads_no_torch(house: House) -> None:
    path = house.file("no-torch", f"{{from: {house.exported}}}")
    script = "import sys; from pipeline.recipe import open_curriculum; from pathlib import Path; "
    script += f"open_curriculum(Path({str(path)!r})); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_two_processes_start_from_the_same_weights(house: House) -> None:
    """`train-segment` under torchrun against one process: the first loss, before any update, to float32 sums."""
    found = []
    for processes in (1, 2):
        path = house.file(f"shared-{processes}", f"{{from: {house.exported}}}")
        opened = open_curriculum(path)
        opened.graph.run(["mix.one"], LocalExecutor(1), Silent())
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*launcher, "-m", "pipeline.cli", "train-segment", str(path), "one"]
        command += ["--set", f"training.parallel.data={processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
        found.append(list(read_lines(opened.graph.node("train.one").folder / "train.jsonl")))
    one, two = found
    assert len(one) == len(two) == 4
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    assert two[3]["loss"] == pytest.approx(one[3]["loss"], rel=1e-2)


def other_tokenizer(house: House, vocabulary: int, texts: list[str]) -> Path:
    path = house.base / f"other-{vocabulary}.json"
    trained = train(lambda: texts, vocabulary, 0.02, 2)
    assert trained.complete
    build(trained).save(str(path), pretty=False)
    return path


def mend(folder: Path) -> None:
    del folder


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_mtp(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if not n.startswith("mtp.")}, path, {"format": "pt"})


def lose_a_bias(folder: Path) -> None:
    path = folder / "model.safetensors"
    kept = {name: t for name, t in load_file(path).items() if name != "model.layers.1.mlp.e_score_correction_bias"}
    save_file(kept, path, {"format": "pt"})


REFUSED: dict[str, tuple[Callable[[Path], None], str, type[UserError], str]] = {
    "no such folder": (shutil.rmtree, "", InputError, "no config.json"),
    "a cut file": (cut, "", InputError, r"model/model\.safetensors: unreadable weights"),
    "a lost shard": (
        lose_a_shard,
        "",
        InputError,
        r"model-00001-of-00002\.safetensors: unreadable weights: the index names it",
    ),
    "a lost tensor": (lose_a_bias, "", InputError, r"1 tensors are missing .*layers\.1\.mlp\.e_score_correction_bias"),
    "lost MTP": (lose_mtp, ", mtp_layers: 1", InputError, r"the model has an MTP layer, config\.json promises it"),
    "another size": (mend, ", num_experts: 8", InputError, r"config\.json: `num_experts` is 4 in this folder, 8 in"),
    "another pattern": (mend, ", layer_pattern: LG", InputError, "leave out model.layer_pattern"),
    "a preset as well": (mend, ", preset: small", ConfigError, "preset is 'small', and `from` names a folder"),
    "an impossible size": (mend, ", max_context_tokens: 0", ConfigError, "max_context_tokens: Input should be greater"),
    "a misspelt key": (mend, ", form: x", ConfigError, "unknown key `form`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_made(house: House, tmp_path: Path, name: str) -> None:
    damage, more, kind, message = REFUSED[name]
    folder = copied(house, tmp_path / "model")
    damage(folder)
    path = house.file(f"refused-{name.replace(' ', '-')}", f"{{from: {folder}{more}}}")
    for command in (lambda: train_curriculum(path, "", 1, []), lambda: show_plan(path, [], as_json=True)):
        with pytest.raises(kind, match=message):
            command()
    assert not steps_of(house.base / path.stem)


def test_a_folder_without_mtp_asks_for_a_word(house: House, tmp_path: Path) -> None:
    folder = copied(house, tmp_path / "model")
    lose_mtp(folder)
    path = house.file("no-mtp", f"{{from: {folder}}}")
    with pytest.raises(InputError, match=r"promises it, but the folder has no mtp.*\n.*set model\.mtp_layers to 0"):
        open_curriculum(path)
    assert open_curriculum(path, ["model.mtp_layers=0"]).model.mtp_layers == 0


def test_the_tokenizer_is_the_models_own(house: House, tmp_path: Path) -> None:
    folder = copied(house, tmp_path / "model")
    model = f"{{from: {folder}}}"
    smaller = other_tokenizer(house, 390, TEXTS)
    with pytest.raises(InputError, match=r"config\.json: `vocab_size` is 400, the tokenizer has 390 tokens"):
        open_curriculum(house.file("smaller", model, tokenizer=smaller))
    other = other_tokenizer(house, 400, [text[::-1] for text in TEXTS])
    with pytest.raises(InputError, match=r"other-400\.json: token \d+ is '.*', in .*tokenizer\.json it is '") as error:
        open_curriculum(house.file("other", model, tokenizer=other))
    assert error.value.fix == f"set tokenizer.path to {folder / 'tokenizer.json'}"
    trained = house.file("trained", model)
    trained.write_text(trained.read_text().replace(f"{{path: {house.tokenizer}}}", "{train: {vocabulary: 400}}"))
    with pytest.raises(ConfigError, match=r"trained\.yaml:10: the weights of .* know one tokenizer"):
        open_curriculum(trained)
    # Written in another way, it is the same tokenizer; a folder without one is compared by its size alone.
    spaced = tmp_path / "spaced.json"
    spaced.write_text(json.dumps(json.loads(house.tokenizer.read_text()), indent=1))
    assert open_curriculum(house.file("spaced", model, tokenizer=spaced)).model.hidden_size == 32
    content = json.loads(house.tokenizer.read_text())
    lower = tmp_path / "lower.json"
    lower.write_text(json.dumps({**content, "normalizer": {"type": "Lowercase"}}))
    with pytest.raises(InputError, match=r"lower\.json: the normalizer is not that of .*tokenizer\.json"):
        open_curriculum(house.file("lower", model, tokenizer=lower))
    (folder / "tokenizer.json").unlink()
    assert open_curriculum(house.file("unknown", model, tokenizer=other)).model.hidden_size == 32
