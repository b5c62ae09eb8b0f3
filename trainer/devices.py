"""Which accelerators torch finds on this machine, and whether the one that is asked for is among them."""

from __future__ import annotations

import torch

from pipeline.core.errors import UserError


def accelerator() -> str:
    """Name of the first CUDA device, or what training runs on without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none: training runs on the CPU"


def check_device(name: str) -> None:
    """Raises `UserError` when `name`, as `training.device` says it, is a device that is not here."""
    device = torch.device(name)
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise UserError(
            "torch finds no CUDA device here", where="training.device", fix="--set training.device=cpu, or a CUDA build"
        )
    there = torch.cuda.device_count()
    if ":" in name and device.index >= there:
        known = "cuda:0" if there == 1 else f"cuda:0 to cuda:{there - 1}"
        raise UserError(
            f"there is no device `{name}`: torch finds {there}", where="training.device", fix=f"use cuda, or {known}"
        )
