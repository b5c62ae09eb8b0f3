"""Keys and values kept between generation steps; a sliding layer keeps its window only, each row has its own length.

Contract: every layer of one `DecodeCache` holds the same positions, a row's from 0 to its end. Rows may be of
different lengths: `take_back` forgets the last tokens of each by themselves (drafts that were refused). Position p lies
in slot p modulo the size of the layer's ring. A ring of window - 1 + M slots, M the tokens of the step, holds every key
that the step's queries see, and nothing taken back can be mistaken for an older key; a global layer's ring is as long
as its text.
Memory per layer: B x ring x 2 x K x D.
Shapes: B rows, M new tokens, S slots looked at, N = B x M, K key-value heads, D head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.model.rope import RotaryTables, rotary_tables


@dataclass(frozen=True)
class Slots:
    """Where the new tokens of one step go in layers of one window, and what their queries see."""

    slot_BM: Tensor  # int64
    mask_B1MS: Tensor  # bool: key in slot s is seen by query m
    ring: int  # slots of the ring
    moved_from_BS: Tensor | None  # the slot of the ring before for each of this one; None: the ring stays as it is


@dataclass(frozen=True)
class DecodeStep:
    """What all layers share in one step of M new tokens."""

    rope: RotaryTables  # [N, D/2]
    slots: dict[int | None, Slots]  # by window; None: global layers


class LayerCache:
    """One layer's keys and values, [2, B, ring, K, D]."""

    def __init__(self) -> None:
        self.key_values: Tensor | None = None

    def append(self, keys_BMKD: Tensor, values_BMKD: Tensor, slots: Slots) -> tuple[Tensor, Tensor]:
        """Add M tokens; returns keys and values [B, S, K, D] of the slots that the step's mask speaks of."""
        new = torch.stack([keys_BMKD, values_BMKD])
        row_B1 = torch.arange(new.shape[1], device=new.device)[:, None]
        if self.key_values is None:
            self.key_values = new.new_zeros(2, new.shape[1], slots.ring, *new.shape[3:])
        elif slots.moved_from_BS is not None:
            self.key_values = self.key_values[:, row_B1, slots.moved_from_BS]
        self.key_values[:, row_B1, slots.slot_BM] = new
        keys, values = self.key_values[:, :, : slots.mask_B1MS.shape[-1]].unbind(0)
        return keys, values


class DecodeCache:
    """The layers' caches and how far each row has come. `padding` is how many of a row's first tokens are padding."""

    def __init__(
        self, windows: Sequence[int | None], head_dim: int, rope_theta: float, padding_B: Tensor,
    ) -> None:  # fmt: skip
        self.layers = [LayerCache() for _ in windows]
        self.end_positions = [0] * len(padding_B)  # of each row's next token
        self.padding_B = padding_B
        self._rope = head_dim, rope_theta
        self._rings: dict[int | None, int] = dict.fromkeys(windows, 0)

    def step(self, new_tokens: int) -> DecodeStep:
        """Make room for `new_tokens` more of every row; the layers' `append` then fills it."""
        device = self.padding_B.device
        ends_B1 = torch.tensor(self.end_positions, device=device)[:, None]
        positions_BM = ends_B1 + torch.arange(new_tokens, device=device)
        slots = {window: self._slots(window, ends_B1, positions_BM) for window in self._rings}
        self.end_positions = [end + new_tokens for end in self.end_positions]
        return DecodeStep(rotary_tables(positions_BM.flatten(), *self._rope), slots)

    def take_back(self, tokens: Sequence[int]) -> None:
        """Forget so many of each row's last tokens."""
        assert all(0 <= lost <= end for lost, end in zip(tokens, self.end_positions, strict=True))
        self.end_positions = [end - lost for lost, end in zip(tokens, self.end_positions, strict=True)]

    def _slots(self, window: int | None, ends_B1: Tensor, positions_BM: Tensor) -> Slots:
        tokens = positions_BM.shape[1]
        longest = max(self.end_positions) + tokens
        before, moved_from = self._rings[window], None
        ring = _ring(before, longest if window is None else window - 1 + tokens, is_global=window is None)
        slots = torch.arange(ring, device=ends_B1.device)
        if before not in (0, ring):
            # A position that the old ring no longer had is behind every window: any slot will do for it.
            moved_from = _latest(slots, ends_B1, ring).clamp(min=0) % before
        self._rings[window] = ring
        keys_B1S = _latest(slots[: min(ring, longest)], ends_B1 + tokens, ring)[:, None]
        queries_BM1 = positions_BM[:, :, None]
        seen = (keys_B1S >= self.padding_B[:, None, None]) & (keys_B1S <= queries_BM1)
        if window is not None:
            seen = seen & (queries_BM1 - keys_B1S < window)
        # Padding sees itself, so that no query is left without a key.
        return Slots(positions_BM % ring, (seen | (keys_B1S == queries_BM1))[:, None], ring, moved_from)


def _latest(slots_S: Tensor, ends_B1: Tensor, ring: int) -> Tensor:
    """[B, S]: the last position before a row's end that lies in the slot; negative where there is none yet."""
    return slots_S + (ends_B1 - 1 - slots_S).div(ring, rounding_mode="floor") * ring


def _ring(before: int, needed: int, *, is_global: bool) -> int:
    """A sliding ring follows the step's size; a global one doubles, so that a token costs O(1) copies."""
    if is_global:
        return before if needed <= before else 2 * needed
    return needed
