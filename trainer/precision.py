"""In which precision a model computes: float32, bfloat16, or eight-bit products in a bfloat16 model.

Contract: weights, gradients and the optimiser's state stay float32 whatever the precision; activations and products
follow it. Routers, norms' and losses' sums are float32 always. Eight-bit products are those of the attention's, the
MLPs' and the experts' matrices; the MTP's projection, routers, embedding and head keep bfloat16, as in DeepSeek-V3
(arXiv 2412.19437, section 3.3.1).
"""

from __future__ import annotations

import torch

from trainer.config import Precision
from trainer.model.block import Block
from trainer.model.float8 import float8_expert_product, float8_matrix_product
from trainer.model.linear import Linear
from trainer.model.model import MoEModel
from trainer.model.moe import Experts
from trainer.model.products import expert_product, matrix_product


def set_precision(model: MoEModel, precision: Precision) -> None:
    """Let `model` compute in `precision` from now on."""
    model.activation_dtype = None if precision == "float32" else torch.bfloat16
    is_float8 = precision == "float8"
    for block in model.modules():
        if not isinstance(block, Block):
            continue
        for module in block.modules():
            if isinstance(module, Linear):
                module.product = float8_matrix_product if is_float8 else matrix_product
            elif isinstance(module, Experts):
                module.product = float8_expert_product if is_float8 else expert_product
