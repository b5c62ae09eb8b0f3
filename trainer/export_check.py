"""Load an exported folder with transformers and compare its logits with ours.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path

import torch

from trainer.model.model import MoEModel

SEQUENCES = 2
TOKENS = 192  # longer than a sliding window, so that the window's edge is compared too


@torch.no_grad()
def largest_logit_difference(model: MoEModel, folder: Path) -> float:
    """The largest absolute difference of any float32 logit on random tokens between `folder`, loaded with
    transformers' `exaone_moe`, and `model`."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    generator = torch.Generator().manual_seed(0)
    token_ids_BT = torch.randint(64, model.vocabulary_size, (SEQUENCES, TOKENS), generator=generator)
    document_ids_BT = torch.zeros_like(token_ids_BT, dtype=torch.int32)
    ours_BTV = model.logits(model(token_ids_BT, document_ids_BT).hidden_BTC)
    theirs_BTV = theirs(input_ids=token_ids_BT, use_cache=False).logits
    return float((ours_BTV - theirs_BTV).abs().max())
