"""What each of several processes does in the parallel tests: train some steps, write what came out.

Usage: torchrun ... run_ranks.py STORE OUT DATA EXPERT CONTEXT DTYPE STEPS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "helpers"))

from hand_plan import MODEL, VOCABULARY
from pipeline.core.plans import read_plan
from trainer.config import OptimizerConfig, ParallelConfig
from trainer.data import BatchReader
from trainer.loop import forward_backward, train_step
from trainer.model.model import build_model
from trainer.optim import build_optimizer
from trainer.parallel.ranks import start_ranks
from trainer.parallel.sharding import EXPERT_WEIGHTS, shard, sum_expert_gradients


def whole_gradients(model, ranks) -> dict[str, torch.Tensor]:
    """Every weight's gradient, put together again."""
    found = {}
    for name, weight in model.named_parameters():
        grad = weight.grad
        if hasattr(grad, "full_tensor"):
            grad = grad.full_tensor()
        elif ranks.experts is not None and name.rpartition(".")[2] in EXPERT_WEIGHTS:
            parts = [torch.empty_like(grad) for _ in range(ranks.config.expert)]
            dist.all_gather(parts, grad.contiguous(), group=ranks.experts)
            grad = torch.cat(parts)
        found[name] = grad.clone()
    return found


def main() -> None:
    store, out, data, expert, context, dtype, steps = sys.argv[1:]
    torch.set_num_threads(1)
    ranks = start_ranks(ParallelConfig(data=int(data), expert=int(expert), context=int(context)), "cpu")
    model = build_model(MODEL, VOCABULARY, seed=0).to(getattr(torch, dtype)).train()
    shard(model, ranks)
    reader = BatchReader(read_plan(Path(store), Path(store) / "mix.p"), "cpu")
    losses = forward_backward(model, reader.batch(0, 5), 4, ranks)
    sum_expert_gradients(model, ranks)
    first = {"main": losses.main, "mtp": losses.mtp, "balance": losses.balance, "acceptance": losses.mtp_acceptance}
    gradients = whole_gradients(model, ranks)
    torch.save({"first": first, "gradients": gradients, "tokens": torch.from_numpy(losses.token_losses_RT)},
               Path(out) / f"gradients-{ranks.rank}.pt")  # fmt: skip
    model.zero_grad()
    model.update_expert_bias(0.0)
    optimizer = build_optimizer(model, OptimizerConfig())
    log = []
    for step in range(int(steps)):
        batch = reader.batch(step % 5 * 4, 4)
        result = train_step(model, optimizer, batch, learning_rate=1e-3, rows_per_microbatch=4, ranks=ranks)
        log.append({"loss": result.losses.main, "norm": result.gradient_norm, "dead": result.load.dead,
                    "updates": result.update_norms, "load": result.load.max_over_mean})  # fmt: skip
    (Path(out) / f"log-{ranks.rank}.json").write_text(json.dumps(log))
    if dist.is_initialized():
        dist.destroy_process_group()


main()
