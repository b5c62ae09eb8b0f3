"""Keys and values kept between generation steps; a sliding layer keeps its window only.

Contract: slots are in order of position; `append` returns all slots a new query may look at. Rows are padded on
the left, so that one position is the same slot in every row. Memory per layer: B x capacity x 2 x K x D, where
capacity is the window plus one step for a sliding layer, the whole context for a global one.
Shapes: B rows, M new tokens, S slots in use, K key-value heads, D head_dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.model.rope import RotaryTables


@dataclass(frozen=True)
class DecodeStep:
    """What all layers share in one step of M new tokens."""

    first_position: int
    rope: RotaryTables  # of the M new positions
    padding_B: Tensor  # int64: padded slots at the start of each row


class LayerCache:
    """One layer's keys and values. `window_tokens` is None for a global layer."""

    def __init__(self, window_tokens: int | None) -> None:
        self.window_tokens = window_tokens
        self.end_position = 0  # of the next token
        self.used = 0  # slots in use; the last one has position end_position - 1
        self.key_values: Tensor | None = None  # [2, B, capacity, K, D]

    def append(self, keys_BMKD: Tensor, values_BMKD: Tensor) -> tuple[Tensor, Tensor]:
        """Add M tokens; return keys and values [B, S, K, D] of all slots, the new ones last."""
        new = torch.stack([keys_BMKD, values_BMKD])
        tokens = new.shape[2]
        if self.window_tokens is not None:
            # The first of the new queries sees window - 1 older keys; what is older still can go. Trimming before
            # the step, not after, leaves enough even when all of the step is taken back.
            self._keep_last(self.window_tokens - 1)
        self._reserve(new)
        assert self.key_values is not None
        self.key_values[:, :, self.used : self.used + tokens] = new
        self.used += tokens
        self.end_position += tokens
        keys, values = self.key_values[:, :, : self.used].unbind(0)
        return keys, values

    def take_back(self, tokens: int) -> None:
        """Forget the last `tokens` tokens (a rejected draft)."""
        assert tokens <= self.used
        self.used -= tokens
        self.end_position -= tokens

    def _keep_last(self, slots: int) -> None:
        if self.key_values is not None and self.used > slots:
            self.key_values[:, :, :slots] = self.key_values[:, :, self.used - slots : self.used].clone()
            self.used = slots

    def _reserve(self, new: Tensor) -> None:
        needed = self.used + new.shape[2]
        if self.key_values is not None and needed <= self.key_values.shape[2]:
            return
        # A global layer doubles, so that a token costs O(1) copies; a sliding one is bounded by its window.
        capacity = needed if self.window_tokens is not None else 2 * needed
        grown = new.new_empty(2, new.shape[1], capacity, *new.shape[3:])
        if self.key_values is not None:
            grown[:, :, : self.used] = self.key_values[:, :, : self.used]
        self.key_values = grown
