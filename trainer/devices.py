"""Which accelerator torch finds on this machine."""

from __future__ import annotations

import torch


def accelerator() -> str:
    """Name of the first CUDA device, or what training runs on without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none: training runs on the CPU"
